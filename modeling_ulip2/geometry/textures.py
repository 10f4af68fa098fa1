"""Images of a mesh, decoded within bounds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from modeling_ulip2.utils.packages import require_package

from .colors import SRGB_TO_LINEAR, linear_to_srgb, to_uint8
from .errors import MeshError

if TYPE_CHECKING:  # for shapes with pictures on them only
    from PIL import Image

# 8192 x 8192, the largest texture in common use. Declared sizes are checked before any pixel is decoded.
MAX_TEXTURE_PIXELS = 2**26
# Larger images are halved until they fit: pictures of a few hundred pixels cannot show more.
MAX_TEXTURE_SIDE = 2048
# All textures of one mesh together (256 MiB); with more than sixteen images, each may have fewer.
MAX_MESH_PIXELS = 2**26
# Plain raster decoders only: no EPS (runs a program), no PSD, no video.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TGA", "GIF", "TIFF", "PPM", "DDS")
_KTX = (b"\xabKTX 20\xbb", b"\xabKTX 11\xbb")


def decode_texture(data: bytes, name: str = "texture", max_side: int = MAX_TEXTURE_SIDE) -> np.ndarray:
    """Decode an image file.

    Args:
        data: content of the file.
        name: for error messages.
        max_side: the image is halved until neither side is longer.

    Returns:
        (H, W, 4) uint8, sRGB with straight alpha.

    Raises:
        MeshError: "texture_too_large" by the declared size, "texture_corrupt" if it cannot be decoded.
    """
    pillow, fails = require_package("PIL.Image"), require_package("PIL").UnidentifiedImageError
    if data.startswith(_KTX):
        raise MeshError(
            "texture_corrupt", f"the image {name!r} is KTX2 (Basis), which is not read; store textures as PNG or JPEG"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the check below decides
            with pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_TEXTURE_PIXELS:
                    raise _too_large(name, f"{width} x {height}")
                factor = 1
                while max(width, height) > max_side * factor:
                    factor *= 2
                if factor > 1 and image.format == "JPEG":
                    image.draft("RGB", (max(1, width // factor), max(1, height // factor)))
                return _to_rgba(image, max_side)
    except MeshError:
        raise
    except pillow.DecompressionBombError as error:
        raise _too_large(name, str(error)) from None
    except fails:
        raise MeshError("texture_corrupt", f"the image {name!r} is in no format that is read") from None
    except Exception as error:  # each of Pillow's decoders fails in its own way
        raise MeshError("texture_corrupt", f"the image {name!r} cannot be decoded ({error})") from None


class TextureLoader:
    """Decodes each image of a mesh once, within `MAX_MESH_PIXELS` for all of them.

    Args:
        read: gives the content of the file that a key names.
    """

    def __init__(self, read: Callable[[Any], bytes]) -> None:
        self._read = read
        self._images: dict[Any, np.ndarray] = {}

    def load(self, key: Any, expected: int) -> np.ndarray:
        """The image called `key`, (H, W, 4) uint8.

        Args:
            expected: how many images the mesh has, which bounds the size of each.

        Raises:
            MeshError: "texture_missing", "texture_corrupt", "texture_too_large", "external_uri" or "too_large".
        """
        if key not in self._images:
            max_side = MAX_TEXTURE_SIDE
            while expected * max_side**2 > MAX_MESH_PIXELS and max_side > 1:
                max_side //= 2
            try:
                data = self._read(key)
            except MeshError as error:
                if error.reason == "missing":
                    raise MeshError("texture_missing", error.args[0]) from None
                raise
            self._images[key] = decode_texture(data, str(key), max_side)
        return self._images[key]


def _too_large(name: str, size: str) -> MeshError:
    return MeshError(
        "texture_too_large", f"the image {name!r} declares {size} pixels; at most {MAX_TEXTURE_PIXELS} are decoded"
    )


def _to_rgba(image: Image.Image, max_side: int) -> np.ndarray:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):  # 16-bit gray: Pillow would clip, not scale
        gray = np.asarray(image, dtype=np.float32)
        top = 65535.0 if image.mode != "F" else max(1.0, float(gray.max()))
        image = require_package("PIL.Image").fromarray((gray * (255.0 / top)).clip(0, 255).astype(np.uint8))
    rgba = np.array(image.convert("RGBA"))
    while max(rgba.shape[:2]) > max_side:
        rgba = halve(rgba)
    return rgba


# Linear light in 12 bits is finer than any step of 8-bit sRGB but the darkest, and its sums fit into 32 bits.
_TO_LINEAR = np.round(SRGB_TO_LINEAR * 4095).astype(np.uint32)
_TO_SRGB = to_uint8(linear_to_srgb(np.arange(4096) / 4095))


def halve(texture: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2 texels in linear light, each weighted by its opacity.

    Args:
        texture: (H, W, 4) uint8, sRGB with straight alpha.

    Returns:
        (max(1, H // 2), max(1, W // 2), 4) uint8; an odd last row or column is left out, as OpenGL's mip levels do.
    """
    rows = [texture[0:1]] * 2 if len(texture) == 1 else [texture[i : len(texture) // 2 * 2 : 2] for i in range(2)]
    width = texture.shape[1]
    blocks = [
        block
        for row in rows
        for block in ([row] * 2 if width == 1 else [row[:, i : width // 2 * 2 : 2] for i in range(2)])
    ]
    alpha = np.sum([block[..., 3] for block in blocks], axis=0, dtype=np.uint32)  # (H / 2, W / 2), 0 .. 1020
    result = np.empty((*alpha.shape, 4), dtype=np.uint8)
    result[..., 3] = (alpha + 2) // 4
    solid = bool((alpha == 1020).all())
    for channel in range(3):
        if solid:
            mean = (np.sum([_TO_LINEAR[block[..., channel]] for block in blocks], axis=0) + 2) // 4
        else:
            light = np.sum([_TO_LINEAR[block[..., channel]] * block[..., 3] for block in blocks], axis=0)
            plain = np.sum([_TO_LINEAR[block[..., channel]] for block in blocks], axis=0) // 4
            mean = np.where(alpha > 0, light // np.maximum(alpha, 1), plain)
        result[..., channel] = _TO_SRGB[mean]
    return result


def bleed(texture: np.ndarray, invisible: float) -> np.ndarray:
    """Give the texels that are not seen the color of those beside them, so that no edge takes a color of theirs.

    Programs leave black, white or paper around a leaf. Between the last texel of the leaf and the first beside it a
    look-up mixes the two colors while the sample still counts as leaf.

    Args:
        texture: (H, W, 4) uint8, sRGB with straight alpha.
        invisible: opacity below which a texel is not seen.

    Returns:
        (H, W, 4) uint8; alpha and the texels that are seen stay.
    """
    seen = texture[..., 3] >= 255 * invisible
    if seen.all() or not seen.any():
        return texture
    level = np.dstack([texture[..., :3], np.where(seen, 255, 0).astype(np.uint8)])
    levels = [level]
    while not level[..., 3].all():
        level = halve(level)
        level[..., 3] = np.where(level[..., 3] > 0, 255, 0)
        if not level[..., 3].any():  # what is seen lay in odd last rows or columns
            break
        levels.append(level)
    last = levels[-1]
    last[last[..., 3] == 0, :3] = texture[seen, :3].mean(axis=0)
    for finer, coarser in zip(levels[-2::-1], levels[:0:-1], strict=True):
        rows, columns = np.nonzero(finer[..., 3] == 0)
        height, width = coarser.shape[:2]
        finer[rows, columns, :3] = coarser[np.minimum(rows // 2, height - 1), np.minimum(columns // 2, width - 1), :3]
    return np.dstack([levels[0][..., :3], texture[..., 3]])
