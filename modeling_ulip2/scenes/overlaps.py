"""How many points masks share, and their intersection over union, for thousands of masks at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from modeling_ulip2.scenes.schema import ObjectMasks


def mask_sizes(masks: ObjectMasks) -> np.ndarray:
    """(P,) int64: points of each mask."""
    return np.fromiter((len(points) for points in masks.points), dtype=np.int64, count=len(masks))


def shared_points(masks: ObjectMasks, others: ObjectMasks) -> csr_matrix:
    """(P, Q) int64, sparse: points that a mask shares with each of the others; masks that share none have no entry.

    One sparse product. It costs, for every point of a mask, the masks of the others that hold the point: time and
    memory do not grow with P times Q.

    Raises:
        ValueError: a mask that holds a point twice, or a negative index.
    """
    count = 1 + max((int(points.max()) for points in (*masks.points, *others.points) if len(points)), default=0)
    found = (_incidence(masks.points, count) @ _incidence(others.points, count).T).tocsr()
    found.sort_indices()
    return found


def mask_ious(masks: ObjectMasks, others: ObjectMasks) -> csr_matrix:
    """(P, Q) float64, sparse: intersection over union, in points; masks that share no point have no entry."""
    shared = shared_points(masks, others).tocoo()
    union = mask_sizes(masks)[shared.row] + mask_sizes(others)[shared.col] - shared.data
    return csr_matrix((shared.data / union, (shared.row, shared.col)), shape=shared.shape)


def _incidence(points: Sequence[np.ndarray], count: int) -> csr_matrix:
    """(P, count): 1 where a mask holds a point."""
    starts = np.concatenate([[0], np.cumsum([len(own) for own in points])]).astype(np.int64)
    columns = np.concatenate([*points, np.empty(0, np.int32)])  # of no mask at all, too
    if len(columns) and columns.min() < 0:
        raise ValueError("a mask holds a negative index; masks are indices of the scene's points")
    if any((np.diff(own) <= 0).any() for own in points):
        raise ValueError("a mask must hold its points in ascending order, each once")
    return csr_matrix((np.ones(len(columns), np.int64), columns, starts), shape=(len(points), count))
