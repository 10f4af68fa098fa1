"""What a scan of a room does to an object: it is seen from one side, hidden in part, and stands on a floor.

Functions as those of `augmentation`: points (N, C) of a normalized cloud, first three columns xyz (y up), the next
three, where there are any, colors in [0, 1], and a random state give a new array of the same shape and dtype,
normalized again. What is lost is replaced by points that are left, drawn anew, or by points of floor and wall. None is
part of ULIP's pre-training. All are O(N).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Rng: TypeAlias = np.random.Generator | np.random.RandomState

# Of `one_side`: points that a cell of its grid holds on average, were all in the square around the unit circle; how
# far behind the nearest point, in cells, a point is hidden; and the sines of the lowest and highest camera.
_POINTS_PER_CELL, _DEPTH_IN_CELLS, _LOWEST, _HIGHEST = 3.0, 3.0, -0.2, 0.9
# Of `stand_in_room`: the share of the points that floor and wall take; how far each reaches beyond the middle of the
# object, in parts of the object's reach there; how far a wall stands behind it; roughness, in radii; and how much the
# gray of a surface is tinted.
_ROOM_SHARE, _REACH, _GAP, _ROUGHNESS, _TINT = (0.05, 0.3), (0.7, 1.4), (0.0, 0.15), 0.005, 0.08


def one_side(points: np.ndarray, rng: Rng) -> np.ndarray:
    """What a camera sees of a cloud from one side, as a depth camera or a laser scanner would deliver it.

    The camera is far away in a direction drawn around the object, from a little below the horizon to high above. A
    point is hidden where another in its neighborhood is nearer by more than the neighborhood is wide, so thin plates
    show both faces.
    """
    return _without(points, ~seen_from(points[:, :3], _direction(rng)), rng)


def seen_from(xyz: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(N,) bool: which points (N, 3) a far camera in `direction` (3,), of unit length, sees; at least one.

    A depth buffer of square cells, some of which stay empty: a point is compared with those of its cell and of the
    eight around it.
    """
    across = unit(np.cross(direction, [0.0, 1.0, 0.0] if abs(direction[1]) < 0.99 else [1.0, 0.0, 0.0]))
    right, up, near = np.stack([across, np.cross(direction, across), direction]).astype(xyz.dtype) @ xyz.T  # (N,) each
    right, up = right - right.min(), up - up.min()
    width = max(float(right.max()), float(up.max()), 1e-12)
    cells = max(1, int(np.sqrt(len(xyz) / _POINTS_PER_CELL)))  # of a side
    scale = cells / width * (1 - 1e-6)
    # an empty cell on each side
    cell = ((right * scale).astype(np.int64) + 1) * (cells + 2) + (up * scale).astype(np.int64) + 1  # (N,)
    nearest = np.full((cells + 2) ** 2, -np.inf, dtype=xyz.dtype)
    np.maximum.at(nearest, cell, near)
    around = nearest.reshape(cells + 2, cells + 2)
    for _ in range(2):  # along one side, then along the other
        around[1:-1] = np.maximum(np.maximum(around[:-2], around[2:]), around[1:-1])
        around = around.T
    return near >= nearest[cell] - _DEPTH_IN_CELLS * width / cells


def occlude(points: np.ndarray, rng: Rng, most: float = 0.6) -> np.ndarray:
    """A cloud that something hides in part, or of which a segmenter missed a part.

    Either all points beyond a plane are gone, in a direction drawn evenly, or all within a box with the proportions
    that are drawn, around one of the points. The share that is gone is U(0, most); `most` is below 1.
    """
    count = min(round(len(points) * rng.uniform(0, most)), len(points) - 1)
    xyz = points[:, :3]
    if rng.random() < 0.5:
        order = -(xyz @ unit(rng.standard_normal(3)))  # (N,)
    else:
        center = xyz[int(rng.random() * len(xyz))]
        order = np.abs((xyz - center) / np.exp(rng.uniform(-0.7, 0.7, size=3))).max(axis=1)  # (N,)
    gone = np.zeros(len(points), dtype=bool)
    if count:
        gone[np.argpartition(order, count - 1)[:count]] = True
    return _without(points, gone, rng)


def stand_in_room(points: np.ndarray, rng: Rng) -> np.ndarray:
    """A cloud with a piece of the floor that it stands on and, every other time, of a wall behind it.

    That is what is left around an object that was cut out of a scan. Floor and wall are flat up to the roughness of a
    scan, larger or smaller than the object, and of one light or dark color each. A cloud without color stays without.
    The wall may be on any side.
    """
    low, high = points[:, :3].min(axis=0), points[:, :3].max(axis=0)
    middle, reach = (low + high) / 2, np.maximum((high - low) / 2, 0.05)
    taken = np.flatnonzero(rng.random(len(points)) < rng.uniform(*_ROOM_SHARE))  # places of floor and wall
    spread = rng.uniform(-1, 1, size=(len(taken), 3)) * rng.uniform(*_REACH, size=3)
    xyz = middle + spread * reach
    rough = _ROUGHNESS * rng.standard_normal(len(taken))
    has_wall, angle, gap = rng.random() < 0.5, rng.uniform(0, 2 * np.pi), rng.uniform(*_GAP)
    on_wall = rng.random(len(taken)) < (0.5 if has_wall else 0.0)
    behind = np.array([np.sin(angle), 0.0, np.cos(angle)])
    depth = ((points[:, :3] - middle) @ behind).max() + gap  # of the wall
    xyz[:, 1] = np.where(on_wall, np.maximum(xyz[:, 1], low[1]), low[1] + rough)
    xyz += (np.where(on_wall, depth + rough - (xyz - middle) @ behind, 0.0))[:, None] * behind
    changed = points.copy()
    changed[taken, :3] = xyz
    shades = rng.uniform(0.1, 0.95, size=2)[:, None] + rng.uniform(-_TINT, _TINT, size=(2, 3))  # of floor and wall
    if has_colors(points):
        changed[taken, 3:6] = np.clip(shades, 0, 1)[on_wall.astype(np.int64)]
    changed[:, :3] = on_unit_sphere(changed[:, :3])
    return changed


def with_xyz(points: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """`points` with its first three columns replaced, in the dtype of `points`."""
    changed = points.copy()
    changed[:, :3] = xyz
    return changed


def on_unit_sphere(xyz: np.ndarray) -> np.ndarray:
    """As the feature extractor normalizes a cloud (N, 3)."""
    from modeling_ulip2.models.feature_extraction_ulip2 import unit_sphere  # torch, which `--help` does without

    return unit_sphere(xyz)


def fill_color() -> float:
    """What stands for no color."""
    from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR

    return FILL_COLOR


def has_colors(points: np.ndarray) -> bool:
    """Whether a cloud (N, C) has columns of color, and any other color than that which stands for none."""
    return points.shape[1] >= 6 and bool((points[:, 3:6] != points.dtype.type(fill_color())).any())


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector in its direction of length 1."""
    return vector / np.linalg.norm(vector)


def _without(points: np.ndarray, gone: np.ndarray, rng: Rng) -> np.ndarray:
    """The cloud normalized again, with points that are left, drawn anew, in place of those that are `gone` (N,)."""
    left, lost = np.flatnonzero(~gone), np.flatnonzero(gone)
    rows = np.arange(len(points))
    rows[lost] = left[(rng.random(len(lost)) * len(left)).astype(np.int64)]
    changed = points.take(rows, axis=0)
    changed[:, :3] = on_unit_sphere(changed[:, :3])
    return changed


def _direction(rng: Rng) -> np.ndarray:
    """(3,) from an object to a camera around it, evenly drawn between the lowest and the highest."""
    height, angle = rng.uniform(_LOWEST, _HIGHEST), rng.uniform(0, 2 * np.pi)
    flat = np.sqrt(1 - height**2)
    return np.array([flat * np.sin(angle), height, flat * np.cos(angle)])
