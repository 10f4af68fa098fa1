"""Points from depth pictures, which show what a camera sees of an object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .cameras import Camera
from .mesh import Mesh
from .rendering import Renderer


def visible_points(mesh: Mesh, cameras: Sequence[Camera], renderer: Renderer) -> list[np.ndarray]:
    """What each camera sees of a mesh: its depth picture, back-projected to points in the mesh's frame.

    Args:
        renderer: without supersampling, as only then the depth of a pixel is that at its middle.

    Returns:
        For each camera (P, 3) float64; P is the number of pixels that show the object and may be 0.
    """
    if renderer.supersampling != 1:
        raise ValueError(f"depth needs a renderer with supersampling=1, not {renderer.supersampling}")
    output = renderer.render(mesh, cameras)
    middle = mesh.bounds.mean(axis=0)
    return [
        camera.unproject(depth)[depth > 0] + middle for depth, camera in zip(output.depth, output.cameras, strict=True)
    ]
