"""Reading `Home.xml`, in which Sweet Home 3D keeps a home."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from .home import RECTANGLE, Home, HomeError, Level, Opening, Paint, Piece, Room, Texture, Wall

# A home of the largest kind that people draw has some thousand pieces and a megabyte of XML.
MAX_XML_BYTES = 16 << 20
MAX_ELEMENTS = 400_000
MAX_PIECES, MAX_WALLS, MAX_ROOMS, MAX_CORNERS = 20_000, 20_000, 2_000, 2_000
MAX_CENTIMETERS = 1e6
_PIECES = ("pieceOfFurniture", "doorOrWindow", "light")


def read_home(data: bytes, name: str) -> Home:
    """Reads `Home.xml`.

    Args:
        data: of the file. Entities and document types are refused.
        name: of the home, where the file gives none.

    Raises:
        HomeError: it is no home, or a number in it is missing or cannot be.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if len(data) > MAX_XML_BYTES:
        raise HomeError(f"its Home.xml has {len(data):,} bytes; at most {MAX_XML_BYTES:,}")
    try:
        root = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise HomeError(f"its Home.xml declares entities or a document type, which no home needs ({error})") from None
    except (ParseError, ValueError, LookupError) as error:
        raise HomeError(f"its Home.xml is no sound XML ({error})") from None
    if root.tag != "home":
        raise HomeError(f"its Home.xml holds <{root.tag[:40]}>, not <home>")
    return _Reader(root, name).home()


class _Reader:
    def __init__(self, root: Any, name: str) -> None:
        self.root, self.name = root, name
        self.levels: dict[str, Level] = {}
        self.warnings: list[str] = []

    def home(self) -> Home:
        self._count_elements()
        properties = {p.get("name", ""): p.get("value", "") for p in self.root.findall("property")}
        wall_height = _number(self.root, "wallHeight", 250.0)
        self.levels = {
            element.get("id", ""): Level(
                name=element.get("name", ""),
                elevation=_number(element, "elevation"),
                floor_thickness=_number(element, "floorThickness", 12.0, least=0.0),
                height=_number(element, "height", 250.0, least=0.0),
                index=int(_number(element, "elevationIndex", 0.0)),
                viewable=_flag(element, "viewable", True),
            )
            for element in self.root.findall("level")
        }
        home = Home(
            name=self.root.get("name") or self.name,
            wall_height=wall_height,
            levels=sorted(self.levels.values(), key=lambda level: (level.elevation, level.index)),
            walls=[self._wall(element, wall_height) for element in self.root.findall("wall")],
            rooms=[room for element in self.root.findall("room") if (room := self._room(element)) is not None],
            pieces=list(self._pieces()),
            license=properties.get("License", ""),
            warnings=self.warnings,
        )
        for kind in ("walls", "rooms", "pieces"):
            shown = [item for item in getattr(home, kind) if item.level is None or item.level.viewable]
            setattr(home, kind, shown)
        return home

    def _count_elements(self) -> None:
        counts = Counter(element.tag for element in self.root.iter())
        pieces = sum(counts[tag] for tag in _PIECES)
        for what, count, most in (
            ("elements", counts.total(), MAX_ELEMENTS),
            ("pieces of furniture", pieces, MAX_PIECES),
            ("walls", counts["wall"], MAX_WALLS),
            ("rooms", counts["room"], MAX_ROOMS),
        ):
            if count > most:
                raise HomeError(f"its Home.xml has {count:,} {what}; at most {most:,}")

    def _level(self, element: Any, inherited: Level | None = None) -> Level | None:
        key = element.get("level")
        if key is None:
            return inherited
        if key not in self.levels:
            raise HomeError(f"{_called(element)} is on level {key[:40]!r}, which the home lacks")
        return self.levels[key]

    def _wall(self, element: Any, wall_height: float) -> Wall:
        height = _number(element, "height", wall_height, least=0.0)
        baseboards = {}
        for board in element.findall("baseboard"):
            side = (board.get("attribute") or "").removesuffix("SideBaseboard")
            if side in ("left", "right"):
                own = _paint(board, "color", board.find("texture"))
                covered = own if own != Paint() else _side(element, side)
                baseboards[side] = (
                    _number(board, "thickness", least=0.0),
                    _number(board, "height", least=0.0),
                    covered,
                )
        top = element.get("topColor")
        return Wall(
            id=element.get("id", ""),
            start=np.array([_number(element, "xStart"), _number(element, "yStart")]),
            end=np.array([_number(element, "xEnd"), _number(element, "yEnd")]),
            thickness=_number(element, "thickness", least=0.0),
            height=height,
            height_at_end=_number(element, "heightAtEnd", height, least=0.0),
            arc_extent=_number(element, "arcExtent", 0.0),
            at_start=element.get("wallAtStart"),
            at_end=element.get("wallAtEnd"),
            left=_side(element, "left"),
            right=_side(element, "right"),
            top=None if top is None else Paint(_color(element, "topColor")[0]),
            baseboards=baseboards,
            level=self._level(element),
        )

    def _room(self, element: Any) -> Room | None:
        points = np.array([[_number(p, "x"), _number(p, "y")] for p in element.findall("point")])
        if len(points) < 3:
            return None
        if len(points) > MAX_CORNERS:
            raise HomeError(f"{_called(element)} has {len(points):,} corners; at most {MAX_CORNERS:,}")
        return Room(
            name=element.get("name") or "",
            points=points,
            floor=_paint(element, "floorColor", _texture_called(element, "floorTexture")),
            ceiling=_paint(element, "ceilingColor", _texture_called(element, "ceilingTexture")),
            floor_visible=_flag(element, "floorVisible", True),
            ceiling_visible=_flag(element, "ceilingVisible", True),
            ceiling_flat=_flag(element, "ceilingFlat", False),
            level=self._level(element),
        )

    def _pieces(self) -> Iterator[Piece]:
        """Every visible piece, those of groups as well, in the file's order."""
        waiting: list[tuple[Any, Level | None, str, int]] = [
            (element, None, "", -1) for element in reversed(list(self.root))
        ]
        moved = groups = 0
        while waiting:
            element, level, group, number = waiting.pop()
            if element.tag not in (*_PIECES, "furnitureGroup") or not _flag(element, "visible", True):
                continue
            level = self._level(element, level)
            if element.tag == "furnitureGroup":
                inside = " ".join((element.get("name") or "").split())
                waiting += [(child, level, inside, groups) for child in reversed(list(element))]
                groups += 1
            elif element.get("model"):
                moved += element.find("transformation") is not None
                yield self._piece(element, level, group, number)
        if moved:
            self.warnings.append(
                f"{moved} pieces have moved parts (doors that stand open, bent figures), which are shown unmoved"
            )

    def _piece(self, element: Any, level: Level | None, group: str, group_number: int) -> Piece:
        flags = int(_number(element, "modelFlags", 0.0))
        materials = {
            (m.get("key") or m.get("name") or ""): _paint(m, "color", m.find("texture"))
            for m in element.findall("material")
        }
        rotation = _rotation(element)
        staircase = element.get("staircaseCutOutShape")
        return Piece(
            kind=element.tag,
            catalog_id=element.get("catalogId") or "",
            name=" ".join((element.get("name") or "").split()),
            model=element.get("model"),
            x=_number(element, "x"),
            y=_number(element, "y"),
            elevation=_number(element, "elevation", 0.0),
            angle=_number(element, "angle", 0.0),
            pitch=_number(element, "pitch", 0.0),
            roll=_number(element, "roll", 0.0),
            width=_number(element, "width", least=0.0),
            depth=_number(element, "depth", least=0.0),
            height=_number(element, "height", least=0.0),
            mirrored=_flag(element, "modelMirrored", False),
            rotation=rotation,
            centered=_flag(element, "modelCenteredAtOrigin", True),
            back_faces=_flag(element, "backFaceShown", False) or bool(flags & 1),
            paint=_paint(element, "color", _own_texture(element)),
            materials=materials,
            opening=self._opening(element) if element.tag == "doorOrWindow" else None,
            staircase=None if staircase in (None, "false", "") else staircase,
            level=level,
            group=group,
            group_number=group_number,
        )

    def _opening(self, element: Any) -> Opening:
        return Opening(
            shape=element.get("cutOutShape") or RECTANGLE,
            left=_number(element, "wallLeft", 0.0),
            top=_number(element, "wallTop", 0.0),
            width=_number(element, "wallWidth", 1.0, least=0.0),
            height=_number(element, "wallHeight", 1.0, least=0.0),
            both_sides=_flag(element, "wallCutOutOnBothSides", False),
        )


def _called(element: Any) -> str:
    name = element.get("id") or element.get("name") or ""
    return f"its {element.tag} {name[:40]!r}" if name else f"a {element.tag}"


def _number(element: Any, name: str, default: float | None = None, least: float | None = None) -> float:
    """A number of an element in the range of homes.

    Raises:
        HomeError: it is missing without a default, is no number, or is out of that range.
    """
    text = element.get(name)
    if text is None:
        if default is None:
            raise HomeError(f"{_called(element)} has no {name}")
        return default
    try:
        value = float(text)
    except ValueError:
        raise HomeError(f"{name} of {_called(element)} is {text[:40]!r}, no number") from None
    if not abs(value) <= MAX_CENTIMETERS or (least is not None and value < least):
        raise HomeError(f"{name} of {_called(element)} is {text[:40]}, which cannot be")
    return value


def _flag(element: Any, name: str, default: bool) -> bool:
    text = element.get(name)
    return default if text is None else text.strip().lower() == "true"


def _color(element: Any, name: str) -> tuple[tuple[float, float, float] | None, bool]:
    """The color in an attribute, AARRGGBB in hexadecimal, and whether it is wholly transparent."""
    text = element.get(name)
    if text is None:
        return None, False
    try:
        value = int(text, 16)
    except ValueError:
        raise HomeError(f"{name} of {_called(element)} is {text[:40]!r}, no color") from None
    if not 0 <= value <= 0xFFFFFFFF:
        raise HomeError(f"{name} of {_called(element)} is {text[:40]}, no color")
    red, green, blue = ((value >> shift & 255) / 255.0 for shift in (16, 8, 0))
    return (red, green, blue), len(text) > 6 and value >> 24 == 0


def _paint(element: Any, name: str, texture: Any) -> Paint:
    color, clear = _color(element, name)
    return Paint(color, _texture(texture) if texture is not None else None, hidden=clear)


def _side(wall: Any, side: str) -> Paint:
    return _paint(wall, f"{side}SideColor", _texture_called(wall, f"{side}SideTexture"))


def _texture_called(element: Any, name: str) -> Any:
    return next((t for t in element.findall("texture") if t.get("attribute") == name), None)


def _own_texture(piece: Any) -> Any:
    return next((t for t in piece.findall("texture") if t.get("attribute") in (None, "", "texture")), None)


def _texture(element: Any) -> Texture | None:
    image = element.get("image")
    if not image:
        return None
    return Texture(
        image=image,
        width=max(_number(element, "width", 100.0), 0.1),
        height=max(_number(element, "height", 100.0), 0.1),
        angle=_number(element, "angle", 0.0),
        scale=max(_number(element, "scale", 1.0), 1e-3),
        offset=(_number(element, "xOffset", 0.0), _number(element, "yOffset", 0.0)),
    )


def _rotation(element: Any) -> np.ndarray | None:
    """(3, 3), row by row, of `modelRotation`."""
    text = element.get("modelRotation")
    if text is None:
        return None
    try:
        matrix = np.array([float(word) for word in text.split()]).reshape(3, 3)
    except ValueError:
        raise HomeError(f"modelRotation of {_called(element)} is {text[:60]!r}, not nine numbers") from None
    if not np.isfinite(matrix).all() or abs(abs(np.linalg.det(matrix)) - 1) > 0.01:
        raise HomeError(f"modelRotation of {_called(element)} is {text[:60]!r}, no rotation")
    return matrix
