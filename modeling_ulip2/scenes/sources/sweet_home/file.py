"""A home's file as a mesh."""

from __future__ import annotations

import zipfile
from pathlib import Path

from modeling_ulip2.scenes.scanning.scene_mesh import SceneMesh

from .archive import HOME_ENTRY, Contents, open_home
from .assemble import build_home
from .home_xml import read_home


def read_home_file(path: Path, name: str | None = None, catalog: zipfile.ZipFile | None = None) -> SceneMesh:
    """The mesh of a home that Sweet Home 3D saved (`.sh3d`).

    Args:
        name: of the scene; by default that of the file.
        catalog: the open `sweethome3d.jar`, for homes that name its models instead of carrying them.

    Raises:
        HomeError: the home cannot be used; the message says why.
    """
    name = name or path.stem
    with open_home(path) as archive:
        contents = Contents(archive, catalog)
        return build_home(read_home(contents.read(HOME_ENTRY), name), contents, name)
