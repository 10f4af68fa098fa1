"""Masks that other segmenters predicted, as proposals: Mask3D's text files, and archives of boolean masks."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.npy import load_npy, read_npy_header
from modeling_ulip2.geometry.numbers import parse_numbers
from modeling_ulip2.scenes.schema import ObjectMasks

from .layouts import LayoutError

# Names under which archives hold masks, and what belongs to them.
_MASKS = ("masks", "pred_masks", "mask", "ins", "arr_0")
_SCORES = ("scores", "pred_scores", "conf", "confidence")
_LABELS = ("labels", "pred_classes", "classes", "label_ids", "ids")
MAX_MASKS = 100_000
MAX_LINES_BYTES = 64 << 20
# Bytes of a mask that are looked at at once.
_AT_ONCE = 64 << 20


def read_masks(path: Path, num_points: int) -> ObjectMasks:
    """Predicted objects of a scene.

    Two formats are read. Of Mask3D and of the ScanNet benchmark: a text file with a line `MASK LABEL SCORE` for each
    object, whose mask is a text file of a number per point, not 0 where the point is in it. And a `.npz` archive with
    an array of masks, (N, P) or (P, N) for N points and P objects, boolean or of whole numbers, under a name such as
    `masks`; with `scores` (P,) and `labels` (P,) where there are any.

    Args:
        num_points: of the scene, N.

    Returns:
        Objects in the file's order, those without points left out; `ids` are their labels, or their places.

    Raises:
        LayoutError: the file is none of these, or of another scene.
    """
    if path.suffix.lower() == ".npz":
        return _read_archive(path, num_points)
    if path.suffix.lower() == ".txt":
        return _read_lines(path, num_points)
    raise LayoutError(f"{path} is neither .txt (lines of mask, label and score) nor .npz (an array of masks)")


def _collect(points: list[np.ndarray], scores: np.ndarray | None, ids: np.ndarray | None) -> ObjectMasks:
    kept = [index for index, own in enumerate(points) if len(own)]
    scores = np.ones(len(points), np.float32) if scores is None else scores
    ids = np.arange(len(points), dtype=np.int32) if ids is None else ids
    if not np.isfinite(scores).all():
        raise LayoutError("scores of masks are NaN or infinite")
    return ObjectMasks(
        [points[index] for index in kept], scores[kept].astype(np.float32), ids=ids[kept].astype(np.int32)
    )


def _read_lines(path: Path, num_points: int) -> ObjectMasks:
    try:
        if path.stat().st_size > MAX_LINES_BYTES:
            raise LayoutError(f"{path} is too large for a list of masks")
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path} cannot be read ({error})") from None
    points: list[np.ndarray] = []
    scores: list[float] = []
    labels: list[int] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            name, label, score = " ".join(words[:-2]), int(float(words[-2])), float(words[-1])
        except (IndexError, ValueError, OverflowError):
            name, label, score = "", 0, 0.0
        if not name or not abs(label) < 2**31:
            raise LayoutError(f"line {number} of {path} is not a mask's path, a label and a score ({line[:60]!r})")
        if len(points) == MAX_MASKS:
            raise LayoutError(f"{path} lists more than {MAX_MASKS:,} masks")
        points.append(_read_mask(path.parent, name, num_points, f"line {number} of {path}"))
        scores.append(score)
        labels.append(label)
    return _collect(points, np.array(scores, np.float32), np.array(labels, np.int32))


def _read_mask(folder: Path, name: str, num_points: int, where: str) -> np.ndarray:
    """Ascending indices of the points in a mask's text file."""
    relative = PurePosixPath(name)
    path = folder / relative
    inside = path.resolve().is_relative_to(folder.resolve())
    if relative.is_absolute() or ".." in relative.parts or not inside:
        raise LayoutError(f"{where} names {name[:80]!r}, which lies outside its folder")
    if not path.is_file():
        raise LayoutError(f"{where} names {name[:80]!r}, which does not exist")
    if path.stat().st_size > 32 * num_points + 1024:
        raise LayoutError(f"{path} is larger than a mask of {num_points:,} points can be")
    values = parse_numbers(path.read_bytes())
    if values is None:
        raise LayoutError(f"{path} holds something else than numbers")
    if len(values) != num_points:
        raise LayoutError(f"{path} is a mask of {len(values):,} points, the scene has {num_points:,}")
    return np.flatnonzero(values).astype(np.int32)


def _read_archive(path: Path, num_points: int) -> ObjectMasks:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {PurePosixPath(info.filename).stem.lower(): info for info in archive.infolist()}
            name = next((name for name in _MASKS if name in members), None)
            if name is None:
                raise LayoutError(f"{path} holds none of {', '.join(_MASKS)}; it holds {', '.join(members)[:120]}")
            with archive.open(members[name]) as member:
                points = _stream_masks(member, members[name].file_size, num_points, f"{name!r} of {path}")
            scores = _numbers(archive, members, _SCORES, len(points), path)
            labels = _numbers(archive, members, _LABELS, len(points), path)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise LayoutError(f"{path} is no readable archive ({error})") from None
    return _collect(points, scores, labels)


def _numbers(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], names: tuple[str, ...], count: int, path: Path
) -> np.ndarray | None:
    """(P,) numbers beside masks, under the first of the names that is there; None without."""
    name = next((name for name in names if name in members), None)
    if name is None:
        return None
    size = members[name].file_size
    if size > 64 * count + 4096:
        raise LayoutError(f"{name!r} of {path} holds more than a number for each of {count} masks")
    with archive.open(members[name]) as member:
        try:
            values = load_npy(io.BytesIO(member.read(size)), size, repr(name), max_rows=count + 1)
        except MeshError as error:
            raise LayoutError(f"{path}: {error.args[0]}") from None
    if values.shape != (count,) or values.dtype.kind not in "fiub":
        raise LayoutError(
            f"{name!r} of {path} has the shape {values.shape}; a number for each of {count} masks is needed"
        )
    return values


def _stream_masks(member: IO[bytes], size: int, num_points: int, what: str) -> list[np.ndarray]:
    """Ascending indices of the points in each mask of an array, read piece by piece: masks of many objects are larger
    than what is in them."""
    try:
        shape, fortran, dtype = read_npy_header(member, what)
    except MeshError as error:
        raise LayoutError(str(error)) from None
    header = member.tell()
    if len(shape) != 2 or num_points not in shape:
        raise LayoutError(f"{what} has the shape {shape}; ({num_points}, P) or (P, {num_points}) is needed")
    if dtype.kind not in "biu":
        raise LayoutError(f"{what} holds {dtype}, not masks")
    if shape[0] == shape[1]:
        raise LayoutError(
            f"{what} has as many masks as the scene has points, {num_points}: it is not clear which is which"
        )
    if header + shape[0] * shape[1] * dtype.itemsize != size:
        raise LayoutError(f"{what} announces {shape} of {dtype} and has {size - header:,} bytes")
    by_mask = (shape[1] == num_points) != fortran  # whether a mask's points follow one another
    count = shape[0] if shape[1] == num_points else shape[1]
    if count > MAX_MASKS:
        raise LayoutError(f"{what} has {count:,} masks; at most {MAX_MASKS:,}")
    row = num_points if by_mask else count
    rows = count if by_mask else num_points
    parts: list[list[np.ndarray]] = [[] for _ in range(count)]
    step = max(1, _AT_ONCE // max(1, row * dtype.itemsize))
    for start in range(0, rows, step):
        here = min(step, rows - start)
        data = member.read(here * row * dtype.itemsize)
        if len(data) < here * row * dtype.itemsize:
            raise LayoutError(f"{what} is cut short")
        block = np.frombuffer(data, dtype).reshape(here, row) != 0
        if by_mask:
            for number in range(here):
                parts[start + number].append(np.flatnonzero(block[number]).astype(np.int32))
        else:
            point, mask = np.nonzero(block)
            order = np.argsort(mask, kind="stable")
            ends = np.searchsorted(mask[order], np.arange(count + 1))
            for number in np.unique(mask):
                own = point[order[ends[number] : ends[number + 1]]]
                parts[number].append((own + start).astype(np.int32))
    return [np.concatenate(part) if part else np.zeros(0, np.int32) for part in parts]
