"""What a picture's colors are called: pixels -> basic color terms, by the nearest named color in CIELAB."""

from __future__ import annotations

import numpy as np

# Colors as the people of the xkcd color survey (xkcd.com/color/rgb, CC0) call them most often, under the basic term
# that each belongs to; names between two terms, such as indigo, are left out. Muted ones, such
# as grayish green, are under their noun: without them whatever lies in shade is gray. Neutral grays are ours.
NAMED_COLORS = {
    "black": ["000000", "262626"],
    "gray": ["505050", "808080", "929591", "978a84", "95a3a6"],
    "white": ["ffffff", "e8e8e8", "c8c8c8", "fffff4"],
    "red": ["e50000", "840000", "be0119", "ff474c", "650021", "b9484e"],
    "orange": ["f97306", "c65102", "ffb07c", "fdaa48"],
    "yellow": ["ffff14", "fffe7a", "ceb301", "fac205", "d5b60a"],
    "green": ["15b01a", "033500", "96f97b", "89fe05", "6e750e", "677a04", "06470c", "c7fdb5", "39ad48", "029386"]
    + ["82a67d", "658d6d", "2b5d34", "4b5d16"],
    "blue": ["0343df", "95d0fc", "75bbfd", "00035b", "001146", "0504aa", "0804f9", "2242c7", "448ee4", "3b5b92"]
    + ["5a7d9a", "13eac9", "06c2ac", "00ffff", "5e819d", "214761"],
    "purple": ["7e1e9c", "bf77f6", "9a0eea", "c79fef", "35063e", "cea2fd", "887191", "805b87"],
    "pink": ["ff81c0", "ff028d", "cb416b", "ffd1df", "c20078", "ff796c", "c88d94"],
    "brown": ["653700", "ad8150", "341c02", "a0450e", "7f5e00", "8d5e39", "a5a391", "7f684e"],
    "beige": ["e6daa6", "d1b26f", "c9ae74", "ffffc2", "c7ac7d"],
}
TERMS = tuple(NAMED_COLORS)
LEVELS = 32  # per channel of the look-up table
BRIGHTEN = 1.1  # the sides of an object that the renderer leaves in shade are darker than its surface


def _term_table() -> np.ndarray:
    """(LEVELS^3,) index into TERMS of every quantized color, red the slowest."""
    from skimage.color import rgb2lab  # takes a second

    steps = (np.arange(LEVELS) + 0.5) / LEVELS
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)  # (LEVELS^3, 3)
    terms = np.repeat(np.arange(len(TERMS)), [len(colors) for colors in NAMED_COLORS.values()])
    hexes = [color for colors in NAMED_COLORS.values() for color in colors]
    anchors = rgb2lab(np.array([list(bytes.fromhex(color)) for color in hexes]) / 255)  # (A, 3)
    distance = np.linalg.norm(rgb2lab(grid)[:, None] - anchors[None], axis=-1)  # (LEVELS^3, A)
    return terms[distance.argmin(axis=1)].astype(np.uint8)


class ColorNamer:
    """Names the main colors of a picture's foreground.

    Args:
        max_terms: at most so many.
        min_share: share of the foreground that a further color needs to be mentioned.
        brighten: factor that undoes the light in which the picture was taken; 1: none.
    """

    def __init__(self, max_terms: int = 2, min_share: float = 0.25, brighten: float = BRIGHTEN) -> None:
        self.max_terms, self.min_share, self.brighten = max_terms, min_share, brighten
        self.table = _term_table()

    def __call__(self, rgb: np.ndarray, alpha: np.ndarray) -> list[str]:
        """`rgb` (H, W, 3) uint8, `alpha` (H, W) uint8 -> color terms, most frequent first; [] without foreground."""
        covered = alpha >= np.clip(alpha.max(), 1, 250)  # not the object's edge, which mixes with the background
        pixels = np.minimum(rgb[covered] * self.brighten, 255).astype(np.int64) * LEVELS // 256  # (P, 3)
        index = (pixels[:, 0] * LEVELS + pixels[:, 1]) * LEVELS + pixels[:, 2]
        counts = np.bincount(self.table[index], minlength=len(TERMS))
        order = np.argsort(-counts, kind="stable")[: self.max_terms]
        return [
            TERMS[term]
            for place, term in enumerate(order)
            if counts[term] > 0 and (place == 0 or counts[term] >= self.min_share * counts.sum())
        ]
