"""The parts of the room itself: floors, ceilings and walls, as planes. Gravity is known: y points up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UPRIGHT = 0.9  # of |y| of a normal: from here on a surface is horizontal; below the rest of it (0.44), vertical
# Once a plane is found, points on it belong to it whose normals are so much along its own: where two surfaces meet,
# and where a scan is noisy, normals are off.
ASLANT = 0.4
SLAB = 0.7  # meters, the thickest ceiling with the floor of the next level
ROOM_HEIGHT = 1.8  # meters, the lowest room
FLOOR_AREA = 1.0  # square meters, the smallest floor or ceiling of a level
FLOOR_SHARE = 0.15  # of the largest level's area
PLATFORM_AREA = 6.0  # square meters, the smallest floor within a room's height above another one
WALL_AREA = 0.7  # square meters, the smallest piece of a wall
WALL_LENGTH = 0.3  # meters
WALL_TOP = 0.4  # meters that a wall may end below the highest point of its level
LOWEST_WALL = 1.9  # meters
_CELL = 0.1  # meters, of the grid on which a plane's points hang together
_VOTERS = 100_000


@dataclass
class Plane:
    """A flat part of the room.

    Args:
        kind: "floor", "ceiling" or "wall".
        points: ascending indices of the points on it, int64.
    """

    kind: str
    points: np.ndarray


def find_structure(
    xyz: np.ndarray, normals: np.ndarray, area: np.ndarray, tolerance: float, seed: int = 0
) -> list[Plane]:
    """Floors, ceilings and walls of one or more rooms and levels. A point is on one of them at most.

    Floors and ceilings are peaks of the area of horizontal surfaces over height, each then fitted by least squares;
    walls are peaks among the vertical planes of a level (a Hough transform over direction and distance) that reach to
    its top, each piece that hangs together by itself.

    Args:
        xyz: (V, 3) float32, meters, y up.
        normals: (V, 3) float32 unit vectors of any sign.
        area: (V,) float32, square meters that each point stands for.
        tolerance: meters that a point may lie off its plane.
        seed: of the points that vote for walls, where there are many.
    """
    taken = np.zeros(len(xyz), dtype=bool)
    planes = []
    levels = _find_levels(xyz, normals, area, tolerance)
    for level in levels:
        free = level.points[~taken[level.points]]
        for piece in _connected(xyz[free][:, [0, 2]], _CELL):
            points = free[piece]
            if area[points].sum() >= FLOOR_AREA:
                planes.append(Plane(level.kind, points))
                taken[points] = True
    for low, high in _storeys(xyz, area, levels):
        planes += _find_walls(xyz, normals, area, taken, low, high, tolerance, seed)
    return planes


@dataclass
class _Level(Plane):
    height: float
    area: float


def _find_levels(xyz: np.ndarray, normals: np.ndarray, area: np.ndarray, tolerance: float) -> list[_Level]:
    """The horizontal planes that are floors or ceilings, from the lowest to the highest."""
    from scipy.signal import find_peaks

    flat = np.flatnonzero(np.abs(normals[:, 1]) > UPRIGHT)
    if len(flat) == 0:
        return []
    low, step = float(xyz[:, 1].min()), max(tolerance, 0.02)
    bins = ((xyz[flat, 1] - low) / step).astype(np.int64)
    if bins.max() > 100_000:
        return []  # kilometers high, no building
    histogram = np.convolve(np.bincount(bins, weights=area[flat]), np.ones(3), mode="full")  # (B + 2,)
    # a zero on both sides, so that the lowest and the highest may be peaks
    peaks = find_peaks(np.pad(histogram, 1), height=FLOOR_AREA, distance=3)[0] - 2
    found = []
    for peak in peaks:
        level = _fit_level(xyz, normals, area, flat, low + (peak + 0.5) * step, tolerance)
        if level is not None:
            found.append(level)
    found.sort(key=lambda level: -level.area)
    kept: list[_Level] = []
    for level in found:
        if level.area >= FLOOR_SHARE * found[0].area and all(_may_stand_beside(level, other) for other in kept):
            kept.append(level)
    kept.sort(key=lambda level: level.height)
    for number, level in enumerate(kept):
        above = kept[number + 1] if number + 1 < len(kept) else None
        level.kind = "ceiling" if _is_ceiling(level, above, xyz, area) else "floor"
    return kept


def _fit_level(
    xyz: np.ndarray, normals: np.ndarray, area: np.ndarray, flat: np.ndarray, height: float, tolerance: float
) -> _Level | None:
    """The plane, horizontal or nearly so, that most of the horizontal points at a height lie on."""
    inliers = flat[np.abs(xyz[flat, 1] - height) <= 2 * tolerance]
    for _ in range(3):
        if len(inliers) < 3:
            return None
        center = xyz[inliers].mean(axis=0, dtype=np.float64)
        offsets = xyz[inliers] - center
        slopes = np.linalg.lstsq(offsets[:, [0, 2]], offsets[:, 1], rcond=None)[0].clip(-0.03, 0.03)  # 1.7 degrees
        normal = np.array([-slopes[0], 1.0, -slopes[1]])
        inliers = flat[np.abs((xyz[flat] - center) @ normal) <= tolerance]
    size = float(area[inliers].sum())
    near = np.flatnonzero((np.abs(xyz[:, 1] - height) <= 0.5) & (np.abs(normals[:, 1]) > ASLANT))
    return _Level("floor", near[np.abs((xyz[near] - center) @ normal) <= tolerance], float(center[1]), size)


def _may_stand_beside(level: _Level, larger: _Level) -> bool:
    """Whether a horizontal plane may be a floor or a ceiling, too, where another one is: no table, bed or shelf."""
    apart = abs(level.height - larger.height)
    if apart >= ROOM_HEIGHT:
        return True
    if 0.1 <= apart <= SLAB and level.area >= 0.5 * larger.area:
        return True  # the two sides of a slab
    return apart > 0.1 and level.area >= PLATFORM_AREA


def _is_ceiling(level: _Level, above: _Level | None, xyz: np.ndarray, area: np.ndarray) -> bool:
    if above is not None and above.height - level.height <= SLAB and above.area >= 0.5 * level.area:
        return True
    height = xyz[:, 1]
    over = float(area[(height > level.height + 0.1) & (height < level.height + 1.2)].sum())
    under = float(area[(height < level.height - 0.1) & (height > level.height - 1.2)].sum())
    return over < 0.25 * under


def _storeys(xyz: np.ndarray, area: np.ndarray, levels: list[_Level]) -> list[tuple[float, float]]:
    """From where to where walls may stand: between a floor and the ceiling or the floor above it."""
    top = _highest(xyz[:, 1], area)
    floors = [level.height for level in levels if level.kind == "floor"] or [float(xyz[:, 1].min())]
    storeys = []
    for floor in floors:
        ends = [level.height for level in levels if level.height >= floor + ROOM_HEIGHT]
        storeys.append((floor, min(ends) if ends else top))
    return storeys


def _highest(heights: np.ndarray, area: np.ndarray) -> float:
    """Below which all but a hundredth of the area lies."""
    order = np.argsort(heights)
    total = np.cumsum(area[order])
    return float(heights[order[np.searchsorted(total, 0.99 * total[-1])]])


def _find_walls(
    xyz: np.ndarray,
    normals: np.ndarray,
    area: np.ndarray,
    taken: np.ndarray,
    low: float,
    high: float,
    tolerance: float,
    seed: int,
) -> list[Plane]:
    """The walls of one storey; marks their points in `taken`."""
    if high - low < LOWEST_WALL:
        return []
    upright = np.abs(normals[:, 1]) < np.sin(np.pi / 5)
    inside = (xyz[:, 1] > low - tolerance) & (xyz[:, 1] < high + tolerance)
    others = np.flatnonzero(~upright & inside & ~taken)
    points = np.flatnonzero(upright & inside & ~taken)
    if len(points) == 0:
        return []
    rng = np.random.default_rng(seed)
    voters = points if len(points) <= _VOTERS else np.sort(rng.choice(points, _VOTERS, replace=False))
    weight = area[voters].astype(np.float64) * (len(points) / len(voters))
    votes = _Votes(xyz[voters][:, [0, 2]], normals[voters][:, [0, 2]], weight)
    walls = []
    while (peak := votes.best()) is not None:
        direction, distance = peak  # (2,), and meters
        on_plane, distance = _fit_wall(
            xyz[points][:, [0, 2]], normals[points][:, [0, 2]], direction, distance, tolerance
        )
        on_plane = points[on_plane]
        along = xyz[on_plane][:, [0, 2]] @ np.array([-direction[1], direction[0]])  # (n,)
        found = [
            piece
            for piece in _connected(np.column_stack([along, xyz[on_plane, 1]]), _CELL)
            if _is_wall(along[piece], xyz[on_plane[piece], 1], float(area[on_plane[piece]].sum()), low, high)
        ]
        votes.withdraw(direction, distance, tolerance)
        for piece in found:  # with what is within its outline
            places = np.column_stack([along[piece], xyz[on_plane[piece], 1]])
            near = np.abs(xyz[others][:, [0, 2]] @ direction - distance) <= tolerance
            more = others[near & (np.abs(normals[others][:, [0, 2]] @ direction) > ASLANT)]
            aside = np.column_stack([xyz[more][:, [0, 2]] @ np.array([-direction[1], direction[0]]), xyz[more, 1]])
            within = ((aside >= places.min(axis=0)) & (aside <= places.max(axis=0))).all(axis=1) & ~taken[more]
            wall = np.sort(np.concatenate([on_plane[piece], more[within]]))
            walls.append(Plane("wall", wall))
            taken[wall] = True
        if found:
            points, others = points[~taken[points]], others[~taken[others]]
    return walls


class _Votes:
    """Which vertical planes the points of a storey may lie on, by direction and distance from the origin.

    Args:
        xz: (n, 2) points seen from above.
        normals: (n, 2) their normals, seen from above, of any sign.
        weight: (n,) square meters.
    """

    STEP = np.pi / 60  # 3 degrees
    WIDTH = 0.05  # meters

    def __init__(self, xz: np.ndarray, normals: np.ndarray, weight: np.ndarray) -> None:
        self.middle = xz.mean(axis=0)
        self.xz, self.weight = xz - self.middle, weight
        self.angle = np.arctan2(normals[:, 1], normals[:, 0]) % np.pi  # (n,)
        self.bins = round(np.pi / self.STEP)
        self.reach = float(np.linalg.norm(self.xz, axis=1).max()) + self.WIDTH
        self.alive = np.ones(len(xz), dtype=bool)

    def best(self) -> tuple[np.ndarray, float] | None:
        """Direction (2,) and distance of the plane of the largest area; None where none is as large as a wall."""
        if not self.alive.any():
            return None
        xz, angle, weight = self.xz[self.alive], self.angle[self.alive], self.weight[self.alive]
        columns = int(2 * self.reach / self.WIDTH) + 2
        number = (angle / self.STEP).astype(np.int64) % self.bins
        centers = (number + 0.5) * self.STEP
        distance = xz[:, 0] * np.cos(centers) + xz[:, 1] * np.sin(centers)
        column = ((distance + self.reach) / self.WIDTH).astype(np.int64)
        table = np.bincount(number * columns + column, weights=weight, minlength=self.bins * columns)
        place = int(table.argmax())
        near = (np.abs(_turn(number - place // columns, self.bins)) <= 1) & (np.abs(column - place % columns) <= 1)
        if weight[near].sum() < WALL_AREA:
            return None
        # the principal axes of what voted there
        center = np.average(xz[near], axis=0, weights=weight[near])
        turned = np.average(np.exp(2j * angle[near]), weights=weight[near])
        direction = np.array([np.cos(np.angle(turned) / 2), np.sin(np.angle(turned) / 2)])
        return direction, float((center + self.middle) @ direction)

    def withdraw(self, direction: np.ndarray, distance: float, tolerance: float) -> None:
        """Takes back the votes of points on a plane, so that the next one is found."""
        off = np.abs((self.xz + self.middle) @ direction - distance)
        turn = np.abs(np.cos(self.angle - np.arctan2(direction[1], direction[0])))
        gone = self.alive & (off <= max(2 * tolerance, self.WIDTH)) & (turn > np.cos(4 * self.STEP))
        if not gone.any():  # cannot happen twice in a row: then the table would not change
            gone = self.alive & (off <= 2 * self.WIDTH)
        self.alive &= ~gone
        if not gone.any():
            self.alive[:] = False


def _turn(difference: np.ndarray, bins: int) -> np.ndarray:
    """Differences of directions, the last of which is beside the first."""
    return (difference + bins // 2) % bins - bins // 2


def _fit_wall(
    xz: np.ndarray, normals: np.ndarray, direction: np.ndarray, distance: float, tolerance: float
) -> tuple[np.ndarray, float]:
    """Indices of the points on a vertical plane that was found by votes, after it was fitted to them, and its
    distance; turns `direction` (2,) in place."""
    along = np.abs(normals @ direction) > np.cos(np.pi / 5)
    near = np.flatnonzero(along & (np.abs(xz @ direction - distance) <= 3 * tolerance))
    for _ in range(2):
        if len(near) < 3:
            break
        center = xz[near].mean(axis=0, dtype=np.float64)
        axes = np.linalg.eigh(np.cov((xz[near] - center).T.astype(np.float64)))[1]
        fitted = axes[:, 0] * (1.0 if axes[:, 0] @ direction >= 0 else -1.0)
        if fitted @ direction < np.cos(np.pi / 12):
            break  # a short piece, wider than long
        direction[:] = fitted
        distance = float(center @ direction)
        near = np.flatnonzero(along & (np.abs(xz @ direction - distance) <= tolerance))
    return near, distance


def _is_wall(along: np.ndarray, heights: np.ndarray, area: float, low: float, high: float) -> bool:
    """Whether a vertical piece is one of the room: long enough, and as high as the storey."""
    return (
        area >= WALL_AREA
        and float(np.ptp(along)) >= WALL_LENGTH
        and float(heights.max()) >= high - WALL_TOP
        and float(np.ptp(heights)) >= 0.5 * (high - low)
    )


def _connected(places: np.ndarray, cell: float) -> list[np.ndarray]:
    """Points (n, 2) by what hangs together on a grid of squares, each group as ascending indices."""
    from scipy.ndimage import label

    if len(places) == 0:
        return []
    cells = ((places - places.min(axis=0)) / cell).astype(np.int64)  # (n, 2)
    size = cells.max(axis=0) + 1
    if int(size[0]) * int(size[1]) > 50_000_000:  # 700 m by 700 m
        raise ValueError("the scan is too wide: are its coordinates in meters, and are there points far outside?")
    grid = np.zeros(size, dtype=bool)
    grid[cells[:, 0], cells[:, 1]] = True
    groups = label(grid, structure=np.ones((3, 3)))[0][cells[:, 0], cells[:, 1]]  # (n,), from 1 on
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
