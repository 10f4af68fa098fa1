"""The light that pictures are taken in, and how the eye of the camera answers it: one home for both engines.

All of it is in linear light; `Renderer` encodes sRGB last.

- Light on a surface with normal n: AMBIENT + KEY * max(0, n . KEY_DIRECTION) + SKY * (1 + n_y) / 2. The key light is
  fixed to the camera, so that every view is lit alike; the sky is fixed to the world.
- Rim: at grazing angles every surface reflects the gray room that it stands in, a share RIM * (1 - n . v)^4 of what is
  seen (after Schlick's approximation of Fresnel's law). White things end darker than their middle and black things
  lighter, so that both keep an outline; glass ends less clear.
- Glass: a pane of opacity a has its own color by a share a / TINTED_GLASS and CLEAR_GLASS for the rest, and covers by
  a what is behind it. Files give panes any gray; without this they would look like gray film. What is as opaque as
  TINTED_GLASS is no pane but a bottle or dark plastic, and has its own color alone.
- Shoulder: what is brighter than KNEE is compressed towards CEILING by its largest channel, which keeps the hue. A
  lit white face reaches 0.95 of white (in sRGB; 0.89 linear), so that white paper behind it is brighter.

The numbers were fitted by a scan: the median color over the lit side of a sphere is the material's own within 8 %,
whichever part is called lit (white, which the shoulder darkens most, loses 7 %), and among those that achieve it, the
three faces of a white cube that one sees at once differ most.
"""

from __future__ import annotations

import numpy as np

from .colors import linear_to_srgb, srgb_to_linear

AMBIENT = 0.45
KEY = 0.50
SKY = 0.25
KEY_DIRECTION = np.array([-0.35, 0.5, 0.79]) / np.linalg.norm([-0.35, 0.5, 0.79])  # camera axes: right, up, backward
RIM = 0.20
ROOM = 0.18  # the gray of photographers' cards
KNEE, CEILING = 0.70, 0.91
# The color of clear glass, the pale blue-green of a window seen at a slant: sRGB (206, 228, 232), linear here.
CLEAR_GLASS = srgb_to_linear(np.array([206, 228, 232]) / 255.0)
TINTED_GLASS = 0.75
# (14,) for numba
LIGHT = np.array([AMBIENT, KEY, SKY, *KEY_DIRECTION, RIM, ROOM, KNEE, CEILING, *CLEAR_GLASS, TINTED_GLASS])

# The outline keeps this distance (sRGB, of 1) from the background; less is hard to see beside pure white or black.
OUTLINE_CONTRAST = 0.16

GLSL = f"""
const vec3 clear_glass = vec3({CLEAR_GLASS[0]:.9f}, {CLEAR_GLASS[1]:.9f}, {CLEAR_GLASS[2]:.9f});
// Linear light of a sample: albedo.rgb, emission; n in world axes, seen in camera axes, both towards the camera.
float rim(float facing) {{ float away = 1.0 - clamp(facing, 0.0, 1.0); away *= away; return {RIM:.9f} * away * away; }}
vec3 lit(vec3 albedo, vec3 emission, vec3 n, vec3 seen, float edge) {{
    float key = max(0.0, dot(seen, vec3({KEY_DIRECTION[0]:.9f}, {KEY_DIRECTION[1]:.9f}, {KEY_DIRECTION[2]:.9f})));
    float light = {AMBIENT:.9f} + {KEY:.9f} * key + {SKY:.9f} * 0.5 * (1.0 + n.y);
    vec3 color = light * mix(clamp(albedo, 0.0, 1.0), vec3({ROOM:.9f}), edge) + emission;
    float top = max(color.r, max(color.g, color.b));
    float span = {CEILING:.9f} - {KNEE:.9f};
    return top > {KNEE:.9f} ? color * (({CEILING:.9f} - span * exp(({KNEE:.9f} - top) / span)) / top) : color;
}}
"""


def pane_color(color: np.ndarray, opacity: np.ndarray | float) -> np.ndarray:
    """(..., 3) linear: the color that glass has for itself, its own and that of CLEAR_GLASS; see the top."""
    own = np.minimum(opacity / TINTED_GLASS, 1.0)
    return color * own + CLEAR_GLASS * (1.0 - own)


def lit(
    albedo: np.ndarray,
    normal: np.ndarray,
    to_camera: np.ndarray,
    rotation: np.ndarray,
    emission: np.ndarray | float = 0.0,
) -> np.ndarray:
    """What the camera sees of a surface; the engines compute the same, sample by sample.

    Args:
        albedo: (..., 3) linear.
        normal: (..., 3) unit vectors in world axes, on the camera's side.
        to_camera: (..., 3) unit vectors from the surface to the camera, in world axes.
        rotation: (3, 3) world to camera, see `Camera.rotation`.
        emission: (..., 3) linear.

    Returns:
        (..., 3) linear, below CEILING.
    """
    key = np.maximum(0.0, normal @ rotation.T @ KEY_DIRECTION)
    light = AMBIENT + KEY * key + SKY * (1.0 + normal[..., 1]) / 2
    edge = RIM * (1.0 - np.clip((normal * to_camera).sum(axis=-1), 0.0, 1.0))[..., None] ** 4
    color = light[..., None] * (np.clip(albedo, 0.0, 1.0) * (1.0 - edge) + ROOM * edge) + emission
    top = color.max(axis=-1, keepdims=True)
    shoulder = CEILING - (CEILING - KNEE) * np.exp((KNEE - top) / (CEILING - KNEE))
    return np.where(top > KNEE, color * shoulder / np.maximum(top, KNEE), color)


def outlined(rgb: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> None:
    """Move the object's outermost pixels away from the background where they would fade into it, in place.

    A flat white face before white, a black one before black and a clear pane would have no edge otherwise. Only what
    lies nearer to the background than OUTLINE_CONTRAST changes, and its hue stays.

    Args:
        rgb: (H, W, 3) float32 linear over the background.
        alpha: (H, W) float32, 0 where nothing is.
        background: (3,) linear.
    """
    covered = alpha > 0.5 / 255  # what is not 0 as a byte
    inner = covered.copy()
    inner[1:] &= covered[:-1]
    inner[:-1] &= covered[1:]
    inner[:, 1:] &= covered[:, :-1]
    inner[:, :-1] &= covered[:, 1:]
    rows, columns = np.nonzero(covered & ~inner)
    if len(rows) == 0:
        return
    behind = linear_to_srgb(background)
    edge = linear_to_srgb(rgb[rows, columns])  # (P, 3)
    away = np.where(behind.mean() < 0.5, 1.0, -1.0)  # there is more room on this side of the background
    lacking = OUTLINE_CONTRAST - np.abs(edge - behind).max(axis=1)
    here = lacking > 0
    edge[here] = np.clip(edge[here] + away * lacking[here, None], 0.0, 1.0)
    rgb[rows[here], columns[here]] = srgb_to_linear(edge[here])
