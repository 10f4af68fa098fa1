"""Random changes of one training cloud, in the order of ULIP's data pipeline.

Every function takes points (N, C) whose first three columns are xyz (y up) and whose other columns (color) ride
along, and a numpy random state, and returns a new array of the same dtype; the input is left alone. Both of numpy's
generators serve: a `Generator` seeded per sample makes training reproducible whatever the number of workers, and a
legacy `RandomState` draws, in the same order, exactly what the published code drew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Rng: TypeAlias = np.random.Generator | np.random.RandomState


def farthest_from_drawn(points: np.ndarray, num_points: int, rng: Rng) -> np.ndarray:
    """`num_points` rows of `points` (N, C), each the farthest in xyz from those before it; the first is drawn.

    This is the sampling of the data pipeline: every point is a candidate and ties go to the lowest index, unlike the
    grouping inside Point-BERT (`point_ops.farthest_point_sample`). O(N * num_points).
    """
    xyz = points[:, :3]
    chosen = np.empty(num_points, dtype=np.int64)
    chosen[0] = rng.integers(len(xyz)) if isinstance(rng, np.random.Generator) else rng.randint(len(xyz))
    distance = np.full(len(xyz), np.inf)
    for i in range(1, num_points):
        np.minimum(distance, ((xyz - xyz[chosen[i - 1]]) ** 2).sum(axis=1), out=distance)
        chosen[i] = distance.argmax()
    return points[chosen]


def random_sample(points: np.ndarray, num_points: int, rng: Rng, order: np.ndarray | None = None) -> np.ndarray:
    """`num_points` different rows of `points` (N, C) in random order.

    `order` (M,) holds the indices to draw from and is shuffled in place: the published code keeps one such array of
    length `num_points` for all clouds. None draws from all N rows.
    """
    if order is None:
        order = np.arange(len(points))
    if num_points > len(order):
        raise ValueError(f"cannot draw {num_points} different points from {len(order)}")
    rng.shuffle(order)
    return points[order[:num_points]]


def drop_points(points: np.ndarray, rng: Rng, max_ratio: float = 0.875) -> np.ndarray:
    """Replaces a share U(0, max_ratio) of the points, color included, by point 0. The number of rows stays."""
    ratio = rng.random() * max_ratio
    dropped = rng.random(len(points)) <= ratio  # (N,)
    return np.where(dropped[:, None], points[:1], points)


def scale_points(
    points: np.ndarray, rng: Rng, low: float = 0.8, high: float = 1.25, by_axis: bool = False
) -> np.ndarray:
    """Multiplies xyz by one factor U(low, high), or by one for each axis."""
    return _with_xyz(points, points[:, :3] * rng.uniform(low, high, size=3 if by_axis else None))


def shift_points(points: np.ndarray, rng: Rng, reach: float = 0.1) -> np.ndarray:
    """Adds one vector of three U(-reach, reach) to xyz."""
    return _with_xyz(points, points[:, :3] + rng.uniform(-reach, reach, size=3))


def jitter_points(points: np.ndarray, rng: Rng, sigma: float = 0.01, clip: float = 0.05) -> np.ndarray:
    """Adds clipped Gaussian noise to every coordinate. Not part of ULIP's pre-training."""
    noise = np.clip(sigma * rng.standard_normal((len(points), 3)), -clip, clip)
    return _with_xyz(points, points[:, :3] + noise)


def perturb_rotation(points: np.ndarray, rng: Rng, sigma: float = 0.06, clip: float = 0.18) -> np.ndarray:
    """Rotates xyz by small angles (radians, clipped Gaussian) about the three axes: row vectors times Rz Ry Rx."""
    x, y, z = np.clip(sigma * rng.standard_normal(3), -clip, clip)
    return _with_xyz(points, points[:, :3] @ (_rotation(2, z) @ _rotation(1, y) @ _rotation(0, x)))


def rotate_about_y(points: np.ndarray, rng: Rng) -> np.ndarray:
    """Rotates xyz about the vertical axis by an angle U(0, 2 pi): row vectors times Ry."""
    return _with_xyz(points, points[:, :3] @ _rotation(1, rng.uniform() * 2 * np.pi))


@dataclass(frozen=True)
class PointAugmentation:
    """ULIP's augmentation of a sampled, normalized cloud. Defaults: the published settings; 0 switches one off.

    `scale_by_axis` draws a factor for each axis, and `normalize_scaled` then normalizes the cloud again: together they
    are what the fine-tuning of PointNeXt does before it rotates.
    """

    _argument_group_name = "augmentation"

    max_dropout: float = field(default=0.875, metadata={"help": "Drop up to this share of the points; 0: none."})
    scale_low: float = field(default=0.8, metadata={"help": "Smallest factor of the size."})
    scale_high: float = field(default=1.25, metadata={"help": "Largest factor of the size."})
    scale_by_axis: bool = field(default=False, metadata={"help": "Draw a factor for each axis."})
    normalize_scaled: bool = field(default=False, metadata={"help": "Normalize the scaled cloud again."})
    shift: float = field(default=0.1, metadata={"help": "Largest shift along each axis; 0: none."})
    angle_sigma: float = field(default=0.06, metadata={"help": "Deviation of small rotations, in radians; 0: none."})
    angle_clip: float = field(default=0.18, metadata={"help": "Largest small rotation, in radians."})
    rotate_y: bool = field(default=True, metadata={"help": "Turn about the vertical axis by any angle."})

    def __post_init__(self) -> None:
        if not 0 <= self.max_dropout <= 1:
            raise ValueError(f"max_dropout must lie in [0, 1], not {self.max_dropout}")
        if not 0 < self.scale_low <= self.scale_high:
            raise ValueError(f"scale range must satisfy 0 < low <= high, not [{self.scale_low}, {self.scale_high}]")

    def __call__(self, points: np.ndarray, rng: Rng) -> np.ndarray:
        """points (N, C) -> (N, C), same dtype."""
        if self.max_dropout:
            points = drop_points(points, rng, self.max_dropout)
        if self.scale_low != 1 or self.scale_high != 1:
            points = scale_points(points, rng, self.scale_low, self.scale_high, self.scale_by_axis)
        if self.normalize_scaled:
            from modeling_ulip2.models.feature_extraction_ulip2 import (
                unit_sphere,  # torch, which `--help` does without
            )

            points = _with_xyz(points, unit_sphere(points[:, :3]))
        if self.shift:
            points = shift_points(points, rng, self.shift)
        if self.angle_sigma:
            points = perturb_rotation(points, rng, self.angle_sigma, self.angle_clip)
        if self.rotate_y:
            points = rotate_about_y(points, rng)
        return points


PUBLISHED = PointAugmentation()


def _with_xyz(points: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """`points` with its first three columns replaced, in the dtype of `points`."""
    changed = points.copy()
    changed[:, :3] = xyz
    return changed


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation (3, 3) about an axis, for column vectors."""
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -matrix[j, i]
    return matrix
