"""Pictures for figures and sheets, and what is in the files that they become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((24, 24, 3), color, dtype=np.uint8)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def has_color(path: Path, color: str) -> bool:
    wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return bool((np.abs(pixels(path) - wanted).sum(axis=-1) < 6).any())
