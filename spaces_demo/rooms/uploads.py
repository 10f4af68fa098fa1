"""Files that strangers send: read within limits, and told in words without a path what is wrong with them.

Every file is read in a process of its own, which can neither outlive its time, nor take more memory, nor write or
delete a file, nor reach the network.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from modeling_ulip2.geometry import MESH_SUFFIXES, MeshError
from modeling_ulip2.geometry.axes import AUTO_AXIS
from modeling_ulip2.geometry.isolation import Isolation, LimitError
from modeling_ulip2.geometry.points import POINT_SUFFIXES
from modeling_ulip2.geometry.shapes import SHAPE_SUFFIXES, Shape, read_shape
from modeling_ulip2.geometry.textures import FORMATS
from modeling_ulip2.scenes.reading import read_scene
from modeling_ulip2.scenes.schema import Scene

MAX_MEGABYTES = 64
MAX_FACES = 500_000
MAX_POINTS = 1_000_000
MAX_PHOTO_PIXELS = 50_000_000
MAX_SECONDS = 30
MAX_MEMORY_MEGABYTES = 2048
# Towers read a few hundred pixels.
PHOTO_SIDE = 1024

FILE_TYPES = list(SHAPE_SUFFIXES)
_MESHES, _CLOUDS = (", ".join(suffix[1:].upper() for suffix in kind) for kind in (MESH_SUFFIXES, POINT_SUFFIXES))
LIMITS = (
    f"A mesh ({_MESHES}) of up to {MAX_FACES:,} triangles, or a cloud ({_CLOUDS}) of up to {MAX_POINTS:,} points; "
    f"{MAX_MEGABYTES} MB at most."
)

MAX_SCAN_POINTS = 2_000_000
SCAN_LIMITS = (
    f"Points ({_CLOUDS}) or a mesh ({_MESHES}) of one or more rooms: up to {MAX_SCAN_POINTS:,} points or triangles; "
    f"{MAX_MEGABYTES} MB at most. Units and the axis that points up are guessed where the file does not say them."
)

# Files read at once, so that a crowd slows people down and does not exhaust the machine.
MAX_READERS = 2
_READERS = threading.BoundedSemaphore(MAX_READERS)


class UploadError(ValueError):
    """A file that cannot be used; the message is for the person who sent it."""


def make_isolation(seconds: float = MAX_SECONDS, megabytes: int = MAX_MEMORY_MEGABYTES) -> Isolation:
    """Where uploads are read; `start` spares the first visitor the wait."""
    return Isolation(["rooms.uploads"], seconds, megabytes, kinds=[Shape, Scene], errors=[UploadError])


ISOLATION = make_isolation()  # one for the whole server


def read_upload(path: str | Path, num_points: int, up_axis: str = AUTO_AXIS) -> Shape:
    """A 3D file, of which `num_points` points are drawn if it is a mesh, and whose `up_axis` points up.

    Raises:
        UploadError: it cannot be read, or is larger than the limits.
    """
    return _read_3d(_read_cloud, Path(path), num_points, up_axis)


def read_scan(path: str | Path, up_axis: str = AUTO_AXIS) -> Scene:
    """A scan of rooms, turned y up and scaled to meters.

    Raises:
        UploadError: it cannot be read, or is larger than the limits.
    """
    return _read_3d(_read_scene, Path(path), up_axis)


def _read_3d(function: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    try:
        return _isolated(function, path, *arguments)
    except MeshError as error:
        reason = str(error.args[0]).replace(f"{path.parent}/", "")
        raise UploadError(f"{path.name} cannot be used: {reason}.") from None
    except LimitError as error:
        raise UploadError(f"{path.name} cannot be used: {error}.") from None


def read_photo(path: str | Path) -> Image.Image:
    """A picture, upright, as RGB with sides of at most `PHOTO_SIDE`.

    Raises:
        UploadError: it is no picture, or has too many pixels.
    """
    try:
        return _isolated(_read_photo, Path(path))
    except (LimitError, MeshError) as error:
        raise UploadError(f"The photo cannot be read: {error}.") from None


def _isolated(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with _READERS:
            return ISOLATION.call(function, *arguments)
    except MemoryError:
        raise LimitError("it does not fit into memory") from None


def _read_cloud(path: Path, num_points: int, up_axis: str = AUTO_AXIS) -> Shape:
    limits = {"max_bytes": MAX_MEGABYTES * 2**20, "max_faces": MAX_FACES, "max_points": MAX_POINTS}
    shape = read_shape(path, num_points, up_axis=up_axis, **limits)
    return replace(shape, mesh=None)  # the mesh stays behind


def _read_scene(path: Path, up_axis: str = AUTO_AXIS) -> Scene:
    return read_scene(path, up_axis, max_points=MAX_SCAN_POINTS, max_bytes=MAX_MEGABYTES * 2**20)


def _read_photo(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which the next check refuses
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PHOTO_PIXELS:
                    raise Image.DecompressionBombError
                image.draft("RGB", (PHOTO_SIDE, PHOTO_SIDE))
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except Image.DecompressionBombError:
        raise UploadError(
            f"The photo has too many pixels; at most {MAX_PHOTO_PIXELS // 10**6} million are read."
        ) from None
    except Exception:  # each of Pillow's decoders fails in its own way
        raise UploadError("The photo cannot be read; PNG, JPEG and WebP are.") from None
    upright.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return upright
