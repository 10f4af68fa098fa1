"""Boxes around objects: along the axes, and turned about the vertical so that they fit tightest."""

from __future__ import annotations

import numpy as np


def axis_aligned_box(xyz: np.ndarray) -> np.ndarray:
    """(2, 3) float32: lowest and highest corner of points (n, 3)."""
    return np.stack([xyz.min(axis=0), xyz.max(axis=0)]).astype(np.float32)


def oriented_box(xyz: np.ndarray) -> np.ndarray:
    """(7,) float32: center, size and angle of the upright box of the least base around points (n, 3).

    See `SceneObject.oriented_box`. The angle lies in (-pi/4, pi/4]: of the four ways to name a box, the one that turns
    it least. A side of the least rectangle around points lies along a side of their convex hull (Freeman and Shapira,
    1975).
    """
    low, high = xyz.min(axis=0).astype(np.float64), xyz.max(axis=0).astype(np.float64)
    flat = xyz[:, [0, 2]].astype(np.float64)  # (n, 2), x and z
    corners = _hull(flat)
    sides = np.roll(corners, -1, axis=0) - corners  # (h, 2)
    # a turn by t takes x to (cos t, -sin t) in (x, z), counterclockwise seen from above
    angles = np.unique(np.arctan2(-sides[:, 1], sides[:, 0]) % (np.pi / 2)) if len(corners) > 1 else np.zeros(1)
    along = np.stack([np.cos(angles), -np.sin(angles)], axis=1)  # (a, 2)
    across = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    first, second = corners @ along.T, corners @ across.T  # (h, a)
    areas = np.ptp(first, axis=0) * np.ptp(second, axis=0)
    # of equal ones (a line has no area either way), the one that turns least
    turns = np.minimum(angles, np.pi / 2 - angles)
    best = int(np.lexsort((turns, np.round(areas / max(float(areas.max()), 1e-12), 9)))[0])
    angle, u, v = float(angles[best]), first[:, best], second[:, best]
    size = [float(np.ptp(u)), float(high[1] - low[1]), float(np.ptp(v))]
    middle = (u.min() + u.max()) / 2 * along[best] + (v.min() + v.max()) / 2 * across[best]
    if angle > np.pi / 4:  # its other side is nearer to x
        angle, size = angle - np.pi / 2, size[::-1]
    return np.array([middle[0], (low[1] + high[1]) / 2, middle[1], *size, angle], dtype=np.float32)


def _hull(flat: np.ndarray) -> np.ndarray:
    """Corners (h, 2) of the convex hull of points (n, 2); of points in a line, its two ends."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        return flat[ConvexHull(flat).vertices]
    except (QhullError, ValueError):  # in a line, in a place, or fewer than three
        center = flat.mean(axis=0)
        direction = np.linalg.svd(flat - center, full_matrices=False)[2][0]
        place = (flat - center) @ direction
        ends = flat[[int(place.argmin()), int(place.argmax())]]
        return ends if np.ptp(place) > 0 else ends[:1]
