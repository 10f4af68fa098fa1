"""OpenGL without a display, through moderngl and EGL: the same pictures as the numba engine, on a GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modeling_ulip2.utils.packages import install_command

from .cameras import Camera
from .light import GLSL, TINTED_GLASS
from .raster_mesh import GLASS, OPAQUE, RasterMesh

_VERTEX_SHADER = """
#version 330
uniform mat3 rotation;
uniform float distance;
uniform vec2 shift;
uniform float focal;      // over half the frame's side
uniform vec2 depth_range; // nearest and farthest
in vec3 position;
in vec3 normal;
in vec2 uv;
in vec4 color;
in vec3 flat_normal;
in float most_blurred;
out vec3 world_normal;
out vec2 texture_uv;
out vec4 tint;
out vec3 to_camera;
out float depth;
flat out vec3 face_normal;
flat out float blur_limit;
void main() {
    vec3 seen = rotation * position;
    seen.xy -= shift;
    depth = distance - seen.z;
    to_camera = vec3(-seen.xy / depth, 1.0);
    world_normal = normal;
    face_normal = flat_normal;
    blur_limit = most_blurred;
    texture_uv = uv;
    tint = color;
    float a = depth_range.x, b = depth_range.y;
    gl_Position = vec4(focal * seen.xy, ((b + a) * depth - 2.0 * a * b) / (b - a), depth);
}
"""

_ATTRIBUTES = ("position", "normal", "uv", "color", "flat_normal", "most_blurred")

_FRAGMENT_SHADER = f"""
#version 330
uniform mat3 rotation;
uniform sampler2D image;
uniform bool textured;
uniform sampler2D glow;
uniform bool glowing;
uniform vec3 emission;
uniform ivec2 wrap; // 0 repeat, 1 mirror, 2 clamp
uniform float hole_below;
uniform float solid_from;
uniform bool blending;
uniform float own; // share of the material's own color in that of its glass
in vec3 world_normal;
in vec2 texture_uv;
in vec4 tint;
in vec3 to_camera;
in float depth;
flat in vec3 face_normal;
flat in float blur_limit;
layout(location = 0) out vec4 color;
layout(location = 1) out float camera_depth;
{GLSL}
vec4 texel(sampler2D from) {{
    // The level at which a texel is about as large as a sample, and the nearest one, as the numba engine takes it.
    vec2 across = dFdx(texture_uv), down = dFdy(texture_uv), size = vec2(textureSize(from, 0));
    float covered = abs(across.x * down.y - across.y * down.x) * size.x * size.y;
    float level = min(floor(max(0.0, 0.5 * log2(max(covered, 1e-20))) + 0.5), blur_limit);
    vec2 mirrored = 1.0 - abs(mod(texture_uv, 2.0) - 1.0);
    return textureLod(
        from, vec2(wrap.x == 1 ? mirrored.x : texture_uv.x, wrap.y == 1 ? mirrored.y : texture_uv.y), level
    );
}}
void main() {{
    vec4 albedo = tint;
    vec3 light = emission;
    if (textured) albedo *= texel(image);
    if (glowing) light *= texel(glow).rgb;
    if (albedo.a < hole_below) discard;
    bool solid = albedo.a >= solid_from;
    if (solid == blending) discard;
    if (blending) albedo.rgb = mix(clear_glass, albedo.rgb, own);
    vec3 n = dot(world_normal, world_normal) < 1e-12 ? face_normal : normalize(world_normal);
    vec3 seen = rotation * n;
    float facing = dot(seen, normalize(to_camera));
    if (facing < 0.0) {{ seen = -seen; n = -n; facing = -facing; }}
    float edge = rim(facing);
    float alpha = solid ? 1.0 : albedo.a + (1.0 - albedo.a) * edge * min(1.0, 10.0 * albedo.a);
    color = vec4(lit(albedo.rgb, light, n, seen, edge) * alpha, alpha);
    camera_depth = depth;
}}
"""


class EglUnavailableError(RuntimeError):
    """No OpenGL context can be made; the message says why and what to do."""


class EglRasterizer:
    """An OpenGL 3.3 context and a frame of side x side samples.

    Args:
        side: samples along the frame's side.
        device_index: which of EGL's devices; None takes the first, or the one that EGL_DEVICE_ID names.
    """

    def __init__(self, side: int, device_index: int | None = None) -> None:
        # Mesa's driver puts its LLVM among the symbols of the process. Triton, which comes in with torch's compiler,
        # brings another LLVM and kills the process if it is loaded after that; before, it does no harm.
        with contextlib.suppress(Exception):
            import triton  # noqa: F401
        try:
            import moderngl
        except ImportError:
            raise EglUnavailableError(f"the EGL engine needs moderngl; {install_command('mesh')}") from None
        settings: dict[str, Any] = {"backend": "egl"}
        if device_index is not None:
            settings["device_index"] = device_index
        try:
            self._context = moderngl.create_context(standalone=True, require=330, **settings)
        except Exception as error:  # glcontext and moderngl raise bare exceptions
            raise EglUnavailableError(
                f"no OpenGL 3.3 through EGL ({error}); a GPU driver brings it, or Debian's libegl1 and "
                "libgl1-mesa-dri; engine='numba' needs neither"
            ) from None
        self._moderngl = moderngl
        self._pid = os.getpid()
        self.device = str(self._context.info["GL_RENDERER"])
        self._side = side
        program: Any = self._context.program(vertex_shader=_VERTEX_SHADER, fragment_shader=_FRAGMENT_SHADER)
        program["image"].value, program["glow"].value = 0, 1
        self._program = program
        self._color = self._context.texture((side, side), 4, dtype="f4")
        self._depth = self._context.texture((side, side), 1, dtype="f4")
        self._frame: Any = self._context.framebuffer(
            [self._color, self._depth], self._context.depth_renderbuffer((side, side))
        )

    @property
    def is_software(self) -> bool:
        """Whether the CPU would draw; the numba engine is faster then."""
        return any(name in self.device.lower() for name in ("llvmpipe", "softpipe", "swrast", "software"))

    def release(self) -> None:
        """Give the context back."""
        self._context.release()

    def draw_views(self, mesh: RasterMesh, cameras: Sequence[Camera]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One (frame, depth) for each camera; see `raster_numba.draw_view`."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "an EGL renderer does not survive a fork; make it in the worker, or start workers by spawn"
            )
        loaded = _LoadedMesh(self._context, self._moderngl, self._program, mesh)
        try:
            for camera in cameras:
                assert camera.distance is not None
                self._set_camera(camera, camera.distance - mesh.vertices @ camera.rotation[2])
                yield self._draw(loaded, camera)
        finally:
            loaded.release()

    def _set_camera(self, camera: Camera, depths: np.ndarray) -> None:
        assert camera.distance is not None
        program = self._program
        program["rotation"].write(np.ascontiguousarray(camera.rotation.T, dtype="f4").tobytes())  # column by column
        program["distance"].value = camera.distance
        program["focal"].value = 1.0 / np.tan(np.radians(camera.fov) / 2)
        program["shift"].value = camera.shift
        program["depth_range"].value = (0.5 * float(depths.min()), 1.1 * float(depths.max()))

    def _draw(self, loaded: _LoadedMesh, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        context, gl = self._context, self._moderngl
        self._frame.use()
        context.viewport = (0, 0, self._side, self._side)
        self._frame.depth_mask = True
        self._frame.clear(0.0, 0.0, 0.0, 0.0)
        context.enable_only(gl.DEPTH_TEST)
        context.depth_func = "<"
        loaded.draw_solid(context, gl)
        color = self._read(self._color, 4)
        depth = self._read(self._depth, 1)[..., 0]
        if loaded.has_blended:
            # Blend over the solid surfaces, whose depth stays; then look once more for the nearest surface of all.
            self._frame.color_mask = ((True,) * 4, (False,) * 4)
            self._frame.depth_mask = False
            context.enable_only(gl.DEPTH_TEST | gl.BLEND)
            context.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
            loaded.draw_blended(context, gl, camera)
            color = self._read(self._color, 4)
            self._frame.color_mask = ((False,) * 4, (True,) * 4)
            self._frame.depth_mask = True
            context.enable_only(gl.DEPTH_TEST)
            loaded.draw_blended(context, gl, camera)
            depth = self._read(self._depth, 1)[..., 0]
            self._frame.color_mask = ((True,) * 4, (True,) * 4)
        return color, depth

    def _read(self, texture: Any, channels: int) -> np.ndarray:
        """(side, side, channels) float32, first row at the top."""
        values = np.frombuffer(texture.read(), dtype=np.float32).reshape(self._side, self._side, channels)
        return np.ascontiguousarray(values[::-1])


class _LoadedMesh:
    """A laid-out mesh in the GPU's memory: one vertex per corner, faces grouped by material."""

    def __init__(self, context: Any, gl: Any, program: Any, mesh: RasterMesh) -> None:
        self._mesh = mesh
        self._program = program
        corners = mesh.faces.reshape(-1)
        face_of = np.repeat(np.arange(len(mesh.faces)), 3)
        color = mesh.base_colors[mesh.face_material[face_of]]
        if len(mesh.vertex_colors) > 1:
            color = color * mesh.vertex_colors[corners]
        if len(mesh.face_colors) == len(mesh.faces):
            color = color * mesh.face_colors[face_of]
        table = np.zeros((len(corners), 16), dtype=np.float32)
        table[:, 0:3] = mesh.vertices[corners]
        table[:, 3:6] = mesh.normals[corners] if len(mesh.normals) > 1 else 0.0
        table[:, 6:8] = mesh.uv[corners] if len(mesh.uv) > 1 else 0.0
        table[:, 8:12] = color
        table[:, 12:15] = mesh.face_normals[face_of]
        table[:, 15] = mesh.blur_limit[face_of]
        self._buffer = context.buffer(table.tobytes())
        self._indices = context.buffer(reserve=max(4, corners.size * 4), dynamic=True)
        self._array = context.vertex_array(
            program,
            [(self._buffer, "3f 3f 2f 4f 3f 1f", *_ATTRIBUTES)],
            index_buffer=self._indices,
            index_element_size=4,
        )
        self._textures: dict[int, Any] = {}
        for first, count in np.concatenate([mesh.texture_levels, mesh.emission_levels]):
            if count > 0 and first not in self._textures:
                self._textures[first] = self._upload(context, gl, mesh, int(first), int(count))
        self.has_blended = bool(mesh.may_blend[mesh.face_material].any())

    @staticmethod
    def _upload(context: Any, gl: Any, mesh: RasterMesh, first: int, count: int) -> Any:
        _, width, height = (int(value) for value in mesh.levels[first])
        # sRGB texels, so that the GPU interpolates in linear light.
        texture = context.texture((width, height), 4, internal_format=0x8C43)  # GL_SRGB8_ALPHA8
        texture.build_mipmaps(0, count - 1)  # takes the memory that the levels are written to
        for level in range(count):
            start, width, height = (int(value) for value in mesh.levels[first + level])
            texture.write(mesh.texels[start : start + width * height].tobytes(), level=level)
        texture.filter = (gl.LINEAR_MIPMAP_NEAREST, gl.LINEAR)
        return texture

    def release(self) -> None:
        for resource in (self._array, self._buffer, self._indices, *self._textures.values()):
            resource.release()

    def draw_solid(self, context: Any, gl: Any) -> None:
        solid = np.flatnonzero(self._mesh.face_kind != GLASS)
        order = solid[np.argsort(self._mesh.face_material[solid], kind="stable")]
        self._program["blending"].value = False
        self._draw_runs(context, gl, order)

    def draw_blended(self, context: Any, gl: Any, camera: Camera) -> None:
        mesh = self._mesh
        assert camera.distance is not None
        blended = np.flatnonzero(mesh.may_blend[mesh.face_material])
        depth = camera.distance - mesh.vertices @ camera.rotation[2]  # (V,)
        middle = (1.0 / depth)[mesh.faces[blended]].mean(axis=1)
        self._program["blending"].value = True
        self._draw_runs(context, gl, blended[np.argsort(middle, kind="stable")])

    def _draw_runs(self, context: Any, gl: Any, order: np.ndarray) -> None:
        """Draw faces in order, one call for each run of one material."""
        if len(order) == 0:
            return
        mesh, program = self._mesh, self._program
        self._indices.write((order[:, None] * 3 + np.arange(3)).astype("u4").tobytes())
        materials = mesh.face_material[order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(materials)) + 1, [len(order)]])
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            material = int(materials[begin])
            always = (mesh.face_kind[order[begin]] == OPAQUE) and not mesh.may_blend[material]
            program["hole_below"].value = -1.0 if always else float(mesh.hole_below[material])
            program["solid_from"].value = -1.0 if always else float(mesh.solid_from[material])
            program["own"].value = min(float(mesh.base_colors[material, 3]) / TINTED_GLASS, 1.0)
            program["emission"].value = tuple(float(value) for value in mesh.emissions[material])
            wrap = tuple(int(code) for code in mesh.wraps[material])
            program["wrap"].value = wrap
            for unit, (switch, chains) in enumerate(
                (("textured", mesh.texture_levels), ("glowing", mesh.emission_levels))
            ):
                first, count = chains[material]
                program[switch].value = bool(count > 0)
                if count > 0:
                    texture = self._textures[int(first)]
                    texture.repeat_x, texture.repeat_y = (code == 0 for code in wrap)
                    texture.use(unit)
            context.front_face = "ccw"
            if mesh.double_sided[material]:
                context.disable(gl.CULL_FACE)
            else:
                context.enable(gl.CULL_FACE)
            self._array.render(gl.TRIANGLES, vertices=int(end - begin) * 3, first=int(begin) * 3)
        context.disable(gl.CULL_FACE)
