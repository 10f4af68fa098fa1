"""Folders of published scans: which layout they are of, and the scenes in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modeling_ulip2.scenes.schema import Scene

from .layouts import LayoutError
from .replica import is_replica, read_replica
from .s3dis import is_s3dis, read_s3dis
from .scannet import is_scannet, read_scannet
from .scannetpp import is_scannetpp, read_scannetpp

# Told apart by the files that only they have.
_LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Scene]]] = {
    "ScanNet": (is_scannet, read_scannet),
    "ScanNet++": (is_scannetpp, read_scannetpp),
    "Replica": (is_replica, read_replica),
    "S3DIS": (is_s3dis, read_s3dis),
}


def read_published(folder: Path, labels: str | None = None) -> Scene:
    """A scene of ScanNet, ScanNet++, Replica or S3DIS from its folder.

    Args:
        labels: for ScanNet, the benchmark whose names are used; see `read_scannet`.

    Raises:
        LayoutError: the folder is of none of these layouts, or its files do not belong together.
        MeshError: a file of points cannot be read.
    """
    if not folder.is_dir():
        raise LayoutError(f"{folder} is not a folder")
    for name, (fits, read) in _LAYOUTS.items():
        if fits(folder):
            return read_scannet(folder, labels) if name == "ScanNet" else read(folder)
    raise LayoutError(
        f"{folder} is no scene of {', '.join(_LAYOUTS)}: it holds none of *_vh_clean_2.ply, mesh_aligned_0.05.ply, "
        "mesh_semantic.ply with info_semantic.json, Annotations/*.txt"
    )


def find_published(folder: Path) -> list[Path]:
    """The folders of scenes in or below a folder, at most two levels down, sorted.

    Raises:
        LayoutError: there is none.
    """
    found = []
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        if any(fits(place) for fits, _ in _LAYOUTS.values()):
            found.append(place)
        elif depth < 2 and place.is_dir():
            waiting += [(child, depth + 1) for child in place.iterdir() if child.is_dir() and not child.is_symlink()]
    if not found:
        raise LayoutError(f"{folder} holds no scene of {', '.join(_LAYOUTS)}")
    return sorted(found)
