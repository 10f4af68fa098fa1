"""The models that a home places: OBJ files with Sweet Home 3D's conventions for names of groups and materials."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.mesh import Mesh
from modeling_ulip2.geometry.reading import read_mesh

from .archive import Contents
from .default_materials import default_library
from .home import HomeError

# Groups whose names begin so are panes, half transparent unless their material says how much.
_PANE = "sweethome3d_window_pane"
_PANE_OPACITY = 0.5
# Groups that stand for the light of a lamp, and are not seen. They count for the size of the model.
_LIGHT = "sweethome3d_light"
_OWN_LIBRARY = "sweethome3d-materials.mtl"
MAX_FACES = 500_000
MAX_BYTES = 128 << 20
_TEXT = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:#|v |vn |vt |g |o |mtllib |usemtl |s )")


@dataclass
class Model:
    """A model in its own frame.

    Args:
        mesh: its surfaces, without those of lights.
        names: of the material behind each of `mesh.materials`.
        panes: which of `mesh.materials` are window panes, by their index.
        bounds: (2, 3) of all surfaces, lights as well.
    """

    mesh: Mesh
    names: list[str]
    panes: frozenset[int]
    bounds: np.ndarray


class ModelReader:
    """Reads models of one home, each once.

    Args:
        contents: of the home.
        scratch: an empty folder to unpack them into.
    """

    def __init__(self, contents: Contents, scratch: Path) -> None:
        self._contents, self._scratch = contents, scratch
        self._models: dict[str, Model | str] = {}

    def read(self, name: str) -> Model:
        """The model that a piece names.

        Raises:
            HomeError: it is missing, cannot be read, or is of another format than OBJ.
        """
        if name not in self._models:
            try:
                self._models[name] = self._read(name, self._scratch / str(len(self._models)))
            except (HomeError, MeshError) as error:
                self._models[name] = str(error.args[0])
        model = self._models[name]
        if isinstance(model, str):
            raise HomeError(model)
        return model

    def _read(self, name: str, folder: Path) -> Model:
        data = self._contents.read(name)
        if not (name.lower().endswith(".obj") or _TEXT.match(data[:4096])):
            kind = PurePosixPath(name).suffix.lower() or "its kind"
            raise HomeError(f"models of the format {kind} are not read, only OBJ")
        folder.mkdir()
        libraries = b""
        for other in self._contents.beside(name):
            relative = PurePosixPath(other.removeprefix(str(PurePosixPath(name.lstrip("/")).parent) + "/"))
            if any(part in ("..", "") or "\\" in part or ":" in part or "\0" in part for part in relative.parts):
                continue  # nothing that a model could name
            content = self._contents.read(other)
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            if relative.suffix.lower() == ".mtl":
                libraries += content + b"\n"
        text, panes = mark_groups(data)
        (folder / _OWN_LIBRARY).write_text(_pane_library(panes, libraries.decode("utf-8", "replace")), "utf-8")
        # Of materials that two files define, the first one's count: the program's defaults stand behind a model's own.
        path = folder / "model.obj"
        path.write_bytes(text + f"\nmtllib {_OWN_LIBRARY}\n".encode())
        mesh = read_mesh(path, folder, max_faces=MAX_FACES, max_bytes=MAX_BYTES, strict=False)
        return _without_lights(mesh)


def mark_groups(data: bytes) -> tuple[bytes, set[str]]:
    """An OBJ file in which panes and lights have materials of their own names, and the materials of its panes.

    `Mesh` knows no groups, and the program goes by their names: a pane keeps its material when its piece is painted.
    """
    panes: set[str] = set()
    lines: list[bytes] = []
    material, prefix, said = b"", b"", b""
    for line in data.split(b"\n"):
        words = line.split(None, 1)
        keyword = words[0] if words else b""
        if keyword == b"g":
            group = words[1] if len(words) > 1 else b""
            prefix = _PANE.encode() if group.startswith(_PANE.encode()) else b""
            prefix = _LIGHT.encode() if group.startswith(_LIGHT.encode()) else prefix
        elif keyword == b"usemtl":
            material = words[1].strip() if len(words) > 1 else b""
            continue  # written before the next face
        elif keyword in (b"f", b"fo"):
            named = prefix + b"/" + material if prefix else material
            if named != said:
                lines.append(b"usemtl " + named)
                said = named
            if prefix == _PANE.encode():
                panes.add(material.decode("utf-8", "replace"))
        lines.append(line)
    return b"\n".join(lines), panes


def _pane_library(panes: set[str], libraries: str) -> str:
    """A material file with the defaults, and with a pane for each of the materials that panes have."""
    defaults = default_library()
    known = {**_blocks(defaults), **_blocks(libraries)}
    lines = [defaults]
    for name in sorted(panes):
        color, opacity = known.get(name, ("1 1 1", 1.0))
        lines.append(f"newmtl {_PANE}/{name}\nKd {color}\nd {opacity if opacity < 1 else _PANE_OPACITY:g}\n")
    return "\n".join(lines)


def _blocks(text: str) -> dict[str, tuple[str, float]]:
    """Diffuse color and opacity of each material in a material file."""
    found: dict[str, tuple[str, float]] = {}
    for block in re.split(r"(?m)^\s*newmtl\s+", text)[1:]:
        name = block.split("\n", 1)[0].strip()
        color = re.search(r"(?m)^\s*Kd\s+([-\d.eE+]+\s+[-\d.eE+]+\s+[-\d.eE+]+)", block)
        opacity = re.search(r"(?m)^\s*d\s+([\d.]+)\s*$", block)
        try:
            found.setdefault(name, (color[1] if color else "1 1 1", float(opacity[1]) if opacity else 1.0))
        except ValueError:
            continue
    return found


def _without_lights(mesh: Mesh) -> Model:
    bounds = mesh.bounds
    names = [material.name for material in mesh.materials]
    panes = frozenset(i for i, name in enumerate(names) if name.startswith(_PANE + "/"))
    lights = np.array([name.startswith(_LIGHT + "/") for name in names])
    if lights.any():
        seen = ~lights[mesh.face_material]
        if not seen.any():
            raise HomeError("it shows nothing but light")
        mesh = replace(mesh, faces=mesh.faces[seen], face_material=mesh.face_material[seen])
    plain = [name.partition("/")[2] if name.startswith((_PANE + "/", _LIGHT + "/")) else name for name in names]
    return Model(mesh, plain, panes, bounds)
