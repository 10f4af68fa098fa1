"""Floors and ceilings of rooms, with the holes that staircases need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import shapely
from scipy.spatial import cKDTree
from shapely.geometry import Polygon

from .home import Home, Level, Paint, Room, Wall
from .plan import Outline, polygons, staircase_polygon, triangulate_area
from .surfaces import Surfaces

# Less of a slab's underside than this, square cm, is the seam between two ceilings below it.
_LEAST_UNDERSIDE = 1000.0
# Levels at elevations that differ by less lie at one, cm.
_SAME = 1e-2


def floor_area(home: Home, room: Room) -> shapely.Geometry:
    """What is seen of a room's floor in the plan: all but what later rooms at its elevation and staircases take."""
    area = _own(room)
    others = [r for r in home.rooms if r.floor_visible and abs(_elevation(r.level) - _elevation(room.level)) < _SAME]
    area = area.difference(shapely.union_all([_own(other) for other in _later(others, room)]))
    level = room.level
    if level is None:
        return area
    below = level.elevation - (0.0 if home.is_lowest(level) else level.floor_thickness)
    return _without_staircases(home, area, level.elevation, below)


def ceiling_area(home: Home, room: Room) -> shapely.Geometry:
    """The same of a room's ceiling."""
    area = _own(room)
    others = [r for r in home.rooms if r.ceiling_visible and r.level is room.level]
    area = area.difference(shapely.union_all([_own(other) for other in _later(others, room)]))
    if room.level is None or home.is_last(room.level):
        return area
    top = room.level.elevation + room.level.height
    return _without_staircases(home, area, top, top)


def _own(room: Room) -> Polygon:
    return Polygon(room.points).buffer(0)


def _later(rooms: Sequence[Room], room: Room) -> list[Room]:
    """Rooms that are drawn over a room: those behind it in the file, on levels that are listed later first."""

    def order(index: int) -> tuple[int, int]:
        level = rooms[index].level
        return (0 if level is None else level.index, index)

    number = next((i for i, other in enumerate(rooms) if other is room), None)
    if number is None:
        return list(rooms)
    return [other for i, other in enumerate(rooms) if order(i) > order(number)]


def _without_staircases(home: Home, area: shapely.Geometry, top: float, bottom: float) -> shapely.Geometry:
    """An area without the staircases that come from below `top` and reach `bottom`, cm."""
    holes = [
        staircase_polygon(piece)
        for piece in home.pieces
        if piece.staircase is not None
        and piece.ground_elevation < top
        and piece.ground_elevation + piece.height >= bottom
    ]
    return area.difference(shapely.union_all(holes)) if holes else area


def _elevation(level: Level | None) -> float:
    return 0.0 if level is None else level.elevation


def add_floor(surfaces: Surfaces, home: Home, room: Room, ceiling_object: Callable[[], None]) -> None:
    """Adds a room's floor; of upper levels also the edges of the slab, and its underside where no ceiling hides it.

    Args:
        ceiling_object: called before the underside is added, which is a ceiling to those who look up at it.
    """
    area = floor_area(home, room)
    top = _elevation(room.level)
    _add_flat(surfaces, area, lambda points: np.full(len(points), top), room.floor, up=True)
    if room.level is None or home.is_lowest(room.level):
        return
    bottom = top - room.level.floor_thickness
    for part in polygons(area):
        for ring in (part.exterior, *part.interiors):
            points = np.asarray(ring.coords)[:, :2]
            for a, b in zip(points, points[1:], strict=False):
                low_a, low_b = np.array([a[0], bottom, a[1]]), np.array([b[0], bottom, b[1]])
                rise = np.array([0.0, top - bottom, 0.0])
                surfaces.quad(low_a, low_b, low_b + rise, low_a + rise, room.floor)
    hidden = [
        _own(other)
        for other in home.rooms
        if other.ceiling_visible
        and other.level is not None
        and not home.is_last(other.level)
        and abs(other.level.elevation + other.level.height - bottom) < _SAME
    ]
    underside = area.difference(shapely.union_all(hidden)) if hidden else area
    if polygons(underside, _LEAST_UNDERSIDE):
        ceiling_object()
        _add_flat(surfaces, underside, lambda points: np.full(len(points), bottom), room.floor, up=False)


def add_ceiling(surfaces: Surfaces, home: Home, room: Room, walls: Sequence[tuple[Wall, Outline]]) -> None:
    """Adds a room's ceiling: at the height of its level, on the last one along the tops of the nearest walls."""

    def heights(points: np.ndarray) -> np.ndarray:
        return ceiling_elevations(home, room, walls, points)

    _add_flat(surfaces, ceiling_area(home, room), heights, room.ceiling, up=False)


def ceiling_elevations(
    home: Home, room: Room, walls: Sequence[tuple[Wall, Outline]], points: np.ndarray
) -> np.ndarray:
    """(N,) cm above the plan's zero of a room's ceiling at points (N, 2) of the plan."""
    base = _elevation(room.level)
    if room.level is not None and not home.is_last(room.level):
        return np.full(len(points), base + room.level.height)
    corners, tops = [], []
    for wall, outline in walls:
        if wall.level is not room.level:
            continue
        for line in (outline.left, outline.right):
            corners.append(line)
            tops.append(base + np.linspace(wall.height, wall.height_at_end, len(line)))
    if not corners:
        return np.full(len(points), base + (home.wall_height if room.level is None else room.level.height))
    corner, top = np.concatenate(corners), np.concatenate(tops)
    if room.ceiling_flat:
        return np.full(len(points), top.max())
    return top[cKDTree(corner).query(points)[1]]


def _add_flat(
    surfaces: Surfaces,
    area: shapely.Geometry,
    elevations: Callable[[np.ndarray], np.ndarray],
    paint: Paint,
    up: bool,
) -> None:
    for part in polygons(area):
        points, triangles = triangulate_area(part)
        place = np.stack([points[:, 0], elevations(points), points[:, 1]], axis=1)
        # counterclockwise in x and y of the plan looks down, as y becomes z
        plane = points * [1, -1] if up else points
        surfaces.add(place, triangles[:, ::-1] if up else triangles, paint, plane)
