"""Pictures of meshes: one interface, two engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .cameras import Camera
from .colors import encode_srgb, srgb_to_linear, to_uint8
from .light import outlined
from .mesh import Mesh
from .raster_mesh import RasterMesh

Engine = Literal["numba", "egl", "auto"]


@dataclass
class RenderOutput:
    """Views of one mesh.

    Attributes:
        rgb: (V, H, W, 3) uint8 sRGB over the background.
        alpha: (V, H, W) uint8 coverage and opacity.
        depth: (V, H, W) float32, distance along the camera's axis in the mesh's units, 0 where nothing is.
        cameras: with the distances that were used.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    cameras: list[Camera]


class Renderer:
    """Draws meshes in the light of `light.py`, anti-aliased by supersampling; all sums are taken in linear light.

    Args:
        engine: "numba", the rasterizer that needs no system package; "egl", OpenGL without a display (moderngl and
            a driver's EGL); "auto", EGL where it runs on a GPU and numba elsewhere.
        size: side of the square pictures, pixels.
        supersampling: samples along each side of a pixel.
        background: sRGB bytes; ULIP-2's released renders are black.
        device_index: which GPU EGL uses; None takes its first.
        cull_back_faces: hide the back faces of single-sided materials, as glTF wants. Off by default: seen from all
            sides, an object with an open back would vanish from some.

    An EGL renderer belongs to the thread that made it, and its process must not fork afterwards (use spawn).
    """

    def __init__(
        self,
        engine: Engine = "numba",
        size: int = 224,
        supersampling: int = 2,
        background: tuple[int, int, int] = (0, 0, 0),
        device_index: int | None = None,
        cull_back_faces: bool = False,
    ) -> None:
        if not 1 <= size * supersampling <= 8192 or supersampling < 1:
            raise ValueError(f"size {size} times supersampling {supersampling} must lie between 1 and 8192 samples")
        if len(background) != 3 or not all(0 <= value <= 255 for value in background):
            raise ValueError(f"background is {background}; three bytes are needed")
        self.size = size
        self.supersampling = supersampling
        self.cull_back_faces = cull_back_faces
        self.background = background
        self._asked_engine, self._device_index = engine, device_index
        self.engine, self._draw_view = _choose_engine(engine, size * supersampling, device_index)

    def __reduce__(self):
        """A copy in another process makes its own context."""
        settings = (self._asked_engine, self.size, self.supersampling, self.background)
        return Renderer, (*settings, self._device_index, self.cull_back_faces)

    def render(self, mesh: Mesh, cameras: Sequence[Camera]) -> RenderOutput:
        """Draw a mesh once for each camera; see `RenderOutput`."""
        raster_mesh = RasterMesh.of(mesh, self.cull_back_faces)
        cameras = [camera.fitted(raster_mesh.vertices) for camera in cameras]
        shape = (len(cameras), self.size, self.size)
        output = RenderOutput(
            np.empty((*shape, 3), dtype=np.uint8),
            np.empty(shape, dtype=np.uint8),
            np.empty(shape, np.float32),
            cameras,
        )
        background = srgb_to_linear(np.array(self.background) / 255.0)
        for view, (frame, depth) in enumerate(self._draw_view(raster_mesh, cameras)):
            pixels = _mean_of_samples(frame, self.supersampling)  # (H, W, 4)
            rgb = pixels[..., :3] + (1.0 - pixels[..., 3:]) * background
            outlined(rgb, pixels[..., 3], background)
            output.rgb[view] = encode_srgb(rgb)
            output.alpha[view] = to_uint8(pixels[..., 3])
            output.depth[view] = _nearest_of_samples(depth, self.supersampling)
        return output


def _mean_of_samples(frame: np.ndarray, factor: int) -> np.ndarray:
    """(H * factor, W * factor, C) -> (H, W, C)."""
    total = frame[::factor, ::factor].copy()
    for i in range(factor):
        for j in range(factor):
            if i or j:
                total += frame[i::factor, j::factor]
    return total / np.float32(factor * factor)


def _nearest_of_samples(depth: np.ndarray, factor: int) -> np.ndarray:
    """(H * factor, W * factor) -> (H, W): the smallest depth of a pixel's samples, 0 where all are empty."""
    nearest = np.full((depth.shape[0] // factor, depth.shape[1] // factor), np.inf, dtype=np.float32)
    for i in range(factor):
        for j in range(factor):
            samples = depth[i::factor, j::factor]
            np.minimum(nearest, samples, out=nearest, where=samples > 0)
    return np.where(np.isfinite(nearest), nearest, np.float32(0.0))


def _choose_engine(engine: Engine, side: int, device_index: int | None) -> tuple[str, Any]:
    """The engine's name, and a function (raster_mesh, cameras) that yields what `raster_numba.draw_view` gives."""
    if engine in ("egl", "auto"):
        from .raster_egl import EglRasterizer, EglUnavailableError

        try:
            rasterizer = EglRasterizer(side, device_index)
            if engine == "egl" or not rasterizer.is_software:
                return "egl", rasterizer.draw_views
            rasterizer.release()
        except EglUnavailableError:
            if engine == "egl":
                raise
        engine = "numba"
    if engine != "numba":
        raise ValueError(f"engine is {engine!r}; one of 'numba', 'egl', 'auto'")
    from .raster_numba import draw_view  # imports numba, which takes a second

    return "numba", lambda raster_mesh, cameras: (draw_view(raster_mesh, camera, side) for camera in cameras)
