"""What was found in a scan, as files: a table, JSON, archives of masks, and the scan colored by names."""

from __future__ import annotations

import colorsys
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling_ulip2.geometry.cameras import Camera
from modeling_ulip2.geometry.colors import SRGB_TO_LINEAR
from modeling_ulip2.scenes.schema import ObjectMasks, Scene, SceneObject
from modeling_ulip2.utils.files import whole_file, whole_path, write_text

SUFFIXES = (".json", ".npz", ".ply", ".glb", ".png")
# What has no name is shown in gray, lighter where the scan is.
_DARKEST, _LIGHTEST = 90, 200
_PICTURE_SIDE = 900
_PICTURE_POINTS = 400_000
_COLD, _HOT = np.array([60, 70, 160]), np.array([255, 90, 20])


def label_colors(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """A color for each label, as far from one another as the golden ratio parts a circle."""
    colors = {}
    for number, label in enumerate(labels):
        hue, value = (number * 0.61803398875 + 0.02) % 1.0, (0.95, 0.75, 0.85)[number % 3]
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, value))
        colors[label] = red, green, blue
    return colors


def gray(scene: Scene) -> np.ndarray:
    """(N, 3) uint8: the scan without its colors."""
    if scene.rgb is None:
        return np.full((len(scene.xyz), 3), (_DARKEST + _LIGHTEST) // 2, dtype=np.uint8)
    light = scene.rgb @ np.array([0.3, 0.6, 0.1]) / 255  # (N,)
    return np.repeat((_DARKEST + (_LIGHTEST - _DARKEST) * light)[:, None], 3, axis=1).astype(np.uint8)


def name_colors(scene: Scene, objects: Sequence[SceneObject], labels: Sequence[str]) -> np.ndarray:
    """(N, 3) uint8: each point in the color of the name that its object bears, the smallest of nested ones."""
    colors, rgb = label_colors(labels), gray(scene)
    for thing in sorted(objects, key=lambda thing: -len(thing.points)):
        if thing.label is not None:
            rgb[thing.points] = colors[thing.label]
    return rgb


def score_colors(scene: Scene, scores: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: points of a high score (N,) glow, the best the most; those of none are gray."""
    rgb = gray(scene)
    best = float(scores.max(initial=0))
    if best > 0:
        share = (scores / best)[:, None]  # (N, 1)
        lit = np.where(share > 0.5, _HOT, _COLD) * share + rgb * (1 - share)
        rgb = np.where(share > 0, lit, rgb).astype(np.uint8)
    return rgb


def as_dict(thing: SceneObject, number: int) -> dict[str, Any]:
    """An object for JSON; its points are in the archive and in the colored scan, under its number."""
    return {
        "object": number,
        "label": thing.label,
        "score": round(float(thing.score), 6),
        "num_points": len(thing.points),
        "box": np.round(thing.box.astype(float), 4).tolist(),
        "oriented_box": np.round(thing.oriented_box.astype(float), 4).tolist(),
        "sentence": thing.sentence,
        "embedding": np.round(thing.embedding.astype(float), 6).tolist(),
    }


def object_table(objects: Sequence[SceneObject]) -> list[str]:
    """A line for each object: score, label, size and place in meters, points, and its sentence."""
    width = max([len("label"), *(len(thing.label or "-") for thing in objects)])
    lines = [f"score  {'label':<{width}}  size (m)        center (m)             points"]
    for thing in objects:
        size = " x ".join(f"{side:.1f}" for side in thing.oriented_box[3:6])
        center = ", ".join(f"{value:6.2f}" for value in thing.oriented_box[:3])
        line = f"{thing.score:5.3f}  {thing.label or '-':<{width}}  {size:<15} {center:<22} {len(thing.points):>6}"
        lines.append(f"{line}  {thing.sentence}".rstrip())
    return lines


def write_results(
    path: Path,
    scene: Scene,
    objects: Sequence[SceneObject],
    rgb: np.ndarray,
    scores: np.ndarray | None = None,
    asked: dict[str, Any] | None = None,
) -> None:
    """Writes what was found, in the form that the suffix of the file names, whole or not at all.

    Args:
        path: `.json`, all objects with boxes, scores and embeddings; `.npz`, the same with boolean `masks` (P, N),
            which `ulip2 scene --masks` reads; `.ply` or `.glb`, the scan in the colors `rgb`, the PLY with the columns
            `object` (its number, -1 for none) and `score`; `.png`, a picture of it.
        rgb: (N, 3) uint8.
        scores: (N,) of points; default: those of their objects.
        asked: stands at the head of the JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = {
            "scene": scene.id,
            **(asked or {}),
            "num_points": len(scene.xyz),
            "warnings": scene.warnings,
            "objects": [as_dict(thing, number) for number, thing in enumerate(objects)],
        }
        write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    elif suffix == ".npz":
        with whole_file(path) as file:
            np.savez_compressed(file, **_archive(scene, objects))
    elif suffix == ".ply":
        with whole_file(path) as file:
            file.write(_ply(scene, objects, rgb, scores))
    elif suffix == ".glb":
        with whole_file(path) as file:
            file.write(points_glb(scene.xyz, rgb))
    elif suffix == ".png":
        from PIL import Image

        with whole_path(path) as partial:
            Image.fromarray(picture(scene, rgb)).save(partial, format="PNG")
    else:
        raise ValueError(f"{path} ends in none of {', '.join(SUFFIXES)}")


def picture(scene: Scene, rgb: np.ndarray, side: int = _PICTURE_SIDE, ceilings: bool = False) -> np.ndarray:
    """(side, side, 3) uint8: a scan in some colors (N, 3) from above and aside, without what hangs above its rooms.

    Args:
        ceilings: show the highest horizontal parts, too, which hide the rooms.
    """
    from modeling_ulip2.scenes.pictures import draw_points

    shown = np.arange(len(scene.xyz)) if ceilings else np.flatnonzero(below_ceiling(scene.xyz))
    shown = shown[:: max(1, len(shown) // _PICTURE_POINTS)]
    return draw_points(scene.xyz[shown], rgb[shown], camera=Camera(azimuth=30.0, elevation=55.0), size=side)


def below_ceiling(xyz: np.ndarray) -> np.ndarray:
    """(N,) bool: without the highest layer of points of each place, where it lies high above the lowest (1.8 m)."""
    cells = np.floor((xyz[:, [0, 2]] - xyz[:, [0, 2]].min(axis=0)) / 0.25).astype(np.int64)  # (N, 2)
    of = cells[:, 0] * (cells[:, 1].max(initial=0) + 1) + cells[:, 1]
    number = np.unique(of, return_inverse=True)[1]
    top, bottom = np.full(number.max(initial=0) + 1, -np.inf), np.full(number.max(initial=0) + 1, np.inf)
    np.maximum.at(top, number, xyz[:, 1])
    np.minimum.at(bottom, number, xyz[:, 1])
    return ~((xyz[:, 1] > top[number] - 0.12) & (top - bottom > 1.8)[number])


def masks_of(objects: Sequence[SceneObject]) -> ObjectMasks:
    """The masks of named objects, with their scores."""
    return ObjectMasks(
        [thing.points for thing in objects], scores=np.array([thing.score for thing in objects], dtype=np.float32)
    )


def _archive(scene: Scene, objects: Sequence[SceneObject]) -> dict[str, Any]:
    masks = np.zeros((len(objects), len(scene.xyz)), dtype=bool)
    for row, thing in zip(masks, objects, strict=True):
        row[thing.points] = True
    return {
        "masks": masks,
        "scores": np.array([thing.score for thing in objects], dtype=np.float32),
        "names": np.array([thing.label or "" for thing in objects], dtype=np.str_),
        "boxes": np.array([thing.box for thing in objects], dtype=np.float32).reshape(-1, 2, 3),
        "oriented_boxes": np.array([thing.oriented_box for thing in objects], dtype=np.float32).reshape(-1, 7),
        "embeddings": np.array([thing.embedding for thing in objects], dtype=np.float32),
    }


def _ply(scene: Scene, objects: Sequence[SceneObject], rgb: np.ndarray, scores: np.ndarray | None) -> bytes:
    fields = [("xyz", "<f4", 3), ("rgb", "u1", 3), ("object", "<i4"), ("score", "<f4")]
    rows = np.zeros(len(scene.xyz), dtype=fields)
    rows["xyz"], rows["rgb"], rows["object"] = scene.xyz, rgb, -1
    for number, thing in sorted(enumerate(objects), key=lambda pair: -len(pair[1].points)):
        rows["object"][thing.points] = number
        rows["score"][thing.points] = thing.score
    if scores is not None:
        rows["score"] = scores
    names = "".join(
        f"comment object {number}: {thing.label}\n".replace("\r", " ").encode("ascii", "backslashreplace").decode()
        for number, thing in enumerate(objects)
        if thing.label is not None and "\n" not in thing.label
    )
    properties = "".join(
        f"property {kind} {name}\n"
        for name, kind in [
            *((axis, "float") for axis in "xyz"),
            *((color, "uchar") for color in ("red", "green", "blue")),
            ("object", "int"),
            ("score", "float"),
        ]
    )
    head = f"ply\nformat binary_little_endian 1.0\n{names}element vertex {len(rows)}\n{properties}end_header\n"
    return head.encode("ascii") + rows.tobytes()


def points_glb(xyz: np.ndarray, rgb: np.ndarray) -> bytes:
    """Points (N, 3) in colors (N, 3) uint8 sRGB as a GLB file, whose colors are linear."""
    linear = np.ones((len(xyz), 4), dtype=np.uint16)
    linear[:, :3] = np.rint(SRGB_TO_LINEAR[rgb] * 65535)
    linear[:, 3] = 65535
    positions = xyz.astype("<f4").tobytes()
    body = positions + linear.astype("<u2").tobytes()
    low, high = xyz.min(axis=0).astype(float).tolist(), xyz.max(axis=0).astype(float).tolist()
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": len(xyz), "type": "VEC3", "min": low, "max": high},
        {"bufferView": 1, "componentType": 5123, "normalized": True, "count": len(xyz), "type": "VEC4"},
    ]
    content = {
        "asset": {"version": "2.0", "generator": "modeling-ulip2"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": 0}]}],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(positions), "target": 34962},
            {"buffer": 0, "byteOffset": len(positions), "byteLength": len(body) - len(positions), "target": 34962},
        ],
        "buffers": [{"byteLength": len(body)}],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body += b"\0" * (-len(body) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(body), 0x004E4942) + body
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
