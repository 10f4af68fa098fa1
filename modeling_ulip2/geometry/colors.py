"""sRGB and linear light (IEC 61966-2-1).

Images, OBJ and PLY store sRGB; glTF factors and vertex colors are linear. Inside a `Mesh` every factor and vertex
color is linear and every texture is sRGB, so that their product, as glTF defines it, is taken in linear light.
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


# What rounding may leave beyond a color's range.
_ROUNDING = 1e-3


def unit_colors(stored: np.ndarray, warnings: list[str], what: str = "its colors") -> np.ndarray | None:
    """Colors as any file stores them, to float64 in [0, 1]; None, with a warning, if their values are no colors.

    The one rule for all formats. Fractions go from 0 to 1; whole numbers count to 255 or, where one is above, to
    65,535, whatever type they are declared as. Nothing is clipped into a color silently.

    Args:
        stored: (N, C) numbers.
        warnings: gets a sentence about each guess and omission.
        what: the subject of a warning, in the plural.
    """
    stored = np.asarray(stored)
    values = stored.astype(np.float64)
    if stored.dtype == np.uint8 or len(stored) == 0:
        return values / 255.0
    broken = int((~np.isfinite(values)).any(axis=1).sum())
    if broken:
        warnings.append(f"{what} are NaN or infinite in {broken} of {len(values)} places and were left out")
        return None
    low, high = float(values.min()), float(values.max())
    whole = stored.dtype.kind in "iu" or bool((values == np.round(values)).all())
    if low >= -_ROUNDING and stored.dtype.kind == "f" and high <= 1 + _ROUNDING:
        return values.clip(0.0, 1.0)
    if low >= -_ROUNDING and not whole and high <= 2:
        warnings.append(f"{what} go up to {high:g}; what is above 1 was cut")
        return values.clip(0.0, 1.0)
    if low >= -_ROUNDING and high < 255.5:
        if stored.dtype.kind == "u" and stored.dtype.itemsize > 1:
            warnings.append(f"{what}, of {8 * stored.dtype.itemsize} bits, end at {high:g}: they count to 255")
        return (values / 255.0).clip(0.0, 1.0)
    if low >= 0 and whole and high <= 65535:
        if stored.dtype.kind != "u":
            warnings.append(f"{what} go up to {high:g}: they count to 65535")
        return values / 65535.0
    warnings.append(f"{what} were left out: they go from {low:g} to {high:g}, and colors go from 0 to 1, 255 or 65535")
    return None


def unit_alpha(stored: np.ndarray) -> np.ndarray:
    """Opacities as files store them beside colors, (N,) float64 in [0, 1]: fractions, or whole numbers to 255 or more;
    what is no number is opaque."""
    values = np.nan_to_num(np.asarray(stored, dtype=np.float64), nan=1.0)
    high = float(values.max(initial=0.0))
    most = 255.0 if np.asarray(stored).dtype == np.uint8 or 1.0 < high <= 255.0 else 65535.0 if high > 1.0 else 1.0
    return (values / most).clip(0.0, 1.0)


_ENCODED = to_uint8(linear_to_srgb(np.arange(2**14) / (2**14 - 1)))  # finer than any step of 8-bit sRGB


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB bytes by table, for whole pictures; out-of-range input is clipped."""
    index = np.clip(values, 0.0, 1.0) * np.float32(len(_ENCODED) - 1) + np.float32(0.5)
    return _ENCODED[index.astype(np.int32)]
