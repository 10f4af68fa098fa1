"""Small annotated scans, whose points are numbered so that masks can be written down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modeling_ulip2.scenes import ObjectMasks, Scene


def room(*objects: tuple[str, int], void: int = 0) -> Scene:
    """A scan whose objects follow each other: the points of the first, of the second, …, then those of none.

    Args:
        objects: category and number of points.
        void: points of no object.
    """
    instance = np.concatenate([*(np.full(size, place) for place, (_, size) in enumerate(objects)), np.full(void, -1)])
    xyz = np.stack([np.arange(len(instance)) / 100, *np.zeros((2, len(instance)))], axis=1)
    return Scene(
        "room", xyz.astype(np.float32), instance=instance.astype(np.int32), categories=[name for name, _ in objects]
    )


def masks(*points: Sequence[int] | range, scores: Sequence[float] | None = None) -> ObjectMasks:
    found = [np.array(own, dtype=np.int32) for own in points]
    return ObjectMasks(found, None if scores is None else np.array(scores, dtype=np.float32))
