"""Files that the geometry tests write: small, exact, and broken in one place where a test wants that."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.geometry import Material, Mesh, MeshError, read_mesh, sample_points

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
TRIANGLE_UV = np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32)

CUBE_VERTICES = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
CUBE_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]]
)  # fmt: skip

_COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def cube() -> Mesh:
    """An axis-aligned white cube of side 2 around the origin."""
    return Mesh(CUBE_VERTICES, CUBE_FACES)


def quad(material: Material | None = None, z: float = 0.0, side: float = 2.0, **attributes: Any) -> Mesh:
    """A square in the xy plane that faces +z, uv (0, 0) at its upper left corner."""
    half = side / 2
    vertices = [[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]]
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
    return Mesh(
        np.array(vertices, dtype=np.float64), np.array([[0, 1, 2], [0, 2, 3]]), [material or Material()], uv=uv,
        **attributes,
    )  # fmt: skip


def sphere(rings: int = 16, smooth: bool = True) -> Mesh:
    """A unit sphere of latitude and longitude quads, with exact vertex normals if smooth."""
    theta = np.linspace(0, np.pi, rings + 1)
    phi = np.linspace(0, 2 * np.pi, 2 * rings + 1)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    points = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], axis=-1).reshape(-1, 3)
    columns = 2 * rings + 1
    faces = []
    for i in range(rings):
        for j in range(2 * rings):
            a, b = i * columns + j, (i + 1) * columns + j
            faces += [[a, b, b + 1], [a, b + 1, a + 1]]
    return Mesh(points, np.array(faces), normals=points.copy() if smooth else None)


def png(pixels: np.ndarray | list) -> bytes:
    """A PNG file of (H, W, 3 or 4) bytes."""
    stream = io.BytesIO()
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing: a decompression bomb's fuse."""
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


class Gltf:
    """A glTF document under construction; change `header` at will before writing it."""

    def __init__(self) -> None:
        self.binary = b""
        self.header: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}], "nodes": [], "meshes": [],
            "accessors": [], "bufferViews": [],
        }  # fmt: skip

    def view(self, data: bytes) -> int:
        """Append bytes; gives the index of their buffer view."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.header["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        return len(self.header["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, **extra: Any) -> int:
        values = np.asarray(values)
        width = 1 if values.ndim == 1 else values.shape[1]
        entry = {
            "bufferView": self.view(values.tobytes()), "componentType": _COMPONENTS[values.dtype.name],
            "count": len(values), "type": _TYPES[width],
        }  # fmt: skip
        self.header["accessors"].append(entry | extra)
        return len(self.header["accessors"]) - 1

    def mesh(self, attributes: dict[str, Any], indices: np.ndarray | None = None, **primitive: Any) -> int:
        """A mesh of one primitive; attributes are arrays or accessor numbers."""
        entry: dict[str, Any] = {
            "attributes": {n: v if isinstance(v, int) else self.accessor(v) for n, v in attributes.items()}
        }
        if indices is not None:
            entry["indices"] = self.accessor(np.asarray(indices))
        self.header["meshes"].append({"primitives": [entry | primitive]})
        return len(self.header["meshes"]) - 1

    def node(self, root: bool = True, **entry: Any) -> int:
        self.header["nodes"].append(entry)
        if root:
            self.header["scenes"][0]["nodes"].append(len(self.header["nodes"]) - 1)
        return len(self.header["nodes"]) - 1

    def material(self, **entry: Any) -> int:
        self.header.setdefault("materials", []).append(entry)
        return len(self.header["materials"]) - 1

    def texture(self, image: bytes | str, **entry: Any) -> int:
        """A texture of an embedded image (bytes) or of a URI (str)."""
        source: dict[str, Any] = {"uri": image}
        if isinstance(image, bytes):
            source = {"bufferView": self.view(image), "mimeType": "image/png"}
        self.header.setdefault("images", []).append(source)
        self.header.setdefault("textures", []).append({"source": len(self.header["images"]) - 1} | entry)
        return len(self.header["textures"]) - 1

    def write(self, path: Path) -> Path:
        """Write a .glb, or a .gltf with its buffer as a data URI unless `buffers` is set."""
        header = dict(self.header)
        if path.suffix == ".gltf":
            uri = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
            header.setdefault("buffers", [{"byteLength": len(self.binary), "uri": uri}])
            path.write_text(json.dumps(header))
            return path
        header.setdefault("buffers", [{"byteLength": len(self.binary)}])
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
        return path


def triangle_gltf(**primitive: Any) -> Gltf:
    """One triangle under one node."""
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, **primitive))
    return gltf


def binary_stl(vertices: np.ndarray, attributes: list[int] | None = None, header: bytes = b"") -> bytes:
    """(F, 3, 3) vertices as a binary STL file."""
    data = header.ljust(80, b"\0") + struct.pack("<I", len(vertices))
    for i, corners in enumerate(np.asarray(vertices, dtype="<f4")):
        data += b"\0" * 12 + corners.tobytes() + struct.pack("<H", attributes[i] if attributes else 0)
    return data


def only_color(path: Path, **kwargs: Any) -> list[int]:
    """The color of a mesh that has one."""
    rgb = sample_points(read_mesh(path, **kwargs), 50, 0)[1]
    assert (rgb == rgb[0]).all()
    return rgb[0].tolist()


def error_of(gltf: Any, tmp_path: Path, name: str = "a.glb") -> MeshError:
    """What reading a file that is wrong raises."""
    with pytest.raises(MeshError) as error:
        read_mesh(gltf.write(tmp_path / name))
    return error.value
