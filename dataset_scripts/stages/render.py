"""Meshes to views: images from cameras around the object."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from modeling_ulip2.geometry import Renderer, camera_ring

from .base import ObjectError, Row, RowStage

# The same twelve views of a piece of furniture at 224 px take 203 KiB as PNG, 83 as JPEG and 53 as WebP.
IMAGE_FORMATS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "method": 2},
    "jpeg": {"format": "JPEG"},
    "png": {"format": "PNG", "compress_level": 3},
}
DEPTH_STEPS = 65535  # of a 16-bit PNG


class RenderViews(RowStage):
    """`mesh` -> `views` (encoded images), `azimuths`, `elevations`, `alpha` (V, H, W) uint8; frees `mesh`.

    With `depth`, also `depths`, 16-bit PNGs whose pixels times `depth_scale` are distances from the camera plane in
    the mesh's unit, 0 where there is no surface.
    """

    def __init__(
        self,
        num_views: int,
        size: int,
        camera: dict[str, float] | None = None,
        image_format: str = "webp",
        quality: int = 90,
        background: tuple[int, int, int] = (0, 0, 0),
        renderer: str = "auto",
        depth: bool = False,
    ) -> None:
        self.cameras = camera_ring(num_views, **(camera or {}))
        self.options = IMAGE_FORMATS[image_format] | ({} if image_format == "png" else {"quality": quality})
        self.renderer = Renderer(engine=renderer, size=size, background=background)
        self.depth = depth

    def process(self, row: Row) -> Row:
        output = self.renderer.render(row["mesh"], self.cameras)
        if not output.alpha.any():
            raise ObjectError("blank_views", "nothing of it shows in any view")
        new: Row = {
            "mesh": None,
            "views": [encode(Image.fromarray(rgb), **self.options) for rgb in output.rgb],
            "alpha": output.alpha,  # (V, H, W)
            "azimuths": [camera.azimuth for camera in self.cameras],
            "elevations": [camera.elevation for camera in self.cameras],
        }
        if self.depth:
            new["depth_scale"] = float(output.depth.max()) / DEPTH_STEPS
            steps = np.rint(output.depth / new["depth_scale"]).astype(np.uint16)  # (V, H, W)
            new["depths"] = [encode(Image.fromarray(of_view), format="PNG") for of_view in steps]
        return new


def encode(image: Image.Image, **options: Any) -> dict[str, Any]:
    """An image as the `Image` feature stores it."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return {"bytes": buffer.getvalue(), "path": None}
