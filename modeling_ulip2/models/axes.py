"""Which axis of a cloud points up, and the turn that makes it y.

Models are trained on shapes that stand upright along y, in right-handed frames. A file may have another axis up; its
points are turned by the shortest rotation that takes that axis to +y:

| up | point (x, y, z) becomes | rotation |
|---|---|---|
| "y" | (x, y, z) | none |
| "z" | (x, z, -y) | -90 degrees about x |
| "-z" | (x, -z, y) | +90 degrees about x |
| "x" | (-y, x, z) | +90 degrees about z |

Each is a permutation with signs, so that no digit is lost, and none is a mirror image.
"""

from __future__ import annotations

import numpy as np

# (axis, sign) of the old point for each coordinate of the new one
_TURNS = {
    "y": ((0, 1), (1, 1), (2, 1)),
    "z": ((0, 1), (2, 1), (1, -1)),
    "-z": ((0, 1), (2, -1), (1, 1)),
    "x": ((1, -1), (0, 1), (2, 1)),
}
UP_AXES: tuple[str, ...] = tuple(_TURNS)
# Not an axis: whatever is known already decides (a format that fixes its axis, a model's feature extractor).
AUTO_AXIS = "auto"


def check_up_axis(up_axis: str, *, auto: bool = False) -> str:
    """`up_axis` itself, one of `UP_AXES`, or "auto" where that is allowed.

    Raises:
        ValueError: it is neither.
    """
    allowed = (*UP_AXES, AUTO_AXIS) if auto else UP_AXES
    if up_axis not in allowed:
        raise ValueError(f"up_axis must be one of {', '.join(map(repr, allowed))}, got {up_axis!r}.")
    return up_axis


def turn_to_y_up(xyz: np.ndarray, up_axis: str) -> np.ndarray:
    """Points or directions (..., 3) whose `up_axis` points up -> (..., 3) with y up, in the same dtype.

    Raises:
        ValueError: `up_axis` is none of `UP_AXES`.
    """
    turn = _TURNS[check_up_axis(up_axis)]
    return np.stack([xyz[..., axis] if sign > 0 else -xyz[..., axis] for axis, sign in turn], axis=-1)  # (..., 3)


def rotation_to_y_up(up_axis: str) -> np.ndarray:
    """The same turn as a matrix R (3, 3) for column vectors: `xyz @ R.T` is `turn_to_y_up(xyz, up_axis)`."""
    return turn_to_y_up(np.eye(3), up_axis).T + 0.0  # without negative zeros


__all__ = ["AUTO_AXIS", "UP_AXES", "check_up_axis", "rotation_to_y_up", "turn_to_y_up"]
