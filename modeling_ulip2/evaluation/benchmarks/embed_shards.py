"""Embeddings of a large test set: prepared in worker processes, shared among ranks, kept shard by shard on disk.

    FOLDER/embeds-00000-of-00362.safetensors, …    `point_embeds` (n, D), and how long the shard took

A run that was stopped goes on after the last whole shard. Ranks of a distributed run take every n-th shard (see
`data.shares`) and meet in the folder, which all of them must see; no embedding travels between processes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modeling_ulip2.data.reading import CloudRows
from modeling_ulip2.data.shares import own_missing_shards
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.embedding.loop import default_workers
from modeling_ulip2.embedding.reading import Reading, Selected
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.utils.files import whole_path

# Small enough that eight processes share the 2,468 shapes of ModelNet40.
SHARD_SIZE = 128


@dataclass(frozen=True)
class Speed:
    """How long embedding took, summed over shards, also those of earlier runs.

    Attributes:
        clouds: embedded.
        seconds: of the loop over batches, in the sum over processes.
        encoder_seconds: of these, in the encoder, transfer to the device included.
    """

    clouds: int
    seconds: float
    encoder_seconds: float

    def to_dict(self) -> dict[str, float]:
        return {
            "clouds": self.clouds,
            "seconds": self.seconds,
            "encoder_seconds": self.encoder_seconds,
            "encoder_share": self.encoder_seconds / self.seconds if self.seconds else 0.0,
            "clouds_per_second_and_process": self.clouds / self.seconds if self.seconds else 0.0,
        }


class PreparedClouds(Sequence[Any]):
    """The clouds of a test set as the encoder reads them, (n, C) float32 each.

    Args:
        clouds: rows with `id`, `xyz` and perhaps `rgb`.
        feature_extractor: prepares them.
        keep_color: False leaves `rgb` out, so that the extractor fills its gray.
    """

    def __init__(self, clouds: Dataset, feature_extractor: Ulip2FeatureExtractor, keep_color: bool = True) -> None:
        self.ids: list[str] = list(clouds["id"])
        self.rows = CloudRows(clouds, keep_color)
        self.feature_extractor = feature_extractor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        return Reading.of(self.feature_extractor)(self.rows[index])[0]


def embed_shards(
    model: Any,
    clouds: PreparedClouds,
    folder: Path,
    stamp: str,
    *,
    batch_size: int = 16,
    num_workers: int | None = None,
    process_index: int = 0,
    num_processes: int = 1,
    shard_size: int | None = None,
) -> None:
    """Embeds this process's shards that are not in `folder` yet.

    Args:
        model: anything with `get_point_features`; in evaluation mode.
        folder: where shards go; those of another `stamp` are replaced.
        stamp: names everything on which the embeddings depend.
        num_workers: processes that prepare clouds; None: what the machine has beside this process's own core.
        shard_size: default `SHARD_SIZE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = shard_rows(len(clouds), shard_size or SHARD_SIZE)
    todo = own_missing_shards(
        len(shards),
        lambda shard: _is_whole(shard_file(folder, shard, len(shards)), stamp, len(shards[shard])),
        process_index,
        num_processes,
    )
    rows = [row for shard in todo for row in shards[shard]]
    ends = {shards[shard][-1]: shard for shard in todo}
    embedder = Ulip2Embedder(model, clouds.feature_extractor, batch_size=batch_size)
    records = embedder.iter_shapes(
        Selected(clouds.rows, rows),
        ids=[clouds.ids[row] for row in rows],
        features="embeds",
        num_workers=default_workers(num_processes) if num_workers is None else num_workers,
        progress=process_index == 0,
    )
    embeds: list[Tensor] = []
    encoder_seconds, start = 0.0, time.perf_counter()
    for row, record in zip(rows, records, strict=True):
        embeds.append(record.vector())
        if row in ends:
            shard, now = ends[row], time.perf_counter()
            told = {"stamp": stamp, "seconds": repr(now - start)}
            told |= {"encoder_seconds": repr(embedder.encoder_seconds - encoder_seconds)}
            told["process"] = str(process_index)
            _save(shard_file(folder, shard, len(shards)), torch.stack(embeds), told)
            embeds, encoder_seconds, start = [], embedder.encoder_seconds, now


def read_shards(folder: Path, num_clouds: int, stamp: str, shard_size: int | None = None) -> tuple[Tensor, Speed]:
    """All embeddings (N, D) in the order of the rows, and how long they took.

    Raises:
        FileNotFoundError: a shard is missing, e.g. since the processes do not share a file system.
    """
    shards = shard_rows(num_clouds, shard_size or SHARD_SIZE)
    parts, seconds, encoder_seconds = [], 0.0, 0.0
    for shard, rows in enumerate(shards):
        path = shard_file(folder, shard, len(shards))
        if not _is_whole(path, stamp, len(rows)):
            raise FileNotFoundError(f"{path} is missing; all processes must write into the same folder")
        with safe_open(path, "pt") as file:
            parts.append(file.get_tensor("point_embeds"))
            timing = file.metadata()
        seconds += float(timing["seconds"])
        encoder_seconds += float(timing["encoder_seconds"])
    return torch.cat(parts), Speed(num_clouds, seconds, encoder_seconds)  # (N, D)


def shard_rows(num_clouds: int, shard_size: int) -> Sequence[range]:
    """The rows of each shard."""
    return [range(start, min(start + shard_size, num_clouds)) for start in range(0, num_clouds, shard_size)]


def shard_file(folder: Path, shard: int, num_shards: int) -> Path:
    return folder / f"embeds-{shard:05d}-of-{num_shards:05d}.safetensors"


def _is_whole(path: Path, stamp: str, count: int) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata()["stamp"] == stamp and file.get_slice("point_embeds").get_shape()[0] == count
    except (OSError, SafetensorError, KeyError, TypeError):
        return False


def _save(path: Path, embeds: Tensor, metadata: dict[str, str]) -> None:
    with whole_path(path) as partial:
        save_file({"point_embeds": embeds.contiguous()}, partial, metadata)
