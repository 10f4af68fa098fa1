"""Point clouds as arrays -> `point_values` (B, N, C).

This is the only place that turns axes, resamples, normalizes, fills color and measures height.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .axes import AUTO_AXIS, check_up_axis, turn_to_y_up
from .model_card import ProcessorCardMixin
from .point_ops import FPSRule, farthest_point_sample

# A cloud without color is gray: what the published zero-shot protocol uses on ModelNet40.
FILL_COLOR = 0.4
# Coordinates of fewer steps than this across a cloud have lost its shape.
_FEWEST_STEPS = 1000


def unit_sphere(xyz: np.ndarray) -> np.ndarray:
    """Moves the centroid of a cloud (N, 3) to 0 and its farthest point to radius 1 (equal points all become 0)."""
    xyz = xyz - xyz.mean(axis=0)
    radius = np.sqrt((xyz**2).sum(axis=1).max())
    return xyz / radius if radius > 0 else xyz


def limits(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, n) -> (3,) float64 smallest and (3,) largest, not finite where a value is NaN or infinite."""
    return columns.min(axis=1).astype(np.float64), columns.max(axis=1).astype(np.float64)


def place(columns: np.ndarray, order: np.ndarray, signs: np.ndarray, normalize: bool, points: np.ndarray) -> None:
    """Writes coordinates (3, n) into the first columns of `points` (n, C), computed in float64.

    Args:
        columns: x, y and z of all points; they may be overwritten.
        order: (3,) which axis of `xyz` each coordinate is.
        signs: (3,) float64, 1 or -1: what it is multiplied by.
        normalize: centroid to 0, farthest point to radius 1.
    """
    xyz = np.ascontiguousarray(columns[order].T.astype(np.float64)) * signs
    points[:, :3] = unit_sphere(xyz) if normalize else xyz


def paint(rgb: np.ndarray, white: float, points: np.ndarray) -> None:
    """Writes colors (n, 3), of which `white` is the brightest, into columns 3 to 5 of `points` (n, C), in [0, 1]."""
    points[:, 3:6] = (rgb.astype(np.float64) / white).clip(0, 1)


def _loops() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`place` and `paint`, compiled where numba is installed."""
    from .compiled import HAS_NUMBA

    if not HAS_NUMBA:
        return place, paint
    from .feature_extraction_numba import paint as paint_numba
    from .feature_extraction_numba import place as place_numba

    return place_numba, paint_numba


@lru_cache
def _turn(up_axis: str, axes: str) -> tuple[np.ndarray, np.ndarray]:
    """Which coordinate of the input each one of the output is, (3,), and its sign (3,) float64; not to be changed."""
    turned = turn_to_y_up(np.arange(1, 4), up_axis)[["xyz".index(axis) for axis in axes]]
    return np.abs(turned) - 1, np.sign(turned).astype(np.float64)


def _tell_lost_digits(index: int, low: np.ndarray, high: np.ndarray) -> None:
    """Warns where a cloud with these limits (3,) lies so far from the origin that float32 loses its shape."""
    distance, extent = _largest(low, high), float((high - low).max())
    step = float(np.spacing(np.float32(distance)))
    if step * _FEWEST_STEPS > extent > 0:
        warnings.warn(
            f"Cloud {index} is {extent:g} wide and lies {distance:g} from the origin, where float32 has "
            f"steps of {step:g}: its shape is lost. Center it, or prepare it with normalize=True.",
            stacklevel=4,
        )


def _is_one_place(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether points with these limits (3,) are equal, or differ by the rounding of a number only."""
    return bool((high - low).max() <= 8 * np.finfo(np.float64).eps * _largest(low, high))


def _largest(low: np.ndarray, high: np.ndarray) -> float:
    return float(np.maximum(np.abs(low), np.abs(high)).max())


def append_height(points: np.ndarray) -> np.ndarray:
    """Appends the column y - min(y) (PointNeXt's fourth channel) to points (..., N, C), each cloud by itself."""
    y = points[..., 1:2]
    return np.concatenate([points, y - y.min(axis=-2, keepdims=True)], axis=-1)


class Ulip2FeatureExtractor(ProcessorCardMixin, FeatureExtractionMixin):
    """Makes `point_values` of colored or plain point clouds.

    In order: check, turn axes, resample to `num_points`, normalize, fill color, append height. Every cloud is handled
    by itself with the same seed, so that a batch gives what its clouds give one by one.

    Args:
        num_points: points per cloud after resampling.
        in_channels: 6 for xyz and rgb, 3 for xyz (color is then left out); 4 and 7 for these and the height above
            the lowest point (PointNeXt reads 4).
        normalize: centroid to 0 and farthest point to radius 1. False leaves coordinates as they are, with a warning
            where float32 cannot hold them.
        fill_color: gray in [0, 1] of clouds without color.
        sampling: how a cloud with another number of points gets `num_points`: "random" draws without repetition, "fps"
            takes farthest points, and both repeat random points of a cloud that has too few; "none" leaves clouds as
            they are (all clouds of a batch must then have the same size).
        up_axis: which axis of the input points up: "y" (as the models were trained), "z", "-z" or "x"; clouds are
            turned y up. A cloud that says what is up in it, or a call, goes before this setting.
        axes: order of the coordinates in `point_values`, after that turn: "xyz", or "xzy" for models that were trained
            with y and z exchanged (OpenShape's ViT-bigG-14 release).
        seed: of "random" sampling; None draws anew each time.
    """

    model_input_names = ["point_values"]

    def __init__(
        self,
        num_points: int = 10000,
        in_channels: int = 6,
        normalize: bool = True,
        fill_color: float = FILL_COLOR,
        sampling: str = "random",
        up_axis: str = "y",
        axes: str = "xyz",
        seed: int | None = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_points < 1:
            raise ValueError(f"num_points must be at least 1, got {num_points}.")
        if in_channels not in (3, 4, 6, 7):
            raise ValueError(
                f"in_channels must be 3 (xyz), 6 (xyz and rgb), or 4 or 7 (with height), got {in_channels}."
            )
        if sampling not in ("random", "fps", "none"):
            raise ValueError(f"sampling must be 'random', 'fps' or 'none', got {sampling!r}.")
        check_up_axis(up_axis)
        if axes not in ("xyz", "xzy"):
            raise ValueError(f"axes must be 'xyz' or 'xzy', got {axes!r}.")
        if axes != "xyz" and in_channels in (4, 7):
            raise ValueError(f"The height column (in_channels={in_channels}) is defined for axes='xyz' only.")
        if not 0 <= fill_color <= 1:
            raise ValueError(f"fill_color must lie in [0, 1], got {fill_color}.")
        self.num_points = num_points
        self.in_channels = in_channels
        self.normalize = normalize
        self.fill_color = fill_color
        self.sampling = sampling
        self.up_axis = up_axis
        self.axes = axes
        self.seed = seed

    @property
    def has_height(self) -> bool:
        """Whether the last column is the height above the lowest point."""
        return self.in_channels in (4, 7)

    def __call__(
        self, clouds: Any, colors: Any = None, return_tensors: str | None = "pt", up_axis: str | None = None
    ) -> BatchFeature:
        """Prepares one cloud or a batch.

        Args:
            clouds: array or tensor (N, 3) or (N, 6), (B, N, 3 or 6), a list of such clouds of any sizes, or a mapping
                with "xyz" and optionally "rgb" and "up_axis" (or a list of mappings). Coordinates in any unit.
            colors: rgb of `clouds`, (N, 3) or a list of them: uint8, or floats in [0, 1] (sRGB).
            return_tensors: "pt", "np" or None (a list of arrays).
            up_axis: which axis points up in clouds that do not say it themselves; None and "auto" leave it to the
                setting of the same name.

        Returns:
            BatchFeature with `point_values` (B, num_points, in_channels) float32.

        Raises:
            ValueError: wrong shape or dtype, no points, NaN or infinite values, points that are all in one place (with
                `normalize`), colors out of range, clouds of different sizes with `sampling="none"`. The message
                names the cloud.
        """
        up_axis = self._up_axis(up_axis, self.up_axis)
        split = _split_batch(clouds, colors)
        if return_tensors is not None and self.sampling != "none":
            # each is written where it stays
            stacked = np.empty((len(split), self.num_points, self.in_channels), dtype=np.float32)
            for index, (cloud, color, axis) in enumerate(split):
                own = stacked[index]
                prepared = self._prepare(index, cloud, color, self._up_axis(axis, up_axis), own)
                if prepared is not own:
                    own[:] = prepared
            return BatchFeature({"point_values": stacked}, return_tensors)
        batch = [
            self._prepare(index, cloud, color, self._up_axis(axis, up_axis))
            for index, (cloud, color, axis) in enumerate(split)
        ]
        sizes = {len(cloud) for cloud in batch}
        if return_tensors is not None and len(sizes) > 1:
            raise ValueError(
                f"Clouds of {min(sizes)} to {max(sizes)} points cannot be stacked: use sampling='random' or 'fps', or "
                "return_tensors=None."
            )
        return BatchFeature({"point_values": batch if return_tensors is None else np.stack(batch)}, return_tensors)

    @staticmethod
    def _up_axis(said: str | None, otherwise: str) -> str:
        return otherwise if said is None or check_up_axis(said, auto=True) == AUTO_AXIS else said

    def _prepare(self, index: int, cloud: Any, color: Any, up_axis: str, out: np.ndarray | None = None) -> np.ndarray:
        """One cloud (N, C), written into `out` where that has its shape before a height is appended."""
        place, paint = _loops()
        columns, rgb = _checked_cloud(index, cloud, color)
        low, high = limits(columns)
        if not all(map(math.isfinite, (*low.tolist(), *high.tolist()))):
            bad = int((~np.isfinite(columns)).any(axis=0).sum())
            raise ValueError(
                f"Cloud {index} has NaN or infinite coordinates in {bad} of its {columns.shape[1]} points. Leave "
                "these out: xyz[np.isfinite(xyz).all(axis=1)]."
            )
        white = 255.0 if rgb is not None and rgb.dtype == np.uint8 else 1.0
        if rgb is not None and white == 1:
            _check_colors(index, rgb, *limits(np.ascontiguousarray(rgb.T)))
        if self.normalize and _is_one_place(low, high):
            raise ValueError(
                f"Cloud {index} has {columns.shape[1]} points and all of them are in one place: it has no "
                "shape to normalize. Check the file, or leave the cloud out."
            )
        order, signs = _turn(up_axis, self.axes)
        keep = self._sample(columns, order, signs)
        if keep is not None:
            columns = columns.take(keep, axis=1)  # (3, num_points)
        if not self.normalize:
            _tell_lost_digits(index, *(limits(columns) if keep is not None else (low, high)))
        points = np.empty((columns.shape[1], 6 if self.in_channels >= 6 else 3), dtype=np.float32)
        if out is not None and out.shape == points.shape:
            points = out
        place(columns, order, signs, self.normalize, points)
        if self.in_channels >= 6 and rgb is not None:
            paint(rgb if keep is None else rgb.take(keep, axis=0), white, points)
        elif self.in_channels >= 6:
            points[:, 3:] = self.fill_color
        return append_height(points) if self.has_height else points

    def _sample(self, columns: np.ndarray, order: np.ndarray, signs: np.ndarray) -> np.ndarray | None:
        """Which points of a cloud (3, n) are kept, (num_points,); None: all, as they are."""
        size = columns.shape[1]
        if self.sampling == "none" or size == self.num_points:
            return None
        rng = np.random.default_rng(self.seed)
        if size < self.num_points:
            return np.concatenate([np.arange(size), rng.integers(size, size=self.num_points - size)])
        if self.sampling == "fps":
            # relative to the centroid: float32 would lose the shape of a cloud far from the origin
            centered = np.empty((size, 3), dtype=np.float32)
            place(columns.copy(), order, signs, True, centered)
            return farthest_point_sample(torch.from_numpy(centered)[None], self.num_points, FPSRule())[0].numpy()
        return rng.permutation(size)[: self.num_points]


def _split_batch(clouds: Any, colors: Any) -> list[tuple[Any, Any, str | None]]:
    """The clouds of a batch, each with its color or None and the axis that it says is up or None."""
    if isinstance(clouds, Mapping):
        split = _split_batch(clouds["xyz"], clouds.get("rgb") if colors is None else colors)
        return [(cloud, color, clouds.get("up_axis")) for cloud, color, _ in split]
    if hasattr(clouds, "ndim") and clouds.ndim == 2:
        clouds, colors = [clouds], None if colors is None else [colors]
    is_list = isinstance(clouds, Sequence) and not isinstance(clouds, str)
    if not is_list and not (hasattr(clouds, "ndim") and clouds.ndim == 3):
        shape = f" of shape {tuple(clouds.shape)}" if hasattr(clouds, "shape") else ""
        raise ValueError(
            f"clouds must be an array (N, 3) or (N, 6), a batch (B, N, 3 or 6) or a list of arrays, got "
            f"{type(clouds).__name__}{shape}."
        )
    if len(clouds) == 0:
        raise ValueError("clouds is empty: there is nothing to prepare.")
    if is_list and isinstance(clouds[0], Mapping):
        if colors is not None:
            raise ValueError("Give colors either inside the mappings as 'rgb' or as `colors`, not both.")
        return [(cloud["xyz"], cloud.get("rgb"), cloud.get("up_axis")) for cloud in clouds]
    if colors is not None and len(colors) != len(clouds):
        raise ValueError(f"There are {len(clouds)} clouds but {len(colors)} colors.")
    unknown = [None] * len(clouds)
    return list(zip(clouds, unknown if colors is None else colors, unknown, strict=True))


def _checked_cloud(index: int, cloud: Any, color: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """xyz (3, N) float32 or float64 and rgb (N, 3) uint8, float32 or float64, or None; copies of any values."""
    points = _array(index, "points", cloud)
    if points.ndim != 2 or points.shape[1] not in (3, 6):
        raise ValueError(f"Cloud {index} must have shape (points, 3) or (points, 6), got {points.shape}.")
    if len(points) == 0:
        raise ValueError(f"Cloud {index} has no points.")
    if points.shape[1] == 6:
        if color is not None:
            raise ValueError(f"Cloud {index} has color in its last three columns and in `colors`.")
        points, color = points[:, :3], points[:, 3:]
    xyz = _floats(points.T)  # (3, N), one coordinate of all points after the other
    if color is None:
        return xyz, None
    rgb = _array(index, "colors", color)
    if rgb.shape != points.shape:
        raise ValueError(f"Colors of cloud {index} must have shape {points.shape}, got {rgb.shape}.")
    return xyz, np.array(rgb, order="C") if rgb.dtype == np.uint8 else _floats(rgb)


def _floats(array: np.ndarray) -> np.ndarray:
    """A copy in float32, where no digit is lost, or in float64."""
    if array.dtype == np.float16:  # torch converts it eight times faster
        return torch.from_numpy(np.array(array, order="C")).float().numpy()
    return np.array(array, dtype=np.float32 if array.dtype == np.float32 else np.float64, order="C")


def _check_colors(index: int, rgb: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Raises ValueError for colors (n, 3) whose limits (3,) do not lie in [0, 1], but for rounding."""
    if not ((low >= -1e-3).all() and (high <= 1 + 1e-3).all()):  # also false for NaN
        raise ValueError(
            f"Colors of cloud {index} must be uint8 or lie in [0, 1], got values from {rgb.min():g} to "
            f"{rgb.max():g}. Divide colors of 0 to 255 by 255."
        )


def _array(index: int, what: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.is_floating_point() and value.dtype not in (torch.float16, torch.float32, torch.float64):
            value = value.float()  # bfloat16 and smaller: NumPy has no such types
        array = value.numpy()
    else:
        array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"The {what} of cloud {index} must be numbers, got an array of {array.dtype}.")
    return array


Ulip2FeatureExtractor.register_for_auto_class()

__all__ = ["Ulip2FeatureExtractor"]
