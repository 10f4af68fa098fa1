"""The cameras of a triplet row: what its columns say, and from pixels with depth back to points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modeling_ulip2.geometry.cameras import Camera

from .images import read_depth


def row_cameras(row: Mapping[str, Any]) -> list[Camera]:
    """The camera of each view of a row of the `triplets` config, in the frame and unit of its `xyz`.

    Raises:
        ValueError: the row does not say where its cameras were.
    """
    columns = ("azimuths", "elevations", "distances", "fov")
    told = [np.asarray(np.nan if row.get(name) is None else row[name], dtype=np.float64) for name in columns]
    if any(np.isnan(values).any() for values in told):
        raise ValueError(
            f"the triplet {row['id']!r} does not tell its cameras: built by an older version or elsewhere"
        )
    azimuths, elevations, distances, fov = (values.tolist() for values in told)
    shifts = row.get("shifts") or [(0.0, 0.0)] * len(azimuths)
    return [
        Camera(azimuth, elevation, fov, distance=distance, shift=(float(shift[0]), float(shift[1])))
        for azimuth, elevation, distance, shift in zip(azimuths, elevations, distances, shifts, strict=True)
    ]


def depth_points(row: Mapping[str, Any], view: int) -> np.ndarray:
    """The surface that a view's depth image shows, as points (P, 3) float64 in the frame and unit of `xyz`.

    Raises:
        ValueError: the row has no depth, or does not say where its cameras were.
    """
    if row.get("depths") is None:
        raise ValueError(f"the triplet {row['id']!r} has no depth images")
    depth = read_depth(row["depths"][view]) * np.float64(row["depth_scale"])  # (H, W)
    points = row_cameras(row)[view].unproject(depth)  # (H, W, 3)
    return points[depth > 0] + np.asarray(row["target"], dtype=np.float64)  # (P, 3)
