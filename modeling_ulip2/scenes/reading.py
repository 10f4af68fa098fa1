"""Any 3D file as a `Scene`: turned y up and scaled to meters. What had to be assumed is in its warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_ulip2.geometry.axes import resolve_up_axis, turn_to_y_up
from modeling_ulip2.geometry.colors import linear_to_srgb, to_uint8
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.mesh import Mesh
from modeling_ulip2.geometry.points import MAX_POINTS, MIXED_SUFFIXES, POINT_SUFFIXES, read_cloud
from modeling_ulip2.geometry.reading import MAX_BYTES, MESH_SUFFIXES, naming, read_mesh
from modeling_ulip2.geometry.sampling import sample_surface
from modeling_ulip2.geometry.shapes import SHAPE_SUFFIXES

from .schema import Scene
from .sources.published import read_published

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
AUTO_UNIT = "auto"
HOME_SUFFIX = ".sh3d"
# Points per square meter of a surface that a file gives as large triangles: one for every 2 cm x 2 cm, as scans have.
DENSITY = 2500.0
# A mesh with fewer vertices per square meter (one for every 7 cm x 7 cm) is a model whose surface is sampled.
_DENSE_VERTICES = 200.0
# No home is higher in meters, and none is lower in centimeters. Above, the same for centimeters and millimeters.
_HIGHEST_IN_METERS, _HIGHEST_IN_CENTIMETERS = 40.0, 1200.0
_LOWEST_IN_METERS = 0.4
# The height of a scan that shows a floor alone says nothing: its plan counts as this many times as wide as high.
_FLAT, _ACROSS_PER_HEIGHT = 0.05, 5.0
# Map coordinates, which are meters nearly everywhere.
_UNIT_OF_FORMAT = {".las": "m", ".laz": "m"}
# Up is an axis along which a scan is this much shorter than along the other.
_CLEARLY_SHORTER = 0.8
# Outliers among a scan's points, at each end of an axis.
_OUTLIERS = 0.5  # percent
# Coarsest step of float32 at which coordinates stay where they are, in meters.
_STEP = 5e-4
_THIN = (
    "thin the scan out first, to a point for every 2 cm (CloudCompare: Edit > Subsample; Open3D: voxel_down_sample), "
    "or cut it into rooms"
)


def read_scene(
    path: str | Path,
    up_axis: str = "auto",
    unit: str = "auto",
    *,
    labels: str | None = None,
    density: float = DENSITY,
    max_points: int = MAX_POINTS,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
) -> Scene:
    """Reads a scan: any file that `read_cloud` or `read_mesh` reads, or the folder of a published scene.

    A scan's mesh gives its vertices. A mesh of large triangles, such as a modeled room, gives points sampled from its
    surface, `density` of them per square meter. Points that are NaN are left out with a warning.

    Args:
        path: the file; its suffix names the format. A home of Sweet Home 3D (`.sh3d`) is scanned complete. Or a folder
            of ScanNet, ScanNet++, Replica or S3DIS, whose layout says what is up, which unit it is, and which objects
            there are; see `sources.published`.
        up_axis: what points up in the file: "y", "z", "-z" or "x". "auto": the axis that the format fixes (glTF: y,
            LAS: z); elsewhere the one of y and z along which the scan is clearly shorter, as rooms are wider than
            high; elsewhere z, as scanners write. All but the first is an assumption, said in `Scene.warnings`.
        unit: of the file's coordinates, one of `UNITS`. "auto": meters in LAS files and up to a height of 40,
            centimeters up to 1200, millimeters above; an assumption where it is not meters.
        labels: for ScanNet, the benchmark whose names objects get, "scannet20" or "scannet200"; None for raw labels.
        density: points per square meter of sampled surfaces.
        max_points, max_bytes: refused beyond, before memory is taken for them.
        seed: of sampled points.

    Returns:
        A scene called like the file; only published scenes have an annotation. Coordinates far from the origin, for
        which float32 is too coarse, are moved there by whole meters; a warning says by how much.

    Raises:
        MeshError: the file cannot be used; the message says what to do.
        HomeError: the home cannot be used.
        LayoutError: the folder is of no published layout, or its files do not belong together.
        ValueError: an `up_axis` or `unit` that is none.
    """
    path = Path(path)
    up = resolve_up_axis(path, up_axis)
    if unit != AUTO_UNIT and unit not in UNITS:
        raise ValueError(f"unit is {unit!r}; one of {', '.join(map(repr, (AUTO_UNIT, *UNITS)))}")
    if path.is_dir():
        return read_published(path, labels)
    if path.suffix.lower() == HOME_SUFFIX:
        from .scanning import scan_complete  # the two need the extra `scenes`
        from .sources.sweet_home.file import read_home_file

        return scan_complete(read_home_file(path), density, seed, max_points)
    suffix = path.suffix.lower()
    if suffix not in SHAPE_SUFFIXES:
        raise MeshError("unsupported", f"{suffix or 'no suffix'} is none of {', '.join(SHAPE_SUFFIXES)}", path)
    unit = _UNIT_OF_FORMAT.get(suffix, AUTO_UNIT) if unit == AUTO_UNIT else unit
    cloud = None
    try:
        mesh = _read_mesh(path, suffix, max_points, max_bytes)
        if mesh is None:
            cloud = read_cloud(path, max_points=max_points, max_bytes=max_bytes, leave_out_invalid=True)
    except MeshError as error:
        if error.reason in ("too_many_points", "too_many_faces", "too_large"):
            raise MeshError(error.reason, f"{error.args[0]}: {_THIN}", path) from None
        raise
    if cloud is not None:
        points, normals, rgb, warnings = cloud.xyz, None, cloud.rgb, cloud.warnings
    else:
        assert mesh is not None
        with naming(path):
            points, normals, rgb, warnings = _mesh_points(mesh, up, unit, density, max_points, seed)
    warnings = list(warnings)
    if up is None:
        up = guess_up_axis(points, warnings)
    points = turn_to_y_up(points, up)
    normals = None if normals is None else turn_to_y_up(normals, up)
    scale = UNITS[unit] if unit != AUTO_UNIT else UNITS[guess_unit(points, warnings)]
    xyz = to_meters(points, scale, warnings)
    return Scene(
        id=path.stem,
        xyz=xyz,
        rgb=rgb,
        normals=None if normals is None else normals.astype(np.float32),
        source=path.name,
        warnings=warnings,
    )


def _read_mesh(path: Path, suffix: str, max_points: int, max_bytes: int) -> Mesh | None:
    """The mesh in a file; None for a file of points, or of a mesh of which only the points can be used."""
    if suffix not in MESH_SUFFIXES:
        return None
    try:
        return read_mesh(path, max_faces=max_points, max_bytes=max_bytes, strict=False)
    except MeshError as error:
        points_too = suffix in POINT_SUFFIXES + MIXED_SUFFIXES
        # Vertices that are NaN, or triangles without area, are a mesh's faults; its other points are still a scan.
        if points_too and (
            error.reason == "empty" or (suffix == ".ply" and error.reason in ("non_finite", "zero_area"))
        ):
            return None
        raise


def _mesh_points(
    mesh: Mesh, up: str | None, unit: str, density: float, max_points: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, list[str]]:
    """Points (N, 3) of a mesh in its own frame, normals (N, 3), colors (N, 3) uint8 or None, and warnings."""
    scale = (
        UNITS.get(unit) or UNITS[guess_unit(turn_to_y_up(mesh.vertices, up or guess_up_axis(mesh.vertices, [])), [])]
    )
    area = float(mesh.face_areas().sum()) * scale**2
    warnings = list(mesh.warnings)
    textured = any(material.textured for material in mesh.materials)
    if len(mesh.vertices) >= _DENSE_VERTICES * area and not textured:
        if len(mesh.vertices) > max_points:
            raise MeshError("too_many_points", f"it holds {len(mesh.vertices)} points; at most {max_points}: {_THIN}")
        return mesh.vertices, vertex_normals(mesh), _vertex_rgb(mesh), warnings
    count = int(np.ceil(area * density))
    if count > max_points:
        raise MeshError(
            "too_many_points",
            f"its surface of {area:,.0f} square meters makes {count:,} points at {density:g} per square meter; at "
            f"most {max_points:,}. Give a lower density, or its unit if that is not "
            f"{next(name for name, meters in UNITS.items() if meters == scale)}",
        )
    sampled = sample_surface(mesh, max(count, 1), seed)
    plain = not textured and all((material.base_color == 1).all() for material in mesh.materials)
    colorless = plain and mesh.vertex_colors is None and mesh.face_colors is None
    return sampled.xyz, sampled.normals, None if colorless else sampled.rgb, warnings


def vertex_normals(mesh: Mesh) -> np.ndarray:
    """(V, 3) float64 unit normals: the file's own, else the mean of the faces around each vertex, weighted by area.

    A vertex whose faces cancel out or have no area gets +z, as a normal must have a length.
    """
    if mesh.normals is not None:
        normals = mesh.normals.astype(np.float64)
    else:
        face_normals = mesh.face_normals()  # (F, 3), as long as twice the area
        normals = np.stack(
            [
                np.bincount(mesh.faces.reshape(-1), np.repeat(face_normals[:, axis], 3), len(mesh.vertices))
                for axis in range(3)
            ],
            axis=1,
        )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.where(length > 0, length, 1.0), [0.0, 0.0, 1.0])


def _vertex_rgb(mesh: Mesh) -> np.ndarray | None:
    """(V, 3) uint8 of a mesh without textures; None where the file gives no color."""
    color = np.ones((len(mesh.vertices), 3), dtype=np.float32)
    given = False
    if mesh.vertex_colors is not None:
        color, given = mesh.vertex_colors[:, :3], True
    base = np.stack([material.base_color[:3] for material in mesh.materials])  # (M, 3)
    of_faces = None
    if mesh.face_colors is not None:
        of_faces = mesh.face_colors[:, :3] * base[mesh.face_material]
    elif (base != 1).any():
        of_faces = base[mesh.face_material]
    if of_faces is not None:  # that of one of the faces around each vertex
        own = np.ones_like(color)
        own[mesh.faces] = of_faces[:, None]
        color, given = color * own, True
    return to_uint8(linear_to_srgb(color)) if given else None


def extents(points: np.ndarray) -> np.ndarray:
    """(3,) how long a scan (N, 3) is along each axis, without its outliers."""
    low, high = np.percentile(points, [_OUTLIERS, 100 - _OUTLIERS], axis=0)
    return high - low


def guess_up_axis(points: np.ndarray, warnings: list[str]) -> str:
    """Which of y and z is up in a scan (N, 3), with a sentence in `warnings` on why; see `read_scene`."""
    _, y, z = extents(points)
    remedy = "; give the up axis if that is wrong"
    if y < _CLEARLY_SHORTER * z:
        warnings.append(f"y is taken as up, along which it is {y:.3g} long, and {z:.3g} along z{remedy}")
        return "y"
    shorter = z < _CLEARLY_SHORTER * y
    why = f"along which it is {z:.3g} long, and {y:.3g} along y" if shorter else "as in most scans"
    warnings.append(f"z is taken as up, {why}{remedy}")
    return "z"


def guess_unit(points: np.ndarray, warnings: list[str]) -> str:
    """The unit of a scan (N, 3) that stands y up, with a sentence in `warnings` unless it is plainly meters."""
    x, height, z = extents(points)
    across = max(x, z)
    size = height if height > _FLAT * across else across / _ACROSS_PER_HEIGHT
    if size <= _HIGHEST_IN_METERS:
        if 0 < size < _LOWEST_IN_METERS:
            warnings.append(f"it is {height:.3g} high, taken as meters; give the unit if that is wrong")
        return "m"
    unit, name = ("cm", "centimeters") if size <= _HIGHEST_IN_CENTIMETERS else ("mm", "millimeters")
    warnings.append(f"it is {height:.4g} high, taken as {name}; give the unit if that is wrong")
    return unit


def to_meters(points: np.ndarray, scale: float, warnings: list[str]) -> np.ndarray:
    """(N, 3) float32 meters of points in a unit of `scale` meters, near enough to the origin for float32."""
    points = np.asarray(points, dtype=np.float64) * scale
    if len(points) and np.spacing(np.float32(np.abs(points).max())) > _STEP:
        moved = np.round((points.min(axis=0) + points.max(axis=0)) / 2)
        points = points - moved
        warnings.append(
            f"it lies far from the origin and was moved there by {', '.join(f'{-m:.0f}' for m in moved)} m"
        )
    return points.astype(np.float32)
