"""Clouds that tests of the data change."""

from __future__ import annotations

import numpy as np


def cloud(points: int = 200, channels: int = 6, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, size=(points, channels)).astype(dtype)


def sphere(points: int, seed: int = 0) -> np.ndarray:
    """Evenly on the unit sphere, each point in a color that is its place."""
    xyz = np.random.default_rng(seed).normal(size=(points, 3))
    xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)
    return np.concatenate([xyz, (xyz + 1) / 2], axis=1).astype(np.float32)
