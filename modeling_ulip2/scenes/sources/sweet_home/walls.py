"""Walls with what doors and windows cut out of them, as surfaces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import Polygon, box

from .home import Home, HomeError, Paint, Piece, Wall
from .plan import Outline, footprint, path_polygon, polygons, triangulate_area
from .surfaces import Surfaces

# A piece turned away from a wall by more than this stands across it, radians.
_PARALLEL = 0.1
# Shorter than this, cm, and nothing is there.
_SLIVER = 0.01


@dataclass
class _Cut:
    """What an opening takes from one wall.

    Args:
        shape: the hole in the unit square of the opening: x along the wall, y up from its lower edge.
        low, high: its lower and upper edge above the plan's zero, cm.
        along: where it begins and ends on the left and on the right side, cm from the side's start; equal where it
            does not reach that side.
    """

    shape: Polygon
    low: float
    high: float
    along: dict[str, tuple[float, float]]

    def on(self, side: str) -> Polygon | None:
        """The hole in a side, in cm along it and above the plan's zero."""
        start, end = self.along[side]
        if end - start < _SLIVER:
            return None
        wide = affinity.scale(self.shape, end - start, self.high - self.low, origin=(0, 0))
        return affinity.translate(wide, start, self.low)


def add_wall(
    surfaces: Surfaces, home: Home, wall: Wall, outline: Outline, neighbors: dict[str, Wall], openings: list[Piece]
) -> None:
    """Adds the surfaces of a wall: both sides with their baseboards, the top, its free ends, and the insides of the
    holes that openings cut."""
    base = wall.level.elevation if wall.level is not None else 0.0
    bottom = base
    if wall.level is not None and not home.is_lowest(wall.level):
        bottom -= wall.level.floor_thickness
    tops = (base + wall.height, base + wall.height_at_end)
    cuts = [cut for piece in openings if (cut := _cut(wall, outline, bottom, max(tops), piece)) is not None]
    sides = {"left": outline.left, "right": outline.right}
    for name, line in sides.items():
        paint = getattr(wall, name)
        face = _elevation(line, wall, bottom, tops)
        holes = [hole for cut in cuts if (hole := cut.on(name)) is not None]
        _add_side(surfaces, line, face.difference(shapely.union_all(holes)), paint, outwards=name == "left")
        if name in wall.baseboards:
            thickness, height, covered = wall.baseboards[name]
            band = box(0, base, _length(line), base + height).intersection(face)
            _add_board(surfaces, line, band.difference(shapely.union_all(holes)), thickness, covered, name == "left")
    for cut in cuts:
        _add_reveals(surfaces, wall, sides, cut, bottom, tops)
    _add_top(surfaces, wall, outline, tops)
    for first, other_id in ((True, wall.at_start), (False, wall.at_end)):
        _add_end(surfaces, wall, outline, first, bottom, tops, neighbors.get(other_id or ""))


def _length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _stations(line: np.ndarray) -> np.ndarray:
    """(N,) cm from the start of a polyline (N, 2) to each of its points."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])


def _share(wall: Wall, line: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) how far along the wall points (N, 2) of a side lie: 0 at its start, 1 at its end."""
    if wall.arc_extent:
        return _stations(line) / _length(line)
    along = wall.end - wall.start
    return (points - wall.start) @ along / (along @ along)


def _elevation(line: np.ndarray, wall: Wall, bottom: float, tops: tuple[float, float]) -> Polygon:
    """A side without openings, in cm along it and above the plan's zero."""
    stations = _stations(line)
    top = tops[0] + (tops[1] - tops[0]) * _share(wall, line, line)  # (N,)
    upper = np.stack([stations, np.maximum(top, bottom)], axis=1)
    lower = np.stack([stations, np.full(len(line), bottom)], axis=1)
    return Polygon(np.concatenate([lower, upper[::-1]])).buffer(0)


def _cut(wall: Wall, outline: Outline, bottom: float, top: float, piece: Piece) -> _Cut | None:
    """What a door or window takes from a wall; None if it does not stand in it."""
    assert piece.opening is not None
    low = piece.ground_elevation
    high = low + piece.height
    if high <= bottom or low >= top:
        return None
    own = Polygon(footprint(piece))
    if not own.is_valid or outline.polygon.intersection(own).area < _SLIVER:
        return None
    along = wall.end - wall.start
    turned = piece.angle - math.atan2(along[1], along[0])
    parallel = wall.arc_extent != 0 or abs(math.sin(turned)) < math.sin(_PARALLEL)
    depth = piece.depth
    if parallel and piece.opening.both_sides:
        depth += 4 * wall.thickness
    taken = Polygon(footprint(piece, depth))
    reaches = {name: _reach(line, taken) for name, line in (("left", outline.left), ("right", outline.right))}
    if all(end - start < _SLIVER for start, end in reaches.values()):
        return None
    if not parallel:  # it pokes into a wall that it does not belong to: cut only where it goes through
        if any(end - start < _SLIVER for start, end in reaches.values()):
            return None
        return _Cut(box(0, 0, 1, 1), low, high, reaches)
    opening = piece.opening
    shape = path_polygon(opening.shape)
    # y down to y up, and from the shape's own square to the piece's front
    shape = affinity.affine_transform(
        shape, [opening.width, 0, 0, -opening.height, opening.left, 1 - opening.top]
    ).intersection(box(0, 0, 1, 1))
    seen_from_behind = math.cos(turned) < 0
    if seen_from_behind != piece.mirrored:
        shape = affinity.affine_transform(shape, [-1, 0, 0, 1, 1, 0])
    if shape.is_empty or shape.geom_type not in ("Polygon", "MultiPolygon"):
        return None
    return _Cut(shape, low, high, reaches)


def _reach(line: np.ndarray, taken: Polygon) -> tuple[float, float]:
    """From where to where, in cm along it, a side runs through the ground that an opening takes."""
    side = shapely.LineString(line)
    inside = side.intersection(taken)
    if inside.is_empty:
        return 0.0, 0.0
    ends = [side.project(shapely.Point(point)) for point in shapely.get_coordinates(inside)]
    return min(ends), max(ends)


def _at(line: np.ndarray, stations: np.ndarray) -> np.ndarray:
    """(N, 2) points of a polyline at distances (N,) from its start."""
    own = _stations(line)
    return np.stack([np.interp(stations, own, line[:, axis]) for axis in (0, 1)], axis=1)


def _add_side(surfaces: Surfaces, line: np.ndarray, face: shapely.Geometry, paint: Paint, outwards: bool) -> None:
    """A side's face, given in cm along it and above zero, at its place; `outwards`: as the left side looks."""
    stations = _stations(line)
    for start, end in zip(stations, stations[1:], strict=False):
        strip = face if len(line) == 2 else face.intersection(box(start, -1e7, end, 1e7))
        for part in polygons(strip):
            points, triangles = triangulate_area(part)
            plan = _at(line, points[:, 0])  # (N, 2)
            place = np.stack([plan[:, 0], points[:, 1], plan[:, 1]], axis=1)
            surfaces.add(place, triangles[:, ::-1] if outwards else triangles, paint, points)


def _add_board(
    surfaces: Surfaces, line: np.ndarray, band: shapely.Geometry, thickness: float, paint: Paint, outwards: bool
) -> None:
    """A baseboard in front of a side: its face, its upper edge and its ends."""
    if thickness <= 0 or band.is_empty:
        return
    stations = _stations(line)
    directions = np.diff(line, axis=0) / np.maximum(np.linalg.norm(np.diff(line, axis=0), axis=1, keepdims=True), 1e-9)
    away = np.stack([directions[:, 1], -directions[:, 0]], axis=1) * (
        thickness if outwards else -thickness
    )  # (N-1, 2)
    for index, (start, end) in enumerate(zip(stations, stations[1:], strict=False)):
        for part in polygons(band.intersection(box(start, -1e7, end, 1e7))):
            points, triangles = triangulate_area(part)
            plan = _at(line, points[:, 0]) + away[index]
            place = np.stack([plan[:, 0], points[:, 1], plan[:, 1]], axis=1)
            surfaces.add(place, triangles[:, ::-1] if outwards else triangles, paint, points)
            left, low, right, high = part.bounds
            ends = _at(line, np.array([left, right]))
            front = ends + away[index]
            surfaces.quad(
                _lift(ends[0], high), _lift(ends[1], high), _lift(front[1], high), _lift(front[0], high), paint
            )
            for number in (0, 1):
                surfaces.quad(
                    _lift(ends[number], low), _lift(front[number], low), _lift(front[number], high),
                    _lift(ends[number], high), paint,
                )  # fmt: skip


def _lift(point: np.ndarray, elevation: float) -> np.ndarray:
    """A point (2,) of the plan at an elevation: (3,) x, elevation, y."""
    return np.array([point[0], elevation, point[1]])


def _add_reveals(
    surfaces: Surfaces, wall: Wall, sides: dict[str, np.ndarray], cut: _Cut, bottom: float, tops: tuple[float, float]
) -> None:
    """The inside of a hole, from side to side, each half in the color of its side; none along the wall's own edges."""
    reached = {name: cut.along[name] for name in sides if cut.along[name][1] - cut.along[name][0] >= _SLIVER}
    if len(reached) < 2:
        return
    lowest = (max(bottom, cut.low) - cut.low) / (cut.high - cut.low)
    highest = (min(*tops, cut.high) - cut.low) / (cut.high - cut.low)
    for part in polygons(cut.shape.intersection(box(-1, lowest, 2, highest)), least_area=1e-9):
        for ring in (part.exterior, *part.interiors):
            points = np.asarray(ring.coords)[:, :2]
            for a, b in zip(points, points[1:], strict=False):
                open_below = cut.low <= bottom + _SLIVER and max(a[1], b[1]) <= lowest + 1e-9
                open_above = cut.high >= min(tops) - _SLIVER and min(a[1], b[1]) >= highest - 1e-9
                if open_below or open_above:
                    continue
                pair = np.stack([a, b])  # (2, 2)
                elevations = cut.low + pair[:, 1] * (cut.high - cut.low)
                ends = {
                    name: _at(sides[name], start + pair[:, 0] * (end - start))
                    for name, (start, end) in reached.items()
                }
                middle = (ends["left"] + ends["right"]) / 2
                for name in ("left", "right"):
                    surfaces.quad(
                        _lift(ends[name][0], elevations[0]), _lift(ends[name][1], elevations[1]),
                        _lift(middle[1], elevations[1]), _lift(middle[0], elevations[0]), getattr(wall, name),
                    )  # fmt: skip


def _add_top(surfaces: Surfaces, wall: Wall, outline: Outline, tops: tuple[float, float]) -> None:
    """The top of a wall: in its own color, or half in that of each side."""
    count = max(len(outline.left), len(outline.right))
    left, right = outline.left, outline.right
    if len(left) != len(right):  # cannot be, as both sides follow one arc
        raise HomeError("a wall has sides of different kinds")
    middle = (left + right) / 2
    for name, line in (("left", left), ("right", right)):
        heights = tops[0] + (tops[1] - tops[0]) * _share(wall, line, line)
        inner = tops[0] + (tops[1] - tops[0]) * _share(wall, middle, middle)
        paint = wall.top or getattr(wall, name)
        for i in range(count - 1):
            surfaces.quad(
                _lift(line[i], heights[i]), _lift(line[i + 1], heights[i + 1]),
                _lift(middle[i + 1], inner[i + 1]), _lift(middle[i], inner[i]), paint,
            )  # fmt: skip


def _add_end(
    surfaces: Surfaces,
    wall: Wall,
    outline: Outline,
    first: bool,
    bottom: float,
    tops: tuple[float, float],
    neighbor: Wall | None,
) -> None:
    """The end of a wall, where no neighbor hides it."""
    top = tops[0] if first else tops[1]
    if neighbor is not None:
        elevation = neighbor.level.elevation if neighbor.level is not None else 0.0
        bottom = max(bottom, elevation + min(neighbor.height, neighbor.height_at_end))
    if top - bottom < _SLIVER:
        return
    tip = 0 if first else -1
    left, right = outline.left[tip], outline.right[tip]
    middle = (left + right) / 2
    for name, corner in (("left", left), ("right", right)):
        surfaces.quad(
            _lift(corner, bottom), _lift(middle, bottom), _lift(middle, top), _lift(corner, top), getattr(wall, name)
        )
