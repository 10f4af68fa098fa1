"""Views of a triplet row as PIL images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Gray of the farthest and of the nearest visible point in a picture of depth.
FAR_GRAY, NEAR_GRAY = 64, 255
# Azimuth of the views on a sheet, degrees: shows the front and a side.
PORTRAIT_AZIMUTH = 30
CLOUD_SIDE = 224  # pixels, of a shape that has points but no views
PAPER = (250, 250, 250)  # behind a drawn cloud


def open_view(view: Any) -> Image.Image:
    """A view as RGB image: from a PIL image, encoded bytes, a path, or the `{"bytes", "path"}` of a
    `datasets.Image`."""
    return _open(view).convert("RGB")


def open_depth(view: Any) -> Image.Image:
    """A depth view (16-bit PNG, 0 where there is nothing) as RGB image: near is white, far dark, nothing black.

    The range is that of the object in this view. How the published triplets drew depth is unknown; this is our choice.
    """
    depth = read_depth(view)
    seen = depth > 0
    gray = np.zeros(depth.shape, dtype=np.uint8)
    if seen.any():
        near, far = depth[seen].min(), depth[seen].max()
        share = (far - depth[seen]) / max(far - near, 1e-6)
        gray[seen] = np.rint(FAR_GRAY + share * (NEAR_GRAY - FAR_GRAY))
    return Image.fromarray(gray).convert("RGB")


def read_depth(view: Any) -> np.ndarray:
    """The pixels of a depth view, (H, W) float32; times `depth_scale` they are distances from the camera plane."""
    depth = np.asarray(_open(view), dtype=np.float32)  # (H, W)
    if depth.ndim != 2:
        raise ValueError(f"a depth view must have one channel, got an array of shape {depth.shape}")
    return depth


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """An image file as an RGB image.

    Raises:
        ValueError: it is no image that can be read; the message names the file.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{os.fspath(path)}: there is no such file") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{os.fspath(path)} is no image that can be read ({error})") from None


def draw_cloud(xyz: np.ndarray, rgb: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8: points (N, 3) seen from the front (+z) without perspective, nearer ones on top."""
    picture = np.full((side, side, 3), PAPER, np.uint8)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    scale = 0.9 * (side - 2) / max(float((high - low)[:2].max()), 1e-9)
    at = (xyz - (low + high) / 2) * scale  # (N, 3)
    order = np.argsort(at[:, 2], kind="stable")
    column = (at[order, 0] + side / 2).astype(int).clip(0, side - 2)
    line = (side / 2 - at[order, 1]).astype(int).clip(0, side - 2)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        picture[line + down, column + right] = rgb[order]
    return picture


def nearest_portrait(azimuths: Sequence[float]) -> int:
    """The place of the view that stands nearest to `PORTRAIT_AZIMUTH`; 0 where no azimuth is known."""
    turns = [abs((azimuth - PORTRAIT_AZIMUTH + 180) % 360 - 180) for azimuth in azimuths]
    return int(np.argmin(turns)) if turns else 0


def portrait(row: Mapping[str, Any]) -> Image.Image:
    """The view of a triplet row that shows it best on paper: from the front and a little from the side.

    A row without views, as some releases have them, is shown by its points.
    """
    if not len(row["views"]):
        return Image.fromarray(
            draw_cloud(np.asarray(row["xyz"], np.float32), np.asarray(row["rgb"], np.uint8), CLOUD_SIDE)
        )
    return open_view(row["views"][nearest_portrait(row["azimuths"])])


def _open(view: Any) -> Image.Image:
    if isinstance(view, Image.Image):
        return view
    if isinstance(view, dict):
        view = view["bytes"] if view.get("bytes") is not None else view["path"]
    return Image.open(BytesIO(view) if isinstance(view, bytes) else Path(view))
