"""STL, binary and ASCII. trimesh parses; what it passes over in silence is checked or read here."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from trimesh.exchange.stl import load_stl_ascii, load_stl_binary

from .colors import srgb_to_linear
from .errors import MeshError
from .mesh import Mesh
from .sandbox import Sandbox

_HEADER, _FACET = 84, 50  # bytes


def read_stl(path: Path, data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse an STL file; see `read_mesh` for the arguments' meaning. Facets are flat-shaded, as STL has them."""
    declared = struct.unpack_from("<I", data, 80)[0] if len(data) >= _HEADER else 0
    expected = _HEADER + _FACET * declared
    text = data[:512].lstrip().lower().startswith(b"solid") and b"\0" not in data[:512]
    if len(data) != expected and text:
        return _read_ascii(data, max_faces)
    if len(data) < _HEADER:
        raise MeshError("truncated", f"it has {len(data)} bytes; an STL header alone has {_HEADER}")
    if declared > max_faces:
        raise MeshError("too_many_faces", f"its header declares {declared} facets; at most {max_faces}")
    if len(data) < expected:
        raise MeshError(
            "truncated", f"its header declares {declared} facets, {expected} bytes, and it has {len(data)}"
        )
    if declared == 0:
        raise MeshError("empty", "it holds no triangle")
    parsed = load_stl_binary(io.BytesIO(data[:expected]))
    colors = _facet_colors(data[:80], parsed["face_attributes"]["stl"])
    return Mesh(vertices=parsed["vertices"], faces=parsed["faces"], face_colors=colors)


def _read_ascii(data: bytes, max_faces: int) -> Mesh:
    lower = data.lower()
    facets = lower.count(b"endfacet")
    if facets > max_faces:
        raise MeshError("too_many_faces", f"it has {facets} facets; at most {max_faces}")
    if lower.rfind(b"endsolid") < lower.rfind(b"facet") or lower.count(b"facet normal") != facets:
        raise MeshError("truncated", "its text ends before `endsolid`")
    try:
        parsed = load_stl_ascii(io.BytesIO(data))
    except ValueError as error:
        raise MeshError("corrupt", f"its text is not STL ({error})") from None
    solids = list(parsed["geometry"].values()) if "geometry" in parsed else [parsed]
    if not solids:
        raise MeshError("empty", "it holds no triangle")
    vertices = np.concatenate([solid["vertices"] for solid in solids])
    if len(vertices) != 3 * facets:
        raise MeshError("corrupt", f"its {facets} facets have {len(vertices)} readable vertices")
    return Mesh(vertices=vertices, faces=np.arange(len(vertices)).reshape(-1, 3))


def _facet_colors(header: bytes, attributes: np.ndarray) -> np.ndarray | None:
    """15-bit colours, which two programs store in the attribute bytes, each in its own way; else None.

    Materialise Magics: the header says COLOR=rgba, bit 15 = 0 marks a facet's own colour, red in the low bits.
    VisCAM and SolidView: bit 15 = 1 marks a colour, blue in the low bits.
    """
    attributes = attributes.reshape(-1).astype(np.int64)
    fields = np.stack([attributes & 31, (attributes >> 5) & 31, (attributes >> 10) & 31], axis=1) / 31.0  # (F, 3)
    start = header.find(b"COLOR=")
    if 0 <= start <= 70:
        whole = np.frombuffer(header[start + 6 : start + 9], np.uint8) / 255.0
        rgb = np.where((attributes >> 15 == 0)[:, None], fields, whole)
    elif (attributes >> 15 == 1).all():
        rgb = fields[:, ::-1]
    else:
        return None
    return np.column_stack([srgb_to_linear(rgb), np.ones(len(rgb), dtype=np.float32)])
