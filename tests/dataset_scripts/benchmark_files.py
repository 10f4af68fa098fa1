"""Small files in the layouts in which the benchmarks circulate."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import h5py
import numpy as np

from modeling_ulip2.evaluation import load_class_names

POINTS = 32


def clouds(count: int, seed: int = 0, points: int = POINTS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, points, 3)).astype(np.float32)


def object_array(objects: list) -> np.ndarray:
    array = np.empty(len(objects), dtype=object)
    array[:] = objects
    return array


def write_colored_10k(folder: Path, classes: list[str]) -> np.ndarray:
    """ULIP's 10k file: gray of 100 in 255, and the list with the classes."""
    xyz = clouds(len(classes))
    np.save(
        folder / "modelnet40_colored_10k_pc.npy",
        object_array([{"xyz": cloud, "rgb": np.full((POINTS, 3), 100)} for cloud in xyz]),
        allow_pickle=True,
    )
    entries = [{"name": f"{cls}_{index:04d}", "category": cls} for index, cls in enumerate(classes)]
    (folder / "modelnet40_test_split_10k_colored.json").write_text(json.dumps(entries))
    return xyz


def write_dat(folder: Path, split: str, ids: list[str]) -> np.ndarray:
    """Point-BERT's pickle, as its authors wrote it: a list of two lists, points with normals, labels as arrays."""
    names = load_class_names("modelnet40")
    xyz, normals = clouds(len(ids), 1), clouds(len(ids), 2)
    labels = [np.array([names.index(name.rpartition("_")[0].replace("_", " "))], dtype=np.int32) for name in ids]
    content = [[np.concatenate(pair, axis=1) for pair in zip(xyz, normals, strict=True)], labels]
    (folder / f"modelnet40_{split}_8192pts_fps.dat").write_bytes(pickle.dumps(content))
    (folder / f"modelnet40_{split}.txt").write_text("\n".join(ids))
    shape_names = "\n".join(name.replace(" ", "_") for name in names)
    (folder / "modelnet40_shape_names.txt").write_text(shape_names + "\n")
    return xyz


def write_texts(folder: Path, split: str, ids: list[str]) -> np.ndarray:
    xyz = clouds(len(ids), 3)
    for name, cloud in zip(ids, xyz, strict=True):
        path = folder / name.rpartition("_")[0] / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        lines = [",".join(f"{value:.6f}" for value in [*point, 0.0, 1.0, 0.0]) for point in cloud]
        path.write_text("\n".join(lines) + "\n")
    (folder / f"modelnet40_{split}.txt").write_text("\n".join(ids))
    return xyz


def write_h5(path: Path, labels: np.ndarray, seed: int = 4) -> np.ndarray:
    """ModelNet40's and ScanObjectNN's layout; the latter has a mask, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    xyz = clouds(len(labels), seed)
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = xyz, labels
        file["mask"] = np.zeros((len(labels), POINTS), dtype=np.int64)
    return xyz


def write_lvis_cloud(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A dictionary of OpenShape's release, with the embeddings and texts that come along."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    xyz, rgb = rng.normal(size=(POINTS, 3)).astype(np.float16), rng.random((POINTS, 3)).astype(np.float16)
    content = {
        "dataset": "Objaverse",
        "group": "000-000",
        "id": path.stem,
        "xyz": xyz,
        "rgb": rgb,
        "image_feat": rng.normal(size=(12, 8)).astype(np.float16),
        "thumbnail_feat": rng.normal(size=(1, 8)),
        "text": ["a chair"],
        "text_feat": [{"original": rng.normal(size=(1, 8)), "prompt_avg": rng.normal(size=(1, 8))}],
        "blip_caption": "a chair",
        "msft_caption": "",
        "retrieval_text": ["chair", "seat"],
    }
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return xyz, rgb
