"""`preprocessing/<file>`: sampling, normalization, augmentation and dataset items, given the same random draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modeling_ulip2.data import augmentation
from modeling_ulip2.data.augmentation import Rng
from modeling_ulip2.evaluation.benchmarks.protocols import PROTOCOLS
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor, append_height, unit_sphere
from tests.parity import Case, TensorFile, read_json

SECOND = "_second_call"
# Keys that a check need not read: comments, and draws that the seed fixes and the output shows.
DESCRIPTIVE = {"note", "order", "label", "name", "shifts", "angles", "scales", "ratios"}


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.safetensors")):
        declared = set(read_json(path.with_suffix(".json"))["cases"])
        stored = {name.rsplit(".", 1)[0] for name in TensorFile(path)}
        for name in sorted(declared | stored):
            yield Case(folder.name, f"{path.stem}/{name}", [path, path.with_suffix(".json")], data=(path, name))


def check(case: Case) -> None:
    path, name = case.data
    tensors = case.open(path, prefix=f"{name}.")
    declared = read_json(path.with_suffix(".json"))["cases"]
    settings = {key: value for key, value in declared[name].items() if key not in DESCRIPTIVE}
    rng = np.random.RandomState(settings.pop("numpy_seed", None))
    points, expected = tensors["in"].numpy(), tensors["out"]
    if name.startswith("random_sample"):
        first = name.removesuffix(SECOND)
        length = settings.pop("permutation_length", declared[first]["permutation_length"])
        order = np.arange(length)
        if name != first:
            # the reference shuffles one array again and again: the second call goes on where the first stopped
            rng = np.random.RandomState(declared[first]["numpy_seed"])
            before = TensorFile(path, prefix=f"{first}.")
            augmentation.random_sample(before["in"].numpy(), len(before["out"]), rng, order)
        case.equal("points", augmentation.random_sample(points, len(expected), rng, order), expected)
        case.equal("permutation", order, tensors["permutation"])
    elif name.startswith("fps"):
        start, count = settings.pop("start_index"), settings.pop("npoint")
        sampled = augmentation.farthest_from_drawn(points, count, rng)
        case.equal("start", sampled[0], points[start])
        case.equal("points", sampled, expected)
    elif name.startswith("pc_norm"):
        case.close("points", unit_sphere(points), expected, atol=1e-6, rtol=1e-6)
    elif name.startswith("shapenet"):
        augment = not name.startswith("shapenet_no_augment")
        case.close("item", _shapenet_item(points, settings, rng, augment), expected, atol=1e-6)
    elif name.startswith(("modelnet", "objaverse")):
        case.close("item", _evaluation_item(points, settings, rng), expected, atol=1e-6)
    else:
        change = _change(name, settings)
        changed = np.stack([change(cloud, rng) for cloud in points])
        case.close("clouds", changed, expected, atol=1e-6, rtol=1e-6)
        if "mask" in tensors:
            dropped = tensors["mask"].bool().numpy()[..., None]  # (B, N, 1)
            case.equal("dropped points", changed, np.where(dropped, points[:, :1], points))
    assert not settings, f"{case.name}: the check does not understand {sorted(settings)}"


def _change(name: str, settings: dict[str, Any]) -> Callable[[np.ndarray, Rng], np.ndarray]:
    """The augmentation of one cloud that a case is about; draws are taken cloud by cloud."""
    if name.startswith("random_point_dropout"):
        return augmentation.drop_points
    if name.startswith("random_scale"):
        low, high = settings.pop("range")
        return lambda cloud, rng: augmentation.scale_points(cloud, rng, low, high)
    if name.startswith("shift"):
        low, high = settings.pop("range")
        assert low == -high
        return lambda cloud, rng: augmentation.shift_points(cloud, rng, high)
    if name.startswith("jitter"):
        sigma, clip = settings.pop("sigma"), settings.pop("clip")
        return lambda cloud, rng: augmentation.jitter_points(cloud, rng, sigma, clip)
    if name.startswith("rotate_perturbation"):
        sigma, clip = settings.pop("angle_sigma"), settings.pop("angle_clip")
        return lambda cloud, rng: augmentation.perturb_rotation(cloud, rng, sigma, clip)
    if name.startswith("rotate_y"):
        return augmentation.rotate_about_y
    raise AssertionError(f"unknown kind of preprocessing: {name}")


def _shapenet_item(points: np.ndarray, settings: dict[str, Any], rng: Rng, augment: bool) -> np.ndarray:
    """A training item: sampling, normalization, augmentation, perhaps the height."""
    count = settings.pop("npoints")
    if count < len(points):
        points = augmentation.farthest_from_drawn(points, count, rng)
    else:
        points = augmentation.random_sample(points, count, rng)
    points = unit_sphere(points)
    if augment:
        points = augmentation.PUBLISHED(points, rng)
    return append_height(points) if settings.pop("use_height", False) else points


def _evaluation_item(points: np.ndarray, settings: dict[str, Any], rng: Rng) -> np.ndarray:
    """An item of ModelNet40 (its columns 3 to 5 are normals) or of Objaverse-LVIS (rgb), by ULIP-2's protocol."""
    lvis = "npoints" not in settings
    count, stored_as_is = settings.pop("npoints", len(points)), settings.pop("tenk", False)
    if count < len(points) and not stored_as_is:
        points = augmentation.farthest_from_drawn(points, count, rng)  # the reference starts at a random point
    channels = (6 if settings.pop("colored", lvis) else 3) + settings.pop("height", False)
    benchmark, config = ("objaverse_lvis", "lvis") if lvis else ("modelnet40", "fps_8192")
    config = "colored_10k" if stored_as_is else config
    protocol = PROTOCOLS["ulip2"]
    own = Ulip2FeatureExtractor(num_points=len(points), in_channels=channels)
    extractor = protocol.feature_extractor(benchmark, config, own)
    cloud = points if protocol.keeps_color(benchmark) else points[:, :3]
    return extractor(cloud, return_tensors="np")["point_values"][0]  # (N, 3, 4, 6 or 7)
