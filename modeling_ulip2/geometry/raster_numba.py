"""The z-buffer rasterizer: compiled by numba, one thread, no system package.

A view is drawn in three passes over a supersampled frame: solid faces leave their depth and number, each covered
sample is then shaded, and transparent faces are blended over it from back to front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .cameras import Camera
from .colors import SRGB_TO_LINEAR
from .compiled import jit
from .light import LIGHT
from .raster_mesh import GLASS, OPAQUE, RasterMesh

_SUBPIXEL = 256  # corners are snapped to this fraction of a sample, so that edges are exact integers


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    return jit(function, error_model="numpy")


def _inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into its callers: passing a dozen arrays would take longer than what these functions do with them."""
    return numba.njit(forceinline=True, error_model="numpy")(function)


@_jit
def _project(vertices, rotation, distance, shift, focal, side, screen, inverse_depth):
    """Fill screen (V, 2) with positions in 1/256 samples, y down, and inverse_depth (V,)."""
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        right = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z - shift[0]
        up = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z - shift[1]
        depth = distance - (rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z)
        inverse_depth[i] = 1.0 / depth
        screen[i, 0] = round((0.5 * side + focal * right / depth) * _SUBPIXEL)
        screen[i, 1] = round((0.5 * side - focal * up / depth) * _SUBPIXEL)


@_inline
def _wrap(coordinate, mode):
    if mode == 0:
        return coordinate - math.floor(coordinate)
    if mode == 1:
        turned = coordinate - 2.0 * math.floor(coordinate * 0.5)
        return 1.0 - abs(turned - 1.0)
    return min(max(coordinate, 0.0), 1.0)


@_inline
def _neighbor(index, size, mode):
    if mode == 0:  # one step outside at most: a division would take longer
        return index + size if index < 0 else (index - size if index >= size else index)
    return min(max(index, 0), size - 1)


@_inline
def _texture(u, v, level, wrap_u, wrap_v, levels, texels, to_linear):
    """Bilinear look-up, as surface.sample_texture: linear r, g, b and alpha."""
    start, width, height = levels[level, 0], levels[level, 1], levels[level, 2]
    x = _wrap(u, wrap_u) * width - 0.5
    y = _wrap(v, wrap_v) * height - 0.5
    x0, y0 = int(math.floor(x)), int(math.floor(y))
    fx, fy = x - x0, y - y0
    left, right = _neighbor(x0, width, wrap_u), _neighbor(x0 + 1, width, wrap_u)
    top, bottom = _neighbor(y0, height, wrap_v), _neighbor(y0 + 1, height, wrap_v)
    a, b = texels[start + top * width + left], texels[start + top * width + right]
    c, d = texels[start + bottom * width + left], texels[start + bottom * width + right]
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    return (
        wa * to_linear[a[0]] + wb * to_linear[b[0]] + wc * to_linear[c[0]] + wd * to_linear[d[0]],
        wa * to_linear[a[1]] + wb * to_linear[b[1]] + wc * to_linear[c[1]] + wd * to_linear[d[1]],
        wa * to_linear[a[2]] + wb * to_linear[b[2]] + wc * to_linear[c[2]] + wd * to_linear[d[2]],
        (wa * a[3] + wb * b[3] + wc * c[3] + wd * d[3]) / 255.0,
    )


@_inline
def _corner_weights(face, px, py, faces, screen, inverse_depth):
    """Perspective-correct barycentric weights of the sample at (px, py), which the face covers."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    x = px * _SUBPIXEL + _SUBPIXEL // 2
    y = py * _SUBPIXEL + _SUBPIXEL // 2
    ex, ey = float(screen[i, 0] - x), float(screen[i, 1] - y)
    fx, fy = float(screen[j, 0] - x), float(screen[j, 1] - y)
    gx, gy = float(screen[k, 0] - x), float(screen[k, 1] - y)
    a = (fx * gy - fy * gx) * inverse_depth[i]
    b = (gx * ey - gy * ex) * inverse_depth[j]
    c = (ex * fy - ey * fx) * inverse_depth[k]
    total = a + b + c
    return a / total, b / total, c / total


@_inline
def _albedo(face, a, b, c, level, faces, material, uv, vertex_colors, face_colors, base_colors, texture_levels, wraps,
            levels, texels, to_linear):  # fmt: skip
    """Linear r, g, b and alpha at barycentric weights a, b, c."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    red, green, blue = base_colors[material, 0], base_colors[material, 1], base_colors[material, 2]
    alpha = base_colors[material, 3]
    if vertex_colors.shape[0] > 1:
        red *= a * vertex_colors[i, 0] + b * vertex_colors[j, 0] + c * vertex_colors[k, 0]
        green *= a * vertex_colors[i, 1] + b * vertex_colors[j, 1] + c * vertex_colors[k, 1]
        blue *= a * vertex_colors[i, 2] + b * vertex_colors[j, 2] + c * vertex_colors[k, 2]
        alpha *= a * vertex_colors[i, 3] + b * vertex_colors[j, 3] + c * vertex_colors[k, 3]
    if face_colors.shape[0] == faces.shape[0]:
        red *= face_colors[face, 0]
        green *= face_colors[face, 1]
        blue *= face_colors[face, 2]
        alpha *= face_colors[face, 3]
    count = texture_levels[material, 1]
    if count > 0:
        u = a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]
        v = a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1]
        row = texture_levels[material, 0] + min(level, count - 1)
        r, g, bl, al = _texture(u, v, row, wraps[material, 0], wraps[material, 1], levels, texels, to_linear)
        red, green, blue, alpha = red * r, green * g, blue * bl, alpha * al
    return red, green, blue, alpha


@_inline
def _emission(face, a, b, c, level, faces, material, uv, emissions, emission_levels, wraps, levels, texels, to_linear):
    """Linear r, g, b of the light that the surface gives off at barycentric weights a, b, c."""
    red, green, blue = emissions[material, 0], emissions[material, 1], emissions[material, 2]
    count = emission_levels[material, 1]
    if count > 0 and red + green + blue > 0.0:
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        u = a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]
        v = a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1]
        row = emission_levels[material, 0] + min(level, count - 1)
        r, g, bl, _ = _texture(u, v, row, wraps[material, 0], wraps[material, 1], levels, texels, to_linear)
        red, green, blue = red * r, green * g, blue * bl
    return red, green, blue


@_inline
def _light(face, a, b, c, px, py, side, focal, faces, normals, face_normals, rotation, lamp):
    """Light and rim at a sample; the normal is turned towards the camera, so that inside-out faces are lit, too."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    x = y = z = 0.0
    if normals.shape[0] > 1:
        x = a * normals[i, 0] + b * normals[j, 0] + c * normals[k, 0]
        y = a * normals[i, 1] + b * normals[j, 1] + c * normals[k, 1]
        z = a * normals[i, 2] + b * normals[j, 2] + c * normals[k, 2]
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-6:
        x, y, z = face_normals[face, 0], face_normals[face, 1], face_normals[face, 2]
        length = 1.0
    x, y, z = x / length, y / length, z / length
    right = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
    up = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
    back = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
    # Direction from the surface to the camera.
    to_right = -(px + 0.5 - 0.5 * side) / focal
    to_up = (py + 0.5 - 0.5 * side) / focal
    facing = (right * to_right + up * to_up + back) / math.sqrt(to_right * to_right + to_up * to_up + 1.0)
    if facing < 0.0:
        right, up, back, y, facing = -right, -up, -back, -y, -facing
    key = max(0.0, right * lamp[3] + up * lamp[4] + back * lamp[5])
    away = 1.0 - min(facing, 1.0)
    away *= away
    return lamp[0] + lamp[1] * key + lamp[2] * 0.5 * (1.0 + y), lamp[6] * away * away


@_inline
def _seen(red, green, blue, r, g, b, light, rim, lamp):
    """`light.lit`: linear albedo and emission to what the camera sees, linear."""
    room = rim * lamp[7]
    red = light * (min(max(red, 0.0), 1.0) * (1.0 - rim) + room) + r
    green = light * (min(max(green, 0.0), 1.0) * (1.0 - rim) + room) + g
    blue = light * (min(max(blue, 0.0), 1.0) * (1.0 - rim) + room) + b
    top = max(red, green, blue)
    if top > lamp[8]:
        span = lamp[9] - lamp[8]
        scale = (lamp[9] - span * math.exp((lamp[8] - top) / span)) / top
        red, green, blue = red * scale, green * scale, blue * scale
    return red, green, blue


@_inline
def _span(edge, step, low, high):
    """Samples of a row on the inner side of an edge: edge + n * step >= 0 for low <= n <= high."""
    if step > 0:
        low = max(low, -(edge // step))
    elif step < 0:
        high = min(high, edge // -step)
    elif edge < 0:
        high = low - 1
    return low, high


@_jit
def _draw(order, faces, screen, inverse_depth, side, focal, blending, face_kind, face_material, face_level, blur_limit,
          base_colors, emissions, hole_below, solid_from, double_sided, texture_levels, emission_levels, wraps, levels,
          texels, uv, normals, face_normals, vertex_colors, face_colors, rotation, lamp, to_linear, nearest, winner,
          first_hit, frame):  # fmt: skip
    """Rasterize the faces in `order`: into nearest (inverse depth) and winner (face), or, blending, into frame."""
    for number in range(order.shape[0]):
        face = order[number]
        i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
        x0, y0, x1, y1, x2, y2 = (
            screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1], screen[k, 0], screen[k, 1],
        )  # fmt: skip
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        material = face_material[face]
        z0, z1, z2 = inverse_depth[i], inverse_depth[j], inverse_depth[k]
        if area > 0:  # clockwise on the screen, whose y runs down: a back face
            if not double_sided[material]:
                continue
        else:
            x1, y1, x2, y2, z1, z2, area = x2, y2, x1, y1, z2, z1, -area
        half = _SUBPIXEL // 2
        left = max(0, -((half - min(x0, x1, x2)) // _SUBPIXEL))
        right = min(side - 1, (max(x0, x1, x2) - half) // _SUBPIXEL)
        top = max(0, -((half - min(y0, y1, y2)) // _SUBPIXEL))
        bottom = min(side - 1, (max(y0, y1, y2) - half) // _SUBPIXEL)
        if left > right or top > bottom:
            continue
        if texture_levels[material, 1] > 0:
            level = _mip_level(face, area, faces, uv, levels, texture_levels[material, 0])
            face_level[face] = min(level, blur_limit[face])
        elif emission_levels[material, 1] > 0:
            level = _mip_level(face, area, faces, uv, levels, emission_levels[material, 0])
            face_level[face] = min(level, blur_limit[face])
        # Edge functions at the first sample, positive inside; an edge that is neither top nor left is exclusive.
        px, py = left * _SUBPIXEL + half, top * _SUBPIXEL + half
        a_dx, a_dy = y1 - y2, x2 - x1
        b_dx, b_dy = y2 - y0, x0 - x2
        c_dx, c_dy = y0 - y1, x1 - x0
        a_row = a_dx * (px - x1) + a_dy * (py - y1) - (0 if a_dx > 0 or (a_dx == 0 and a_dy > 0) else 1)
        b_row = b_dx * (px - x2) + b_dy * (py - y2) - (0 if b_dx > 0 or (b_dx == 0 and b_dy > 0) else 1)
        c_row = c_dx * (px - x0) + c_dy * (py - y0) - (0 if c_dx > 0 or (c_dx == 0 and c_dy > 0) else 1)
        z_dx = (a_dx * z0 + b_dx * z1 + c_dx * z2) * _SUBPIXEL / area
        z_dy = (a_dy * z0 + b_dy * z1 + c_dy * z2) * _SUBPIXEL / area
        z_row = (
            (a_dx * (px - x1) + a_dy * (py - y1)) * z0
            + (b_dx * (px - x2) + b_dy * (py - y2)) * z1
            + (c_dx * (px - x0) + c_dy * (py - y0)) * z2
        ) / area
        tested = face_kind[face] != OPAQUE or blending
        for row in range(top, bottom + 1):
            low, high = _span(a_row, a_dx * _SUBPIXEL, 0, right - left)
            low, high = _span(b_row, b_dx * _SUBPIXEL, low, high)
            low, high = _span(c_row, c_dx * _SUBPIXEL, low, high)
            for n in range(low, high + 1):
                column = left + n
                z = np.float32(z_row + n * z_dx)
                if z <= nearest[row, column]:
                    continue
                if not tested:
                    nearest[row, column] = z
                    winner[row, column] = face
                    continue
                a, b, c = _corner_weights(face, column, row, faces, screen, inverse_depth)
                red, green, blue, alpha = _albedo(
                    face, a, b, c, face_level[face], faces, material, uv, vertex_colors, face_colors, base_colors,
                    texture_levels, wraps, levels, texels, to_linear,
                )  # fmt: skip
                if alpha < hole_below[material]:
                    continue
                if not blending:
                    if alpha >= solid_from[material]:
                        nearest[row, column] = z
                        winner[row, column] = face
                    continue
                if alpha >= solid_from[material]:
                    continue  # drawn as solid already
                own = min(base_colors[material, 3] / lamp[13], 1.0)
                red, green, blue = (
                    own * red + (1.0 - own) * lamp[10],
                    own * green + (1.0 - own) * lamp[11],
                    own * blue + (1.0 - own) * lamp[12],
                )
                light, rim = _light(
                    face, a, b, c, column, row, side, focal, faces, normals, face_normals, rotation, lamp
                )
                er, eg, eb = _emission(
                    face, a, b, c, face_level[face], faces, material, uv, emissions, emission_levels, wraps, levels,
                    texels, to_linear,
                )  # fmt: skip
                red, green, blue = _seen(red, green, blue, er, eg, eb, light, rim, lamp)
                alpha += (1.0 - alpha) * rim * min(1.0, 10.0 * alpha)  # not of what is hidden
                keep = 1.0 - alpha
                frame[row, column, 0] = frame[row, column, 0] * keep + alpha * red
                frame[row, column, 1] = frame[row, column, 1] * keep + alpha * green
                frame[row, column, 2] = frame[row, column, 2] * keep + alpha * blue
                frame[row, column, 3] = frame[row, column, 3] * keep + alpha
                first_hit[row, column] = max(first_hit[row, column], z)
            a_row += a_dy * _SUBPIXEL
            b_row += b_dy * _SUBPIXEL
            c_row += c_dy * _SUBPIXEL
            z_row += z_dy


@_inline
def _mip_level(face, area, faces, uv, levels, first_level):
    """Halvings of the texture after which a texel is about as large as a sample, for the face as a whole."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    du1, dv1 = uv[j, 0] - uv[i, 0], uv[j, 1] - uv[i, 1]
    du2, dv2 = uv[k, 0] - uv[i, 0], uv[k, 1] - uv[i, 1]
    covered = abs(du1 * dv2 - du2 * dv1) * levels[first_level, 1] * levels[first_level, 2]
    samples = area / (_SUBPIXEL * _SUBPIXEL)
    if not covered > samples:
        return 0
    return int(0.5 * math.log2(covered / samples) + 0.5)


@_jit
def _shade(winner, side, focal, faces, screen, inverse_depth, face_material, face_level, base_colors, emissions,
           texture_levels, emission_levels, wraps, levels, texels, uv, normals, face_normals, vertex_colors,
           face_colors, rotation, lamp, to_linear, frame):  # fmt: skip
    """Fill frame (side, side, 4), premultiplied linear RGB and alpha, where a solid face won.

    Where one face covers a block of 2 x 2 samples, light is computed once, at the block's middle, and so is its color
    unless it has a texture: both are so smooth within a face that bytes of the picture change by one at most, but
    for the few samples where an interpolated normal turns away from the camera.
    """
    for top in range(0, side, 2):
        for left in range(0, side, 2):
            face = winner[top, left]
            whole = (
                top + 1 < side
                and left + 1 < side
                and face == winner[top, left + 1]
                and face == winner[top + 1, left]
                and face == winner[top + 1, left + 1]
            )
            step = 1
            light, rim = 0.0, 0.0
            if whole:
                if face < 0:
                    continue
                px, py = left + 0.5, top + 0.5
                a, b, c = _corner_weights(face, px, py, faces, screen, inverse_depth)
                light, rim = _light(face, a, b, c, px, py, side, focal, faces, normals, face_normals, rotation, lamp)
                material = face_material[face]
                if texture_levels[material, 1] == 0 and emission_levels[material, 1] == 0:
                    step = 2
            for row in range(top, min(top + 2, side), step):
                for column in range(left, min(left + 2, side), step):
                    face = winner[row, column]
                    if face < 0:
                        continue
                    material = face_material[face]
                    px, py = column + 0.5 * (step - 1), row + 0.5 * (step - 1)
                    a, b, c = _corner_weights(face, px, py, faces, screen, inverse_depth)
                    red, green, blue, _ = _albedo(
                        face, a, b, c, face_level[face], faces, material, uv, vertex_colors, face_colors, base_colors,
                        texture_levels, wraps, levels, texels, to_linear,
                    )  # fmt: skip
                    if not whole:
                        light, rim = _light(
                            face, a, b, c, px, py, side, focal, faces, normals, face_normals, rotation, lamp
                        )
                    er, eg, eb = _emission(
                        face, a, b, c, face_level[face], faces, material, uv, emissions, emission_levels, wraps,
                        levels, texels, to_linear,
                    )  # fmt: skip
                    red, green, blue = _seen(red, green, blue, er, eg, eb, light, rim, lamp)
                    for y in range(row, row + step):
                        for x in range(column, column + step):
                            frame[y, x, 0] = red
                            frame[y, x, 1] = green
                            frame[y, x, 2] = blue
                            frame[y, x, 3] = 1.0


def draw_view(mesh: RasterMesh, camera: Camera, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one view without anti-aliasing.

    Args:
        mesh: what to draw.
        camera: with its distance.
        side: samples along the frame's side.

    Returns:
        (side, side, 4) float32 premultiplied linear RGB and alpha, and (side, side) float32 depth along the camera's
        axis, 0 where nothing is.
    """
    assert camera.distance is not None
    focal = 0.5 * side / math.tan(math.radians(camera.fov) / 2)
    rotation = camera.rotation
    screen = np.empty((len(mesh.vertices), 2), dtype=np.int64)
    inverse_depth = np.empty(len(mesh.vertices))
    _project(
        mesh.vertices, rotation, float(camera.distance), np.array(camera.shift), focal, side, screen, inverse_depth
    )
    nearest = np.zeros((side, side), dtype=np.float32)
    winner = np.full((side, side), -1, dtype=np.int32)
    frame = np.zeros((side, side, 4), dtype=np.float32)
    face_level = np.zeros(len(mesh.faces), dtype=np.int32)

    def draw(order: np.ndarray, blending: bool, first_hit: np.ndarray) -> None:
        _draw(order, mesh.faces, screen, inverse_depth, side, focal, blending, mesh.face_kind, mesh.face_material,
              face_level, mesh.blur_limit, mesh.base_colors, mesh.emissions, mesh.hole_below, mesh.solid_from,
              mesh.double_sided, mesh.texture_levels, mesh.emission_levels, mesh.wraps, mesh.levels, mesh.texels,
              mesh.uv, mesh.normals, mesh.face_normals, mesh.vertex_colors, mesh.face_colors, rotation, LIGHT,
              SRGB_TO_LINEAR, nearest, winner, first_hit, frame)  # fmt: skip

    draw(np.flatnonzero(mesh.face_kind != GLASS).astype(np.int32), False, nearest)
    _shade(winner, side, focal, mesh.faces, screen, inverse_depth, mesh.face_material, face_level, mesh.base_colors,
           mesh.emissions, mesh.texture_levels, mesh.emission_levels, mesh.wraps, mesh.levels, mesh.texels,
           mesh.uv, mesh.normals, mesh.face_normals, mesh.vertex_colors, mesh.face_colors, rotation, LIGHT,
           SRGB_TO_LINEAR, frame)  # fmt: skip
    first_hit = nearest
    blended = np.flatnonzero(mesh.may_blend[mesh.face_material])
    if len(blended):
        first_hit = nearest.copy()
        middle = inverse_depth[mesh.faces[blended]].mean(axis=1)
        draw(blended[np.argsort(middle, kind="stable")].astype(np.int32), True, first_hit)
    depth = np.divide(1.0, first_hit, out=np.zeros_like(first_hit), where=first_hit > 0)
    return frame, depth
