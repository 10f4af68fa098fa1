"""Objects that look the same: candidates by a hash of their thumbnails, then compared pixel by pixel."""

from __future__ import annotations

from collections import defaultdict

import imagehash
import numpy as np
from PIL import Image

from modeling_ulip2.utils.disjoint_sets import DisjointSets

BANDS = 16  # parts of the hash; a pair is compared if one part is equal
MAX_DIFFERENCE = 4.0  # mean of 255 where there is anything; other colors or another angle differ by more
CONTRAST = 4  # steps of 255 from the corner's color, which is the background's, at which there is something
MAX_BUCKET = 50  # of objects with an equal part, each is compared with this many before it


def near_duplicates(ids: list[str], thumbnails: list[np.ndarray]) -> list[list[str]]:
    """Groups of two or more ids whose thumbnails, each (views, side, side, 3) uint8, look the same.

    The hash has a bit for each pair of neighboring pixels: which one is brighter. Work and memory grow with the number
    of objects, not with its square.
    """
    alike: DisjointSets[int] = DisjointSets()
    buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, own in enumerate(thumbnails):
        for band, part in enumerate(np.array_split(_hash(own), BANDS)):
            bucket = buckets[band, part.tobytes()]
            for other in bucket[-MAX_BUCKET:]:
                joined = alike.root(other) == alike.root(index)
                if not joined and _difference(own, thumbnails[other]) <= MAX_DIFFERENCE:
                    alike.join(index, other)
            bucket.append(index)
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for index, name in enumerate(ids):
        groups[alike.root(index)].append(name)
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)


def _hash(thumbnails: np.ndarray) -> np.ndarray:
    size = thumbnails.shape[1] - 1
    return np.packbits([imagehash.dhash(Image.fromarray(view), size).hash for view in thumbnails])


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over the pixels that either object covers, so that slender objects are not alike for their background."""
    if one.shape != other.shape:
        return float("inf")
    one, other = one.astype(np.int16), other.astype(np.int16)  # (views, side, side, 3)
    covered = np.zeros(one.shape[:-1], bool)
    for own in (one, other):
        covered |= np.abs(own - own[:, :1, :1]).max(axis=-1) > CONTRAST
    return float(np.abs(one - other)[covered].mean()) if covered.any() else float("inf")
