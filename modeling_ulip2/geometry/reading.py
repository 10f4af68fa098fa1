"""`read_mesh`: one door for every mesh format, bounded in bytes and faces before anything large is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import gltf, obj, off, ply_mesh, stl
from .errors import MeshError
from .foreign import foreign_content, is_blank
from .mesh import INVISIBLE_ALPHA, Mesh
from .sandbox import Sandbox
from .textures import bleed

MAX_FACES = 2_000_000
MAX_BYTES = 512 * 2**20

_READERS: dict[str, Callable[..., Mesh]] = {
    ".glb": gltf.read_gltf,
    ".gltf": gltf.read_gltf,
    ".obj": obj.read_obj,
    ".off": off.read_off,
    ".ply": ply_mesh.read_ply,
    ".stl": stl.read_stl,
}
MESH_SUFFIXES: tuple[str, ...] = tuple(sorted(_READERS))


def read_mesh(
    path: str | Path,
    root: str | Path | None = None,
    *,
    max_faces: int = MAX_FACES,
    max_bytes: int = MAX_BYTES,
    strict: bool = True,
) -> Mesh:
    """Read a mesh with its colors, node transforms baked, in the file's own frame and scale.

    Formats: GLB and glTF 2.0 (Draco with DracoPy), OBJ with MTL, PLY, STL, OFF. Buffers, material files and images are
    read from below `root` only, links followed; an absolute path in the file stands for the file of that name beside
    it. What is left out or guessed on the way is said in `Mesh.warnings`.

    Args:
        path: the file; its suffix names the format.
        root: the folder below which everything is read, such as that of a whole collection, in which a mesh may name
            its neighbors' files (`../images/texture0.png`); the mesh's own folder by default.
        max_faces: largest number of triangles, counted over all instances.
        max_bytes: largest size of the file together with all files that it names.
        strict: a material file or image that is missing or cannot be decoded is an error. False shows the surface in
            its material's plain color instead and says so in `Mesh.warnings`.

    Raises:
        MeshError: with `.reason`, one of `errors.REASONS`.
    """
    path = Path(path)
    with naming(path):
        reader = _READERS.get(path.suffix.lower())
        if reader is None and path.is_file():
            raise MeshError("unsupported", f"{path.suffix or 'no suffix'} is none of {', '.join(MESH_SUFFIXES)}")
        data, sandbox = open_bounded(path, max_bytes, root)
        assert reader is not None  # a path that is no file was refused
        mesh = reader(data, sandbox, max_faces=max_faces, strict=strict)
        _bleed_cut_outs(mesh)
        mesh.warnings = list(dict.fromkeys([*sandbox.warnings, *mesh.warnings]))
        return mesh


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets errors in the block say which file they are about, and makes one of a lack of memory."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # wild numbers are judged once, by Mesh and PointCloud
            yield
    except MeshError as error:
        if error.path is None:
            error.path = path
        raise
    except MemoryError:
        raise MeshError("too_large", "it does not fit into memory", path) from None


def _bleed_cut_outs(mesh: Mesh) -> None:
    """See `textures.bleed`; materials that share an image keep sharing it. OPAQUE ones show every texel."""
    done: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by id of the image, which is kept so that no other gets it
    for material in mesh.materials:
        image = material.texture
        if image is not None and material.alpha_mode != "OPAQUE":
            if id(image) not in done:
                done[id(image)] = image, bleed(image, INVISIBLE_ALPHA)
            material.texture = done[id(image)][1]


def open_bounded(path: Path, max_bytes: int, root: str | Path | None = None) -> tuple[bytes, Sandbox]:
    """The file's bytes, and the sandbox for what it names, the two within `max_bytes`.

    Raises:
        MeshError: "missing"; "unsupported" for a folder or pipe; "empty"; "too_large"; "external_uri" if it lies
            outside the root or is a link that does; "not_downloaded" for a Git LFS pointer, an error page and so on.
    """
    try:
        sandbox = Sandbox(path.parent, max_bytes, None if root is None else Path(root))
        # A file that the caller names may be a link; one from a folder that the caller names may not lead out of it.
        if root is not None and not sandbox.allows(path.resolve()):
            raise MeshError("external_uri", f"it is a link to a file outside the folder {sandbox.root.name!r}")
        if not path.exists():
            raise MeshError("missing", "there is no such file")
        if not path.is_file():
            raise MeshError("unsupported", "it is not a regular file")
        size = path.stat().st_size
        if size == 0:
            raise MeshError("empty", f"it is {foreign_content(b'')}")
        sandbox.spend(size, "the file itself")
        data = path.read_bytes()
        foreign = foreign_content(data)
        if foreign is not None:
            raise MeshError("empty" if is_blank(data) else "not_downloaded", f"it is {foreign}")
        return data, sandbox
    except OSError as error:
        raise MeshError("missing", f"it cannot be opened ({error.strerror or error})") from None
