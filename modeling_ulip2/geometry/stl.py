"""STL, binary and ASCII.

trimesh's loader is not used because it reads a truncated file as one without triangles, and drops the colors that two
programs store.
"""

from __future__ import annotations

import re
import struct

import numpy as np

from .colors import srgb_to_linear
from .errors import MeshError
from .mesh import Mesh
from .numbers import parse_numbers
from .sandbox import Sandbox
from .text import plain_text

_HEADER = 84  # bytes: 80 of anything, and the number of facets
_PADDING = 16  # bytes that transfers may append
_FACET = np.dtype([("normal", "<f4", 3), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])
# What stands before a facet's corners: its normal, which programs leave out or write as `-1.#IND00`, and is not used.
_FACET_HEAD = re.compile(rb"\bfacet\b.*?\bouter\s+loop\b", re.DOTALL)
_WORDS = (b"endloop", b"endfacet", b"vertex")


def read_stl(data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse an STL file; see `read_mesh` for the arguments' meaning. Facets are flat-shaded, as STL has them."""
    declared = struct.unpack_from("<I", data, 80)[0] if len(data) >= _HEADER else 0
    expected = _HEADER + _FACET.itemsize * declared
    if len(data) != expected and (text := _plain_solid(data)) is not None:  # binary ones may begin with "solid", too
        return _read_ascii(text, max_faces)
    if len(data) < _HEADER:
        raise MeshError("truncated", f"it has {len(data)} bytes; an STL header alone has {_HEADER}")
    if declared > max_faces:
        raise MeshError("too_many_faces", f"its header declares {declared} facets; at most {max_faces}")
    if len(data) < expected:
        raise MeshError("truncated", f"its header declares {declared} facets, {expected} bytes; it has {len(data)}")
    if len(data) > expected + _PADDING:
        behind = len(data) - expected
        if declared == 0:
            raise MeshError("corrupt", f"its header declares no facet, and {behind} bytes follow")
        warnings = [f"its header declares {declared} facets; the {behind} bytes behind them are left out"]
    else:
        warnings = []
    facets = np.frombuffer(data, _FACET, declared, _HEADER)
    return Mesh(
        vertices=facets["vertices"].reshape(-1, 3),
        faces=np.arange(3 * declared).reshape(-1, 3),
        face_colors=_facet_colors(data[:80], facets["attribute"].astype(np.int64)),
        warnings=warnings,
    )


def _plain_solid(data: bytes) -> bytes | None:
    """The file as plain text if it is an ASCII STL file, else None."""
    try:
        text = plain_text(data)
    except MeshError:
        return None
    return text if text[:512].lstrip().lower().startswith(b"solid") else None


def _read_ascii(text: bytes, max_faces: int) -> Mesh:
    text = text.lower()
    facets = text.count(b"endfacet")
    if facets > max_faces:
        raise MeshError("too_many_faces", f"it has {facets} facets; at most {max_faces}")
    if text.rfind(b"endsolid") <= text.rfind(b"endfacet"):
        raise MeshError("truncated", "its text ends before `endsolid`")
    text = re.sub(rb"(?m)^[ \t]*(end)?solid[^\n]*", b"", text)  # a solid's name may hold anything
    text = _FACET_HEAD.sub(b"", text)
    for word in _WORDS:
        text = text.replace(word, b"")
    numbers = parse_numbers(text)
    if numbers is None or len(numbers) != 9 * facets:
        raise MeshError("corrupt", f"its {facets} facets do not hold three corners of three numbers each")
    vertices = numbers.reshape(-1, 3)
    return Mesh(vertices=vertices, faces=np.arange(len(vertices)).reshape(-1, 3))


def _facet_colors(header: bytes, attributes: np.ndarray) -> np.ndarray | None:
    """15-bit colors, which two programs store in the attribute bytes, each in its own way; else None.

    Materialize Magics: the header says COLOR=rgba, bit 15 = 0 marks a facet's own color, red in the low bits.
    VisCAM and SolidView: bit 15 = 1 marks a color, blue in the low bits.
    """
    fields = np.stack([attributes & 31, (attributes >> 5) & 31, (attributes >> 10) & 31], axis=1) / 31.0  # (F, 3)
    own = (attributes >> 15) == 0
    start = header.find(b"COLOR=")
    if 0 <= start <= 70:
        whole = np.frombuffer(header[start + 6 : start + 9], np.uint8) / 255.0
        rgb = np.where(own[:, None], fields, whole)
    elif len(own) and not own.any():
        rgb = fields[:, ::-1]
    else:
        return None
    return np.column_stack([srgb_to_linear(rgb), np.ones(len(rgb), dtype=np.float32)])
