"""The FAISS index of an index folder: which kind for how many shapes, built, grown, and opened where it lies.

The rule, by number of shapes (`choose_factory`); `--factory` overrules it:

    up to 50,000      Flat                compares with every shape, so it finds the nearest for certain
    up to 1,000,000   HNSW32,SQfp16       a graph of neighbors; adding a shape costs more, searching almost nothing
    beyond            IVF4096,SQ8         lists around 4,096 centers, of which a search reads 128; the smallest

What SQ stores is rounded, so `ShapeIndex.search` ranks the candidates again by their embeddings themselves.
`tests/benchmarks/bench_search.py` measures all three.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from modeling_ulip2.utils.files import whole_path
from modeling_ulip2.utils.packages import require_package

from .schema import EMBEDS, FAISS_FILE

EXACT = "Flat"
FACTORIES: tuple[tuple[int, str], ...] = (
    (50_000, EXACT),
    (1_000_000, "HNSW32,SQfp16"),
)
LARGEST_FACTORY = "IVF4096,SQ8"

# Stored in the FAISS file itself: how widely a search looks, and a graph's insertion.
NPROBE, EF_SEARCH, EF_CONSTRUCTION = 128, 256, 80
# FAISS asks for 39 training vectors a center; scalar quantizers need no more than their ranges.
TRAIN_PER_CENTER, MIN_TRAIN = 40, 65_536
_BLOCK = 16_384


def choose_factory(num_shapes: int) -> str:
    """The FAISS factory string for a collection of this size; see the rule above."""
    return next((factory for limit, factory in FACTORIES if num_shapes <= limit), LARGEST_FACTORY)


class EmbedRows:
    """The embeddings of a dataset, read from Arrow memory without a copy of the whole.

    Args:
        shapes: rows with `point_embeds`, in the order of the files.
    """

    def __init__(self, shapes: Dataset) -> None:
        column = shapes.select_columns([EMBEDS]).with_format("arrow")[:].column(EMBEDS)
        dim = column.type.list_size
        self._chunks = [chunk.flatten().to_numpy().reshape(-1, dim) for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)]).tolist()
        self.shape = (self._starts[-1], dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Rows by number, (n, D) float32."""
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for place, row in enumerate(rows):
            chunk = bisect_right(self._starts, row) - 1
            found[place] = self._chunks[chunk][row - self._starts[chunk]]
        return found

    def blocks(self, start: int = 0) -> Iterator[np.ndarray]:
        """All rows from `start` on in blocks (n, D), views where possible."""
        for first, chunk in zip(self._starts, self._chunks, strict=False):
            chunk = chunk[max(0, start - first) :]
            for begin in range(0, len(chunk), _BLOCK):
                yield chunk[begin : begin + _BLOCK]


def update_faiss(folder: Path, shapes: Dataset, factory: str, *, rebuild: bool = False, progress: bool = True) -> None:
    """Makes the FAISS file of a folder cover all its rows; whole or not at all.

    What it covers already is not touched: rows are added behind those, unless `rebuild` begins anew.

    Raises:
        ValueError: the factory string is unknown, or needs more shapes to be trained.
    """
    faiss = require_package("faiss")

    path = folder / FAISS_FILE
    embeds = EmbedRows(shapes)
    index = faiss.read_index(str(path)) if path.is_file() and not rebuild else None
    if index is None or index.ntotal > len(embeds) or index.d != embeds.shape[1]:
        index = train_faiss(embeds, factory)
    elif index.ntotal == len(embeds):
        return
    add_rows(index, embeds, progress)
    with whole_path(path) as partial:
        faiss.write_index(index, str(partial))


def train_faiss(embeds: EmbedRows, factory: str, seed: int = 0) -> Any:
    """An empty FAISS index for embeddings like these; inner products of normalized rows are cosines.

    Raises:
        ValueError: the factory string is unknown, or needs more shapes to be trained.
    """
    faiss = require_package("faiss")

    try:
        index = faiss.index_factory(embeds.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if isinstance(index, faiss.IndexIVF):
            index.nprobe = min(NPROBE, index.nlist)
        if isinstance(index, faiss.IndexHNSW):
            index.hnsw.efSearch, index.hnsw.efConstruction = EF_SEARCH, EF_CONSTRUCTION
        if not index.is_trained:
            wanted = max(TRAIN_PER_CENTER * getattr(index, "nlist", 0), MIN_TRAIN)
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.permutation(len(embeds))[:wanted])
            index.train(embeds[rows])
        return index
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("Error: ")[2]
        raise ValueError(f"FAISS cannot build {factory!r} over {len(embeds)} shapes: {reason}") from None


def add_rows(index: Any, embeds: EmbedRows, progress: bool = True) -> None:
    """Adds the rows behind those that the index holds."""
    total = len(embeds)
    with logging.tqdm(
        total=total, initial=index.ntotal, desc="FAISS index", unit="shape", disable=not progress
    ) as bar:
        for block in embeds.blocks(index.ntotal):
            index.add(np.ascontiguousarray(block))
            bar.update(len(block))


def open_faiss(path: Path) -> Any:
    """An index to search in, its vectors memory-mapped: the system loads what is asked for and may forget it."""
    faiss = require_package("faiss")

    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def is_exact(index: Any) -> bool:
    """Whether a search compares with every shape's embedding as it is."""
    faiss = require_package("faiss")

    return isinstance(index, faiss.IndexFlat)
