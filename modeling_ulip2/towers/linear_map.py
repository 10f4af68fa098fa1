"""Ridge regression from what a frozen classifier sees to the sentence embeddings of captions, and its cross-fitting.

The sums that the regression needs add up over objects, so that a fit without some objects is a subtraction: a map for
each fold of a cross-fit costs one solution, not one pass over the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# The penalty, in units of the mean variance of a feature times the number of rows; chosen like `MAP_SHARE`.
RIDGE = 0.3
FOLDS = 5


@dataclass
class LinearMap:
    """`weight` (D, F) and `bias` (D,) of a map from features (…, F) to embeddings (…, D)."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight.T + self.bias


@dataclass
class RidgeSums:
    """What a ridge regression needs to know of rows of features (n, F) and targets (n, D)."""

    count: float
    features: np.ndarray  # (F,)
    targets: np.ndarray  # (D,)
    gram: np.ndarray  # (F, F)
    cross: np.ndarray  # (F, D)

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray) -> RidgeSums:
        x, y = features.astype(np.float64), targets.astype(np.float64)
        return cls(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y)

    def __sub__(self, other: RidgeSums) -> RidgeSums:
        return RidgeSums(
            self.count - other.count,
            self.features - other.features,
            self.targets - other.targets,
            self.gram - other.gram,
            self.cross - other.cross,
        )

    def __add__(self, other: RidgeSums) -> RidgeSums:
        return RidgeSums(
            self.count + other.count,
            self.features + other.features,
            self.targets + other.targets,
            self.gram + other.gram,
            self.cross + other.cross,
        )

    def solve(self, ridge: float = RIDGE) -> LinearMap:
        """The map with the least squared error plus penalty; features and targets are centered, the bias is free.

        Raises:
            ValueError: there are fewer than two rows.
        """
        if self.count < 2:
            raise ValueError(f"a linear map is fitted on two or more views, not on {self.count:g}")
        mean_x, mean_y = self.features / self.count, self.targets / self.count
        gram = self.gram - self.count * np.outer(mean_x, mean_x)  # (F, F)
        cross = self.cross - self.count * np.outer(mean_x, mean_y)  # (F, D)
        penalty = max(ridge * np.trace(gram) / len(gram), 1e-9)
        weight = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross).T  # (D, F)
        return LinearMap(weight, mean_y - weight @ mean_x)


def fit_linear_map(features: Sequence[np.ndarray], targets: np.ndarray, ridge: float = RIDGE) -> LinearMap:
    """The map of N objects' views, features [N](V, F), to the objects' embeddings (N, D)."""
    return _sums(features, targets).solve(ridge)


def cross_fitted_maps(
    features: Sequence[np.ndarray],
    targets: np.ndarray,
    groups: Sequence[str],
    ridge: float = RIDGE,
    folds: int = FOLDS,
    seed: int = 0,
) -> tuple[LinearMap, list[LinearMap], np.ndarray]:
    """A map fitted on all N objects, and maps for those very objects, each fitted without them.

    What is learned from an embedding by the first map of an object that it was fitted on is what the map remembers of
    the object; the others have seen neither the object nor its near-duplicates.

    Args:
        features, targets: as in `fit_linear_map`.
        groups: (N,) the group of near-duplicates of each object; a fold holds whole groups.
        folds: at most as many as there are groups.

    Returns:
        The map of all; the maps of the folds; (N,) the fold whose map has not seen the object.

    Raises:
        ValueError: all objects are near-duplicates of one another.
    """
    fold_of = draw_folds(groups, folds, seed)
    parts = []
    for fold in range(fold_of.max() + 1):
        rows = np.flatnonzero(fold_of == fold).tolist()
        parts.append(_sums([features[row] for row in rows], targets[rows]))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.solve(ridge), [(total - part).solve(ridge) for part in parts], fold_of


def draw_folds(groups: Sequence[str], folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """(N,) a fold for each object; whole groups of near-duplicates, the largest first, go to the smallest fold.

    Raises:
        ValueError: there is one group alone.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    folds = min(folds, len(members))
    if folds < 2:
        raise ValueError(f"{len(groups)} objects in {len(members)} groups of near-duplicates cannot be cross-fitted")
    names = sorted(members)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -len(members[name]))  # stable: equally large groups stay shuffled
    fold_of, sizes = np.zeros(len(groups), dtype=int), np.zeros(folds, dtype=int)
    for name in names:
        fold = int(sizes.argmin())
        fold_of[members[name]] = fold
        sizes[fold] += len(members[name])
    return fold_of


def mean_embeds(texts: Mapping[str, np.ndarray], captions: Iterable[Sequence[str]]) -> np.ndarray:
    """(N, D) of unit length: the mean embedding of the captions of each of N objects, by their embeddings (D,)."""
    means = np.stack([np.mean([texts[text] for text in own], axis=0) for own in captions])  # (N, D)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _sums(features: Sequence[np.ndarray], targets: np.ndarray) -> RidgeSums:
    rows = np.concatenate(list(features))  # (n, F)
    return RidgeSums.of(rows, np.repeat(targets, [len(own) for own in features], axis=0))
