"""Pictures of points, each a small disc, the nearest in front: for objects cut out of scans, and for whole homes."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from modeling_ulip2.geometry.cameras import Camera
from modeling_ulip2.scenes.schema import ObjectMasks, Scene

BACKGROUND = (255, 255, 255)
# Radius of a disc in distances between neighboring points, so that a surface has no holes; its bounds in pixels; and
# points by which the distance is estimated.
_RADIUS, _SMALLEST, _LARGEST, _PROBES = 0.9, 0.5, 8.0, 400
# Share of light that a surface has which the camera sees edge-on.
_AMBIENT = 0.55
# Color of points that have none.
_GRAY = 160


def draw_points(
    xyz: np.ndarray,
    rgb: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    *,
    camera: Camera | None = None,
    size: int = 224,
    background: tuple[int, int, int] = BACKGROUND,
    radius: float | None = None,
) -> np.ndarray:
    """Draws a cloud.

    Args:
        xyz: (N, 3), y up; at least one point.
        rgb: (N, 3) uint8; None: gray.
        normals: (N, 3); surfaces that the camera sees at a slant are darker. None: colors as they are.
        camera: is fitted to the cloud where it has no distance; default: `Camera(30)`.
        size: S, pixels of a side.
        radius: of a disc in pixels at the middle of the cloud; default: by the distance of neighboring points.

    Returns:
        (S, S, 3) uint8.

    Raises:
        ValueError: there is no point.
    """
    if len(xyz) == 0:
        raise ValueError("there is no point to draw")
    points = np.asarray(xyz, dtype=np.float64)
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    if not points.any():
        points = points + np.zeros((len(points), 3))
        camera = Camera(distance=1.0)
    camera = (camera or Camera(azimuth=30.0)).fitted(points)
    assert camera.distance is not None
    right, up, back = camera.rotation @ points.T  # (N,) each
    depth = camera.distance - back
    scale = size / 2 / (np.tan(np.radians(camera.fov) / 2) * depth)  # (N,) pixels per unit
    across = size / 2 + (right - camera.shift[0]) * scale
    down = size / 2 - (up - camera.shift[1]) * scale
    colors = np.full((len(points), 3), _GRAY, np.float64) if rgb is None else np.asarray(rgb, np.float64)
    if normals is not None:
        facing = np.abs(np.asarray(normals, np.float64) @ camera.rotation[2])
        colors = colors * (_AMBIENT + (1 - _AMBIENT) * facing)[:, None]
    if radius is None:
        radius = _RADIUS * _spacing(points) * float(np.median(scale))
    radius = float(np.clip(radius, _SMALLEST, _LARGEST))
    order = np.argsort(-depth, kind="stable")  # from far to near
    column, row = np.floor(across[order]).astype(np.int64), np.floor(down[order]).astype(np.int64)
    front = np.full((size, size), -1, dtype=np.int64)  # rank of the nearest point of each pixel
    reach = int(radius)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            if x * x + y * y > radius * radius:
                continue
            within = (row + y >= 0) & (row + y < size) & (column + x >= 0) & (column + x < size)
            # of several points in a pixel the last, which is the nearest, stays
            ranks = np.flatnonzero(within)
            pixels = (row[ranks] + y) * size + column[ranks] + x
            layer = np.full(size * size, -1, dtype=np.int64)
            layer[pixels] = ranks
            np.maximum(front, layer.reshape(size, size), out=front)
    picture = np.empty((size, size, 3), dtype=np.uint8)
    picture[:] = background
    seen = front >= 0
    picture[seen] = np.clip(colors[order[front[seen]]], 0, 255).astype(np.uint8)
    return picture


def object_views(
    scene: Scene, masks: ObjectMasks, num_views: int = 3, size: int = 224, max_points: int = 20_000, seed: int = 0
) -> list[list[np.ndarray]]:
    """Pictures of each mask alone on white, (S, S, 3) uint8, from so many sides around it, for an image tower.

    A mask of more than `max_points` is thinned out by chance.
    """
    rng = np.random.default_rng(seed)
    views = []
    for own in masks.points:
        points = own if len(own) <= max_points else np.sort(rng.choice(own, max_points, replace=False))
        colors = None if scene.rgb is None else scene.rgb[points]
        normals = None if scene.normals is None else scene.normals[points]
        cameras = [Camera(azimuth=30.0 + 360.0 * view / num_views) for view in range(num_views)]
        views.append([draw_points(scene.xyz[points], colors, normals, camera=each, size=size) for each in cameras])
    return views


def _spacing(points: np.ndarray) -> float:
    """Typical distance between neighbors on the surface of a cloud (N, 3), the fourth of them."""
    if len(points) < 5:
        return float(np.ptp(points, axis=0).max() / 4)
    probes = points[:: max(1, len(points) // _PROBES)]
    distances, _ = cKDTree(points).query(probes, k=5)
    return float(np.median(distances[:, 4]) / np.sqrt(2))
