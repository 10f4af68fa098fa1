"""Embeddings of a large test set: prepared in worker processes, shared among ranks, kept shard by shard on disk.

    FOLDER/embeds-00000-of-00362.safetensors, …    `point_embeds` (n, D), and how long the shard took

Whatever is stopped goes on after the last whole shard. Ranks of a distributed run take every n-th shard and meet in
the folder, which all of them must see; no embedding travels between processes.
"""

from __future__ import annotations

import os
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
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers.utils import logging

from modeling_ulip2.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.training.data import decode_row

# Small enough that eight processes share the 2,468 shapes of ModelNet40.
SHARD_SIZE = 128
MAX_WORKERS = 8


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


class PreparedClouds(TorchDataset):
    """`point_values` of each row, made in the process that asks.

    Args:
        clouds: rows with `id`, `xyz` and perhaps `rgb`.
        feature_extractor: prepares them.
        keep_color: False leaves `rgb` out, so that the extractor fills its grey.
    """

    def __init__(self, clouds: Dataset, feature_extractor: Ulip2FeatureExtractor, keep_color: bool = True) -> None:
        columns = ["id", "xyz", *(["rgb"] if keep_color and "rgb" in clouds.column_names else [])]
        self._clouds = clouds.select_columns(columns).with_format("arrow")
        self._extractor = feature_extractor

    def __len__(self) -> int:
        return len(self._clouds)

    def __getitem__(self, index: int) -> Tensor:
        """(n, C) float32."""
        row = decode_row(self._clouds[index])
        name = row.pop("id")
        try:
            return self._extractor(row, return_tensors="pt")["point_values"][0]
        except ValueError as error:
            raise ValueError(f"the shape {name!r} cannot be prepared: {error}") from None


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
    if model.training:
        raise ValueError("the model is in training mode: BatchNorm would mix the clouds of a batch; call model.eval()")
    folder.mkdir(parents=True, exist_ok=True)
    shards = shard_rows(len(clouds), shard_size or SHARD_SIZE)
    own = range(process_index, len(shards), num_processes)
    todo = [shard for shard in own if not _is_whole(shard_file(folder, shard, len(shards)), stamp, len(shards[shard]))]
    batches = [
        (shard, list(rows[start : start + batch_size]))
        for shard in todo
        for rows in [shards[shard]]
        for start in range(0, len(rows), batch_size)
    ]
    workers = default_workers(num_processes) if num_workers is None else num_workers
    loader = DataLoader(
        clouds,
        batch_sampler=[rows for _, rows in batches],
        num_workers=workers,
        pin_memory=model.device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )
    embeds: list[Tensor] = []
    encoder_seconds, start = 0.0, time.perf_counter()
    progress = logging.tqdm(
        total=sum(len(shards[shard]) for shard in todo), desc="point clouds", unit="cloud", disable=process_index > 0
    )
    for place, values in enumerate(loader):
        embedded, seconds = _embed(model, values)
        embeds.append(embedded)
        encoder_seconds += seconds
        progress.update(len(values))
        shard = batches[place][0]
        if place + 1 == len(batches) or batches[place + 1][0] != shard:
            now = time.perf_counter()
            told = {"stamp": stamp, "seconds": repr(now - start), "encoder_seconds": repr(encoder_seconds)}
            told["process"] = str(process_index)
            _save(shard_file(folder, shard, len(shards)), torch.cat(embeds), told)
            embeds, encoder_seconds, start = [], 0.0, now
    progress.close()


@torch.inference_mode()
def _embed(model: Any, values: Tensor) -> tuple[Tensor, float]:
    """(b, D) float32 on the CPU, L2-normalised, and the seconds that it took."""
    start = time.perf_counter()
    embeds = model.get_point_features(values.to(model.device, non_blocking=True)).pooler_output  # (b, D)
    embeds = F.normalize(embeds.float(), dim=-1).cpu()  # waits for the device
    return embeds, time.perf_counter() - start


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


def default_workers(num_processes: int = 1) -> int:
    """Worker processes for one of `num_processes` on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MAX_WORKERS, cores // max(1, num_processes) - 1))


def _is_whole(path: Path, stamp: str, count: int) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata()["stamp"] == stamp and file.get_slice("point_embeds").get_shape()[0] == count
    except (OSError, SafetensorError, KeyError, TypeError):
        return False


def _save(path: Path, embeds: Tensor, metadata: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({"point_embeds": embeds.contiguous()}, temporary, metadata)
    temporary.replace(path)
