"""Meshes to views: images from cameras around the object."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from modeling_ulip2.data.schema import Packing, Row
from modeling_ulip2.geometry import Camera, Renderer
from modeling_ulip2.geometry.rendering import Engine

from .base import ObjectError, RowStage

# The same twelve views of a piece of furniture at 224 px take 203 KiB as PNG, 83 as JPEG and 53 as WebP.
IMAGE_FORMATS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "method": 2},
    "jpeg": {"format": "JPEG"},
    "png": {"format": "PNG", "compress_level": 3},
}
DEPTH_STEPS = 65535  # of a 16-bit PNG


class RenderViews(RowStage):
    """`mesh` -> `views` (encoded images), their cameras, `alpha` (V, H, W) uint8; frees `mesh` and `packing`.

    With `depth`, also `depths`, 16-bit PNGs whose pixels times `depth_scale` are distances from the camera plane, 0
    where there is no surface. Cameras and depth are in the frame and unit of the points: `packing` of the row.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        size: int,
        image_format: str = "webp",
        quality: int = 90,
        background: tuple[int, int, int] = (0, 0, 0),
        renderer: Engine = "auto",
        depth: bool = False,
    ) -> None:
        self.cameras = list(cameras)
        self.options = IMAGE_FORMATS[image_format] | ({} if image_format == "png" else {"quality": quality})
        self.renderer = Renderer(engine=renderer, size=size, background=background)
        self.depth = depth

    def process(self, row: Row) -> Row:
        packing: Packing = row.get("packing") or Packing()
        middle = row["mesh"].bounds.mean(axis=0)
        output = self.renderer.render(row["mesh"], self.cameras)
        if not output.alpha.any():
            raise ObjectError("blank_views", "nothing of it shows in any view")
        # the cameras of an output are fitted, so each has its distance
        distances = [camera.distance for camera in output.cameras if camera.distance is not None]
        new: Row = {
            "mesh": None,
            "packing": None,
            "views": [encode(Image.fromarray(rgb), **self.options) for rgb in output.rgb],
            "alpha": output.alpha,  # (V, H, W)
            "azimuths": [camera.azimuth for camera in output.cameras],
            "elevations": [camera.elevation for camera in output.cameras],
            "distances": [distance * packing.scale for distance in distances],
            "shifts": [[part * packing.scale for part in camera.shift] for camera in output.cameras],
            "fov": output.cameras[0].fov,
            "size": self.renderer.size,
            "target": packing(middle[None])[0].tolist(),
        }
        if self.depth:
            step = float(output.depth.max()) / DEPTH_STEPS
            steps = np.rint(output.depth / step).astype(np.uint16)  # (V, H, W)
            new["depth_scale"] = step * packing.scale
            new["depths"] = [encode(Image.fromarray(of_view), format="PNG") for of_view in steps]
        return new


def encode(image: Image.Image, **options: Any) -> dict[str, Any]:
    """An image as the `Image` feature stores it."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return {"bytes": buffer.getvalue(), "path": None}
