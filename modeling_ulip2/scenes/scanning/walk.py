"""A simulated scan: a person with a depth camera walks through the rooms and turns around at each place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon

from modeling_ulip2.geometry.colors import linear_to_srgb, to_uint8
from modeling_ulip2.geometry.surface import seen_colors, surface_colors
from modeling_ulip2.scenes.schema import Scene

from .complete import as_scene
from .rays import RayCaster
from .scene_mesh import Floor, SceneMesh

# Where one may stand: nothing nearer than this around the eye, the chest and the hips, meters.
_ELBOW_ROOM = 0.3
_BODY = (0.4, 0.9, 1.5)
_AROUND = 16
# Candidates for a place lie this far apart.
_GRID = 0.25
# Points that wait to be thinned out.
_AT_ONCE = 1_000_000
# Numbers of voxels and directions fit into 64 bits.
_MOST_VOXELS = 2.0**60
# What lies on the floor under a standing person is at most this thick.
_UNDERFOOT = 0.05


@dataclass(frozen=True)
class Walk:
    """How a building is walked through and what the camera is like; lengths in meters, angles in degrees.

    Args:
        eye_height: of the camera above the floor.
        spacing: between the places of a room.
        views: pictures in a turn, at equal angles.
        pitches: of the pictures above the horizon, one after the other and again from the first.
        fov: horizontal angle of view.
        width, height: of a picture, pixels.
        max_range: beyond which the camera measures nothing.
        steepest: angle between the ray and the surface's normal beyond which it measures nothing.
        noise: of a depth z, as its standard deviation a + b (z - 0.4)^2: by default Kinect's axial noise (Nguyen,
            Izadi and Lovell, 3DIMPVT 2012, eq. 1).
        voxel: of the surfaces in each cube of this size, one point is kept for each of six directions that they face:
            the one that was seen from nearest, as scans are fused. So noise spreads points, and does not add any.
    """

    eye_height: float = 1.5
    spacing: float = 2.0
    views: int = 8
    pitches: tuple[float, ...] = (-12.0, -30.0)
    fov: float = 70.0
    width: int = 256
    height: int = 192
    max_range: float = 5.0
    steepest: float = 82.0
    noise: tuple[float, float] = (0.0012, 0.0019)
    voxel: float = 0.02

    def __post_init__(self) -> None:
        if self.views < 1 or not self.pitches or self.width < 1 or self.height < 1:
            raise ValueError("a walk needs at least one view, one pitch and one pixel")
        if not 1 <= self.fov <= 170 or min(self.spacing, self.max_range, self.voxel, self.eye_height) <= 0:
            raise ValueError("fov lies between 1 and 170 degrees; spacing, range, voxel and eye height are above 0")


def scan_walk(scene: SceneMesh, walk: Walk | None = None, seed: int = 0) -> Scene:
    """What a depth camera sees of a building: surfaces from one side, partly hidden, with noise that grows with depth.

    Colors are those of the surfaces, without light and shade; normals are those of the surfaces, on the side that was
    seen. The camera sees through glass.

    Args:
        walk: how; a default `Walk` by default.
        seed: of the places, of the directions in which turns begin, and of the noise.

    Returns:
        A scene in which objects that were not seen have no point.

    Raises:
        ValueError: there is no free floor to stand on.
        ImportError: embreex is missing; the message says how to install it.
    """
    walk = walk or Walk()
    rng = np.random.default_rng(seed)
    caster = RayCaster(scene.mesh)
    places = standing_places(scene, caster, walk, rng)
    if len(places) == 0:
        raise ValueError(f"{scene.id} has no free floor on which to stand; scan it complete")
    seen = _Seen(scene, caster, walk, rng)
    for place in places:
        seen.turn(place)
    return seen.scene()


def standing_places(scene: SceneMesh, caster: RayCaster, walk: Walk, rng: np.random.Generator) -> np.ndarray:
    """(P, 3) places of the camera: on free floor, `walk.spacing` apart, at least one in each room that has any."""
    places = [_places_of(floor, caster, walk, rng) for floor in scene.floors]
    return np.concatenate(places) if places else np.zeros((0, 3))


def _places_of(floor: Floor, caster: RayCaster, walk: Walk, rng: np.random.Generator) -> np.ndarray:
    area = Polygon(floor.outline, floor.holes).buffer(0).buffer(-_ELBOW_ROOM)
    eye = min(walk.eye_height, floor.ceiling - floor.elevation - 0.2)
    if area.is_empty or eye < min(_BODY):
        return np.zeros((0, 3))
    low, high = np.array(area.bounds[:2]), np.array(area.bounds[2:])
    steps = [np.arange(low[axis] + rng.random() * _GRID / 2, high[axis] + 1e-9, _GRID) for axis in (0, 1)]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)  # (G, 2)
    if len(grid) == 0:
        grid = (low + high)[None] / 2
    grid = grid[shapely.contains_xy(area, grid[:, 0], grid[:, 1])]
    if len(grid) == 0:
        return np.zeros((0, 3))
    eyes = np.stack([grid[:, 0], np.full(len(grid), floor.elevation + eye), grid[:, 1]], axis=1)
    free = _is_free(eyes, eye, caster)
    eyes = eyes[free]
    chosen: list[int] = []
    distance = np.full(len(eyes), np.inf)
    # the next place is always the one farthest from all places so far
    while len(eyes) and (not chosen or distance.max() >= walk.spacing):
        chosen.append(int(rng.integers(len(eyes))) if not chosen else int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(eyes - eyes[chosen[-1]], axis=1))
    return eyes[chosen]


def _is_free(eyes: np.ndarray, eye: float, caster: RayCaster) -> np.ndarray:
    """(G,) bool: whether the floor is right below each eye (G, 3), and nothing within elbow room."""
    down = np.tile([0.0, -1.0, 0.0], (len(eyes), 1))
    below = caster.cast(eyes, down, eye + 0.1)
    free = (below.face >= 0) & (below.distance > eye - _UNDERFOOT)
    angles = np.arange(_AROUND) * 2 * np.pi / _AROUND
    around = np.stack([np.cos(angles), np.zeros(_AROUND), np.sin(angles)], axis=1)  # (A, 3)
    for height in _BODY:
        if height < eye + 0.1:
            origins = np.repeat(eyes - [0, eye - height, 0], _AROUND, axis=0)
            hits = caster.cast(origins, np.tile(around, (len(eyes), 1)), _ELBOW_ROOM)
            free &= (hits.face < 0).reshape(len(eyes), _AROUND).all(axis=1)
    return free


class _Seen:
    """The points that were seen so far, one for each voxel and direction."""

    def __init__(self, scene: SceneMesh, caster: RayCaster, walk: Walk, rng: np.random.Generator) -> None:
        self._mesh, self._walk, self._rng = scene, walk, rng
        self._caster = caster
        self._parts: list[tuple[np.ndarray, ...]] = []
        # The grid's planes keep off those of walls and floors, which lie at round numbers of centimeters: a surface in
        # such a plane would fall into voxels on both of its sides.
        low, high = scene.mesh.bounds + [[-1.382 * walk.voxel], [walk.voxel]]
        self._low, self._spans = low, np.ceil((high - low) / walk.voxel).astype(np.int64) + 1
        if float(np.prod(self._spans.astype(np.float64))) > _MOST_VOXELS:
            raise ValueError(f"{scene.id} is too large for voxels of {walk.voxel} m; choose larger ones")
        across = np.tan(np.radians(walk.fov) / 2)
        x = ((np.arange(walk.width) + 0.5) / walk.width * 2 - 1) * across
        y = (1 - (np.arange(walk.height) + 0.5) / walk.height * 2) * across * walk.height / walk.width
        grid = np.stack(np.broadcast_arrays(x, y[:, None], np.float64(-1.0)), axis=-1).reshape(-1, 3)
        self._per_depth = np.linalg.norm(grid, axis=1)  # meters along the ray for a meter of depth
        self._rays = grid / self._per_depth[:, None]  # (R, 3), looking to -z
        unit = scene.mesh.face_normals()
        self._normals = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-300)

    def turn(self, place: np.ndarray) -> None:
        """Adds what the camera sees from a place (3,) in one turn."""
        walk = self._walk
        start = self._rng.random() * 360
        for view in range(walk.views):
            yaw = np.radians(start + 360 * view / walk.views)
            pitch = np.radians(walk.pitches[view % len(walk.pitches)])
            self._look(place, _rotation(yaw, pitch))

    def _look(self, place: np.ndarray, rotation: np.ndarray) -> None:
        walk = self._walk
        rays = self._rays @ rotation.T
        hits = self._caster.cast(np.broadcast_to(place, rays.shape), rays, walk.max_range * self._per_depth.max())
        noise = self._rng.standard_normal(
            len(rays)
        )  # for every pixel, so that the rest does not depend on what is met
        depth = hits.distance / self._per_depth
        normals = self._normals[hits.face]
        facing = (normals * rays).sum(axis=1)  # the cosine, negative in front
        kept = (hits.face >= 0) & (depth <= walk.max_range) & (np.abs(facing) > np.cos(np.radians(walk.steepest)))
        depth, facing = depth[kept], facing[kept]
        sigma = walk.noise[0] + walk.noise[1] * (depth - 0.4) ** 2
        measured = np.maximum(depth + noise[kept] * sigma, 0.0) * self._per_depth[kept]
        xyz = place + rays[kept] * measured[:, None]
        normals = (normals[kept] * -np.sign(facing)[:, None]).astype(np.float32)
        cells = self._cells(place + rays[kept] * hits.distance[kept, None], normals)
        self._parts.append(_nearest(cells, depth, xyz, normals, hits.face[kept], hits.barycentric[kept]))
        # as much again as was kept so far, so that the sorting does not grow with the square of the places
        if sum(len(part[0]) for part in self._parts[1:]) > max(len(self._parts[0][0]), _AT_ONCE):
            self._gather()

    def _cells(self, exact: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """(P,) int64 number of the voxel that a surface lies in, and of the direction that it faces there."""
        cells = np.floor((exact - self._low) / self._walk.voxel).astype(np.int64)
        axis = np.abs(normals).argmax(axis=1)
        side = 2 * axis + (np.take_along_axis(normals, axis[:, None], axis=1)[:, 0] > 0)
        return ((cells[:, 0] * self._spans[1] + cells[:, 1]) * self._spans[2] + cells[:, 2]) * 6 + side

    def _gather(self) -> None:
        cells, depth, *rest = (np.concatenate(values) for values in zip(*self._parts, strict=True))
        self._parts = [_nearest(cells, depth, *rest)]

    def scene(self) -> Scene:
        self._gather()
        _, _, xyz, normals, face, barycentric = self._parts[0]
        if len(xyz) == 0:
            raise ValueError(f"nothing of {self._mesh.id} lies within the camera's range")
        mesh = self._mesh.mesh
        colors = seen_colors(mesh, face, barycentric, surface_colors(mesh, face, barycentric))
        rgb = to_uint8(linear_to_srgb(colors))
        return as_scene(self._mesh, xyz.astype(np.float32), rgb, normals, self._mesh.face_object[face])


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    """(3, 3) camera to world: turned about y, after it was raised."""
    cosine, sine = np.cos(pitch), np.sin(pitch)
    raised = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ raised


def _nearest(cells: np.ndarray, depth: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """What was seen from nearest in each cell: cells, depth and the others, in the order of cells."""
    order = np.lexsort((depth, cells))
    first = np.ones(len(cells), dtype=bool)
    first[1:] = cells[order][1:] != cells[order][:-1]
    chosen = order[first]
    return cells[chosen], depth[chosen], *(other[chosen] for other in others)
