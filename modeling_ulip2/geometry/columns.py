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
from .colors import to_uint8
from .errors import MeshError

# Names as `plain_name` makes them, in the order in which they are looked for.
_XYZ = tuple(tuple(form.format(axis) for form in ("{}", "p{}", "pos{}", "position{}", "coord{}", "{}coord"))
             for axis in "xyz")  # fmt: skip
_MAP_GRID = ("easting", "northing", "elevation")
_RGB = tuple(
    (name, name[0], f"diffuse{name}", f"{name[0]}f", f"color{name[0]}", f"color{name}", f"{name}color")
    for name in ("red", "green", "blue")
)
_NORMAL = tuple((f"n{axis}", f"normal{axis}", f"{axis}normal") for axis in "xyz")
# 3D Gaussian splatting (Kerbl et al. 2023) keeps color as the constant term of spherical harmonics.
_SPLAT_RGB = ("fdc0", "fdc1", "fdc2")
_SPLAT_FACTOR = 0.28209479177387814  # 1 / (2 sqrt(pi))
_KNOWN = {name for names in (*_XYZ, *_RGB, *_NORMAL) for name in names} | {*_MAP_GRID, *_SPLAT_RGB}
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
    return _find(_XYZ, plain) is not None or plain.issuperset(_MAP_GRID)


def all_known(names: Sequence[str]) -> bool:
    """Whether nothing among these could be prose."""
    return all(plain_name(name) in _KNOWN for name in names)


def named_cloud(columns: Mapping[str, np.ndarray], warnings: list[str] | None = None) -> PointCloud:
    """The cloud in columns (N,) with names.

    Raises:
        MeshError: "empty" if no columns are named x, y and z.
    """
    warnings = [] if warnings is None else warnings
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(plain_name(name), name)
    xyz = _find(_XYZ, plain) or (_MAP_GRID if plain.keys() >= set(_MAP_GRID) else None)
    if xyz is None:
        raise MeshError("empty", f"it has no columns x, y and z; its columns are {', '.join(columns)[:120]}")
    points = np.column_stack([columns[plain[name]] for name in xyz])  # (N, 3)
    names = _find(_RGB, plain)
    if names is not None:
        stored = np.column_stack([columns[plain[name]] for name in names])  # (N, 3)
        return PointCloud(points, color_bytes(stored, warnings), warnings)
    if plain.keys() >= set(_SPLAT_RGB):
        harmonics = np.column_stack([columns[plain[name]] for name in _SPLAT_RGB]).astype(np.float64)  # (N, 3)
        if not np.isfinite(harmonics).all():
            warnings.append("its colors (f_dc) are NaN or infinite and were left out")
            return PointCloud(points, None, warnings)
        # a splat is shown with its color clipped
        return PointCloud(points, to_uint8(0.5 + _SPLAT_FACTOR * harmonics), warnings)
    return PointCloud(points, None, warnings)


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
        judged.append((sum(kind is not None for _, kind in kinds), kinds))
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
    """Stored colors (N, 3) as bytes; None, with a warning, if their values are no colors.

    Whole numbers count to 255 or, where one is above, to 65,535; fractions go from 0 to 1.
    """
    if colors.dtype == np.uint8 or len(colors) == 0:
        return colors.astype(np.uint8)
    bad = ~np.isfinite(colors).all(axis=1)
    if bad.any():
        warnings.append(f"its colors are NaN or infinite in {int(bad.sum())} of {len(bad)} points and were left out")
        return None
    low, high = float(colors.min()), float(colors.max())
    whole = colors.dtype.kind in "iu" or bool((colors == np.round(colors)).all())
    if low >= -_ROUNDING and colors.dtype.kind == "f" and high <= 1 + _ROUNDING:
        return to_uint8(colors)
    if low >= -_ROUNDING and not whole and high <= 2:
        warnings.append(f"its colors go up to {high:g}; what is above 1 was cut")
        return to_uint8(colors)
    if low >= -_ROUNDING and high < 255.5:
        if colors.dtype.kind == "u" and colors.dtype.itemsize > 1:
            warnings.append(f"its {8 * colors.dtype.itemsize}-bit colors end at {high:g}: they count to 255")
        return np.round(colors).clip(0, 255).astype(np.uint8)
    if low >= 0 and whole and high <= 65535:
        if colors.dtype.kind != "u":
            warnings.append(f"its colors go up to {high:g}: they count to 65535")
        return to_uint8(colors / 65535.0)
    warnings.append(
        f"its colors were left out: they go from {low:g} to {high:g}, and colors go from 0 to 1, 255 or 65535"
    )
    return None


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


def _find(names: Sequence[Sequence[str]], among: Mapping[str, str] | set[str]) -> tuple[str, ...] | None:
    """The first spelling of which all three columns are there."""
    for spelling in zip(*names, strict=True):
        if all(name in among for name in spelling):
            return tuple(spelling)
    return None


def _turned(values: np.ndarray) -> str:
    if values.ndim == 3:
        return ": these are several clouds, give one"
    if values.ndim == 2 and len(values) in (3, 6) and values.shape[1] > 10:
        return ": it looks transposed"
    return ""
