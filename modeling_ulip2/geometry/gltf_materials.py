"""glTF materials, reduced to base color, texture, transparency and emission (glTF 2.0, 3.9).

Metals keep their base color: without a room to reflect they would be black.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .colors import SRGB_TO_LINEAR, encode_srgb
from .errors import MeshError
from .gltf_data import GltfDocument
from .light import pane_color
from .mesh import GLASS_CLEARNESS, Material
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
        extensions = entry.get("extensions", {})
        glossy = extensions.get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None:
            factor, info = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
        color = self._color(entry, "base color", [1.0, 1.0, 1.0, 1.0] if factor is None else factor, 4)
        shine = None  # (3,) of specular-glossiness
        if glossy is not None:
            shine = self._color(entry, "specular", glossy.get("specularFactor", [1.0] * 3), 3)
        clear = _clearness(entry, extensions.get("KHR_materials_transmission", {}))
        emission, glow = self._emission(entry)
        material = Material(
            name=str(entry.get("name", "")),
            base_color=color,
            alpha_mode=entry.get("alphaMode", "OPAQUE"),
            alpha_cutoff=float(entry.get("alphaCutoff", 0.5)),
            double_sided=bool(entry.get("doubleSided", False)),
            emission=emission,
        )
        if material.alpha_mode not in ("OPAQUE", "MASK", "BLEND"):
            raise MeshError("corrupt", f"material {material.name!r} has the alpha mode {material.alpha_mode!r}")
        use = None
        if info is not None and (loaded := self._load(info, "the material's plain color is used")) is not None:
            material.texture, material.wrap, use = loaded
        if shine is not None:
            use = self._add_metal(material, use, shine, glossy.get("specularGlossinessTexture"))
        if clear > 0:
            use = self._add_clearness(material, use, clear, extensions["KHR_materials_transmission"])
        if glow is not None and emission.any():
            self._add_glow(material, use, glow)
            if use is None and material.emission_texture is not None:
                use = _texture_use(glow)
        return material, use

    def _load(self, info: dict[str, Any], instead: str) -> tuple[np.ndarray, tuple[str, str], TextureUse] | None:
        """A texture's image, its wrapping and its coordinates; None, and a warning, if it cannot be had."""
        texture = self._header["textures"][info["index"]]
        try:
            image = self._textures.load(self._image_index(texture), len(self._header["images"]))
        except MeshError as error:
            if self._strict or error.reason in ("too_large", "texture_too_large"):
                raise
            self.warnings.append(f"{error}; {instead}")
            return None
        sampler = self._header["samplers"][texture["sampler"]] if "sampler" in texture else {}
        wrap = (_WRAP.get(sampler.get("wrapS", 10497), "repeat"), _WRAP.get(sampler.get("wrapT", 10497), "repeat"))
        return image, wrap, _texture_use(info)

    def _add_glow(self, material: Material, use: TextureUse | None, info: dict[str, Any]) -> None:
        """Set the texture of the emission, or, where it lies otherwise on the surface than the color's, its mean."""
        loaded = self._load(info, "the material's plain emission is used")
        if loaded is None:
            return
        image, wrap, own = loaded
        if use is None or (use, material.wrap) == (own, wrap):
            material.emission_texture, material.wrap = image, wrap
            return
        material.emission = material.emission * SRGB_TO_LINEAR[image[..., :3]].mean(axis=(0, 1))
        self.warnings.append(
            f"the emission of material {material.name!r} has texture coordinates of its own; its mean is used"
        )

    def _add_clearness(
        self, material: Material, use: TextureUse | None, clear: float, transmission: dict[str, Any]
    ) -> TextureUse | None:
        """Make a transmissive material transparent; returns how its texture is read.

        The alpha mode's own alpha keeps its meaning: none in OPAQUE, a stencil in MASK. A texture of the
        transmission counts texel by texel where it lies on the surface as the color does, or alone; else by its mean.
        Where it is clear, the texels take the color of glass (`light.pane_color`), as panes without one do later.
        """
        texture, alpha = material.texture, float(material.base_color[3])
        if material.alpha_mode == "OPAQUE":
            alpha = 1.0
            texture = None if texture is None else np.dstack([texture[..., :3], np.full_like(texture[..., 3], 255)])
        elif material.alpha_mode == "MASK" and texture is not None:
            stencil = texture[..., 3] * alpha >= 255 * material.alpha_cutoff
            alpha, texture = 1.0, np.dstack([texture[..., :3], np.where(stencil, 255, 0).astype(np.uint8)])
        elif material.alpha_mode == "MASK":
            alpha = float(alpha >= material.alpha_cutoff)
        material.alpha_mode = "BLEND"
        info = transmission.get("transmissionTexture")
        loaded = None if info is None else self._load(info, "its glass is equally clear everywhere")
        if loaded is not None and use is not None and (use, material.wrap) != (loaded[2], loaded[1]):
            clear *= float(loaded[0][..., 0].mean()) / 255.0
            self.warnings.append(
                f"the transmission of material {material.name!r} has texture coordinates of its own; its mean is used"
            )
            loaded = None
        if loaded is None:
            material.texture, material.base_color[3] = texture, alpha * (1.0 - clear)
            return use
        image, material.wrap, use = loaded
        if texture is None:
            texture = np.full((*image.shape[:2], 4), 255, dtype=np.uint8)
        kept = 1.0 - clear * _resized(image, *texture.shape[:2])[..., :1].astype(np.float32) / 255.0  # (H, W, 1)
        own = SRGB_TO_LINEAR[texture[..., :3]] * material.base_color[:3]
        opaque = np.rint(texture[..., 3:] * kept).astype(np.uint8)
        material.texture = np.dstack([encode_srgb(pane_color(own, kept)), opaque])
        material.base_color[:] = 1.0, 1.0, 1.0, alpha
        return use

    def _add_metal(
        self, material: Material, use: TextureUse | None, specular: np.ndarray, info: dict[str, Any] | None
    ) -> TextureUse | None:
        """Give metal parts of a specular-glossiness material their specular color; returns how its texture is read.

        A specular texture counts where it lies on the surface as the diffuse one does, or alone.
        """
        loaded = None if info is None else self._load(info, "the material's plain specular color is used")
        if loaded is not None and (use is None or (use, material.wrap) == (loaded[2], loaded[1])):
            specular = specular * SRGB_TO_LINEAR[loaded[0][..., :3]]  # (H, W, 3)
            material.wrap, use = loaded[1], loaded[2]
        if specular.ndim == 1 and material.texture is None:
            material.base_color[:3] = _metal(material.base_color[:3], specular)
            return use
        texture = material.texture
        if texture is None:
            texture = np.full((*specular.shape[:2], 4), 255, dtype=np.uint8)
        if specular.ndim == 3:
            specular = _resized(specular, *texture.shape[:2])
        diffuse = SRGB_TO_LINEAR[texture[..., :3]] * material.base_color[:3]
        material.texture = np.dstack([encode_srgb(_metal(diffuse, specular)), texture[..., 3]])
        material.base_color[:3] = 1.0
        return use

    def _emission(self, entry: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any] | None]:
        """(3,) linear, of any strength, and the reference to its texture."""
        emission = self._color(entry, "emission", entry.get("emissiveFactor", [0.0] * 3), 3)
        strength = entry.get("extensions", {}).get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
        strength = float(strength)
        if not (np.isfinite(strength) and strength >= 0):
            raise MeshError("corrupt", f"material {entry.get('name', '')!r} has the emissive strength {strength}")
        return emission * np.float32(min(strength, 1e6)), entry.get("emissiveTexture")

    @staticmethod
    def _color(entry: dict[str, Any], what: str, factor: Any, channels: int) -> np.ndarray:
        color = np.array(factor, dtype=np.float32)
        if color.shape != (channels,) or not np.isfinite(color).all():
            raise MeshError("corrupt", f"material {entry.get('name', '')!r} has the {what} {factor}")
        return np.clip(color, 0.0, 1.0)

    @staticmethod
    def _image_index(texture: dict[str, Any]) -> int:
        extensions = texture.get("extensions", {})
        if "source" in (webp := extensions.get("EXT_texture_webp", {})):
            return webp["source"]
        if "source" in texture:  # what is there for those who read none of the others
            return texture["source"]
        for name in ("MSFT_texture_dds", "EXT_texture_avif"):
            if "source" in extensions.get(name, {}):
                return extensions[name]["source"]
        only = f": it is stored by {', '.join(extensions)} alone" if extensions else ""
        raise MeshError("texture_corrupt", f"a texture has no image in a readable format{only}")

    def _read_image(self, index: int) -> bytes:
        image = self._header["images"][index]
        if "uri" in image:
            return self._sandbox.read_uri(image["uri"])
        return self._document.buffer_view(image["bufferView"])


def _texture_use(info: dict[str, Any]) -> TextureUse:
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    return TextureUse(
        set_index=int(transform.get("texCoord", info.get("texCoord", 0))),
        offset=tuple(float(x) for x in transform.get("offset", (0.0, 0.0))),  # type: ignore[arg-type]
        rotation=float(transform.get("rotation", 0.0)),
        scale=tuple(float(x) for x in transform.get("scale", (1.0, 1.0))),  # type: ignore[arg-type]
    )


def _clearness(entry: dict[str, Any], transmission: dict[str, Any]) -> float:
    """How much of what lies behind shows through: GLASS_CLEARNESS times KHR_materials_transmission's factor.

    Rough and refracting glass is left out.
    """
    factor = float(transmission.get("transmissionFactor", 0.0))
    if not np.isfinite(factor):
        raise MeshError("corrupt", f"material {entry.get('name', '')!r} has the transmission {factor}")
    return GLASS_CLEARNESS * min(max(factor, 0.0), 1.0)


def _resized(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(H, W, ...) to (rows, columns, ...), by the nearest texel above and left."""
    if image.shape[:2] == (rows, columns):
        return image
    return image[(np.arange(rows) * image.shape[0] // rows)[:, None], np.arange(columns) * image.shape[1] // columns]


def _metal(diffuse: np.ndarray, specular: np.ndarray) -> np.ndarray:
    """Base color of a specular-glossiness material: a metal has no diffuse color, its specular one is what it shows.

    It counts as metal, by degrees, where the diffuse color is darker than a quarter of the specular one and the
    specular one brighter than what plastics reflect (0.04); both limits are ours.

    Args:
        diffuse, specular: (..., 3) linear.
    """
    bright = specular.max(axis=-1, keepdims=True)
    dark = 1.0 - 4.0 * diffuse.max(axis=-1, keepdims=True) / np.maximum(bright, 1e-6)
    share = np.clip(dark, 0.0, 1.0) * np.clip((bright - 0.04) / 0.16, 0.0, 1.0)
    return (diffuse * (1.0 - share) + specular * share).astype(np.float32)
