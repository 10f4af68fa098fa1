"""Shapes that belong together: what the home page shows of a collection, and how the map is colored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import faiss
import numpy as np

# Rows that stand for a collection that has more.
MAX_ROWS = 2000
# More colors than these cannot be told apart.
MAX_GROUPS = 8
OTHER = "other"


def sample_rows(count: int) -> list[int]:
    """At most `MAX_ROWS` of `count` rows, drawn by one seed, in order."""
    if count <= MAX_ROWS:
        return list(range(count))
    return np.sort(np.random.default_rng(0).choice(count, MAX_ROWS, replace=False)).tolist()


def clusters(embeds: np.ndarray, count: int) -> tuple[np.ndarray, list[int]]:
    """Spherical k-means by one seed: N embeddings (N, D) of length 1 -> the cluster of each (N,), and the member that
    lies nearest to the middle of each. Clusters are numbered by size, largest first; there are at most `count`."""
    count = min(count, len(np.unique(embeds, axis=0)))
    kmeans = faiss.Kmeans(
        embeds.shape[1], count, niter=25, seed=0, spherical=True, min_points_per_centroid=1, verbose=False
    )
    kmeans.train(np.ascontiguousarray(embeds, dtype=np.float32))
    cosines = embeds @ kmeans.centroids.T  # (N, k)
    nearest = cosines.argmax(axis=1)
    order = [cluster for cluster, _ in Counter(nearest.tolist()).most_common()]
    places = np.full(count, -1)
    places[order] = np.arange(len(order))
    middles = [int(np.where(nearest == cluster, cosines[:, cluster], -np.inf).argmax()) for cluster in order]
    return places[nearest], middles


def folders(ids: Sequence[str]) -> list[str] | None:
    """The folder of each shape at the first level at which the ids differ; None where that tells nothing apart."""
    parents = [PurePosixPath(name.replace("\\", "/")).parts[:-1] for name in ids]
    for level in range(min(map(len, parents), default=0)):
        names = [parts[level] for parts in parents]
        if 1 < len(set(names)) < len(names):
            return names
        if len(set(names)) > 1:
            return None
    return None


def largest(kinds: Sequence[str]) -> list[str]:
    """The `MAX_GROUPS` most common names, and "other" where there are more or some are "": what a legend lists."""
    counts = Counter(kind for kind in kinds if kind)
    common = [name for name, _ in counts.most_common(MAX_GROUPS)]
    return [*common, *([OTHER] if len(counts) > len(common) or not all(kinds) else [])]
