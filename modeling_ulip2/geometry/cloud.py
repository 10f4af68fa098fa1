"""What a point cloud is: plain arrays, and the checks that every reader's result passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from .errors import MeshError
from .mesh import LARGEST_COORDINATE

_LEAVE_OUT = ContextVar("leave out points that are no points", default=False)
# Coordinates of fewer steps than this across the cloud have lost its shape.
_FEWEST_STEPS = 1000


@dataclass
class PointCloud:
    """The points of a file, in its frame and scale.

    Args:
        xyz: (N, 3) of any numbers, kept as float64: coordinates far from the origin keep their digits.
        rgb: (N, 3) uint8 sRGB, or None for a cloud without color.
        warnings: what had to be left out or guessed, one sentence each.

    Raises:
        MeshError: no points, or coordinates that are NaN, infinite or beyond all measure; see `leaving_out_invalid`.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.xyz) == 0:
            raise MeshError("empty", "it holds no point")
        stored = self.xyz.dtype
        self.xyz = np.ascontiguousarray(self.xyz, dtype=np.float64)
        sound = (np.abs(self.xyz) < LARGEST_COORDINATE).all(axis=1)  # False for NaN, too
        if not sound.all() and _LEAVE_OUT.get():
            self.xyz, self.rgb = self.xyz[sound], None if self.rgb is None else self.rgb[sound]
            self.warnings.append(f"{_unsound(sound)}; they were left out")
            if len(self.xyz) == 0:
                raise MeshError("empty", _unsound(sound))
        elif not sound.all():
            raise MeshError(
                "non_finite",
                f"{_unsound(sound)}; leave them out of the file (the first is point {int(np.argmin(sound)) + 1})",
            )
        self.warnings += _lost_digits(self.xyz, stored)


def _unsound(sound: np.ndarray) -> str:
    return f"{int((~sound).sum())} of its {len(sound)} points are NaN, infinite or beyond {LARGEST_COORDINATE:g}"


@contextmanager
def leaving_out_invalid(leave_out: bool = True) -> Iterator[None]:
    """Lets every `PointCloud` made in the block leave out points that are none, with a warning, instead of raising."""
    token = _LEAVE_OUT.set(leave_out)
    try:
        yield
    finally:
        _LEAVE_OUT.reset(token)


def valid_rows(xyz: Sequence[np.ndarray], warnings: list[str]) -> np.ndarray:
    """(N,) bool: which points have no NaN in x, y or z (N,), by which depth cameras mark pixels without a measurement.

    Raises:
        MeshError: "empty" if none has.
    """
    valid = ~np.isnan(np.stack(xyz)).any(axis=0)  # (N,)
    if not valid.any():
        raise MeshError("empty", f"all of its {len(valid)} points are marked as invalid (NaN)")
    if not valid.all():
        invalid = int((~valid).sum())
        warnings.append(f"{invalid} of its {len(valid)} points are marked as invalid (NaN) and were left out")
    return valid


def check_count(count: int, max_points: int) -> None:
    """Refuses a number of points, announced or found, before memory is taken for them."""
    if count > max_points:
        raise MeshError("too_many_points", f"it holds {count} points; at most {max_points}")


def near_origin(xyz: np.ndarray) -> np.ndarray:
    """Points (N, 3) for a place that keeps float32: as float64, centered on their box where float32 would lose their
    shape, and elsewhere as they are."""
    xyz = np.asarray(xyz, dtype=np.float64)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    return xyz - (low + high) / 2 if _coarse_step(xyz, np.dtype(np.float32)) else xyz


def _coarse_step(xyz: np.ndarray, dtype: np.dtype) -> float:
    """How far apart a type's numbers lie at these points (N, 3), or 0 where that is fine enough for their shape."""
    step = float(np.spacing(dtype.type(np.abs(xyz).max())))
    return step if step * _FEWEST_STEPS > np.ptp(xyz, axis=0).max() > 0 else 0.0


def _lost_digits(xyz: np.ndarray, stored: np.dtype) -> list[str]:
    """Whether the type in which the file stores coordinates was too coarse for the place where they lie."""
    if stored.kind != "f" or stored.itemsize >= 8 or not (step := _coarse_step(xyz, stored)):
        return []
    return [
        f"its coordinates go up to {np.abs(xyz).max():g} in {stored.name}, in steps of {step:g}, where the cloud is "
        f"{np.ptp(xyz, axis=0).max():g} wide: store them as float64, or centered"
    ]
