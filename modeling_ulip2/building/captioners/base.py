"""The interface of captioners, and the captioner that words what the catalog says about an object."""

from __future__ import annotations

import random
from typing import Any

from modeling_ulip2.building.stages.base import Batch, Stage, alive, object_seed
from modeling_ulip2.data.schema import Row


class Captioner(Stage):
    """A stage that adds captions to each view. Several in a row add theirs to those before them.

    A subclass implements `caption`. It finds in the batch what is known of the object (`id`, `name`, `tags`, `group`,
    …), its `views` (encoded images), `alpha` (V, H, W) uint8 and `image_embeds` (V, D), embeddings by the tower.
    """

    @property
    def source_name(self) -> str:
        """What `caption_sources` call it, such as "metadata"."""
        return type(self).__name__.removesuffix("Captioner").lower()

    def caption(self, batch: Batch) -> list[list[list[str]]]:
        """Captions [object][view][k] of a batch in which nothing has failed; k may be 0."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> Batch:
        good = alive(batch)
        captions = list(batch.get("captions", [None] * len(batch["id"])))
        sources = list(batch.get("caption_sources", [None] * len(batch["id"])))
        if good:
            new = self.caption({name: [values[i] for i in good] for name, values in batch.items()})
            for i, per_view in zip(good, new, strict=True):
                before = captions[i] or [[] for _ in per_view]
                captions[i] = [merged_captions(old, added) for old, added in zip(before, per_view, strict=True)]
                known = sources[i] or [[] for _ in per_view]
                sources[i] = [
                    own + [self.source_name] * (len(texts) - len(own))
                    for own, texts in zip(known, captions[i], strict=True)
                ]
        return {**batch, "captions": captions, "caption_sources": sources}


def merged_captions(captions: list[str], added: list[str]) -> list[str]:
    """Captions of a view without line breaks, surplus blanks, empty ones and repetitions, in their order."""
    return [text for text in dict.fromkeys(" ".join(text.split()) for text in [*captions, *added]) if text]


class MetadataCaptioner(Captioner):
    """The object's name, tags and group in prompts drawn from ULIP's templates, the same for every view.

    Two thirds of the captions hold the bare name, the others add a tag or the group, where the object has them:
    "a point cloud model of armchair.", "a photo of armchair, seat.", "a picture of armchair, living room.".
    An object without a name gets no caption.
    """

    batch_size = 32

    def __init__(self, num_captions: int = 6, templates: str = "modelnet40_64", seed: int = 0) -> None:
        self.num_captions, self.template_list, self.seed = num_captions, templates, seed
        from modeling_ulip2.towers.prompts import load_templates  # torch

        self.templates = load_templates(templates)

    def describe(self) -> dict[str, Any]:
        return {"captions_per_view": self.num_captions, "templates": self.template_list}

    def caption(self, batch: Batch) -> list[list[list[str]]]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        return [[self.words(row)] * len(row["views"]) for row in rows]

    def words(self, row: Row) -> list[str]:
        """The captions of one object, whose names are written small, as in the class names of the benchmarks."""
        name, group = row["name"].lower(), row["group"].lower() or row["category"].lower()
        if not name:
            return []
        draw = random.Random(object_seed(self.seed, row["id"]))
        details = [tag.strip().lower() for tag in row["tags"].split(",")] + [group]
        details = [detail for detail in dict.fromkeys(details) if detail and detail not in name]
        templates = draw.sample(self.templates, min(self.num_captions, len(self.templates)))
        captions = []
        for number, template in enumerate(templates):
            detail = draw.choice(details) if details and number % 3 == 2 else ""
            captions.append(template.replace("{}", f"{name}, {detail}" if detail else name))
        return captions
