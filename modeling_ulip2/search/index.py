"""An index folder opened: rows and their nearest neighbors."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.data.schema import STORED_UP_AXIS
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.utils.places import PlaceError, find_folder
from modeling_ulip2.utils.tensors import finite

from .faiss_index import EmbedRows, is_exact, open_faiss
from .locations import found_place
from .schema import CONFIG, FAISS_FILE, FORMAT, INFO_FILE

logger = logging.getLogger(__name__)

# Two embeddings of one cloud by one model; rounding on another device moves the cosine by far less.
SAME_COSINE = 0.999
# Shapes that an approximate index proposes for each one that is wanted.
CANDIDATES = 4


@dataclass(frozen=True)
class Match:
    """A shape that a query found: its row in the index and its cosine with the query."""

    row: int
    score: float


class ShapeIndex:
    """Shapes and a FAISS index over their embeddings, both memory-mapped. Use `open`; `build.build_index` makes one.

    Attributes:
        shapes: N rows, see `schema.index_features`.
        info: settings of the build: `model`, `tower`, `dim`, `num_points`, `factory`, …
        embeds: their embeddings, `embeds[rows]` is (n, D) float32.
        folder: where it lies.
    """

    def __init__(self, shapes: Dataset, info: dict[str, Any], faiss_index: Any, folder: str | Path = ".") -> None:
        self.shapes, self.info, self.folder = shapes, info, Path(folder)
        self.embeds = EmbedRows(shapes)
        self._faiss = faiss_index

    @classmethod
    def open(cls, name_or_path: str | Path, **hub: Any) -> ShapeIndex:
        """Opens an index folder, or a dataset repository of the hub that holds one.

        Args:
            hub: `revision`, `token` and `cache_dir` of a hub name.

        Raises:
            FileNotFoundError: a path that is no index folder, or whose build was not completed.
            ValueError: written by another version of this package, or damaged.
        """
        name = str(name_or_path)
        try:
            folder = find_folder(name, "dataset", **hub)
        except PlaceError as error:
            raise PlaceError(f"{error}; build an index with `ulip2 index DATASET {name}`") from error
        missing = [file for file in (INFO_FILE, FAISS_FILE) if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(f"{name} holds no {missing[0]}: no index, or its build was stopped; run it again")
        info = read_info(folder)
        shapes, faiss_index = read_shapes(folder), open_faiss(folder / FAISS_FILE)
        if faiss_index.ntotal > len(shapes) or faiss_index.d != info["dim"]:
            raise ValueError(
                f"{name} is damaged: {len(shapes)} rows of {info['dim']} numbers, but an index of "
                f"{faiss_index.ntotal} rows of {faiss_index.d}; build it again"
            )
        if faiss_index.ntotal < len(shapes):  # shapes are being added, or that was stopped
            more = len(shapes) - faiss_index.ntotal
            logger.warning("%s: %d shapes are not indexed yet; `ulip2 index … --append` completes it", name, more)
            shapes = shapes.select(range(faiss_index.ntotal))
        return cls(shapes, info, faiss_index, folder)

    @property
    def model(self) -> str:
        """The model that made it: the path of a folder, as it is seen from where the index lies now, or a hub name."""
        return found_place(self.info["model"], self.folder)

    def load_embedder(self, model: str | Path | None = None, **options: Any) -> Ulip2Embedder:
        """The model that made this index, or the one that is given; `options` of `Ulip2Embedder.from_pretrained`.

        Raises:
            FileNotFoundError: it does not lie where the index knows it; the message says where that is.
            ValueError: another model made this index.
        """
        try:
            embedder = Ulip2Embedder.from_pretrained(model or self.model, **options)
        except PlaceError as error:
            if model is not None:
                raise
            stored = self.info["model"]
            seen = f" ({stored!r} seen from {self.folder})" if stored != self.model else ""
            raise PlaceError(
                f"the index was made by the model {self.model}{seen}, which is not there: {error}. Say where it lies "
                "now: --model (model=...)"
            ) from error
        self.require_model(embedder.model, embedder.feature_extractor)
        return embedder

    def __len__(self) -> int:
        return len(self.shapes)

    def embed(self, row: int) -> Tensor:
        """The embedding of one row, (D,) float32."""
        return torch.from_numpy(self.embeds[[row]][0])

    def cloud(self, row: int) -> dict[str, Any]:
        """The points of one row: `xyz` (n, 3) float32, `rgb` (n, 3) uint8, and `up_axis`, "y"."""
        return _cloud(self.shapes, row)

    def search(self, query: Tensor | np.ndarray, k: int = 10) -> list[Match]:
        """The k shapes with the largest cosine, best first (all shapes if there are fewer).

        An approximate index gives `CANDIDATES` times as many; their own embeddings decide, so scores are exact.

        Args:
            query: (D,), need not be normalized.

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
        vector = F.normalize(query, dim=-1).numpy()  # (1, D)
        k = min(k, len(self))
        exact = is_exact(self._faiss)
        scores, found = self._faiss.search(vector, k if exact else min(CANDIDATES * k, len(self)))
        scores, rows = scores[0], found[0]
        if not exact:
            rows = np.unique(rows[rows >= 0])  # where an approximate index found fewer, it fills up with -1
            scores = self.embeds[rows.tolist()] @ vector[0]  # (m,)
            best = np.argsort(-scores, kind="stable")[:k]
            scores, rows = scores[best], rows[best]
        return [Match(int(row), float(score)) for score, row in zip(scores, rows, strict=True)]

    def require_model(self, model: Any, feature_extractor: Ulip2FeatureExtractor) -> None:
        """Raises ValueError unless `model` made this index; see `require_model`."""
        require_model(self.shapes, self.info, model, feature_extractor)


def require_model(
    shapes: Dataset, info: Mapping[str, Any], model: Any, feature_extractor: Ulip2FeatureExtractor
) -> None:
    """Raises ValueError unless `model` embeds the first shape as its row says."""
    if model.config.projection_dim == info["dim"]:
        embed = Ulip2Embedder(model, feature_extractor).embed_shapes([_cloud(shapes, 0)])[0]
        if agree(embed.numpy(), EmbedRows(shapes.select([0]))[[0]][0]):
            return
    raise ValueError(
        f"the index was made by another model ({info['model']}, {info['dim']} numbers per shape); build one by this "
        "model with `ulip2 index`, where --overwrite replaces an index"
    )


def _cloud(shapes: Dataset, row: int) -> dict[str, Any]:
    columns = shapes.select_columns(["xyz", "rgb"]).with_format("numpy")[row]
    return {
        "xyz": np.asarray(columns["xyz"], dtype=np.float32),
        "rgb": np.asarray(columns["rgb"], dtype=np.uint8),
        "up_axis": STORED_UP_AXIS,
    }


def read_info(folder: str | Path) -> dict[str, Any]:
    """The settings of the index in a folder.

    Raises:
        FileNotFoundError: it holds none.
        ValueError: written by another version of this package.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {INFO_FILE}: it is no index")
    info = json.loads(path.read_text(encoding="utf-8"))
    if info.get("format") != FORMAT:
        raise ValueError(f"{folder} is an index of format {info.get('format')}, this version reads {FORMAT}")
    return info


def read_shapes(folder: Path) -> Dataset:
    """The rows of an index folder, memory-mapped where they lie.

    `load_dataset` would make a copy in its cache, and give that copy again after the folder was rebuilt.
    """
    shards = sorted((folder / CONFIG).glob("train-*.arrow"))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no {CONFIG}/train-*.arrow; build the index again")
    return concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])


def combine(embeds: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """One query of several embeddings (D,): each normalized, weighted, added, and normalized again.

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
    """Whether two normalized embeddings (D,) of one cloud can come from one model."""
    return embed.shape == other.shape and float(embed @ other) >= SAME_COSINE
