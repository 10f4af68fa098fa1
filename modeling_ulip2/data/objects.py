"""Any folder of meshes as a list of objects: from its `objects.csv`, or from the files themselves."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from modeling_ulip2.geometry import MESH_SUFFIXES, Mesh
from modeling_ulip2.geometry.axes import rotate_mesh
from modeling_ulip2.geometry.folders import walk
from modeling_ulip2.geometry.shapes import SHAPE_SUFFIXES

OBJECT_COLUMNS = ["path", "id", "name", "tags", "category", "group", "creator", "license", "source", "rotation"]
OBJECTS_FILE = "objects.csv"
SOURCE_FILE = "SOURCE.md"  # where the meshes come from, for the dataset card
# File names that say nothing about the object: its folder's name is asked instead.
GENERIC_NAMES = {"3d", "asset", "export", "file", "geometry", "mesh", "meshes", "model", "models", "normalized", "obj"}
GENERIC_NAMES |= {"object", "output", "scan", "scene", "source", "textured", "untitled"}


class FolderError(ValueError):
    """The folder of meshes cannot be used; the message says what to do."""


def list_objects(folder: Path, table: Path | None = None, files: Sequence[str] | None = None) -> list[dict[str, str]]:
    """One row per mesh with the columns `OBJECT_COLUMNS`, all strings, "" where unknown.

    The table decides, by default the folder's `objects.csv` where there is one: its rows, in its order, with at least
    the column `path`, relative to the folder. Otherwise every mesh file below the folder is an object, sorted by path
    and named after its file; `files` are other ones to take without a table, relative to the folder.
    `id` is the path with `/` unless the table has ids of its own.

    Raises:
        FolderError: no such folder, no mesh in it, or a table that cannot be read.
    """
    if not folder.is_dir():
        raise FolderError(f"there is no folder {folder}" if not folder.exists() else f"{folder} is not a folder")
    if table is not None and not table.is_file():
        raise FolderError(f"there is no table {table}")
    table = table or folder / OBJECTS_FILE
    rows = _read_table(table) if table.is_file() else _rows(_meshes(folder) if files is None else files)
    if not rows:
        what, suffixes = ("mesh", MESH_SUFFIXES) if files is None else ("mesh or point file", SHAPE_SUFFIXES)
        nothing = f"{folder} has no {what} ({', '.join(suffixes)})"
        raise FolderError(f"{table} has no rows" if table.is_file() else nothing)
    return rows


def add_labels(rows: list[dict[str, str]], table: Path) -> int:
    """Overwrite what a table with the column `path` says about objects, wherever its cells are not empty.

    Where both have a `source`, it must be the same one, so that one table may label several collections.

    Returns:
        the number of objects that the table names.

    Raises:
        FolderError: the table cannot be read, or names none of the objects.
    """
    if not table.is_file():
        raise FolderError(f"there is no table {table}")
    columns = [column for column in OBJECT_COLUMNS if column not in ("path", "id", "rotation")]
    labels: dict[tuple[str, str], dict[str, str]] = {}
    for _, cells in _table_rows(table):
        path = cells["path"].replace("\\", "/")
        labels[path, cells["source"]] = {column: cells[column] for column in columns if cells[column]}
        labels.setdefault((path, ""), labels[path, cells["source"]])  # of objects without a source
    named = 0
    for row in rows:
        path = row["path"].replace("\\", "/")
        own = labels.get((path, row["source"])) or {}
        row.update(own)
        named += bool(own)
    if not named:
        raise FolderError(f"{table} names none of the objects; its column 'path' is relative to the folder of meshes")
    return named


def _read_table(table: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    lines_of: dict[str, int] = {}
    for line, row in _table_rows(table):
        if not row["path"]:
            raise FolderError(f"{table}, line {line}: the path is empty")
        row["id"] = row["id"] or row["path"].replace("\\", "/")
        if row["id"] in lines_of:
            raise FolderError(f"{table}, line {line}: {row['id']!r} is in line {lines_of[row['id']]} already")
        lines_of[row["id"]] = line
        row["name"] = row["name"] or name_from_path(row["path"])
        rows.append(row)
    return rows


def _table_rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a table with the column `path`: the number of each, and its cells of `OBJECT_COLUMNS`."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or []):
                raise FolderError(f"{table} has no column 'path'; its columns are {reader.fieldnames}")
            for entry in reader:
                yield reader.line_num, {column: (entry.get(column) or "").strip() for column in OBJECT_COLUMNS}
    except (csv.Error, UnicodeDecodeError) as error:
        raise FolderError(f"{table} is not a UTF-8 table of comma-separated values: {error}") from error


def _meshes(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk(folder) if path.suffix.lower() in MESH_SUFFIXES]


def _rows(paths: Iterable[str]) -> list[dict[str, str]]:
    blank = dict.fromkeys(OBJECT_COLUMNS, "")
    return [blank | {"path": path, "id": path, "name": name_from_path(path)} for path in sorted(paths)]


def name_from_path(path: str) -> str:
    """What a path calls its object: "props/OfficeChair_02.glb" is an "office chair", a hexadecimal name is none ("").

    Where the file is called something like "model.obj", the nearest folder with a telling name decides.
    """
    parts = path.replace("\\", "/").split("/")
    for part in [re.sub(r"\.[^.]*$", "", parts[-1]), *reversed(parts[:-1])]:
        words = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)(?=[A-Z][a-z])", r"\1\3 \2", part)
        words = re.sub(r"[^\w]+|_+", " ", words)
        words = re.sub(r"(?<=[^\W\d]{2})(?=\d)", " ", words)
        name = " ".join(word for word in words.lower().split() if not word.isdigit())
        if re.fullmatch(r"(?=.*\d)[0-9a-f]{8,}", re.sub(r"\W|_", "", part.lower())):
            return ""
        if name and name not in GENERIC_NAMES:
            return name
    return ""


def rotate(mesh: Mesh, rotation: str) -> Mesh:
    """Turn a mesh by an object's `rotation`; see `rotation_matrix`."""
    return rotate_mesh(mesh, rotation_matrix(rotation))


def rotation_matrix(rotation: str) -> np.ndarray:
    """An object's `rotation`, nine numbers of a row-major matrix in a string, as the matrix (3, 3).

    Raises:
        ValueError: it is no rotation matrix.
    """
    try:
        matrix = np.array(rotation.split(), dtype=np.float64).reshape(3, 3)
    except ValueError:
        raise ValueError(f"expected nine numbers as rotation, got {rotation!r}") from None
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
        raise ValueError(f"{rotation!r} is no rotation matrix")
    return matrix
