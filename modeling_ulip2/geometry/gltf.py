"""glTF 2.0 and GLB: scene graph, skins and primitives, baked into one mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .errors import MeshError
from .gltf_data import GltfDocument
from .gltf_materials import GltfMaterials
from .mesh import Mesh, Part, finite_colors, join
from .sandbox import Sandbox

_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def read_gltf(path: Path, data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse a .gltf or .glb file; see `read_mesh` for the arguments' meaning.

    The default scene is taken in its rest pose: node transforms, skins and default morph weights are baked.
    """
    try:
        document = GltfDocument(data, sandbox, max_count=3 * max_faces)
        return _Scene(document, GltfMaterials(document, sandbox, strict), max_faces).mesh()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, MeshError):
            raise
        raise MeshError("corrupt", f"its glTF structure is broken ({type(error).__name__}: {error})") from None


class _Scene:
    def __init__(self, document: GltfDocument, materials: GltfMaterials, max_faces: int) -> None:
        self._document = document
        self._header = document.header
        self._materials = materials
        self._max_faces = max_faces
        self._worlds = self._world_transforms()

    def mesh(self) -> Mesh:
        instances = self._instances()
        declared = sum(self._declared_faces(mesh) for _, mesh, _ in instances)
        if declared > self._max_faces:
            raise MeshError("too_many_faces", f"it declares {declared} triangles; at most {self._max_faces}")
        parts = [
            part
            for node, mesh, world in instances
            for primitive in self._header["meshes"][mesh]["primitives"]
            if (part := self._part(node, self._header["meshes"][mesh], primitive, world)) is not None
        ]
        mesh = join(parts, self._materials.materials)
        mesh.warnings = self._materials.warnings
        return mesh

    def _instances(self) -> list[tuple[dict[str, Any], int, np.ndarray]]:
        """Every drawn mesh: its node, its index and the node's world transform (4, 4)."""
        nodes = self._header.get("nodes", [])
        if not nodes:  # meshes without a scene graph: show them as they are
            return [({}, index, np.eye(4)) for index in range(len(self._header.get("meshes", [])))]
        return [(nodes[i], int(nodes[i]["mesh"]), world) for i, world in self._worlds.items() if "mesh" in nodes[i]]

    def _world_transforms(self) -> dict[int, np.ndarray]:
        """World transform (4, 4) of each node of the default scene; each node has one parent (glTF 2.0, 3.5.2)."""
        nodes = self._header.get("nodes", [])
        scenes = self._header.get("scenes", [])
        if scenes:
            roots = scenes[self._header.get("scene", 0)].get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [index for index in range(len(nodes)) if index not in children]
        worlds: dict[int, np.ndarray] = {}
        stack = [(int(root), np.eye(4)) for root in reversed(roots)]
        while stack:
            index, parent = stack.pop()
            if index in worlds:
                raise MeshError("corrupt", f"node {index} has two parents or is its own ancestor")
            worlds[index] = parent @ _local_transform(nodes[index])
            stack.extend((int(child), worlds[index]) for child in reversed(nodes[index].get("children", [])))
        return worlds

    def _declared_faces(self, mesh: int) -> int:
        total = 0
        for primitive in self._header["meshes"][mesh]["primitives"]:
            mode = primitive.get("mode", _TRIANGLES)
            source = primitive.get("indices", primitive["attributes"].get("POSITION"))
            if mode in (_TRIANGLES, _STRIP, _FAN) and source is not None:
                corners = self._document.count(source)
                total += corners // 3 if mode == _TRIANGLES else max(0, corners - 2)
        return total

    def _part(self, node: dict, mesh: dict, primitive: dict, world: np.ndarray) -> Part | None:
        """One primitive in world coordinates, or None if it is made of points or lines."""
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_TRIANGLES, _STRIP, _FAN) or "POSITION" not in primitive["attributes"]:
            return None
        faces, attributes = self._faces_and_attributes(primitive, mode)
        if len(faces) == 0:
            return None
        # Primitives may share one large set of vertices: keep what this one uses.
        used, faces = np.unique(faces, return_inverse=True)
        faces = faces.reshape(-1, 3)
        if used[-1] >= len(attributes["POSITION"]):
            raise MeshError("corrupt", f"a face names vertex {used[-1]} of {len(attributes['POSITION'])}")
        for name, values in attributes.items():
            if len(values) <= used[-1]:
                raise MeshError("corrupt", f"{name} has {len(values)} items, fewer than its primitive's vertices")
            attributes[name] = values[used]
        positions = attributes["POSITION"].astype(np.float64)
        normals = attributes["NORMAL"].astype(np.float64) if "NORMAL" in attributes else None
        self._morph(node, mesh, primitive, used, positions, normals)
        if "skin" in node and "JOINTS_0" in attributes and "WEIGHTS_0" in attributes:
            positions, normals = self._skin(node["skin"], attributes, positions, normals)
        else:
            positions, normals = _transform(world, positions, normals)
            if np.linalg.det(world[:3, :3]) < 0:  # a mirror turns every triangle inside out
                faces = faces[:, ::-1]
        material, use = self._materials.use(primitive.get("material"))
        uv = None
        if use is not None:
            uv = attributes.get(f"TEXCOORD_{use.set_index}")
            if uv is None:
                self._materials.warnings.append(
                    "a textured primitive has no texture coordinates; texel (0, 0) is used"
                )
            else:
                uv = use.apply(uv.astype(np.float32)[:, :2])
        colors = attributes.get("COLOR_0")
        if colors is not None:
            colors = colors.astype(np.float32)
            colors = finite_colors(colors, self._materials.warnings)
        if colors is not None:
            if colors.shape[1] == 3:
                colors = np.column_stack([colors, np.ones(len(colors), dtype=np.float32)])
        return Part(positions, faces, material, normals, uv, colors)

    def _faces_and_attributes(self, primitive: dict, mode: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        names = [
            name
            for name in primitive["attributes"]
            if name in ("POSITION", "NORMAL", "COLOR_0") or name.startswith(("TEXCOORD_", "JOINTS_", "WEIGHTS_"))
        ]
        draco = primitive.get("extensions", {}).get("KHR_draco_mesh_compression")
        attributes: dict[str, np.ndarray] = {}
        if draco is not None:
            faces, decoded = self._document.draco(draco, self._max_faces)
            attributes = {
                name: self._document.normalize(primitive["attributes"][name], decoded[name])
                for name in names
                if name in decoded
            }
        for name in names:
            if name not in attributes:
                attributes[name] = self._document.accessor(primitive["attributes"][name])
        if draco is not None:
            return faces.astype(np.int64), attributes
        if "indices" in primitive:
            corners = self._document.accessor(primitive["indices"])[:, 0].astype(np.int64)
        else:
            corners = np.arange(len(attributes["POSITION"]))
        return _triangles(corners, mode), attributes

    def _morph(
        self, node: dict, mesh: dict, primitive: dict, used: np.ndarray, positions: np.ndarray, normals: Any
    ) -> None:
        """Add the default weights' morph targets to positions and normals, in place (glTF 2.0, 3.7.2.2)."""
        weights = node.get("weights", mesh.get("weights", []))
        for weight, target in zip(weights, primitive.get("targets", []), strict=False):
            for name, values in (("POSITION", positions), ("NORMAL", normals)):
                if weight and values is not None and name in target:
                    values += float(weight) * self._document.accessor(target[name])[used]

    def _skin(
        self, index: int, attributes: dict[str, np.ndarray], positions: np.ndarray, normals: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The rest pose: each vertex follows its joints' world transforms, not its node's (glTF 2.0, 3.7.3)."""
        skin = self._header["skins"][index]
        joints = np.stack([self._worlds.get(int(joint), np.eye(4)) for joint in skin["joints"]])  # (J, 4, 4)
        if "inverseBindMatrices" in skin:
            inverse = self._document.accessor(skin["inverseBindMatrices"]).astype(np.float64)
            joints = joints @ inverse[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1)  # stored column by column
        blended = np.zeros((len(positions), 4, 4))  # (V, 4, 4)
        total = np.zeros(len(positions))
        for number in range(8):
            if f"JOINTS_{number}" not in attributes or f"WEIGHTS_{number}" not in attributes:
                break
            joint_of = attributes[f"JOINTS_{number}"].astype(np.int64)
            weights = np.nan_to_num(attributes[f"WEIGHTS_{number}"].astype(np.float64))  # FBX converters write NaN
            if joint_of.max(initial=0) >= len(joints):
                raise MeshError("corrupt", f"a vertex names joint {joint_of.max()} of {len(joints)}")
            for column in range(4):
                blended += weights[:, column, None, None] * joints[joint_of[:, column]]
            total += weights.sum(axis=1)
        loose = total <= 1e-8  # without weights a vertex follows its first joint
        blended[loose], total[loose] = joints[attributes["JOINTS_0"][loose, 0].astype(np.int64)], 1.0
        blended /= total[:, None, None]
        moved = np.einsum("vij,vj->vi", blended[:, :3, :3], positions) + blended[:, :3, 3]
        if normals is not None:
            normals = np.einsum("vij,vj->vi", blended[:, :3, :3], normals)
        return moved, normals


def _local_transform(node: dict) -> np.ndarray:
    """Node transform (4, 4): its matrix, or translation * rotation * scale."""
    if "matrix" in node:
        matrix = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T  # stored column by column
    else:
        x, y, z, w = (float(value) for value in node.get("rotation", (0.0, 0.0, 0.0, 1.0)))
        norm = x * x + y * y + z * z + w * w
        s = 2.0 / norm if norm > 0 else 0.0
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
        matrix[:3, :3] *= np.array(node.get("scale", (1.0, 1.0, 1.0)), dtype=np.float64)
        matrix[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    if not np.isfinite(matrix).all():
        raise MeshError("non_finite", f"the transform of node {node.get('name', '')!r} is not finite")
    return matrix


def _transform(
    matrix: np.ndarray, positions: np.ndarray, normals: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    linear = matrix[:3, :3]
    moved = positions @ linear.T + matrix[:3, 3]
    if normals is None:
        return moved, None
    # Cofactors are the inverse transpose times the determinant, and exist for flattened (singular) nodes, too.
    cofactors = np.stack([np.cross(linear[i - 2], linear[i - 1]) for i in range(3)])
    return moved, normals @ cofactors.T * (1.0 if np.linalg.det(linear) >= 0 else -1.0)


def _triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    """(F, 3) faces of a list, strip or fan of corners."""
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if len(corners) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    if mode == _FAN:
        return np.column_stack([np.full(len(corners) - 2, corners[0]), corners[1:-1], corners[2:]])
    strip = np.column_stack([corners[:-2], corners[1:-1], corners[2:]])
    strip[1::2] = strip[1::2, [1, 0, 2]]  # every second triangle of a strip runs the other way round
    return strip
