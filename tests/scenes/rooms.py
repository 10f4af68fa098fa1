"""Rooms of boxes, as scans."""

from __future__ import annotations

import numpy as np

from modeling_ulip2.scenes import Scene

WALL, WOOD, RED, GREEN = (225, 220, 205), (150, 110, 70), (200, 40, 40), (40, 140, 60)
DENSITY = 3000  # points per square meter


class RoomBuilder:
    """Collects points of rectangles and boxes, each of an object."""

    def __init__(self, density: float = DENSITY, seed: int = 0) -> None:
        self.density, self.rng = density, np.random.default_rng(seed)
        self.xyz: list[np.ndarray] = []
        self.rgb: list[np.ndarray] = []
        self.normals: list[np.ndarray] = []
        self.instance: list[np.ndarray] = []
        self.categories: list[str] = []

    def object(self, category: str) -> None:
        """What follows is of a new object."""
        self.categories.append(category)

    def rectangle(self, corner, u, v, color, outwards) -> None:
        """A rectangle at a corner with the sides u and v."""
        corner, u, v = (np.asarray(value, dtype=float) for value in (corner, u, v))
        count = max(1, round(np.linalg.norm(np.cross(u, v)) * self.density))
        self.xyz.append(corner + self.rng.random((count, 1)) * u + self.rng.random((count, 1)) * v)
        self.rgb.append(np.tile(np.uint8(color), (count, 1)))
        self.normals.append(np.tile(np.float32(outwards), (count, 1)))
        self.instance.append(np.full(count, len(self.categories) - 1, dtype=np.int32))

    def box(self, low, size, color) -> None:
        """A box from its lowest corner, of six sides."""
        low, size = np.asarray(low, dtype=float), np.asarray(size, dtype=float)
        for axis in range(3):
            u, v = np.zeros(3), np.zeros(3)
            u[(axis + 1) % 3], v[(axis + 2) % 3] = size[(axis + 1) % 3], size[(axis + 2) % 3]
            for side in (0, 1):
                corner, outwards = low.copy(), np.zeros(3)
                corner[axis] += side * size[axis]
                outwards[axis] = 2 * side - 1
                self.rectangle(corner, u, v, color, outwards)

    def shell(self, low, size, ceiling: bool = True, floor: bool = True) -> None:
        """Floor, walls and ceiling of a room, seen from inside."""
        (x, y, z), (w, h, d) = low, size
        if floor:
            self.object("floor")
            self.rectangle(low, (w, 0, 0), (0, 0, d), WOOD, (0, 1, 0))
        if ceiling:
            self.object("ceiling")
            self.rectangle((x, y + h, z), (w, 0, 0), (0, 0, d), (245, 245, 245), (0, -1, 0))
        for corner, along, inwards in (
            ((x, y, z), (w, 0, 0), (0, 0, 1)),
            ((x, y, z + d), (w, 0, 0), (0, 0, -1)),
            ((x, y, z), (0, 0, d), (1, 0, 0)),
            ((x + w, y, z), (0, 0, d), (-1, 0, 0)),
        ):
            self.object("wall")
            self.rectangle(corner, along, (0, h, 0), WALL, inwards)

    def chair(self, x: float, z: float, color=RED, cushion=GREEN, y: float = 0.0) -> None:
        self.object("chair")
        for dx in (0.0, 0.36):
            for dz in (0.0, 0.36):
                self.box((x + dx, y, z + dz), (0.04, 0.44, 0.04), color)
        self.box((x, y + 0.44, z), (0.4, 0.04, 0.4), color)
        self.box((x, y + 0.48, z), (0.4, 0.45, 0.04), color)
        if cushion is not None:
            self.object("cushion")
            self.box((x + 0.03, y + 0.49, z + 0.06), (0.34, 0.06, 0.33), cushion)

    def table(self, x: float, z: float, color=(90, 60, 40), y: float = 0.0) -> None:
        self.object("table")
        for dx in (0.0, 1.14):
            for dz in (0.0, 0.74):
                self.box((x + dx, y, z + dz), (0.06, 0.7, 0.06), color)
        self.box((x, y + 0.7, z), (1.2, 0.05, 0.8), color)

    def scene(
        self, name: str = "room", noise: float = 0.0, color: bool = True, normals: bool = False, turn: float = 0.0
    ) -> Scene:
        """What was built, turned about the vertical by an angle in radians."""
        xyz = np.concatenate(self.xyz)
        c, s = np.cos(turn), np.sin(turn)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        xyz = xyz @ rotation.T + noise * self.rng.standard_normal(xyz.shape)
        return Scene(
            name,
            xyz.astype(np.float32),
            np.concatenate(self.rgb) if color else None,
            (np.concatenate(self.normals) @ rotation.T).astype(np.float32) if normals else None,
            np.concatenate(self.instance),
            self.categories,
        )


def furnished(ceiling: bool = True, floor: bool = True, density: float = DENSITY) -> RoomBuilder:
    """A room of 4 by 3 meters: a chair with a cushion, a table with a box on it, and a cupboard at the wall."""
    room = RoomBuilder(density)
    room.shell((0, 0, 0), (4, 2.5, 3), ceiling, floor)
    room.chair(0.6, 0.7)
    room.table(2.0, 1.5)
    room.object("box")
    room.box((2.3, 0.75, 1.7), (0.25, 0.2, 0.25), RED)
    room.object("cupboard")
    room.box((3.0, 0.0, 0.05), (0.9, 1.7, 0.45), (230, 230, 240))
    return room


def best_iou(scene: Scene, points: list[np.ndarray], category: str) -> float:
    """How well the best of some masks covers the object of a category, which is there once; 0 to 1."""
    truth = scene.instance == scene.categories.index(category)
    best = 0.0
    for mask in points:
        common = int(truth[mask].sum())
        best = max(best, common / (int(truth.sum()) + len(mask) - common))
    return best
