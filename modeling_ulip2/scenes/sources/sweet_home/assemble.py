"""A home as one mesh, in which every triangle belongs to an object."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import shapely

from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.scenes.scanning.scene_mesh import Floor, SceneMesh

from .archive import Contents
from .home import Home, HomeError, Piece
from .models import ModelReader
from .pieces import add_piece
from .plan import outlines, polygons
from .rooms import add_ceiling, add_floor, ceiling_elevations, floor_area
from .surfaces import Surfaces
from .walls import add_wall
from .words import is_part, word_of

# The nine example homes have 40,000 to 230,000.
MAX_FACES = 5_000_000
# What homes say of their license, as the hub spells it: the example homes leave a choice, of which this is the first.
EXAMPLES_LICENSE = "CC-BY Creative Commons Attribution 3.0 Unported license or GNU General Public License"
LICENSES = {EXAMPLES_LICENSE: "cc-by-3.0"}
_METERS = 0.01


def build_home(home: Home, contents: Contents, name: str, scratch: Path | None = None) -> SceneMesh:
    """The mesh of a home, in meters, y up: x and y of its plan are x and z.

    Walls, floors and ceilings are objects, one per wall and room. So is every piece of furniture; but plain boxes and
    cylinders in a group are parts of what the group is called, such as a fireplace.

    Args:
        home: from `read_home`.
        contents: where its models and images are.
        name: of the scene.
        scratch: a folder for unpacked models; a temporary one by default.

    Raises:
        HomeError: nothing of it can be shown, or too much.
    """
    builder = _Builder(home, contents, name)
    try:
        if scratch is not None:
            return builder.build(scratch)
        with tempfile.TemporaryDirectory(prefix="home-") as folder:
            return builder.build(Path(folder))
    except MeshError as error:
        raise HomeError(f"its surfaces make no mesh: {error.args[0]}") from None
    except shapely.errors.GEOSException as error:
        raise HomeError(f"its walls or rooms are no polygons that can be cut ({str(error)[:120]})") from None


class _Builder:
    def __init__(self, home: Home, contents: Contents, name: str) -> None:
        self.home, self.contents, self.name = home, contents, name
        self.surfaces = Surfaces(contents.read)
        self.categories: list[str] = []
        self.names: list[str] = []

    def start(self, category: str, name: str) -> int:
        self.categories.append(category)
        self.names.append(name)
        self.surfaces.current = len(self.categories) - 1
        return self.surfaces.current

    def build(self, scratch: Path) -> SceneMesh:
        home = self.home
        found = list(zip(home.walls, outlines(home.walls), strict=True))
        walls = [(wall, outline) for wall, outline in found if outline is not None]
        by_id = {wall.id: wall for wall, _ in walls}
        openings = [piece for piece in home.pieces if piece.opening is not None]
        middles = np.array([[piece.x, piece.y] for piece in openings]).reshape(-1, 2)
        reaches = np.array([np.hypot(piece.width, piece.depth) / 2 for piece in openings])
        for wall, outline in walls:
            self.start("wall", "")
            low = np.minimum(outline.left.min(axis=0), outline.right.min(axis=0))
            high = np.maximum(outline.left.max(axis=0), outline.right.max(axis=0))
            beyond = np.maximum(np.maximum(low - middles, middles - high), 0)  # (O, 2)
            near = np.flatnonzero(np.linalg.norm(beyond, axis=1) <= reaches)
            add_wall(self.surfaces, home, wall, outline, by_id, [openings[number] for number in near])
        floors = []
        for room in home.rooms:
            said = f"{room.name} " if room.name else ""
            if room.floor_visible:
                self.start("floor", f"{said}floor".strip())
                add_floor(self.surfaces, home, room, lambda said=said: self._underside(said))  # type: ignore[misc]
            if room.ceiling_visible:
                self.start("ceiling", f"{said}ceiling".strip())
                add_ceiling(self.surfaces, home, room, walls)
            if room.floor_visible:
                base = 0.0 if room.level is None else room.level.elevation
                for part in polygons(floor_area(home, room)):
                    corners = np.asarray(part.exterior.coords)[:-1, :2]
                    top = float(ceiling_elevations(home, room, walls, corners).max())
                    holes = [np.asarray(ring.coords)[:-1, :2] * _METERS for ring in part.interiors]
                    floors.append(Floor(room.name, corners * _METERS, holes, base * _METERS, top * _METERS))
        self._add_pieces(ModelReader(self.contents, scratch))
        mesh, face_object = self.surfaces.mesh()
        if mesh.num_faces > MAX_FACES:
            raise HomeError(f"it has {mesh.num_faces:,} triangles; at most {MAX_FACES:,}")
        return SceneMesh(
            id=self.name,
            mesh=mesh,
            face_object=face_object,
            categories=self.categories,
            names=self.names,
            floors=floors,
            license=LICENSES.get(home.license, home.license),
            warnings=[*home.warnings, *self.surfaces.warnings],
        )

    def _underside(self, said: str) -> None:
        self.start("ceiling", f"underside of the {said}floor")

    def _add_pieces(self, models: ModelReader) -> None:
        groups: dict[int, int] = {}  # the object that the parts of a group make
        failures: Counter[str] = Counter()
        faces = 0
        # things first, so that the parts of a group find the thing that they belong to
        for piece in sorted(self.home.pieces, key=lambda piece: self._belongs(piece)):
            try:
                model = models.read(piece.model)
            except HomeError as error:
                failures[str(error)] += 1
                continue
            faces += model.mesh.num_faces
            if faces > MAX_FACES:
                raise HomeError(f"its furniture has more than {MAX_FACES:,} triangles")
            if self._belongs(piece):
                if piece.group_number not in groups:
                    groups[piece.group_number] = self.start(word_of(piece.group), piece.group)
                self.surfaces.current = groups[piece.group_number]
            else:
                word = word_of(piece.name, piece.opening is not None)
                number = self.start(word, piece.name)
                if piece.group and word_of(piece.group) == word:
                    groups.setdefault(piece.group_number, number)
            add_piece(self.surfaces, piece, model)
        for message, count in failures.items():
            self.surfaces.warnings.append(f"{count} pieces are left out: {message}")

    @staticmethod
    def _belongs(piece: Piece) -> bool:
        """Whether a piece is a part of its group."""
        return bool(piece.group) and is_part(piece.catalog_id, piece.name)
