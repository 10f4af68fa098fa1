"""The cameras of a triplet row, from what its columns say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modeling_ulip2.geometry.cameras import Camera


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
