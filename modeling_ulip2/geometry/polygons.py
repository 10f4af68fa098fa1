"""Polygons to triangles."""

from __future__ import annotations

import numpy as np


def fan(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate polygons as fans around their first corner.

    Args:
        sizes: (P,) number of corners of each polygon, whose corners are stored one polygon after the other; polygons
            of fewer than three corners give no triangle.

    Returns:
        (F, 3) positions in the list of corners, and (F,) the polygon of each triangle.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    triangles = np.maximum(sizes - 2, 0)
    polygon = np.repeat(np.arange(len(sizes)), triangles)
    start = (np.cumsum(sizes) - sizes)[polygon]
    offset = np.arange(len(polygon)) - (np.cumsum(triangles) - triangles)[polygon]
    return np.column_stack([start, start + offset + 1, start + offset + 2]), polygon
