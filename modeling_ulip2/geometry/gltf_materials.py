"""glTF materials, reduced to base colour, texture and transparency (glTF 2.0, 3.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import MeshError
from .gltf_data import GltfDocument
from .mesh import Material
from .sandbox import Sandbox
from .textures import TextureLoader

_WRAP = {33071: "clamp", 33648: "mirror", 10497: "repeat"}


@dataclass
class TextureUse:
    """Which texture coordinates a material reads, and their KHR_texture_transform."""

    set_index: int = 0
    offset: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)

    def apply(self, uv: np.ndarray) -> np.ndarray:
        """(V, 2) coordinates as stored -> as the texture is read."""
        if self.rotation == 0.0 and self.scale == (1.0, 1.0) and self.offset == (0.0, 0.0):
            return uv
        cosine, sine = np.cos(self.rotation), np.sin(self.rotation)
        turn = np.array([[cosine, sine], [-sine, cosine]]) * np.array(self.scale)  # translation * rotation * scale
        return uv @ turn.T + np.array(self.offset)


class GltfMaterials:
    """Materials by glTF index; None is the default material: opaque, white, single-sided."""

    def __init__(self, document: GltfDocument, sandbox: Sandbox, strict: bool) -> None:
        self.materials: list[Material] = []
        self.warnings: list[str] = []
        self._header = document.header
        self._document = document
        self._sandbox = sandbox
        self._strict = strict
        self._textures = TextureLoader(self._read_image)
        self._known: dict[int | None, tuple[int, TextureUse | None]] = {}

    def use(self, index: int | None) -> tuple[int, TextureUse | None]:
        """Position of a material in `materials`, and how its texture is read (None if it has none)."""
        if index not in self._known:
            material, use = self._build({} if index is None else self._header["materials"][index])
            self.materials.append(material)
            self._known[index] = (len(self.materials) - 1, use)
        return self._known[index]

    def _build(self, entry: dict[str, Any]) -> tuple[Material, TextureUse | None]:
        pbr = entry.get("pbrMetallicRoughness", {})
        factor, info = pbr.get("baseColorFactor"), pbr.get("baseColorTexture")
        glossy = entry.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None:
            factor, info = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
        elif info is None and factor is not None and not np.any(factor[:3]):
            factor, info = _glow(entry, factor), entry.get("emissiveTexture")
        color = np.array([1.0, 1.0, 1.0, 1.0] if factor is None else factor, dtype=np.float32)
        if color.shape != (4,) or not np.isfinite(color).all():
            raise MeshError("corrupt", f"material {entry.get('name', '')!r} has the colour {factor}")
        material = Material(
            name=str(entry.get("name", "")),
            base_color=np.clip(color, 0.0, 1.0),
            alpha_mode=entry.get("alphaMode", "OPAQUE"),
            alpha_cutoff=float(entry.get("alphaCutoff", 0.5)),
            double_sided=bool(entry.get("doubleSided", False)),
        )
        if material.alpha_mode not in ("OPAQUE", "MASK", "BLEND"):
            raise MeshError("corrupt", f"material {material.name!r} has the alpha mode {material.alpha_mode!r}")
        if info is None:
            return material, None
        texture = self._header["textures"][info["index"]]
        try:
            material.texture = self._textures.load(self._image_index(texture), len(self._header["images"]))
        except MeshError as error:
            if self._strict or error.reason in ("too_large", "texture_too_large"):
                raise
            self.warnings.append(f"{error}; the material's plain colour is used")
            return material, None
        sampler = self._header["samplers"][texture["sampler"]] if "sampler" in texture else {}
        material.wrap = (
            _WRAP.get(sampler.get("wrapS", 10497), "repeat"),
            _WRAP.get(sampler.get("wrapT", 10497), "repeat"),
        )
        transform = info.get("extensions", {}).get("KHR_texture_transform", {})
        return material, TextureUse(
            set_index=int(transform.get("texCoord", info.get("texCoord", 0))),
            offset=tuple(float(x) for x in transform.get("offset", (0.0, 0.0))),  # type: ignore[arg-type]
            rotation=float(transform.get("rotation", 0.0)),
            scale=tuple(float(x) for x in transform.get("scale", (1.0, 1.0))),  # type: ignore[arg-type]
        )

    @staticmethod
    def _image_index(texture: dict[str, Any]) -> int:
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        if "source" in webp:
            return webp["source"]
        if "source" in texture:
            return texture["source"]
        raise MeshError("texture_corrupt", "a texture has no image in a readable format (KTX2/Basis is not read)")

    def _read_image(self, index: int) -> bytes:
        image = self._header["images"][index]
        if "uri" in image:
            return self._sandbox.read_uri(image["uri"])
        return self._document.buffer_view(image["bufferView"])


def _glow(entry: dict[str, Any], factor: list[float]) -> list[float]:
    """The colour of a black surface that shines, such as a lamp or a screen: what it emits."""
    emitted = entry.get("emissiveFactor", [0.0, 0.0, 0.0])
    return [*(float(value) for value in emitted), *factor[3:]]
