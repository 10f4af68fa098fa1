"""An index folder opened: rows and their nearest neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from huggingface_hub import snapshot_download
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.evaluation.embeddings import embed_points
from modeling_ulip2.evaluation.zero_shot import finite
from modeling_ulip2.feature_extraction_ulip2 import Ulip2FeatureExtractor

from .schema import CONFIG, EMBEDS, FAISS_FILE, FORMAT, INFO_FILE

# Two embeddings of one cloud by one model; rounding on another device moves the cosine by far less.
SAME_COSINE = 0.999


@dataclass(frozen=True)
class Match:
    """A shape that a query found: its row in the index and its cosine with the query."""

    row: int
    score: float


class ShapeIndex:
    """Shapes and a FAISS index over their embeddings. Use `open`; `build.build_index` makes one.

    Attributes:
        shapes: N rows, see `schema.index_features`; memory-mapped.
        info: settings of the build: `model`, `tower`, `dim`, `num_points`, `factory`, …
    """

    def __init__(self, shapes: Dataset, info: dict[str, Any]) -> None:
        self.shapes = shapes
        self.info = info

    @classmethod
    def open(cls, name_or_path: str | Path) -> ShapeIndex:
        """Opens an index folder, or a dataset repository of the hub that holds one.

        Raises:
            FileNotFoundError: a path that is no index folder, or whose build was not completed.
            ValueError: written by another version of this package, or damaged.
        """
        name = str(name_or_path)
        folder = Path(name).expanduser()
        if not folder.is_dir():
            if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
                raise FileNotFoundError(f"{name} is not a folder; build an index with `ulip2 index DATASET {name}`")
            folder = Path(snapshot_download(name, repo_type="dataset"))
        missing = [file for file in (INFO_FILE, FAISS_FILE) if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(f"{name} holds no {missing[0]}: no index, or its build was stopped; run it again")
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if info.get("format") != FORMAT:
            raise ValueError(f"{name} is an index of format {info.get('format')}, this version reads {FORMAT}")
        shapes = read_shapes(folder)
        shapes.load_faiss_index(EMBEDS, folder / FAISS_FILE)
        index = cls(shapes, info)
        if index._faiss.ntotal != len(shapes) or index._faiss.d != info["dim"]:
            raise ValueError(
                f"{name} is damaged: {len(shapes)} rows of {info['dim']} numbers, but an index of "
                f"{index._faiss.ntotal} rows of {index._faiss.d}; build it again"
            )
        return index

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def _faiss(self) -> Any:
        return self.shapes.get_index(EMBEDS).faiss_index

    @property
    def embeds(self) -> np.ndarray:
        """All embeddings, (N, D) float32."""
        return np.stack(self.shapes.with_format("numpy", dtype=np.float32)[EMBEDS][:])

    def embed(self, row: int) -> Tensor:
        """The embedding of one row, (D,) float32."""
        return torch.tensor(self.shapes.select_columns([EMBEDS])[row][EMBEDS])

    def cloud(self, row: int) -> dict[str, np.ndarray]:
        """The points of one row: `xyz` (n, 3) float32 and `rgb` (n, 3) uint8."""
        columns = self.shapes.select_columns(["xyz", "rgb"]).with_format("numpy")[row]
        return {"xyz": np.asarray(columns["xyz"], dtype=np.float32), "rgb": np.asarray(columns["rgb"], dtype=np.uint8)}

    def search(self, query: Tensor | np.ndarray, k: int = 10) -> list[Match]:
        """The k shapes with the largest cosine, best first (all shapes if there are fewer).

        Args:
            query: (D,), need not be normalised.

        Raises:
            ValueError: another size than the index's, NaN or inf, zero, or k below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        query = finite(torch.as_tensor(query)[None], "query")  # (1, D)
        if query.shape[1] != self.info["dim"]:
            raise ValueError(f"the query has {query.shape[1]} numbers, the index {self.info['dim']}")
        if not query.any():
            raise ValueError("the query is zero: it points nowhere")
        query = F.normalize(query, dim=-1)[0]
        found = self.shapes.search(EMBEDS, query.numpy(), k=min(k, len(self)))
        # approximate indexes fill up with row -1 where they found fewer
        return [
            Match(int(row), float(score)) for score, row in zip(found.scores, found.indices, strict=True) if row >= 0
        ]

    def require_model(self, model: Any, feature_extractor: Ulip2FeatureExtractor) -> None:
        """Raises ValueError unless `model` embeds the first shape as the index says, that is, made this index."""
        if model.config.projection_dim == self.info["dim"]:
            embed = embed_points(model, feature_extractor, [self.cloud(0)], progress=False)[0]
            if agree(embed.numpy(), self.embed(0).numpy()):
                return
        raise ValueError(
            f"the index was made by another model ({self.info['model']}, {self.info['dim']} numbers a shape); "
            "build one by this model with `ulip2 index`"
        )


def read_shapes(folder: Path) -> Dataset:
    """The rows of an index folder, memory-mapped where they lie.

    `load_dataset` would make a copy in its cache, and give that copy again after the folder was rebuilt.
    """
    shards = sorted((folder / CONFIG).glob("train-*.arrow"))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no {CONFIG}/train-*.arrow; build the index again")
    return concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])


def combine(embeds: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """One query of several embeddings (D,): each normalised, weighted, added, and normalised again.

    A shape and the words "but red" find red shapes of its kind; a negative weight leads away.

    Raises:
        ValueError: none, other sizes, NaN or inf, another number of weights, or a sum of zero.
    """
    if not embeds:
        raise ValueError("there is nothing to search for: no embedding was given")
    if weights is None:
        weights = [1.0] * len(embeds)
    if len(weights) != len(embeds):
        raise ValueError(f"{len(embeds)} embeddings but {len(weights)} weights")
    sizes = {tuple(embed.shape) for embed in embeds}
    if len(sizes) > 1:
        raise ValueError(f"embeddings of sizes {sorted(sizes)} cannot be added")
    rows = F.normalize(finite(torch.stack([*embeds]), "embeddings"), dim=-1)  # (n, D)
    total = (rows * torch.tensor(weights)[:, None]).sum(dim=0)  # (D,)
    if total.norm() < 1e-6:
        raise ValueError("the embeddings cancel each other; change a weight")
    return F.normalize(total, dim=-1)


def agree(embed: np.ndarray, other: np.ndarray) -> bool:
    """Whether two normalised embeddings (D,) of one cloud can come from one model."""
    return embed.shape == other.shape and float(embed @ other) >= SAME_COSINE
