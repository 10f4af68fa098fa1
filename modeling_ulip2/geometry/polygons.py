"""Polygons to triangles."""

from __future__ import annotations

import numpy as np

from modeling_ulip2.utils.packages import install_command

from .errors import MeshError
from .numbers import ranges

# Share of a polygon's area by which triangles may overlap before a fan is no triangulation of it.
_OVERLAP = 1e-6
# Share of the surface whose guessed polygons are worth a warning.
_NOTABLE = 0.01
# Coordinates are scaled to a polygon's size, so this is rounding alone: areas below it count as none.
_ROUNDING = 1e-13
# Ear clipping is quadratic at worst, about a second for a budget of 1e9. Smaller polygons cost next to nothing.
_FEW_CORNERS = 1000
_MOST_WORK = 2e9


def fan(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons into fans around their first corner, whatever their shape.

    Args:
        sizes: (P,) number of corners of each polygon, whose corners are stored one polygon after the other; polygons
            of fewer than three corners give no triangle.

    Returns:
        (F, 3) positions in the list of corners, and (F,) the polygon of each triangle.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    triangles = np.maximum(sizes - 2, 0)
    polygon = np.repeat(np.arange(len(sizes)), triangles)
    start = (np.cumsum(sizes) - sizes)[polygon]
    offset = np.arange(len(polygon)) - (np.cumsum(triangles) - triangles)[polygon]
    return np.column_stack([start, start + offset + 1, start + offset + 2]), polygon


def triangulate(
    positions: np.ndarray, corners: np.ndarray, sizes: np.ndarray, warnings: list[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons into triangles that cover what they enclose, wound as they are.

    A polygon is judged in the plane of its Newell normal, so it need not be quite planar. Where a fan around its first
    or second corner covers it, as in every convex one, that fan is taken; ears are clipped from the others, which may
    touch themselves or be joined to their holes by doubled edges. A polygon that crosses itself gets some covering.

    Args:
        positions: (V, 3) float64 coordinates.
        corners: (C,) the vertex of each corner, one polygon after the other.
        sizes: (P,) number of corners of each polygon.
        warnings: gets sentences about polygons of fewer than three corners and about outlines that cross themselves.

    Returns:
        (F, 3) positions in the list of corners, at most two fewer than its corners for each polygon, and (F,) the
        polygon of each triangle, ascending.

    Raises:
        MeshError: "unsupported" for polygons of so many corners that clipping ears would take minutes.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    triangles, polygon = fan(sizes)
    few = int((sizes < 3).sum())
    if few and few < len(sizes) and warnings is not None:
        warnings.append(f"{few} of its {len(sizes)} faces have fewer than three corners; they are left out")
    larger = np.flatnonzero(sizes > 3)
    if len(larger) == 0:
        return triangles, polygon
    starts, counts = (np.cumsum(sizes) - sizes)[larger], sizes[larger]
    where = _ranges(starts, counts)  # positions in the list of corners
    with np.errstate(all="ignore"):  # Mesh judges NaN and infinity; polygons that have them stay fans
        points = _scaled(positions[corners[where]], counts)
        covers, normals = _judge_fans(points, counts)
        left = np.flatnonzero(~covers)
        if len(left) == 0:
            return triangles, polygon
        first = np.cumsum(counts) - counts
        rows, turned = (_ranges(first[left], counts[left], shift) for shift in (0, 1))
        covers, _ = _judge_fans(points[turned], counts[left], normals[left])
        keep = np.repeat(covers, counts[left])
        order = np.arange(len(corners))
        order[where[rows[keep]]] = where[turned[keep]]
        triangles = order[triangles]
        left = left[~covers]
        if len(left) == 0:
            return triangles, polygon
        flat = _flatten(points[rows[~keep]], counts[left], normals[left])
    triangles, polygon, crossing = _with_ears(triangles, polygon, larger[left], starts[left], flat, counts[left])
    if len(crossing) and warnings is not None:
        a, b, c = (positions[corners[triangles[:, i]]] for i in range(3))  # each (F, 3)
        area = np.linalg.norm(_cross(b - a, c - a), axis=1)
        share = area[np.isin(polygon, crossing)].sum() / area.sum()
        if share > _NOTABLE:  # folded quadrilaterals are in every tenth file and change nothing
            warnings.append(
                f"{len(crossing)} of its polygons cross themselves, {share:.0%} of its surface; "
                "what they enclose is a guess"
            )
    return triangles, polygon


def _ranges(starts: np.ndarray, counts: np.ndarray, shift: int = 0) -> np.ndarray:
    """start, start + 1, ... of each of several ranges, joined; each is turned by `shift`."""
    within = ranges(np.zeros_like(starts), counts)
    if shift:
        within = (within + shift) % np.repeat(counts, counts)
    return np.repeat(starts, counts) + within


def _scaled(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(C, 3) corners of polygons, each moved and scaled so that its first is the origin and none is beyond 1."""
    first = np.cumsum(counts) - counts
    points = points - np.repeat(points[first], counts, axis=0)
    extent = np.maximum.reduceat(np.abs(points).max(axis=1), first)  # (P,)
    return points / np.repeat(np.where(extent > 0, extent, 1.0), counts)[:, None]


def _judge_fans(
    points: np.ndarray, counts: np.ndarray, normals: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the fan around each polygon's first corner covers what the polygon encloses, once.

    Args:
        points: (C, 3) as `_scaled` gives them.
        counts: (P,) more than three each.
        normals: (P, 3) where they are known.

    Returns:
        (P,) bool, and the unit normals (P, 3).
    """
    triangles, polygon = fan(counts)
    begin = np.cumsum(counts - 2) - (counts - 2)
    a = points[triangles[:, 0]]
    b, c = points[triangles[:, 1]] - a, points[triangles[:, 2]] - a  # each (F, 3)
    cross = _cross(b, c)
    if normals is None:
        normals = np.add.reduceat(cross, begin)  # twice the area: Newell's normal
        # A polygon whose two halves cancel out, a bow tie, still has a plane: that of its largest triangle.
        size = np.sqrt(np.einsum("fk,fk->f", cross, cross))
        length = np.sqrt(np.einsum("pk,pk->p", normals, normals))
        balanced = np.flatnonzero(length < 1e-9 * np.add.reduceat(size, begin))
        if len(balanced):
            largest = np.lexsort((size, polygon))[(begin + counts - 3)[balanced]]
            normals[balanced], length[balanced] = cross[largest], size[largest]
        normals = np.where(length[:, None] > 0, normals / length[:, None], [0.0, 0.0, 1.0])
    along = normals[polygon]
    area = np.einsum("fk,fk->f", cross, along)  # (F,) twice the signed area
    tolerance = _OVERLAP * np.abs(np.add.reduceat(area, begin)) + _ROUNDING
    covers = ~(np.minimum.reduceat(area, begin) < -tolerance)
    # Two triangles span less than a full turn; more may go round twice.
    many = np.flatnonzero(covers & (counts > 4))
    if len(many):
        rows = _ranges(begin[many], counts[many] - 2)
        b, c, along = b[rows], c[rows], along[rows]
        dot = (b * c).sum(axis=1) - (b * along).sum(axis=1) * (c * along).sum(axis=1)
        start = np.cumsum(counts[many] - 2) - (counts[many] - 2)
        swept = np.add.reduceat(np.arctan2(area[rows], dot), start)  # seen from the first corner
        covers[many] = ~(swept > 2 * np.pi + 1e-6)
    return covers, normals


def _cross(b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Row-wise cross products; numpy's own takes twice as long."""
    result = np.empty_like(b)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        result[:, i] = b[:, j] * c[:, k] - b[:, k] * c[:, j]
    return result


def _flatten(points: np.ndarray, counts: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(C, 2) corners of polygons as seen against their unit normals, so that they run counter-clockwise."""
    rows = np.arange(len(normals))
    axis = np.abs(normals).argmax(axis=1)
    ahead = (axis + 1) % 3
    right = np.zeros_like(normals)  # an axis, exactly, where the normal is one
    right[rows, ahead], right[rows, axis] = normals[rows, axis], -normals[rows, ahead]
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    up = np.cross(normals, right)
    return np.column_stack([(points * np.repeat(v, counts, axis=0)).sum(axis=1) for v in (right, up)])


def _with_ears(
    triangles: np.ndarray, polygon: np.ndarray, which: np.ndarray, starts: np.ndarray, flat: np.ndarray,
    counts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Put clipped ears in the place of the fans of the polygons `which`, whose flattened corners are `flat`.

    Also gives those of the polygons whose outlines cross themselves.
    """
    work = float((counts[counts > _FEW_CORNERS].astype(np.float64) ** 2).sum())
    if work > _MOST_WORK:
        raise MeshError(
            "unsupported",
            f"it has polygons of up to {counts.max()} corners that are not convex, which take too long to cut; "
            "triangulate it in the program that made it",
        )
    try:
        from mapbox_earcut import triangulate_float64
    except ImportError:
        raise MeshError(
            "unsupported",
            f"it has polygons that are not convex, which mapbox_earcut cuts; {install_command('mesh')}",
        ) from None
    flat = np.ascontiguousarray(flat, dtype=np.float64)
    pieces, begin = [], 0
    ends = {int(count): np.array([count], dtype=np.uint32) for count in np.unique(counts)}
    for count in counts.tolist():
        pieces.append(triangulate_float64(flat[begin : begin + count], ends[count]))
        begin += count
    numbers = np.array([len(piece) // 3 for piece in pieces])
    offset = np.repeat(np.cumsum(counts) - counts, numbers)[:, None]
    ears = np.concatenate(pieces).astype(np.int64).reshape(-1, 3)  # corners of each polygon from 0
    a, b, c = (flat[ears[:, i] + offset[:, 0]] for i in range(3))
    b, c = b - a, c - a
    twice = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]  # (F,) areas
    ears[twice < 0] = ears[twice < 0][:, ::-1]
    crossing = which[_crossing(flat, counts, np.abs(twice), numbers)]
    ears += np.repeat(starts, numbers)[:, None]
    # A polygon without area has no ears; its fan says as much.
    replaced = np.isin(polygon, which[numbers > 0])
    of = np.concatenate([polygon[~replaced], np.repeat(which, numbers)])
    order = np.argsort(of, kind="stable")
    return np.concatenate([triangles[~replaced], ears])[order], of[order], crossing


def _crossing(flat: np.ndarray, counts: np.ndarray, twice: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(P,) bool: which polygons are not covered once by their ears, since their outline crosses itself.

    Args:
        flat: (C, 2) corners of the polygons.
        counts: (P,) corners of each.
        twice: (F,) twice the areas of the ears.
        numbers: (P,) ears of each.
    """
    first = np.cumsum(counts) - counts
    x, y = flat.T
    ahead = _ranges(first, counts, 1)
    enclosed = np.add.reduceat(x * y[ahead] - x[ahead] * y, first)  # (P,) the shoelace formula
    covered = np.bincount(np.repeat(np.arange(len(counts)), numbers), twice, len(counts))
    return np.abs(covered - np.abs(enclosed)) > 1e-3 * covered + 1e-9
