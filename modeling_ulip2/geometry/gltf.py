"""glTF 2.0 and GLB: scene graph, skins and primitives, baked into one mesh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .cloud import PointCloud, check_count
from .colors import linear_to_srgb, to_uint8, unit_alpha, unit_colors
from .errors import MeshError
from .gltf_data import GltfDocument
from .gltf_materials import GltfMaterials
from .mesh import Mesh, Part, join
from .sandbox import Sandbox

_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6


def read_gltf(data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse a .gltf or .glb file; see `read_mesh` for the arguments' meaning.

    The default scene is taken in its rest pose: node transforms, skins and default morph weights are baked.
    """
    with _structure_errors():
        document = GltfDocument(data, sandbox, max_count=3 * max_faces)
        return _Scene(document, GltfMaterials(document, sandbox, strict), max_faces).mesh()


def read_gltf_points(data: bytes, sandbox: Sandbox, max_points: int) -> PointCloud:
    """The point primitives of a .gltf or .glb file as one cloud; meshes beside them are left out with a warning."""
    with _structure_errors():
        document = GltfDocument(data, sandbox, max_count=max_points)
        return _Scene(document, GltfMaterials(document, sandbox, strict=False), max_points).points(max_points)


@contextmanager
def _structure_errors() -> Iterator[None]:
    try:
        yield
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
        declared = sum(self._declared_faces(mesh) * len(worlds) for _, mesh, worlds in instances)
        if declared > self._max_faces:
            raise MeshError("too_many_faces", f"it declares {declared} triangles; at most {self._max_faces}")
        parts = [
            part
            for node, mesh, worlds in instances
            for primitive in self._header["meshes"][mesh]["primitives"]
            if (part := self._part(node, self._header["meshes"][mesh], primitive, worlds)) is not None
        ]
        modes = {
            p.get("mode", _TRIANGLES) for _, mesh, _ in instances for p in self._header["meshes"][mesh]["primitives"]
        }
        if not parts and _POINTS in modes:
            raise MeshError("empty", "it holds points but no triangle; read_points reads point clouds")
        if parts and modes - {_TRIANGLES, _STRIP, _FAN}:
            self._materials.warnings.append("it holds points or lines beside its triangles; they are left out")
        mesh = join(parts, self._materials.materials)
        mesh.warnings = self._materials.warnings
        return mesh

    def points(self, max_points: int) -> PointCloud:
        instances = self._instances()
        found: list[tuple[dict[str, Any], np.ndarray]] = []
        total = meshes = 0
        for _, mesh, worlds in instances:
            for primitive in self._header["meshes"][mesh]["primitives"]:
                if primitive.get("mode", _TRIANGLES) != _POINTS or "POSITION" not in primitive["attributes"]:
                    meshes += 1
                    continue
                total += len(worlds) * self._document.count(
                    primitive.get("indices", primitive["attributes"]["POSITION"])
                )
                check_count(total, max_points)
                found.append((primitive, worlds))
        if not found:
            what = (
                "lines and no triangle or point; only surfaces and points are read"
                if meshes
                else "no triangle or point"
            )
            raise MeshError("empty", f"it holds {what}")
        xyz, rgb = [], []
        colored = False
        for primitive, worlds in found:
            positions = self._document.accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
            own = None
            if "COLOR_0" in primitive["attributes"]:
                own = self._colors(self._document.accessor(primitive["attributes"]["COLOR_0"]))
            colors = np.ones((len(positions), 3), dtype=np.float32) if own is None else own[:, :3]
            colored |= own is not None or "material" in primitive
            if "material" in primitive:
                material, _ = self._materials.use(primitive["material"])
                colors = colors * self._materials.materials[material].base_color[:3]
            if "indices" in primitive:
                corners = self._document.accessor(primitive["indices"])[:, 0].astype(np.int64)
                positions, colors = positions[corners], colors[corners]
            xyz.append(_transform(worlds, positions, None)[0])
            rgb.append(np.tile(colors, (len(worlds), 1)))
        warnings = list(self._materials.warnings)
        if meshes:
            warnings.append("it holds triangles or lines beside its points; they are left out")
        linear = np.concatenate(rgb) if colored else None
        return PointCloud(np.concatenate(xyz), None if linear is None else to_uint8(linear_to_srgb(linear)), warnings)

    def _instances(self) -> list[tuple[dict[str, Any], int, np.ndarray]]:
        """Every drawn mesh: its node, its index and the world transforms (I, 4, 4) of its copies, mostly one."""
        nodes = self._header.get("nodes", [])
        if not nodes:  # meshes without a scene graph: show them as they are
            return [({}, index, np.eye(4)[None]) for index in range(len(self._header.get("meshes", [])))]
        return [
            (nodes[i], int(nodes[i]["mesh"]), world @ self._instancing(nodes[i]))
            for i, world in self._worlds.items()
            if "mesh" in nodes[i]
        ]

    def _instancing(self, node: dict[str, Any]) -> np.ndarray:
        """(I, 4, 4): a node's own copies under EXT_mesh_gpu_instancing, or one at its place."""
        extension = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
        if extension is None or "skin" in node:
            return np.eye(4)[None]
        attributes = extension["attributes"]
        if max((self._document.count(index) for index in attributes.values()), default=0) > self._max_faces:
            raise MeshError("too_large", f"a node has more than {self._max_faces} instances")
        values = {
            name: self._document.accessor(extension["attributes"][name]).astype(np.float64)
            for name in ("TRANSLATION", "ROTATION", "SCALE")
            if name in extension["attributes"]
        }
        counts = {len(rows) for rows in values.values()}
        if len(counts) != 1:
            raise MeshError("corrupt", f"a node's instances have attributes of {sorted(counts)} rows")
        count = counts.pop()
        matrices = np.tile(np.eye(4), (count, 1, 1))
        if "ROTATION" in values:
            matrices[:, :3, :3] = _rotations(values["ROTATION"])
        if "SCALE" in values:
            matrices[:, :3, :3] *= values["SCALE"][:, None, :]
        if "TRANSLATION" in values:
            matrices[:, :3, 3] = values["TRANSLATION"]
        if not np.isfinite(matrices).all():
            raise MeshError("non_finite", f"the instances of node {node.get('name', '')!r} are not finite")
        return matrices

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

    def _part(self, node: dict, mesh: dict, primitive: dict, worlds: np.ndarray) -> Part | None:
        """One primitive in world coordinates, as often as it is drawn, or None if it is made of points or lines."""
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
            worlds = worlds[:1]
        else:
            if len(worlds) == 0:
                return None
            # A mirror turns every triangle inside out.
            mirrored = np.linalg.det(worlds[:, :3, :3]) < 0
            copies = np.where(mirrored[:, None, None], faces[:, ::-1], faces)  # (I, F, 3)
            faces = (copies + np.arange(len(worlds))[:, None, None] * len(positions)).reshape(-1, 3)
            positions, normals = _transform(worlds, positions, normals)
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
        colors = self._colors(attributes["COLOR_0"]) if "COLOR_0" in attributes else None
        if len(worlds) > 1:
            uv = None if uv is None else np.tile(uv, (len(worlds), 1))
            colors = None if colors is None else np.tile(colors, (len(worlds), 1))
        return Part(positions, faces, material, normals, uv, colors)

    def _colors(self, stored: np.ndarray) -> np.ndarray | None:
        """(V, 4) float32 linear colors of COLOR_0 (V, 3 or 4); None, with a warning, if its values are no colors."""
        given, high = stored[:, :3], float(stored[:, :3].max(initial=0.0))
        if given.dtype.kind == "f" and high > 2 and not (given == np.round(given)).all():
            given = np.minimum(given, 1.0)  # glTF 2.0, 3.7.2.1: brighter ones are clamped, and do not count to 255
            self._materials.warnings.append(f"its vertex colors go up to {high:g}; what is above 1 was cut")
        rgb = unit_colors(given, self._materials.warnings, "its vertex colors")
        if rgb is None:
            return None
        alpha = unit_alpha(stored[:, 3]) if stored.shape[1] > 3 else np.ones(len(rgb))
        return np.column_stack([rgb, alpha]).astype(np.float32)

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
        matrix = np.eye(4)
        matrix[:3, :3] = _rotations(np.array([node.get("rotation", (0.0, 0.0, 0.0, 1.0))], dtype=np.float64))[0]
        matrix[:3, :3] *= np.array(node.get("scale", (1.0, 1.0, 1.0)), dtype=np.float64)
        matrix[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    if not np.isfinite(matrix).all():
        raise MeshError("non_finite", f"the transform of node {node.get('name', '')!r} is not finite")
    return matrix


def _rotations(quaternions: np.ndarray) -> np.ndarray:
    """(N, 4) quaternions x, y, z, w of any length to (N, 3, 3) matrices."""
    x, y, z, w = quaternions.T
    norm = x * x + y * y + z * z + w * w
    s = np.divide(2.0, norm, out=np.zeros_like(norm), where=norm > 0)
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)


def _transform(
    matrices: np.ndarray, positions: np.ndarray, normals: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(I * V, 3) positions and normals of a mesh's (V, 3) under each of (I, 4, 4) transforms."""
    linear = matrices[:, :3, :3]
    moved = np.einsum("iab,vb->iva", linear, positions) + matrices[:, None, :3, 3]
    if normals is None:
        return moved.reshape(-1, 3), None
    # Cofactors are the inverse transpose times the determinant, and exist for flattened (singular) nodes, too.
    cofactors = np.stack([np.cross(linear[:, i - 2], linear[:, i - 1]) for i in range(3)], axis=1)
    cofactors *= np.where(np.linalg.det(linear) >= 0, 1.0, -1.0)[:, None, None]
    return moved.reshape(-1, 3), np.einsum("iab,vb->iva", cofactors, normals).reshape(-1, 3)


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
