"""Random changes of one training cloud: those of ULIP's data pipeline, in its order, and changes of shape and color.

Every function takes points (N, C) whose first three columns are xyz (y up) and whose other columns (color) ride
along, and a numpy random state, and returns a new array of the same dtype; the input is left alone. Both of numpy's
generators serve: a `Generator` seeded per sample makes training reproducible whatever the number of workers, and a
legacy `RandomState` draws, in the same order, exactly what the published code drew. What a scan does to an object is
in `scan_changes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from modeling_ulip2.data.scan_changes import (
    Rng,
    fill_color,
    has_colors,
    occlude,
    on_unit_sphere,
    one_side,
    stand_in_room,
    unit,
    with_xyz,
)

# Weights of red, green and blue in a gray value (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])

# Settings of `PointAugmentation` in [0, 1].
_SHARES = (
    "max_dropout mix_share stretch_share one_side_share occlusion_share occlusion floor_share color_strength hue "
    "color_dropout jitter_share turn_share"
).split()
# The origin and the ends of the three axes.
_FRAME = np.concatenate([np.zeros((1, 3)), np.eye(3)])  # (4, 3)


def farthest_from_drawn(points: np.ndarray, num_points: int, rng: Rng) -> np.ndarray:
    """`num_points` rows of `points` (N, C), each the farthest in xyz from those before it; the first is drawn.

    This is the sampling of the data pipeline: every point is a candidate and ties go to the lowest index, unlike the
    grouping inside Point-BERT (`point_ops.farthest_point_sample`). O(N * num_points).
    """
    xyz = points[:, :3]
    chosen = np.empty(num_points, dtype=np.int64)
    chosen[0] = rng.integers(len(xyz)) if isinstance(rng, np.random.Generator) else rng.randint(len(xyz))
    distance = np.full(len(xyz), np.inf)
    for i in range(1, num_points):
        np.minimum(distance, ((xyz - xyz[chosen[i - 1]]) ** 2).sum(axis=1), out=distance)
        chosen[i] = distance.argmax()
    return points[chosen]


def random_sample(points: np.ndarray, num_points: int, rng: Rng, order: np.ndarray | None = None) -> np.ndarray:
    """`num_points` different rows of `points` (N, C) in random order.

    `order` (M,) holds the indices to draw from and is shuffled in place: the published code keeps one such array of
    length `num_points` for all clouds. None draws from all N rows.
    """
    if order is None:
        order = np.arange(len(points))
    if num_points > len(order):
        raise ValueError(f"cannot draw {num_points} different points from {len(order)}")
    rng.shuffle(order)
    return points[order[:num_points]]


def drop_points(points: np.ndarray, rng: Rng, max_ratio: float = 0.875) -> np.ndarray:
    """Replaces a share U(0, max_ratio) of the points, color included, by point 0. The number of rows stays."""
    return np.where(draw_dropped(len(points), rng, max_ratio)[:, None], points[:1], points)


def draw_dropped(num_points: int, rng: Rng, max_ratio: float) -> np.ndarray:
    """(num_points,) bool: which points give way to point 0, a share U(0, max_ratio)."""
    ratio = rng.random() * max_ratio
    return rng.random(num_points) <= ratio


def scale_points(
    points: np.ndarray, rng: Rng, low: float = 0.8, high: float = 1.25, by_axis: bool = False
) -> np.ndarray:
    """Multiplies xyz by one factor U(low, high), or by one for each axis."""
    return with_xyz(points, points[:, :3] * rng.uniform(low, high, size=3 if by_axis else None))


def shift_points(points: np.ndarray, rng: Rng, reach: float = 0.1) -> np.ndarray:
    """Adds one vector of three U(-reach, reach) to xyz."""
    return with_xyz(points, points[:, :3] + rng.uniform(-reach, reach, size=3))


def jitter_points(points: np.ndarray, rng: Rng, sigma: float = 0.01, clip: float = 0.05) -> np.ndarray:
    """Adds clipped Gaussian noise to every coordinate. Not part of ULIP's pre-training."""
    noise = np.clip(sigma * rng.standard_normal((len(points), 3)), -clip, clip)
    return with_xyz(points, points[:, :3] + noise)


def perturb_rotation(points: np.ndarray, rng: Rng, sigma: float = 0.06, clip: float = 0.18) -> np.ndarray:
    """Rotates xyz by small angles (radians, clipped Gaussian) about the three axes: row vectors times Rz Ry Rx."""
    x, y, z = (min(max(angle, -clip), clip) for angle in (sigma * rng.standard_normal(3)).tolist())
    return with_xyz(points, points[:, :3] @ (_rotation(2, z) @ _rotation(1, y) @ _rotation(0, x)))


def rotate_about_y(points: np.ndarray, rng: Rng) -> np.ndarray:
    """Rotates xyz about the vertical axis by an angle U(0, 2 pi): row vectors times Ry."""
    return with_xyz(points, points[:, :3] @ _rotation(1, rng.uniform() * 2 * np.pi))


def rotate_freely(points: np.ndarray, rng: Rng) -> np.ndarray:
    """Rotates xyz by a uniformly drawn rotation. Not part of ULIP's pre-training."""
    w, x, y, z = unit(rng.standard_normal(4))
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )  # of a quaternion
    return with_xyz(points, points[:, :3] @ matrix.T)


def stretch_points(points: np.ndarray, rng: Rng, most: float = 1.5) -> np.ndarray:
    """Multiplies each axis by a factor of its own, log-uniform in [1 / most, most], and normalizes the cloud again.

    Not part of ULIP's pre-training.
    """
    return with_xyz(points, on_unit_sphere(points[:, :3] * most ** rng.uniform(-1, 1, size=3)))


def change_colors(points: np.ndarray, rng: Rng, strength: float = 0.4, hue: float = 0.0) -> np.ndarray:
    """Draws another brightness, contrast, saturation and hue for the colors of a cloud (N, >= 6), kept in [0, 1].

    Nothing changes in a cloud without color, all of whose points have the color that stands for none, nor in a cloud
    of other columns.

    Args:
        strength: the first three are factors U(1 - strength, 1 + strength).
        hue: colors are turned about the axis of grays by U(-hue, hue) of a full turn. Captions name colors: keep it
            small, or 0.
    """
    factors, angle = rng.uniform(1 - strength, 1 + strength, size=3), 2 * np.pi * rng.uniform(-hue, hue)
    if not has_colors(points):
        return points.copy()
    rgb = points[:, 3:6] * factors[0]
    middle = (rgb @ _LUMA).mean()
    rgb = middle + factors[1] * (rgb - middle)
    gray = (rgb @ _LUMA)[:, None]
    rgb = gray + factors[2] * (rgb - gray)
    if angle:
        rgb = rgb @ _about_gray(angle).T
    changed = points.copy()
    changed[:, 3:6] = np.clip(rgb, 0, 1)
    return changed


def drop_colors(points: np.ndarray) -> np.ndarray:
    """The cloud as one without color: columns 3 to 5, where there are any, become the feature extractor's fill."""
    changed = points.copy()
    if points.shape[1] >= 6:
        changed[:, 3:6] = fill_color()
    return changed


def mix_clouds(
    points: np.ndarray, others: np.ndarray, rng: Rng, low: float = 0.5, high: float = 0.9
) -> tuple[np.ndarray, float]:
    """A part of a cloud (N, C) gives way to a part of another (N, C), as in PointCutMix (arXiv 2101.01461, K).

    A share U(low, high) of the points stays. The others are those nearest to a point drawn from the other cloud, and
    the other cloud's points nearest to it take their places.

    Returns:
        The mixed cloud, normalized again, and the share of its points that are of `points`.
    """
    gone = len(points) - round(len(points) * rng.uniform(low, high))
    center = others[int(rng.random() * len(others)), :3]
    if not gone:
        return points.copy(), 1.0
    mixed = points.copy()
    mixed[_nearest(points, center, gone)] = others[_nearest(others, center, gone)]
    return with_xyz(mixed, on_unit_sphere(mixed[:, :3])), 1 - gone / len(points)


@dataclass(frozen=True)
class PointAugmentation:
    """ULIP's augmentation of a sampled, normalized cloud. Defaults: the published settings; 0 switches one off.

    `scale_by_axis` draws a factor for each axis, and `normalize_scaled` then normalizes the cloud again: together they
    are what the fine-tuning of PointNeXt does before it rotates.

    The others are ours and off. They make shapes vary where there are few, and come before the published changes:
    `mix_share` of the clouds are mixed with another of their batch (`mix_clouds`; the collator does it, as texts and
    images are mixed too) and `stretch_share` of them are stretched by up to `stretch` along each axis. The next are
    what a scan of a room shows of an object: `one_side_share` of the clouds are seen from one side, `occlusion_share`
    of them lose up to `occlusion` of their points, and `floor_share` of them stand on a piece of floor, half of these
    before a wall. `color_strength` and `hue` change colors, and `color_dropout` of the clouds lose theirs.
    `jitter_sigma` moves the points of `jitter_share` of them, by three times that at most, after the scaling. With
    `rotate_free` a cloud is turned in every direction instead of about the vertical axis; without `rotate_y`,
    `turn_share` of the clouds are still turned about that axis, and the others go on facing one way.
    """

    _argument_group_name = "augmentation"

    max_dropout: float = field(default=0.875, metadata={"help": "Drop up to this share of the points; 0: none."})
    scale_low: float = field(default=0.8, metadata={"help": "Smallest factor of the size."})
    scale_high: float = field(default=1.25, metadata={"help": "Largest factor of the size."})
    scale_by_axis: bool = field(default=False, metadata={"help": "Draw a factor for each axis."})
    normalize_scaled: bool = field(default=False, metadata={"help": "Normalize the scaled cloud again."})
    shift: float = field(default=0.1, metadata={"help": "Largest shift along each axis; 0: none."})
    angle_sigma: float = field(default=0.06, metadata={"help": "Deviation of small rotations, in radians; 0: none."})
    angle_clip: float = field(default=0.18, metadata={"help": "Largest small rotation, in radians."})
    rotate_y: bool = field(default=True, metadata={"help": "Turn about the vertical axis by any angle."})

    mix_share: float = field(default=0.0, metadata={"help": "Share of the clouds mixed with another of their batch."})
    stretch_share: float = field(default=0.0, metadata={"help": "Share of the clouds that are stretched."})
    stretch: float = field(default=1.5, metadata={"help": "Largest factor of a stretched axis."})
    one_side_share: float = field(default=0.0, metadata={"help": "Share of the clouds seen from one side alone."})
    occlusion_share: float = field(default=0.0, metadata={"help": "Share of the clouds that are hidden in part."})
    occlusion: float = field(default=0.6, metadata={"help": "Largest share of the points that is hidden."})
    floor_share: float = field(
        default=0.0, metadata={"help": "Share of the clouds with a piece of floor, and perhaps of a wall."}
    )
    color_strength: float = field(
        default=0.0, metadata={"help": "Change of brightness, contrast and saturation, in [0, 1]; 0: none."}
    )
    hue: float = field(default=0.0, metadata={"help": "Turn colors by up to this part of a circle; 0: none."})
    color_dropout: float = field(default=0.0, metadata={"help": "Share of the clouds that lose their colors."})
    jitter_sigma: float = field(default=0.0, metadata={"help": "Deviation of each point; 0: none."})
    jitter_share: float = field(default=1.0, metadata={"help": "Share of the clouds whose points are moved so."})
    turn_share: float = field(
        default=0.0, metadata={"help": "Share of the clouds turned about y by any angle, where rotate_y is off."}
    )
    rotate_free: bool = field(default=False, metadata={"help": "Turn in every direction instead of about y."})

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0 < self.scale_low <= self.scale_high:
            raise ValueError(f"scale range must satisfy 0 < low <= high, not [{self.scale_low}, {self.scale_high}]")
        if self.occlusion == 1:
            raise ValueError("occlusion must be below 1: something of a cloud must be seen")
        if self.stretch < 1:
            raise ValueError(
                f"stretch must be at least 1, not {self.stretch}: each axis changes by its factor at most"
            )
        if self.jitter_sigma < 0:
            raise ValueError(f"jitter_sigma must not be negative, as {self.jitter_sigma} is")

    def __call__(self, points: np.ndarray, rng: Rng, out: np.ndarray | None = None) -> np.ndarray:
        """points (N, C) -> (N, C), same dtype; all but the mixing.

        The result is written into `out`, where one is given, which may be `points`.
        """
        if self.stretch_share and rng.random() < self.stretch_share:
            points = stretch_points(points, rng, self.stretch)
        if self.one_side_share and rng.random() < self.one_side_share:
            points = one_side(points, rng)
        if self.occlusion_share and rng.random() < self.occlusion_share:
            points = occlude(points, rng, self.occlusion)
        if self.floor_share and rng.random() < self.floor_share:
            points = stand_in_room(points, rng)
        if self.color_strength or self.hue:
            points = change_colors(points, rng, self.color_strength, self.hue)
        if self.color_dropout and rng.random() < self.color_dropout:
            points = drop_colors(points)
        dropped = np.zeros(len(points), dtype=bool)  # (N,)
        if self.max_dropout:
            dropped = draw_dropped(len(points), rng, self.max_dropout)
        if self.normalize_scaled or self.jitter_sigma:  # which need the points as they then are
            points, dropped = np.where(dropped[:, None], points[:1], points), np.zeros_like(dropped)
        # Scaling, shifting and turning are one affine map, known from what becomes of the origin and the three axes:
        # the points are gone through once, at the end.
        frame = _FRAME
        if self.scale_low != 1 or self.scale_high != 1:
            frame = scale_points(frame, rng, self.scale_low, self.scale_high, self.scale_by_axis)
        if self.normalize_scaled:
            points, frame = with_xyz(points, on_unit_sphere(points[:, :3] @ frame[1:])), _FRAME
        if self.jitter_sigma and (self.jitter_share == 1 or rng.random() < self.jitter_share):
            points, frame = with_xyz(points, points[:, :3] @ frame[1:]), _FRAME
            points = jitter_points(points, rng, self.jitter_sigma, 3 * self.jitter_sigma)
        if self.shift:
            frame = shift_points(frame, rng, self.shift)
        if self.angle_sigma:
            frame = perturb_rotation(frame, rng, self.angle_sigma, self.angle_clip)
        if self.rotate_free:
            frame = rotate_freely(frame, rng)
        elif self.rotate_y or (self.turn_share and rng.random() < self.turn_share):
            frame = rotate_about_y(frame, rng)
        if out is None:
            out = points.copy()
        elif out is not points:
            out[:] = points
        (_compiled() or drop_and_move)(out, dropped, frame[1:] - frame[0], frame[0])
        return out


PUBLISHED = PointAugmentation()


def drop_and_move(points: np.ndarray, dropped: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> None:
    """In place: of points (N, C) the dropped ones (N,) become point 0, and xyz times `matrix` (3, 3) plus `offset`."""
    points[dropped] = points[:1]
    x, y, z = (points[:, axis, None].astype(np.float64) for axis in range(3))  # (N, 1) each
    # summed in this order by the compiled loop, too
    points[:, :3] = x * matrix[0] + y * matrix[1] + z * matrix[2] + offset


def _compiled() -> Callable[..., None] | None:
    """`drop_and_move` compiled, where numba is installed."""
    from modeling_ulip2.models.compiled import HAS_NUMBA

    if not HAS_NUMBA:
        return None
    from modeling_ulip2.data.augmentation_numba import drop_and_move

    return drop_and_move


def _rotation(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation (3, 3) about an axis, for column vectors."""
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i] = np.sin(angle)
    matrix[i, j] = -matrix[j, i]
    return matrix


def _nearest(points: np.ndarray, center: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) of the points (N, >= 3) nearest to `center` (3,), in no order."""
    offset = points[:, :3] - center
    return np.argpartition(np.einsum("ij,ij->i", offset, offset), count - 1)[:count]


def _about_gray(angle: float) -> np.ndarray:
    """Rotation (3, 3) of colors about the axis from black to white, for column vectors."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3)
    turned = cosine * np.eye(3) + (1 - cosine) / 3
    return turned + sine * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
