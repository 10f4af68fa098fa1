"""Corruptions of point clouds, for robustness curves.

No published protocol of ULIP-2 or its neighbors has such curves: kinds and levels are ours. Every corruption takes a
cloud whose farthest point from the centroid is at radius 1 and returns one that the feature extractor normalizes
again, as it would a cloud that came so. What is drawn for a shape depends on the seed, the corruption and the shape's
id alone, so that all models and all runs see the same clouds; where a curve rises from level to level, the draws stay
(the same direction, other angle), so that it is smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR, unit_sphere


class Cloud(NamedTuple):
    """xyz (N, 3) float64 and rgb (N, 3), or None where there is no color."""

    xyz: np.ndarray
    rgb: np.ndarray | None

    def keep(self, rows: np.ndarray) -> Cloud:
        return Cloud(self.xyz[rows], None if self.rgb is None else self.rgb[rows])


def fewer_points(cloud: Cloud, num_points: int, rng: np.random.Generator) -> Cloud:
    """`num_points` of the points, without repetition.

    Raises:
        ValueError: there are fewer.
    """
    if num_points > len(cloud.xyz):
        raise ValueError(f"cannot draw {num_points} different points from {len(cloud.xyz)}")
    return cloud.keep(rng.permutation(len(cloud.xyz))[:num_points])


def gaussian_noise(cloud: Cloud, sigma: float, rng: np.random.Generator) -> Cloud:
    """Adds independent normal noise to every coordinate; `sigma` is in radii of the shape."""
    return Cloud(cloud.xyz + sigma * rng.standard_normal(cloud.xyz.shape), cloud.rgb)


def half_space_occlusion(cloud: Cloud, share: float, rng: np.random.Generator) -> Cloud:
    """Cuts off the share of the points that lies farthest in a random direction: what is left is behind a plane."""
    return cloud.keep(_without_largest(cloud.xyz @ _direction(rng), share))


def ball_occlusion(cloud: Cloud, share: float, rng: np.random.Generator) -> Cloud:
    """Removes the share of the points that is nearest to one of them: a ball on the surface is missing."""
    center = cloud.xyz[rng.integers(len(cloud.xyz))]
    return cloud.keep(_without_largest(-np.linalg.norm(cloud.xyz - center, axis=1), share))


def rotation_about_y(cloud: Cloud, degrees: float, rng: np.random.Generator) -> Cloud:
    """Turns the cloud about the vertical by an angle U(-degrees, degrees)."""
    angle = np.radians(degrees) * rng.uniform(-1, 1)
    return Cloud(cloud.xyz @ _rotation(np.array([0.0, 1.0, 0.0]), angle).T, cloud.rgb)


def rotation(cloud: Cloud, degrees: float, rng: np.random.Generator) -> Cloud:
    """Turns the cloud by a rotation drawn uniformly from those of at most `degrees`; 180: from all of SO(3)."""
    axis = _direction(rng)
    # the angles of uniform rotations have density 1 - cos
    angles = np.linspace(0, np.radians(degrees), 4097)
    angle = np.interp(rng.random() * (angles[-1] - np.sin(angles[-1])), angles - np.sin(angles), angles)
    return Cloud(cloud.xyz @ _rotation(axis, angle).T, cloud.rgb)


def missing_color(cloud: Cloud, share: float, rng: np.random.Generator) -> Cloud:
    """Grays a random share of the points as the feature extractor grays clouds that have no color.

    Raises:
        ValueError: the cloud has no color to lose.
    """
    if cloud.rgb is None:
        raise ValueError("missing color is measured on colored clouds, and this one has no rgb")
    rgb = cloud.rgb / 255 if cloud.rgb.dtype == np.uint8 else cloud.rgb.astype(np.float64)
    lost = rng.random(len(rgb)) < share  # (N,)
    return Cloud(cloud.xyz, np.where(lost[:, None], FILL_COLOR, rgb))


@dataclass(frozen=True)
class Corruption:
    """One curve.

    Attributes:
        title, axis: of its plot; the axis says what a level is.
        levels: from harmless to harsh.
        apply: (cloud, level, rng) -> cloud.
        percent: levels are shares.
    """

    title: str
    axis: str
    levels: tuple[float, ...]
    apply: Callable[[Cloud, Any, np.random.Generator], Cloud]
    percent: bool = False


SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)
ANGLES = (0.0, 15.0, 30.0, 60.0, 90.0, 180.0)
# All but the partial views, which need meshes (see `robustness.PARTIAL_VIEWS`).
CORRUPTIONS: dict[str, Corruption] = {
    "points": Corruption(
        "More and fewer points", "points", (10000, 4096, 2048, 1024, 512, 256, 128, 64), fewer_points
    ),
    "noise": Corruption(
        "Gaussian noise", "standard deviation, radii", (0.0, 0.01, 0.02, 0.03, 0.05, 0.1), gaussian_noise
    ),
    "half_space": Corruption("Cut off by a plane", "points removed", SHARES, half_space_occlusion, percent=True),
    "ball": Corruption("A ball missing", "points removed", SHARES, ball_occlusion, percent=True),
    "rotation_y": Corruption("Turned about y", "largest angle, degrees", ANGLES, rotation_about_y),
    "rotation": Corruption("Turned in SO(3)", "largest angle, degrees", ANGLES, rotation),
    "color": Corruption(
        "Color missing", "points without color", (0.0, 0.25, 0.5, 0.75, 0.9, 1.0), missing_color, percent=True
    ),
}


def shape_rng(seed: int, corruption: str, name: str) -> np.random.Generator:
    """The generator of one shape under one corruption."""
    digest = blake2b(f"{corruption}\0{name}".encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


class CorruptedClouds(Sequence):
    """Clouds under one corruption at one level, made as they are read.

    Args:
        clouds: rows with `id`, `xyz` (N, 3) and perhaps `rgb` (N, 3).
        name: key of `CORRUPTIONS`.
        level: how harsh.
        seed: of all draws.
    """

    def __init__(self, clouds: Sequence[Mapping[str, Any]], name: str, level: float, seed: int = 0):
        self.clouds, self.name, self.level, self.seed = clouds, name, level, seed

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, index: Any) -> Any:
        row = self.clouds[index]
        rgb = row.get("rgb")
        cloud = Cloud(unit_sphere(np.asarray(row["xyz"], np.float64)), None if rgb is None else np.asarray(rgb))
        rng = shape_rng(self.seed, self.name, str(row["id"]))
        cloud = CORRUPTIONS[self.name].apply(cloud, self.level, rng)
        return {"id": row["id"], **cloud._asdict()}


def _without_largest(values: np.ndarray, share: float) -> np.ndarray:
    """Rows, in their order, without the share whose values are largest; one row at least remains."""
    if not 0 <= share < 1:
        raise ValueError(f"a share to remove lies in [0, 1), not {share}")
    kept = max(1, len(values) - round(share * len(values)))
    return np.sort(np.argsort(values, kind="stable")[:kept])


def _direction(rng: np.random.Generator) -> np.ndarray:
    """A unit vector (3,), uniform on the sphere."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula: right-handed rotation (3, 3) about a unit axis, for column vectors."""
    cross = np.cross(np.eye(3), axis)  # (3, 3): cross @ v = axis x v
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
