"""What a home is: levels, walls, rooms and pieces of furniture, in centimeters of its plan."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

RECTANGLE = "M0,0 v1 h1 v-1 z"


class HomeError(ValueError):
    """A home that cannot be used; the message says what is wrong in it, and what to do."""


@dataclass(frozen=True)
class Texture:
    """An image that repeats over a surface.

    Args:
        image: name of its content in the home's file.
        width, height: of one copy, cm.
        angle: by which it is turned, radians.
        scale: by which a copy is enlarged.
        offset: of its origin, as shares of width and height.
    """

    image: str
    width: float
    height: float
    angle: float = 0.0
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Paint:
    """What covers a surface: a texture, else a color (sRGB, 0 to 1), else what it has by itself (white for walls)."""

    color: tuple[float, float, float] | None = None
    texture: Texture | None = None
    hidden: bool = False  # a wholly transparent color, by which parts of a model are taken away


@dataclass(frozen=True)
class Level:
    """A floor of the building; elevation of its rooms' floors and height up to the next one's underside, cm."""

    name: str
    elevation: float
    floor_thickness: float
    height: float
    index: int
    viewable: bool = True


@dataclass
class Wall:
    """A wall between two points of the plan, in cm.

    Args:
        start, end: of its middle line, (2,).
        height, height_at_end: its top above the level's floor; they differ for a wall whose top slopes.
        arc_extent: angle of the arc that it follows, radians; 0 for a straight one.
        at_start, at_end: ids of the walls that it is joined to.
        left, right, top: what covers its sides, seen from start to end with the plan's y pointing down, and its top.
        baseboards: of the left and right side: thickness and height in cm, and what covers it.
    """

    id: str
    start: np.ndarray
    end: np.ndarray
    thickness: float
    height: float
    height_at_end: float
    arc_extent: float = 0.0
    at_start: str | None = None
    at_end: str | None = None
    left: Paint = Paint()
    right: Paint = Paint()
    top: Paint | None = None
    baseboards: dict[str, tuple[float, float, Paint]] = field(default_factory=dict)
    level: Level | None = None


@dataclass
class Room:
    """A polygon (N, 2) of the plan, in cm, whose floor and ceiling are shown or not."""

    name: str
    points: np.ndarray
    floor: Paint
    ceiling: Paint
    floor_visible: bool = True
    ceiling_visible: bool = True
    ceiling_flat: bool = False
    level: Level | None = None


@dataclass
class Opening:
    """How a door or window cuts the walls that it stands in.

    Args:
        shape: SVG path of the hole in the unit square, y down.
        left, top, width, height: where that square lies on the piece's front, as shares of its width and height.
        both_sides: whether the hole goes through walls thicker than the piece.
    """

    shape: str = RECTANGLE
    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    both_sides: bool = False


@dataclass
class Piece:
    """A piece of furniture, door, window or lamp.

    Args:
        x, y: its middle in the plan, cm.
        elevation: of its lowest point above the level's floor, cm.
        angle, pitch, roll: radians; angle clockwise in the plan.
        width, depth, height: of its model's box before it is pitched or rolled, cm.
        rotation: (3, 3), applied to the model first, or None.
        centered: whether the model is centered again after that rotation.
        paint: covers all of it but window panes.
        materials: by the name of a material of the model.
        opening: for doors and windows.
        staircase: SVG path, in the unit square of its plan, of the hole that it makes in the floor above; or None.
        group: name of the innermost group that it belongs to, "" without one.
        group_number: of that group among the home's, -1 without one: groups may have equal names.
    """

    kind: str
    catalog_id: str
    name: str
    model: str
    x: float
    y: float
    elevation: float
    angle: float
    pitch: float
    roll: float
    width: float
    depth: float
    height: float
    mirrored: bool = False
    rotation: np.ndarray | None = None
    centered: bool = True
    back_faces: bool = False
    paint: Paint = Paint()
    materials: dict[str, Paint] = field(default_factory=dict)
    opening: Opening | None = None
    staircase: str | None = None
    level: Level | None = None
    group: str = ""
    group_number: int = -1

    @property
    def ground_elevation(self) -> float:
        """Of its lowest point above the plan's zero, cm."""
        return self.elevation + (self.level.elevation if self.level is not None else 0.0)


@dataclass
class Home:
    """A home, in centimeters of its plan: x to the right, y down (towards the viewer), elevations up.

    `levels` from the lowest to the highest; homes with one floor have none. Pieces that are hidden are left out.
    """

    name: str
    wall_height: float
    levels: list[Level]
    walls: list[Wall]
    rooms: list[Room]
    pieces: list[Piece]
    license: str = ""
    warnings: list[str] = field(default_factory=list)

    def is_lowest(self, level: Level | None) -> bool:
        return level is None or level.elevation == self.levels[0].elevation

    def is_last(self, level: Level | None) -> bool:
        return level is None or level is self.levels[-1]
