"""A scan that misses nothing: points of every surface, seen or not."""

from __future__ import annotations

import numpy as np

from modeling_ulip2.geometry.points import MAX_POINTS
from modeling_ulip2.geometry.sampling import sample_surface
from modeling_ulip2.scenes.schema import Scene

from .scene_mesh import SceneMesh


def scan_complete(scene: SceneMesh, density: float, seed: int = 0, max_points: int = MAX_POINTS) -> Scene:
    """Points drawn uniformly from all surfaces of a building.

    Args:
        density: points per square meter.
        seed: the same seed gives the same points.
        max_points: refused beyond.

    Returns:
        A scene with colors, normals of the triangles (on the side that the mesh calls front) and objects; one that is
        smaller than a point's share of the surface may have none.

    Raises:
        ValueError: a density of 0 or less, or too many points.
    """
    if not density > 0:
        raise ValueError(f"density is {density}; it is a number of points per square meter, above 0")
    count = max(1, round(float(scene.mesh.face_areas().sum()) * density))
    if count > max_points:
        raise ValueError(
            f"{scene.id} has {count / density:,.0f} square meters of surface, {count:,} points at {density:g} per "
            f"square meter; at most {max_points:,}: scan it less densely"
        )
    sample = sample_surface(scene.mesh, count, seed)
    return as_scene(scene, sample.xyz.astype(np.float32), sample.rgb, sample.normals, scene.face_object[sample.face])


def as_scene(scene: SceneMesh, xyz: np.ndarray, rgb: np.ndarray, normals: np.ndarray, instance: np.ndarray) -> Scene:
    """Points of a building as a scene with its objects; see `Scene`."""
    return Scene(
        id=scene.id,
        xyz=xyz,
        rgb=rgb,
        normals=normals,
        instance=instance.astype(np.int32),
        categories=list(scene.categories),
        names=list(scene.names),
        source=scene.source,
        license=scene.license,
        warnings=list(scene.warnings),
    )
