"""The shapes in a folder: which files are read as shapes, and which ones look like shapes and are not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .shapes import SHAPE_SUFFIXES

# Tables that belong to a folder of meshes and are no clouds.
TABLES = {"objects.csv"}
_TEXT_SUFFIXES = {".csv", ".txt"}
# 3D formats that are not read here, named so that nobody wonders where such files went.
OTHER_SUFFIXES = set(
    ".3dm .3ds .3mf .abc .blend .c4d .ctm .dae .dxf .e57 .fbx .iges .igs .ma .max .mb .ptx .rvt .skp .sldprt .step "
    ".stp .u3d .usd .usda .usdc .usdz .vtk .vtp .wrl .x3d".split()
)


@dataclass(frozen=True)
class ShapeFile(os.PathLike[str]):
    """A 3D file, and the folder below which it may name other files.

    Attributes:
        root: the folder that the user named; None: the file's own.
    """

    path: str
    root: str | None = None

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


@dataclass
class FoundShapes:
    """What folders hold.

    Attributes:
        files: that are read as shapes.
        skipped: files that hold no shape that is read here, with the reason.
    """

    files: list[ShapeFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line about what was skipped, "" for nothing."""
        counts = Counter(f"{Path(path).suffix.lower() or 'no suffix'}, {why}" for path, why in self.skipped.items())
        kinds = "; ".join(f"{count:,} {what}" for what, count in counts.most_common())
        first = next(iter(self.skipped), "")
        return f"{len(self.skipped):,} files skipped, e.g. {first} ({kinds})" if self.skipped else ""


def find_shapes(paths: Iterable[str | os.PathLike[str]], root: str | os.PathLike[str] | None = None) -> FoundShapes:
    """The given files, and all files below the given folders whose suffix is that of a shape.

    Files and folders whose name begins with a dot are passed over, and text files without rows of numbers are no
    clouds.

    Args:
        root: of all files; default: the folder in which a file was found, and its own for one that was named itself.
    """
    found = FoundShapes()
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            found.files.append(ShapeFile(str(path), None if root is None else os.fspath(root)))
            continue
        for file in walk(path):
            suffix = file.suffix.lower()
            if suffix in SHAPE_SUFFIXES and file.name not in TABLES:
                if suffix in _TEXT_SUFFIXES and not holds_numbers(file):
                    found.skipped[str(file)] = "without rows of numbers"
                else:
                    found.files.append(ShapeFile(str(file), os.fspath(path if root is None else root)))
            elif suffix in OTHER_SUFFIXES:
                found.skipped[str(file)] = "a format that is not read"
    return found


def walk(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without those whose name, or whose folder's name, begins with a dot."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def holds_numbers(path: Path) -> bool:
    """Whether one of the first lines of a text file has three numbers or more, as a cloud's lines have."""
    try:
        with path.open("rb") as file:
            lines = file.read(65536).decode("utf-8", errors="replace").splitlines()[:200]
    except OSError:
        return True  # the reader tells what is wrong with it
    return any(_numbers(line.replace(",", " ").replace(";", " ").split()) for line in lines)


def _numbers(words: list[str]) -> bool:
    try:
        return len([float(word) for word in words]) >= 3
    except ValueError:
        return False
