"""OBJ's material files (MTL): base color, texture, transparency."""

from __future__ import annotations

import re

import numpy as np

from modeling_ulip2.utils.packages import require_package

from .colors import srgb_to_linear
from .errors import MeshError
from .mesh import GLASS_CLEARNESS, AlphaMode, Material
from .sandbox import Sandbox
from .text import plain_text
from .textures import TextureLoader

# Options of a map statement and how many arguments each takes (`-o`, `-s` and `-t` take one to three).
_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-bm": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2, "-texres": 1,
    "-type": 1,
}  # fmt: skip
_VECTORS = ("-o", "-s", "-t")
# Below this share of half-transparent texels, a texture's alpha is a stencil rather than glass.
_STENCIL_SHARE = 0.05
# Illumination models with refraction or glass.
_REFRACTING = (["4"], ["6"], ["7"], ["9"])
_COMMENT = re.compile(r"(^|\s)#.*")


class MaterialLibrary:
    """The materials of an OBJ file's `mtllib` statements; an image is decoded when a face uses it."""

    def __init__(self, sandbox: Sandbox, strict: bool) -> None:
        self.warnings: list[str] = []
        self._sandbox = sandbox
        self._strict = strict
        self._entries: dict[str, dict[str, str]] = {}
        self._textures = TextureLoader(sandbox.read)

    def load(self, names: str) -> None:
        """Read the file or files of one `mtllib` statement; names may hold spaces."""
        bare = without_comment(names)
        error: MeshError | None = None
        for attempt in dict.fromkeys(((names,), (bare,), tuple(bare.split()))):
            try:
                texts = [plain_text(self._sandbox.read(name)) for name in attempt]
            except MeshError as failure:
                if error is None or failure.reason != "missing":
                    error = failure
                continue
            for text in texts:
                self._parse(text)
            return
        if error is not None:
            self._tolerate(error, "white is used for its materials")

    def _parse(self, text: bytes) -> None:
        entry: dict[str, str] = {}
        for line in text.split(b"\n"):
            keyword, _, value = decode_name(line).replace("\t", " ").partition(" ")
            keyword, value = keyword.lower(), value.strip()
            if keyword == "newmtl":
                entry = {}
                self._entries.setdefault(value, entry)
            elif value:
                # A file's name may hold a #, too: `_texture` tries both.
                entry[keyword] = value if keyword.startswith("map_") else without_comment(value)

    def _entry(self, name: str) -> tuple[str, dict[str, str] | None]:
        """The material that a `usemtl` means: by its name, without its comment, or in other case."""
        if not name and len(self._entries) == 1:
            return next(iter(self._entries.items()))
        for plain in (str, without_comment, lambda text: without_comment(text).lower()):
            known = {plain(key): key for key in reversed(self._entries)}
            key = known.get(plain(name), known.get(plain(without_comment(name))))
            if key is not None:
                return key, self._entries[key]
        return name, None

    def material(self, name: str, textured: bool = True) -> Material:
        """The material called `name`, for faces with texture coordinates or without; white if there is none.

        A texture replaces `Kd`. The specification multiplies them; but modeling programs show the texture alone and
        write whatever color the material had before: of 880 textured materials of Sweet Home 3D, 486 have a default
        gray (0.8, 0.64) and 190 a color that would dye the texture with itself; Maya writes black. Sweet Home 3D's own
        reader gives the texture to Java 3D in its default mode, REPLACE, and the icons of its catalog show that.
        """
        given, (name, entry) = name, self._entry(name)
        if entry is None:
            if name and self._entries:
                self.warnings.append(f"material {name!r} is not defined; it is shown white")
            return Material(name=name)
        if not given and textured:
            self.warnings.append(f"it names no material; {name!r}, the only one of its material file, is used")
        color = srgb_to_linear(self._numbers(entry, "kd", [1.0, 1.0, 1.0])[:3])
        opacity = self._opacity(entry)
        if not textured:
            entry = {key: value for key, value in entry.items() if not key.startswith("map_")}
        texture = self._texture(entry, "map_kd")
        if texture is not None:
            color = np.ones(3, dtype=np.float32)
        stencil = self._texture(entry, "map_d") if "map_d" in entry else None
        if stencil is not None:
            texture = _with_alpha(texture, stencil)
        glow = self._texture(entry, "map_ke") if "map_ke" in entry else None
        emission = srgb_to_linear(self._numbers(entry, "ke", [0.0, 0.0, 0.0])[:3])
        if glow is not None and not emission.any():
            emission = np.ones(3, dtype=np.float32)
        _, options = _parse_map(entry.get("map_kd", entry.get("map_ke", "")))
        mode = "BLEND" if opacity < 1.0 else _alpha_mode(texture)
        return Material(
            name=name,
            base_color=np.array([*color, opacity], dtype=np.float32),
            texture=texture,
            wrap=("clamp", "clamp") if options.get("-clamp") == ["on"] else ("repeat", "repeat"),
            alpha_mode=mode,
            emission=emission,
            emission_texture=glow,
        )

    def uv_transform(self, name: str) -> np.ndarray | None:
        """(2, 2): scale and offset of u and v, from a texture's `-s` and `-o`; None without them."""
        entry = self._entry(name)[1] or {}
        _, options = _parse_map(entry.get("map_kd", entry.get("map_ke", "")))
        if not options.keys() & {"-s", "-o"}:
            return None
        scale, offset = (
            [*(_number(word, fill) for word in options.get(option, [])[:2]), fill, fill][:2]
            for option, fill in (("-s", 1.0), ("-o", 0.0))
        )
        return np.array([scale, offset])

    def _texture(self, entry: dict[str, str], keyword: str) -> np.ndarray | None:
        if keyword not in entry:
            return None
        value, error = entry[keyword], None
        for attempt in dict.fromkeys((value, without_comment(value))):
            try:
                return self._textures.load(_parse_map(attempt)[0], expected=self._expected(keyword))
            except MeshError as failure:
                if error is None or failure.reason != "texture_missing":
                    error = failure
        assert error is not None
        self._tolerate(error, "the material's plain color is used")
        return None

    def _expected(self, keyword: str) -> int:
        return len({entry[keyword] for entry in self._entries.values() if keyword in entry})

    def _tolerate(self, error: MeshError, instead: str) -> None:
        if self._strict or error.reason in ("too_large", "texture_too_large"):
            raise error
        self.warnings.append(f"{error}; {instead}")

    def _opacity(self, entry: dict[str, str]) -> float:
        """`d`; without it 1 - `Tr`; without both, under an `illum` that refracts, the mean of `Tf`.

        Maya writes neither `d` nor `Tr`, but `illum 4` beside every material and 1 - transparency as `Tf`: 1 1 1 is
        opaque there, 0 0 0 clear glass (the specification's filter, which would block all light, is meant by nobody).
        Others write `Tf 1 1 1` beside the `d` that counts. `illum` alone says nothing: exporters of glass write `d`.
        """
        if "d" in entry:
            values = entry["d"].replace("-halo", "").split()
            opacity = _number(values[0], 1.0) if values else 1.0
        elif "tr" in entry:
            opacity = 1.0 - _number(entry["tr"].split()[0], 0.0)
        elif "tf" in entry and entry.get("illum", "").split()[:1] in _REFRACTING:
            kept = float(self._numbers(entry, "tf", [1.0, 1.0, 1.0])[:3].mean())
            opacity = max(kept, 1.0 - GLASS_CLEARNESS)
        else:
            opacity = 1.0
        # Exporters that mix up d and Tr write 0 for a solid surface; nobody models an invisible one.
        return 1.0 if opacity <= 0.0 else min(opacity, 1.0)

    @staticmethod
    def _numbers(entry: dict[str, str], keyword: str, default: list[float]) -> np.ndarray:
        try:
            values = [float(value) for value in entry[keyword].split()]
        except (KeyError, ValueError):
            return np.array(default)
        values = values * 3 if len(values) == 1 else values
        return np.clip(values, 0.0, 1.0) if len(values) >= 3 and np.isfinite(values).all() else np.array(default)


def decode_name(raw: bytes) -> str:
    """A name or value as text: UTF-8, or what Windows programs of the West wrote before."""
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace").strip()


def without_comment(value: str) -> str:
    """The value before a comment, which begins with # behind a blank; `Material #25` is a name for all that."""
    return _COMMENT.sub("", value).strip()


def _number(text: str, default: float) -> float:
    return float(text) if _is_number(text) else default


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _parse_map(value: str) -> tuple[str, dict[str, list[str]]]:
    """A map statement's file name, which may hold spaces, and the arguments of the options before it."""
    words = value.split()
    options: dict[str, list[str]] = {}
    index = 0
    while index < len(words) - 1:
        option = words[index].lower()
        if option in _VECTORS:
            count = 0
            while count < 3 and index + 1 + count < len(words) - 1 and _is_number(words[index + 1 + count]):
                count += 1
        elif option in _OPTIONS:
            count = _OPTIONS[option]
        else:
            break
        options[option] = words[index + 1 : index + 1 + count]
        index += 1 + count
    return (value.split(None, index)[-1] if index else value), options


def _with_alpha(texture: np.ndarray | None, stencil: np.ndarray) -> np.ndarray:
    """Put a `map_d` image, its alpha if it has one and else its brightness, into the alpha of a texture."""
    alpha = stencil[..., 3] if stencil[..., 3].min() < 255 else stencil[..., :3].max(axis=2)
    if texture is None:
        return np.dstack([np.full((*alpha.shape, 3), 255, dtype=np.uint8), alpha])
    pillow = require_package("PIL.Image")
    resized = pillow.fromarray(alpha).resize((texture.shape[1], texture.shape[0]), pillow.Resampling.BILINEAR)
    return np.dstack([texture[..., :3], np.asarray(resized)])


def _alpha_mode(texture: np.ndarray | None) -> AlphaMode:
    if texture is None:
        return "OPAQUE"
    alpha = texture[..., 3]
    if alpha.min() >= 250:
        return "OPAQUE"
    between = np.count_nonzero((alpha > 16) & (alpha < 239)) / alpha.size
    return "MASK" if between < _STENCIL_SHARE else "BLEND"
