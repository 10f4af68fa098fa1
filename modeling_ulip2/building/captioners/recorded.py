"""Captions that were made elsewhere, such as by a large multimodal model behind an API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modeling_ulip2.building.stages.base import Batch, alive
from modeling_ulip2.data.recorded_captions import RecordedCaptions, RecordedCaptionsError, read_recorded_captions

from .base import Captioner

_NAMED = 5  # of the objects without captions; `warnings.parquet` names them all


class RecordedCaptioner(Captioner):
    """The captions that a file has of an object, those of a view first, in the file's order.

    An object that the file does not name gets none here, and a warning; what it has from other captioners stays. One
    whose captions are about more views than it has fails: they were made of other pictures.

    Args:
        file, columns: see `read_recorded_captions`.
        made_by: who or what made the captions, for the dataset card.
    """

    batch_size = 32

    def __init__(self, file: str, columns: Sequence[str] | None = None, made_by: str = "") -> None:
        self.recorded, self.made_by = read_recorded_captions(file, columns), made_by

    def describe(self) -> dict[str, Any]:
        recorded = self.recorded
        told = {"source": recorded.path.name, "objects": len(recorded.by_id), "captions": recorded.count}
        return {"file": told | {"sha256": recorded.sha256}, **({"made by": self.made_by} if self.made_by else {})}

    def __call__(self, batch: Batch) -> Batch:
        batch = {**batch, "error": list(batch["error"]), "message": list(batch["message"])}
        batch["warnings"] = list(batch.get("warnings", [[] for _ in batch["id"]]))
        for i in alive(batch):
            found, views = self.recorded.find(batch["id"][i]), len(batch["views"][i])
            if found is None:
                batch["warnings"][i] = [*batch["warnings"][i], f"{self.recorded.path.name} has no caption of it"]
            elif found.num_views > views:
                batch["error"][i] = "recorded_views"
                batch["message"][i] = (
                    f"{self.recorded.path.name} has captions of {found.num_views} views of it, but there are {views}: "
                    "render as many (--views), as those captions are about"
                )
        return super().__call__(batch)

    def caption(self, batch: Batch) -> list[list[list[str]]]:
        found = [self.recorded.find(object_id) for object_id in batch["id"]]
        return [
            [[] for _ in views] if own is None else own.for_views(len(views))
            for own, views in zip(found, batch["views"], strict=True)
        ]


def tell_coverage(recorded: RecordedCaptions, ids: Sequence[str]) -> str:
    """A sentence on how many of the objects a file has captions of, and which ones it lacks.

    Raises:
        RecordedCaptionsError: it names none of them, or one name fits several.
    """
    missing, unknown = recorded.coverage(ids)
    if len(missing) == len(ids):
        raise RecordedCaptionsError(
            f"{recorded.path} has captions of none of the {len(ids)} objects: it has "
            f"{next(iter(recorded.by_id))!r} and the like, the folder of meshes {ids[0]!r}"
        )
    told = f"{recorded.path.name} has captions of {len(ids) - len(missing)} of {len(ids)} objects"
    for what, names in (("; it lacks", missing), ("; of no object here are", unknown)):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            told += f"{what} {len(names)}: {', '.join(names[:_NAMED])}{more}"
    return told + "."
