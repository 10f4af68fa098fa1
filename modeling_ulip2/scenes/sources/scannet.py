"""ScanNet v2 and ScanNet200 (Dai et al., CVPR 2017; Rozenberszki et al., ECCV 2022), a folder for each scene:

scene0000_00/scene0000_00_vh_clean_2.ply
scene0000_00/scene0000_00_vh_clean_2.0.010000.segs.json    segment of each vertex
scene0000_00/scene0000_00.aggregation.json                 segments of each object, and its raw label
scene0000_00/scene0000_00.txt                              among others, the turn that aligns walls with axes
scannetv2-labels.combined.tsv                              raw labels in the benchmarks' sets
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from modeling_ulip2.scenes.schema import Scene

from .layouts import LayoutError, field, objects_of_segments, read_json, read_vertices, whole_numbers, z_up_scene
from .scannet_labels import LABEL_SETS

LABEL_TABLE = "scannetv2-labels.combined.tsv"
_MESH = "_vh_clean_2.ply"
_SEGMENTS = ("_vh_clean_2.0.010000.segs.json", "_vh_clean_2.segs.json", ".segs.json")
_MAX_TABLE_BYTES = 16 << 20


def is_scannet(folder: Path) -> bool:
    return next(folder.glob(f"*{_MESH}"), None) is not None


def read_scannet(folder: Path, labels: str | None = None, table: Path | None = None) -> Scene:
    """A scene of ScanNet, turned y up, its walls along the axes where the scene's text file says how.

    Args:
        folder: of the scene.
        labels: "scannet20" or "scannet200" to call objects by the names of that benchmark; objects that it leaves out
            are then none. None calls them by their raw labels.
        table: `scannetv2-labels.combined.tsv`; by default the one in the folder or in one of the two above it.

    Returns:
        Without annotation, as scenes of the test split are, where the folder has none.

    Raises:
        LayoutError: files are missing, or do not belong together.
        MeshError: the mesh cannot be read.
    """
    if labels is not None and labels not in LABEL_SETS:
        raise ValueError(f"labels is {labels!r}; one of {', '.join(LABEL_SETS)}, or None for raw ones")
    meshes = sorted(folder.glob(f"*{_MESH}"))
    if not meshes:
        raise LayoutError(f"{folder} holds no *{_MESH}")
    name = meshes[0].name.removesuffix(_MESH)
    cloud = read_vertices(meshes[0])
    aligned = _alignment(folder / f"{name}.txt")
    if aligned is not None:
        cloud.xyz = cloud.xyz @ aligned[:3, :3].T + aligned[:3, 3]
    aggregation = folder / f"{name}.aggregation.json"
    segments = next((path for end in _SEGMENTS if (path := folder / f"{name}{end}").is_file()), None)
    if segments is None and not aggregation.is_file():
        return z_up_scene(name, cloud, None, [], [], "ScanNet")
    if segments is None or not aggregation.is_file():
        missing = aggregation if segments is not None else folder / f"{name}{_SEGMENTS[0]}"
        raise LayoutError(f"{folder} holds one half of an annotation: {missing.name} is missing")
    of_vertex = whole_numbers(field(read_json(segments), "segIndices", list, segments), "segIndices", segments)
    if len(of_vertex) != len(cloud.xyz):
        raise LayoutError(
            f"{segments} has segments for {len(of_vertex):,} vertices, {meshes[0].name} has {len(cloud.xyz):,}: they "
            "are of two scans"
        )
    word_of = None if labels is None else read_label_table(table or find_label_table(folder), labels)
    groups, warnings = [], []
    for group in field(read_json(aggregation), "segGroups", list, aggregation):
        own = whole_numbers(field(group, "segments", list, aggregation), "segments", aggregation)
        raw = field(group, "label", str, aggregation)
        category = raw if word_of is None else word_of.get(raw)
        if category is not None:
            groups.append((own, category, raw))
    if word_of is not None and not groups:
        warnings.append(f"no object of it is in the label set {labels}")
    return z_up_scene(name, cloud, *objects_of_segments(of_vertex, groups), source="ScanNet", warnings=warnings)


def find_label_table(folder: Path) -> Path:
    """The label table beside a scene.

    Raises:
        LayoutError: there is none.
    """
    for place in (folder, *list(folder.resolve().parents)[:2]):
        if (place / LABEL_TABLE).is_file():
            return place / LABEL_TABLE
    raise LayoutError(f"{LABEL_TABLE} is neither in {folder} nor in the two folders above it; give its path")


def read_label_table(path: Path, labels: str) -> dict[str, str]:
    """Raw label to the name that a label set calls it by; labels outside the set are left out.

    Raises:
        LayoutError: it is no such table.
    """
    column, names = LABEL_SETS[labels]
    try:
        if path.stat().st_size > _MAX_TABLE_BYTES:
            raise LayoutError(f"{path} is too large for a table of labels")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise LayoutError(f"{path} cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{path} is no table of labels ({error})") from None
    if not rows or "raw_category" not in rows[0] or column not in rows[0]:
        raise LayoutError(f"{path} lacks the columns raw_category and {column}")
    found = {}
    for row in rows:
        number = row[column] or ""
        if number.strip().isdigit() and int(number) in names:
            found[row["raw_category"]] = names[int(number)]
    return found


def _alignment(path: Path) -> np.ndarray | None:
    """(4, 4) of the line `axisAlignment = …` in a scene's text file."""
    if not path.is_file() or path.stat().st_size > _MAX_TABLE_BYTES:
        return None
    for line in path.read_text("utf-8", errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "axisAlignment":
            try:
                matrix = np.array([float(word) for word in value.split()]).reshape(4, 4)
            except ValueError:
                matrix = np.zeros((4, 4))
            if not np.isfinite(matrix).all() or abs(abs(np.linalg.det(matrix[:3, :3])) - 1) > 0.01:
                raise LayoutError(f"axisAlignment in {path} is no turn of 16 numbers")
            return matrix
    return None
