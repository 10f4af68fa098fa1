"""Which columns of a table of points are coordinates, colors and normals.

Where columns have names, the names decide. Where they have none, x y z come first, and what follows is judged by its
values: rows of unit length are normals, whole numbers from 0 to 255 or 65,535 and fractions from 0 to 1 are colors.
What is left out or was not sure is said in a warning; no value is clipped into a color silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from .cloud import PointCloud
from .colors import to_uint8, unit_colors
from .errors import MeshError

# Spellings of three columns, as `plain_name` makes them, in the order in which they are looked for.
_XYZ = (
    *(
        tuple(form.format(axis) for axis in "xyz")
        for form in ("{}", "p{}", "pos{}", "position{}", "coord{}", "{}coord")
    ),
    ("easting", "northing", "elevation"),
)
_RGB = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    *(
        tuple(form.format(name) for name in ("red", "green", "blue"))
        for form in ("diffuse{}", "{0[0]}f", "color{0[0]}", "color{}", "{}color")
    ),
)
_NORMAL = tuple(tuple(form.format(axis) for axis in "xyz") for form in ("n{}", "normal{}", "{}normal"))
# 3D Gaussian splatting (Kerbl et al. 2023) keeps color as the constant term of spherical harmonics.
_SPLAT_RGB = (("fdc0", "fdc1", "fdc2"),)
_SPLAT_FACTOR = 0.28209479177387814  # 1 / (2 sqrt(pi))
_KNOWN = {name for names in (*_XYZ, *_RGB, *_NORMAL, *_SPLAT_RGB) for name in names}
_KNOWN |= {"a", "alpha", "intensity", "i", "label", "class", "classification", "scalar", "id", "index", "curvature"}

# Of normals: what rounding to two decimals leaves of unit length.
_UNIT_TOLERANCE = 0.02
_ROUNDING = 1e-3


def plain_name(name: str) -> str:
    """A column's name without case, units, quotes, comment signs and separators: "//Normal_X [m]" is "normalx"."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[(\[].*", "", name.lower()))


def names_points(names: Sequence[str]) -> bool:
    """Whether these are names of columns, x, y and z among them."""
    plain = {plain_name(name) for name in names}
    return _find(_XYZ, plain) is not None


def all_known(names: Sequence[str]) -> bool:
    """Whether nothing among these could be prose."""
    return all(plain_name(name) in _KNOWN for name in names)


def named_cloud(columns: Mapping[str, np.ndarray], warnings: list[str] | None = None) -> PointCloud:
    """The cloud in columns (N,) with names.

    Raises:
        MeshError: "empty" if no columns are named x, y and z.
    """
    warnings = [] if warnings is None else warnings
    points = named_points(columns)
    if points is None:
        raise MeshError("empty", f"it has no columns x, y and z; its columns are {', '.join(columns)[:120]}")
    colors = named_colors(columns, warnings)
    return PointCloud(points, None if colors is None else to_uint8(colors), warnings)


def named_points(columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(N, 3) coordinates among columns (N,) with names; None without."""
    return _stack(columns, _XYZ)


def named_normals(columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """(N, 3) normals among columns (N,) with names; None without."""
    return _stack(columns, _NORMAL)


def named_colors(
    columns: Mapping[str, np.ndarray], warnings: list[str], what: str = "its colors"
) -> np.ndarray | None:
    """(N, 3) sRGB in [0, 1] among columns (N,) with names; None without. `warnings` and `what`: see `unit_colors`."""
    stored = _stack(columns, _RGB)
    if stored is not None:
        return unit_colors(stored, warnings, what)
    harmonics = _stack(columns, _SPLAT_RGB)
    if harmonics is None:
        return None
    if not np.isfinite(harmonics).all():
        warnings.append(f"{what} (f_dc) are NaN or infinite and were left out")
        return None
    # a splat is shown with its color clipped
    return np.clip(0.5 + _SPLAT_FACTOR * harmonics.astype(np.float64), 0.0, 1.0)


def unnamed_cloud(
    values: np.ndarray, *, intensity_first: bool = False, warnings: list[str] | None = None
) -> PointCloud:
    """The cloud in rows (N, C) of numbers without names: x y z, then colors, normals or an intensity.

    Args:
        values: (N, C); C is 3, 4, 6, 7, 9 or 10.
        intensity_first: a single number in front of a color is an intensity, as in PTS files; otherwise the values
            decide, and a single number behind a color is its alpha.

    Raises:
        MeshError: another number of columns, or values that could mean several things.
    """
    warnings = [] if warnings is None else warnings
    if values.ndim != 2 or values.shape[1] < 3 or _turned(values):
        raise MeshError(
            "corrupt", f"its array has the shape {values.shape}; (N, 3) or (N, 6) is needed{_turned(values)}"
        )
    rgb = judge(values[:, 3:], 4, warnings, intensity_first=intensity_first)
    return PointCloud(values[:, :3], rgb, warnings)


def judge(rest: np.ndarray, first: int, warnings: list[str], *, intensity_first: bool = False) -> np.ndarray | None:
    """Colors (N, 3) uint8 among columns without names that follow the coordinates, or None.

    Args:
        rest: (N, C).
        first: number of its first column in the file, from 1, for messages.
    """
    width = rest.shape[1]
    if width == 0 or len(rest) == 0:
        return None
    layouts = _LAYOUTS.get(width)
    if layouts is None:
        raise MeshError(
            "unsupported",
            f"its rows have {first - 1 + width} numbers; x y z, x y z r g b, x y z nx ny nz and these with an "
            "intensity are read. Name the columns in a first line to have others read",
        )
    if intensity_first and any(layout[0] == 1 for layout in layouts):
        layouts = [layout for layout in layouts if layout[0] == 1]
    judged = []
    for layout in layouts:
        starts = [start for start, size in zip(np.cumsum([0, *layout[:-1]]), layout, strict=True) if size == 3]
        kinds = [(int(start), _kind(rest[:, start : start + 3])) for start in starts]
        # a sure kind counts more: an intensity of 0.5 before three bytes makes no color of itself and two of them
        judged.append((sum({None: 0, "perhaps colors": 1}.get(kind, 2) for _, kind in kinds), kinds))
    best = max(score for score, _ in judged)
    kinds = next(kinds for score, kinds in judged if score == best)
    colors = [start for start, kind in kinds if kind in ("colors", "perhaps colors")]
    where = "{} to {}".format
    if len(colors) > 1:
        raise MeshError(
            "unsupported",
            f"its columns {where(first, first + width - 1)} could hold two colors; name the columns in a first line",
        )
    if sum(score == best for score, _ in judged) > 1 and colors and not _constant(rest[:, 3]) and not intensity_first:
        warnings.append(
            f"columns {where(first + colors[0], first + colors[0] + 2)} of {first - 1 + width} are taken as colors; "
            "name the columns in a first line if they are not"
        )
    for start, kind in kinds:
        columns = where(first + start, first + start + 2)
        if kind == "normals":
            warnings.append(f"columns {columns} are normals by their values (unit length), not colors")
        elif kind == "perhaps colors":
            warnings.append(f"columns {columns} are taken as colors by their values; name the columns if they are not")
        elif kind is None:
            low, high = rest[:, start : start + 3].min(), rest[:, start : start + 3].max()
            warnings.append(
                f"columns {columns} were left out: their values, {low:g} to {high:g}, are neither colors nor normals"
            )
    if not kinds:
        warnings.append(f"column {first} was left out: one number behind x y z is no color")
    return color_bytes(rest[:, colors[0] : colors[0] + 3], warnings) if colors else None


# Sizes of what may follow x y z, by the number of columns; the first of equals is preferred.
_LAYOUTS: dict[int, list[tuple[int, ...]]] = {
    1: [(1,)],
    3: [(3,)],
    4: [(3, 1), (1, 3)],
    6: [(3, 3)],
    7: [(3, 1, 3), (1, 3, 3), (3, 3, 1)],
}


def color_bytes(colors: np.ndarray, warnings: list[str]) -> np.ndarray | None:
    """Stored colors (N, 3) as bytes, by the rule of `unit_colors`; None, with a warning, if they are no colors."""
    unit = unit_colors(colors, warnings)
    return None if unit is None else to_uint8(unit)


def _kind(values: np.ndarray) -> str | None:
    """Whether three columns (N, 3) without names hold "normals", "colors", "perhaps colors" or neither."""
    finite = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    if len(finite) == 0:
        return None
    length = np.sqrt((finite**2).sum(axis=1))
    directed = length > _UNIT_TOLERANCE  # a normal of length 0 is one that could not be estimated
    unit = np.abs(length[directed] - 1) < _UNIT_TOLERANCE
    low, high = finite.min(), finite.max()
    all_unit = bool(directed.any()) and unit.mean() > 0.99
    # pure red, green and blue have unit length, too
    if all_unit and (low < -_ROUNDING or (finite[directed].max(axis=1) < 1 - _ROUNDING).mean() > 0.5):
        return "normals"
    whole = bool((finite == np.round(finite)).all())
    if low < -_ROUNDING or high > 65535 or (not whole and (1 + _ROUNDING < high <= 2 or high > 255.5)):
        return None
    return "perhaps colors" if all_unit or (not whole and high > 2) else "colors"


def _constant(column: np.ndarray) -> bool:
    """As alpha is in most files."""
    return bool((column == column[0]).all()) and column[0] in (1, 255)


def _find(spellings: Sequence[tuple[str, ...]], among: Mapping[str, str] | set[str]) -> tuple[str, ...] | None:
    """The first spelling of which all three columns are there."""
    return next((spelling for spelling in spellings if all(name in among for name in spelling)), None)


def _stack(columns: Mapping[str, np.ndarray], spellings: Sequence[tuple[str, ...]]) -> np.ndarray | None:
    """(N, 3) of the columns under the first of the spellings that is there; None without."""
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(plain_name(name), name)
    found = _find(spellings, plain)
    return None if found is None else np.column_stack([columns[plain[name]] for name in found])


def _turned(values: np.ndarray) -> str:
    if values.ndim == 3:
        return ": these are several clouds, give one"
    if values.ndim == 2 and len(values) in (3, 6) and values.shape[1] > 10:
        return ": it looks transposed"
    return ""
