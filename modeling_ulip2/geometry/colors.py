"""sRGB and linear light (IEC 61966-2-1).

Images, OBJ and PLY store sRGB; glTF factors and vertex colours are linear. Inside a `Mesh` every factor and vertex
colour is linear and every texture is sRGB, so that their product, as glTF defines it, is taken in linear light.
"""

from __future__ import annotations

import numpy as np


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Decode sRGB in [0, 1] to linear light in [0, 1], element by element, float32."""
    values = np.asarray(values, dtype=np.float32)
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Encode linear light to sRGB in [0, 1], element by element, float32; out-of-range input is clipped."""
    values = np.clip(np.asarray(values, dtype=np.float32), 0.0, 1.0)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055).astype(np.float32)


SRGB_TO_LINEAR = srgb_to_linear(np.arange(256) / 255.0)  # (256,): a byte's linear light


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round values in [0, 1] to bytes; out-of-range input is clipped."""
    return np.floor(np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def to_unit(values: np.ndarray) -> np.ndarray:
    """Colours as stored in a file to float32 in [0, 1]: unsigned integers by their range, floats as they are."""
    values = np.asarray(values)
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if values.dtype.kind == "i":  # signed bytes or ints that hold 0..255
        return values.astype(np.float32) / np.float32(255.0)
    return values.astype(np.float32)


_ENCODED = to_uint8(linear_to_srgb(np.arange(2**14) / (2**14 - 1)))  # finer than any step of 8-bit sRGB


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB bytes by table, for whole pictures; out-of-range input is clipped."""
    index = np.clip(values, 0.0, 1.0) * np.float32(len(_ENCODED) - 1) + np.float32(0.5)
    return _ENCODED[index.astype(np.int32)]
