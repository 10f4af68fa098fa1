"""glTF 2.0 storage: the GLB container, buffers, accessors, Draco.

trimesh's loader is not used for glTF because it allocates what a header declares before looking at the file's size,
leaves sparse and normalized accessors, skins and texture transforms undone, and keeps linear colors in 8 bits.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from modeling_ulip2.utils.packages import install_command

from .errors import MeshError
from .sandbox import Sandbox
from .text import plain_text

# A glTF's JSON takes some twenty times its size in memory; real ones stay below a few megabytes.
MAX_JSON_BYTES = 64 * 2**20

_DTYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_READABLE = {
    "KHR_draco_mesh_compression",
    "KHR_lights_punctual",
    "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_xmp_json_ld",
    "EXT_mesh_gpu_instancing",
    # Textures: where one cannot be decoded, the plain color is shown, and a warning says so.
    "EXT_texture_avif",
    "EXT_texture_webp",
    "KHR_texture_basisu",
    "MSFT_texture_dds",
}


class GltfDocument:
    """The JSON of a glTF or GLB file and the numbers behind it."""

    def __init__(self, data: bytes, sandbox: Sandbox, max_count: int) -> None:
        """Args: `max_count` bounds the items of an accessor that no stored byte stands for."""
        self._sandbox = sandbox
        self._max_count = max_count
        self._binary: bytes | None = None
        self._buffers: dict[int, bytes] = {}
        self._draco: dict[int, Any] = {}
        self.header: dict[str, Any] = self._parse_container(data)
        version = str(self.header.get("asset", {}).get("version", "2.0"))
        if not version.startswith("2"):
            raise MeshError("unsupported", f"it is glTF {version}; only glTF 2 is read")
        for name in self.header.get("extensionsRequired", []):
            if name in _MESHOPT:
                raise MeshError(
                    "unsupported", f"it is compressed with {name}; store it uncompressed (gltf-transform, gltfpack)"
                )
            if name not in _READABLE and not str(name).startswith("KHR_materials_"):
                raise MeshError("unsupported", f"it requires the glTF extension {name}, which is not read")

    def _parse_container(self, data: bytes) -> dict[str, Any]:
        text = data
        if data[:4] == b"glTF":
            if len(data) < 20:
                raise MeshError("truncated", "its GLB header is cut off")
            version, length = struct.unpack_from("<II", data, 4)
            if version != 2:
                raise MeshError("unsupported", f"it is GLB {version}; only GLB 2 is read")
            if length > len(data):
                raise MeshError("truncated", f"it declares {length} bytes and has {len(data)}")
            start = 12
            chunks: dict[bytes, tuple[int, int]] = {}
            while start + 8 <= len(data) and start < length:
                size, kind = struct.unpack_from("<I4s", data, start)
                if start + 8 + size > len(data):
                    raise MeshError("truncated", f"a GLB chunk declares {size} bytes and is cut off")
                chunks.setdefault(kind, (start + 8, size))
                start += 8 + size
            if b"JSON" not in chunks:
                raise MeshError("corrupt", "its GLB container holds no JSON chunk")
            offset, size = chunks[b"JSON"]
            text = data[offset : offset + size]
            if b"BIN\0" in chunks:
                offset, size = chunks[b"BIN\0"]
                self._binary = data[offset : offset + size]
        if len(text) > MAX_JSON_BYTES:
            raise MeshError("too_large", f"its JSON has {len(text)} bytes; at most {MAX_JSON_BYTES} are parsed")
        try:
            header = json.loads(plain_text(text))
        except (ValueError, RecursionError) as error:
            raise MeshError("corrupt", f"its JSON cannot be parsed ({error})") from None
        if not isinstance(header, dict):
            raise MeshError("corrupt", "its JSON is not an object")
        return header

    def buffer_view(self, index: int) -> bytes:
        """The bytes of a buffer view."""
        view = self.header["bufferViews"][index]
        buffer = self._buffer(view["buffer"], any(name in view.get("extensions", {}) for name in _MESHOPT))
        start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if start < 0 or length < 0 or start + length > len(buffer):
            raise MeshError("truncated", f"buffer view {index} reaches beyond its buffer of {len(buffer)} bytes")
        return buffer[start : start + length]

    def _buffer(self, index: int, compressed: bool) -> bytes:
        if index not in self._buffers:
            entry = self.header["buffers"][index]
            if "uri" in entry:
                self._buffers[index] = self._sandbox.read_uri(entry["uri"])
            elif index == 0 and self._binary is not None:
                self._buffers[index] = self._binary
            elif compressed:
                raise MeshError(
                    "unsupported", "it is compressed with meshopt; store it uncompressed (gltf-transform, gltfpack)"
                )
            else:
                raise MeshError("corrupt", f"buffer {index} has neither a URI nor a binary chunk")
            if len(self._buffers[index]) < int(entry.get("byteLength", 0)):
                raise MeshError(
                    "truncated", f"buffer {index} has {len(self._buffers[index])} of {entry['byteLength']} bytes"
                )
        return self._buffers[index]

    def count(self, accessor: int) -> int:
        """Number of items that an accessor declares."""
        count = int(self.header["accessors"][accessor]["count"])
        if count < 0:
            raise MeshError("corrupt", f"accessor {accessor} declares {count} items")
        return count

    def accessor(self, index: int) -> np.ndarray:
        """The items of an accessor, (count, width): float32 if it holds floats or normalized integers, else integers.

        Sparse accessors are filled in (glTF 2.0, 3.6.2.3); normalized integers become numbers in [0, 1] or [-1, 1]
        (3.6.2.2).
        """
        entry = self.header["accessors"][index]
        dtype, width, count = np.dtype(_DTYPES[entry["componentType"]]), _WIDTHS[entry["type"]], self.count(index)
        if "bufferView" in entry:
            view = self.header["bufferViews"][entry["bufferView"]]
            stride = int(view.get("byteStride", 0)) or dtype.itemsize * width
            values = _strided(
                self.buffer_view(entry["bufferView"]),
                dtype,
                count,
                width,
                int(entry.get("byteOffset", 0)),
                stride,
                index,
            )
        else:
            if count > self._max_count:
                raise MeshError("too_many_faces", f"accessor {index} declares {count} items without any data")
            values = np.zeros((count, width), dtype=dtype)
        if "sparse" in entry:
            values = self._with_sparse(values.copy(), entry["sparse"], dtype, width, index)
        return self.normalize(index, values)

    def normalize(self, index: int, values: np.ndarray) -> np.ndarray:
        """Integers of an accessor declared as normalized, as float32 in [0, 1] or [-1, 1]; others unchanged."""
        entry = self.header["accessors"][index]
        dtype = np.dtype(_DTYPES[entry["componentType"]])
        if entry.get("normalized") and dtype.kind in "iu" and values.dtype.kind in "iu":
            return np.maximum(values.astype(np.float32) / np.float32(np.iinfo(dtype).max), np.float32(-1.0))
        return values

    def _with_sparse(self, values: np.ndarray, sparse: dict, dtype: np.dtype, width: int, index: int) -> np.ndarray:
        count = int(sparse["count"])
        where, what = sparse["indices"], sparse["values"]
        index_dtype = np.dtype(_DTYPES[where["componentType"]])
        offset = int(where.get("byteOffset", 0))
        rows = _strided(
            self.buffer_view(where["bufferView"]), index_dtype, count, 1, offset, index_dtype.itemsize, index
        )[:, 0]
        if count and rows.max() >= len(values):
            raise MeshError("corrupt", f"sparse accessor {index} replaces item {rows.max()} of {len(values)}")
        offset = int(what.get("byteOffset", 0))
        values[rows] = _strided(
            self.buffer_view(what["bufferView"]), dtype, count, width, offset, dtype.itemsize * width, index
        )
        return values

    def draco(self, extension: dict[str, Any], max_faces: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Decode a Draco-compressed primitive: faces (F, 3) and its attributes by glTF name.

        Raises:
            MeshError: "draco" where DracoPy is missing or fails.
        """
        try:
            import DracoPy
        except ImportError:
            raise MeshError(
                "draco", f"it is Draco-compressed, which DracoPy reads; {install_command('mesh')}"
            ) from None
        view = int(extension["bufferView"])
        if view not in self._draco:
            blob = self.buffer_view(view)
            declared = _draco_faces(blob)
            if declared > max_faces:
                raise MeshError("too_many_faces", f"its Draco data declares {declared} faces; at most {max_faces}")
            try:
                self._draco[view] = DracoPy.decode(blob)
            except Exception as error:  # DracoPy raises its own and built-in exceptions
                raise MeshError("draco", f"its Draco data cannot be decoded ({error})") from None
        decoded = self._draco[view]
        by_id = {attribute["unique_id"]: attribute["data"] for attribute in decoded.attributes}
        attributes = {name: by_id[number] for name, number in extension["attributes"].items() if number in by_id}
        return np.asarray(decoded.faces), attributes


def _strided(data: bytes, dtype: np.dtype, count: int, width: int, offset: int, stride: int, index: int) -> np.ndarray:
    """(count, width) view of bytes, refused if it reaches beyond them."""
    if count == 0:
        return np.zeros((0, width), dtype=dtype)
    size = dtype.itemsize * width
    if offset < 0 or stride < size or offset + (count - 1) * stride + size > len(data):
        raise MeshError("truncated", f"accessor {index} declares {count} items, more than its data holds")
    return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))


def _draco_faces(blob: bytes) -> int:
    """The number of faces in a Draco header, so that it can be refused before anything is allocated."""
    if blob[:5] != b"DRACO" or len(blob) < 14:
        raise MeshError("draco", "its Draco data has no Draco header")
    sequential = blob[8] == 0
    position = 11
    if blob[5] < 2 or (blob[5] == 2 and blob[6] < 2):  # before bit stream 2.2 the counts were plain integers
        return struct.unpack_from("<I", blob, position if sequential else position + 5)[0]

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while position < len(blob):
            byte = blob[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return value

    if sequential:
        return varint()
    position += 1  # kind of edge-breaker traversal
    varint()  # number of vertices
    return varint()
