"""Shapes in a home's plan: outlines of walls, joined at their corners, and the ground that a piece stands on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon

from .home import HomeError, Piece, Wall

# Segments of a full circle.
_CIRCLE = 96
_LARGEST_ARC = 1.9 * math.pi
# Points along each curve of a path.
_CURVE = 12
MAX_PATH_LENGTH = 10_000


@dataclass
class Outline:
    """The sides of a wall in the plan: polylines (N, 2) from its start to its end, cm."""

    left: np.ndarray
    right: np.ndarray

    @property
    def polygon(self) -> Polygon:
        return Polygon(np.concatenate([self.left, self.right[::-1]])).buffer(0)


def outlines(walls: Sequence[Wall]) -> list[Outline | None]:
    """The outline of each wall, its corners mitered with those of the walls that it is joined to; None for a wall
    without length or thickness."""
    plain = [_plain_outline(wall) for wall in walls]
    by_id: Mapping[str, int] = {wall.id: index for index, wall in enumerate(walls) if wall.id}
    joined: list[Outline | None] = []
    for index, wall in enumerate(walls):
        own = plain[index]
        if own is None:
            joined.append(None)
            continue
        left, right = own.left.copy(), own.right.copy()
        for other_id, first in ((wall.at_start, True), (wall.at_end, False)):
            number = by_id.get(other_id or "")
            other = None if number is None else plain[number]
            if number is None or other is None or number == index:
                continue
            reached = _end_at(walls[number], wall, first)
            limit = 2 * max(wall.thickness, walls[number].thickness)
            # seen along this wall: where the other ends as this one begins, or the other way round, sides agree
            same = reached != first
            sides = (other.left, other.right) if same else (other.right, other.left)
            for line, beside in ((left, sides[0]), (right, sides[1])):
                tip = 0 if first else -1
                line[tip] = _miter(line, tip, beside, 0 if reached else -1, limit)
        joined.append(Outline(left, right))
    return joined


def _end_at(other: Wall, wall: Wall, first: bool) -> bool:
    """Whether the other wall meets this one (its start, or its end) with its own start."""
    if other.at_start == wall.id and other.at_end != wall.id:
        return True
    if other.at_end == wall.id and other.at_start != wall.id:
        return False
    point = wall.start if first else wall.end
    return bool(np.linalg.norm(other.start - point) <= np.linalg.norm(other.end - point))


def _miter(line: np.ndarray, tip: int, other: np.ndarray, other_tip: int, limit: float) -> np.ndarray:
    """Where the last segment of a side meets that of its neighbor's, if that is near the tip; else the tip."""
    point, before = line[tip], line[1 if tip == 0 else -2]
    there, next_to_it = other[other_tip], other[1 if other_tip == 0 else -2]
    along, across = point - before, there - next_to_it
    cross = along[0] * across[1] - along[1] * across[0]
    if abs(cross) < 1e-4 * np.linalg.norm(along) * np.linalg.norm(across):
        return point
    gap = there - before
    share = (gap[0] * across[1] - gap[1] * across[0]) / cross
    meeting = before + share * along
    return meeting if np.linalg.norm(meeting - point) < limit else point


def _plain_outline(wall: Wall) -> Outline | None:
    along = wall.end - wall.start
    length = float(np.linalg.norm(along))
    if length < 1e-6 or wall.thickness < 1e-6:
        return None
    if wall.arc_extent:
        return _round_outline(wall)
    # left of the direction, with y pointing down
    aside = np.array([along[1], -along[0]]) / length * wall.thickness / 2
    return Outline(np.stack([wall.start, wall.end]) + aside, np.stack([wall.start, wall.end]) - aside)


def _round_outline(wall: Wall) -> Outline:
    """A wall along an arc, whose extent is positive where the center lies on the right."""
    extent = math.copysign(min(abs(wall.arc_extent), _LARGEST_ARC), wall.arc_extent)
    chord = wall.end - wall.start
    length = float(np.linalg.norm(chord))
    right = np.array([-chord[1], chord[0]]) / length  # with y pointing down
    center = (wall.start + wall.end) / 2 + right * length / 2 / math.tan(extent / 2)
    start = wall.start - center
    count = max(3, int(abs(extent) / (2 * math.pi) * _CIRCLE) + 1)
    angles = np.linspace(0, extent, count)
    cosine, sine = np.cos(angles), np.sin(angles)
    turned = np.stack([cosine * start[0] - sine * start[1], sine * start[0] + cosine * start[1]], axis=1)  # (N, 2)
    radius = float(np.linalg.norm(start))
    near = center + turned * max(radius - wall.thickness / 2, 0.0) / radius
    far = center + turned * (radius + wall.thickness / 2) / radius
    return Outline(far, near) if extent > 0 else Outline(near, far)


def footprint(piece: Piece, depth: float | None = None, size: tuple[float, float] | None = None) -> np.ndarray:
    """(4, 2) corners of the ground that a piece stands on, back left first, then clockwise in the plan.

    Args:
        depth: instead of the piece's own.
        size: width and depth of a piece that is pitched or rolled.
    """
    width, own_depth = size or (piece.width, piece.depth)
    depth = own_depth if depth is None else depth
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, depth / 2]
    return place_in_plan(corners, piece)


def place_in_plan(points: np.ndarray, piece: Piece) -> np.ndarray:
    """Points (N, 2) of a piece's own plan, from its middle, in the home's plan."""
    cosine, sine = math.cos(piece.angle), math.sin(piece.angle)
    turned = np.stack(
        [cosine * points[:, 0] - sine * points[:, 1], sine * points[:, 0] + cosine * points[:, 1]], axis=1
    )
    return turned + [piece.x, piece.y]


def path_polygon(path: str) -> Polygon:
    """The area inside an SVG path.

    Raises:
        HomeError: it is no path, or encloses nothing.
    """
    from svg.path import Line, Move, parse_path

    if len(path) > MAX_PATH_LENGTH:
        raise HomeError(f"a cut-out shape has {len(path):,} characters; at most {MAX_PATH_LENGTH:,}")
    try:
        segments = list(parse_path(path))
        rings: list[list[complex]] = []
        for segment in segments:
            if isinstance(segment, Move):
                rings.append([segment.end])
            elif isinstance(segment, Line):
                rings[-1].append(segment.end)
            else:
                rings[-1] += [segment.point(step / _CURVE) for step in range(1, _CURVE + 1)]
        areas = [Polygon([(point.real, point.imag) for point in ring]) for ring in rings if len(ring) > 2]
        area = shapely.union_all([polygon.buffer(0) for polygon in areas])
    except Exception as error:  # the parser fails in as many ways as paths can be wrong
        raise HomeError(f"the cut-out shape {path[:60]!r} is no path ({type(error).__name__})") from None
    if area.is_empty or not np.isfinite(area.area) or area.area <= 0:
        raise HomeError(f"the cut-out shape {path[:60]!r} encloses nothing")
    return area


def staircase_polygon(piece: Piece) -> Polygon:
    """The hole in the floor above that a staircase needs, in the plan."""
    assert piece.staircase is not None
    area = path_polygon(piece.staircase)

    def onto_plan(unit: np.ndarray) -> np.ndarray:
        own = (unit - 0.5) * [piece.width, piece.depth]
        if piece.mirrored:
            own = own * [-1, 1]
        return place_in_plan(own, piece)

    return shapely.transform(area, onto_plan).buffer(0)


def polygons(shape: shapely.Geometry, least_area: float = 1e-3) -> list[Polygon]:
    """The polygons that a shape consists of, without slivers."""
    parts = getattr(shape, "geoms", [shape])
    found: list[Polygon] = []
    for part in parts:
        if part.geom_type == "Polygon" and part.area > least_area:
            found.append(part)
        elif part.geom_type in ("MultiPolygon", "GeometryCollection"):
            found += polygons(part, least_area)
    return found


def triangulate_area(polygon: Polygon) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) of a polygon with its holes, and triangles (T, 3) that fill it, counterclockwise with y up."""
    import mapbox_earcut

    polygon = shapely.geometry.polygon.orient(polygon)
    rings = [np.asarray(ring.coords)[:-1, :2] for ring in (polygon.exterior, *polygon.interiors)]
    points = np.concatenate(rings)
    ends = np.cumsum([len(ring) for ring in rings]).astype(np.uint32)
    triangles = mapbox_earcut.triangulate_float64(points, ends).reshape(-1, 3).astype(np.int64)
    a, b, c = (points[triangles[:, i]] for i in range(3))
    turned = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
    triangles[turned] = triangles[turned][:, ::-1]
    return points, triangles
