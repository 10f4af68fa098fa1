"""Point clouds as arrays -> `point_values` (B, N, C).

This is the only place that turns axes, resamples, normalizes, fills color and measures height.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
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


def _is_one_place(xyz: np.ndarray) -> bool:
    """Whether the points of a cloud (N, 3) float64 are equal, or differ by the rounding of a number only."""
    extent = (xyz.max(axis=0) - xyz.min(axis=0)).max()
    return bool(extent <= 8 * np.finfo(np.float64).eps * np.abs(xyz).max())


def _tell_lost_digits(index: int, xyz: np.ndarray) -> None:
    """Warns where a cloud (N, 3) float64 lies so far from the origin that float32 loses its shape."""
    step, extent = float(np.spacing(np.float32(np.abs(xyz).max()))), float(np.ptp(xyz, axis=0).max())
    if step * _FEWEST_STEPS > extent > 0:
        warnings.warn(
            f"Cloud {index} is {extent:g} wide and lies {np.abs(xyz).max():g} from the origin, where float32 has "
            f"steps of {step:g}: its shape is lost. Center it, or prepare it with normalize=True.",
            stacklevel=4,
        )


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
        batch = [
            self._prepare(index, cloud, color, self._up_axis(axis, up_axis))
            for index, (cloud, color, axis) in enumerate(_split_batch(clouds, colors))
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

    def _prepare(self, index: int, cloud: Any, color: Any, up_axis: str) -> np.ndarray:
        xyz, rgb = _checked_cloud(index, cloud, color)
        xyz = turn_to_y_up(xyz, up_axis)[:, ["xyz".index(axis) for axis in self.axes]]  # (N, 3)
        if self.normalize and _is_one_place(xyz):
            raise ValueError(
                f"Cloud {index} has {len(xyz)} points and all of them are in one place: it has no shape to normalize. "
                "Check the file, or leave the cloud out."
            )
        keep = self._sample(xyz)  # (num_points,)
        xyz = xyz[keep]
        if self.normalize:
            xyz = unit_sphere(xyz)
        else:
            _tell_lost_digits(index, xyz)
        points = xyz.astype(np.float32)  # (num_points, 3)
        if self.in_channels >= 6:
            colors = np.full_like(xyz, self.fill_color) if rgb is None else rgb[keep]
            points = np.concatenate([points, colors.astype(np.float32)], axis=1)  # (num_points, 6)
        return append_height(points) if self.has_height else points

    def _sample(self, xyz: np.ndarray) -> np.ndarray:
        size = len(xyz)
        if self.sampling == "none" or size == self.num_points:
            return np.arange(size)
        rng = np.random.default_rng(self.seed)
        if size < self.num_points:
            return np.concatenate([np.arange(size), rng.integers(size, size=self.num_points - size)])
        if self.sampling == "fps":
            # relative to the centroid: float32 would lose the shape of a cloud far from the origin
            points = torch.from_numpy(unit_sphere(xyz).astype(np.float32))
            return farthest_point_sample(points[None], self.num_points, FPSRule())[0].numpy()
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
    """xyz (N, 3) float64 and rgb (N, 3) in [0, 1] or None."""
    points = _array(index, "points", cloud)
    if points.ndim != 2 or points.shape[1] not in (3, 6):
        raise ValueError(f"Cloud {index} must have shape (points, 3) or (points, 6), got {points.shape}.")
    if len(points) == 0:
        raise ValueError(f"Cloud {index} has no points.")
    if points.shape[1] == 6:
        if color is not None:
            raise ValueError(f"Cloud {index} has color in its last three columns and in `colors`.")
        points, color = points[:, :3], points[:, 3:]
    xyz = points.astype(np.float64)
    if not np.isfinite(xyz).all():
        bad = int((~np.isfinite(xyz)).any(axis=1).sum())
        raise ValueError(
            f"Cloud {index} has NaN or infinite coordinates in {bad} of its {len(xyz)} points. Leave these out: "
            "xyz[np.isfinite(xyz).all(axis=1)]."
        )
    if color is None:
        return xyz, None
    rgb = _array(index, "colors", color)
    if rgb.shape != xyz.shape:
        raise ValueError(f"Colors of cloud {index} must have shape {xyz.shape}, got {rgb.shape}.")
    rgb = rgb.astype(np.float64) / (255 if rgb.dtype == np.uint8 else 1)
    if not ((rgb >= -1e-3) & (rgb <= 1 + 1e-3)).all():  # also false for NaN
        raise ValueError(
            f"Colors of cloud {index} must be uint8 or lie in [0, 1], got values from {rgb.min():g} to "
            f"{rgb.max():g}. Divide colors of 0 to 255 by 255."
        )
    return xyz, rgb.clip(0, 1)


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
