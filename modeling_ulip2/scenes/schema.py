"""What a scene is, what the masks of its objects are, and what is known of an object once it was named."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Scene:
    """A scan of one or more rooms, as colored points.

    Args:
        id: its name, unique in its collection, with `/` between folders.
        xyz: (N, 3) float32, meters, y up. Readers turn and scale what a file has; what they had to assume is in
            `warnings`.
        rgb: (N, 3) uint8 sRGB, or None for a scan without color.
        normals: (N, 3) float32 unit vectors, or None.
        instance: (N,) int32, the annotated object of each point, an index into `categories`; -1 for a point of none.
            None for a scan without annotation. Walls, floors and ceilings are objects like others.
        categories: what each annotated object is called in the vocabulary of its collection, one per object.
        names: a longer name of each object ("Red armchair"), "" where there is none.
        source, license: where the scan comes from, "" where unknown.
        warnings: what had to be left out or assumed, one sentence each.

    Raises:
        ValueError: shapes or types that do not agree, points that are not finite, or an instance beyond `categories`.
    """

    id: str
    xyz: np.ndarray
    rgb: np.ndarray | None = None
    normals: np.ndarray | None = None
    instance: np.ndarray | None = None
    categories: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    source: str = ""
    license: str = ""
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.xyz)
        for name, shape, dtype in (
            ("xyz", (count, 3), np.float32),
            ("rgb", (count, 3), np.uint8),
            ("normals", (count, 3), np.float32),
            ("instance", (count,), np.int32),
        ):
            value = getattr(self, name)
            if value is not None and (value.shape != shape or value.dtype != dtype):
                raise ValueError(
                    f"{name} of scene {self.id!r} is {value.dtype} {value.shape}; it must be {np.dtype(dtype)} {shape}"
                )
        if not np.isfinite(self.xyz).all():
            raise ValueError(f"xyz of scene {self.id!r} holds NaN or infinity; leave those points out")
        if self.instance is not None and count:
            lowest, highest = int(self.instance.min()), int(self.instance.max())
            if lowest < -1 or highest >= len(self.categories):
                raise ValueError(
                    f"instance of scene {self.id!r} runs from {lowest} to {highest}; with {len(self.categories)} "
                    "categories it may run from -1 (no object) to the last of them"
                )
        if self.names and len(self.names) != len(self.categories):
            raise ValueError(
                f"scene {self.id!r} has {len(self.categories)} categories and {len(self.names)} names; give a name "
                "per object, or none"
            )

    def objects(self) -> ObjectMasks:
        """The annotated objects that have points, in the order of `categories`; `ids` tells which ones."""
        if self.instance is None:
            raise ValueError(f"scene {self.id!r} has no annotation")
        order = np.argsort(self.instance, kind="stable").astype(np.int32)  # (N,)
        ids, starts = np.unique(self.instance[order], return_index=True)
        parts = np.split(order, starts[1:]) if len(ids) else []
        kept = [(int(number), part) for number, part in zip(ids, parts, strict=True) if number >= 0]
        return ObjectMasks([part for _, part in kept], ids=np.array([number for number, _ in kept], dtype=np.int32))


@dataclass
class ObjectMasks:
    """Objects of a scene, each as the points it is made of. They may overlap and may be nested.

    Args:
        points: per object, ascending indices of its points, int32. Indices take memory only for what is an object: a
            boolean mask per object of a scan with 5 million points would be 5 MB each.
        scores: (P,) float32, how sure the segmenter is, higher is surer; 1 for all when left out.
        parents: (P,) int32, the smallest object that holds this one in a hierarchy, -1 for none; None without one.
        ids: (P,) int32, numbers that mean something outside: an annotated object's index, a row of a file.
        kinds: per object "floor", "ceiling" or "wall" where the segmenter knows it for a part of the room, "" for all
            others; None where it does not tell them apart.
    """

    points: list[np.ndarray]
    scores: np.ndarray | None = None
    parents: np.ndarray | None = None
    ids: np.ndarray | None = None
    kinds: list[str] | None = None

    def __post_init__(self) -> None:
        if self.scores is None:
            self.scores = np.ones(len(self.points), dtype=np.float32)
        if self.ids is None:
            self.ids = np.arange(len(self.points), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.points)


@dataclass
class SceneObject:
    """An object that was found in a scene and named.

    Args:
        points: ascending indices of its points in the scene, int32.
        label: the word that fits best; None where none was asked for, or where "other" words fit better than all.
        score: how sure it is, 0 to 1.
        box: (2, 3) float32, lowest and highest corner along the axes, meters.
        oriented_box: (7,) float32: center x y z, size along its own x y z, in meters, and the angle about the up axis
            in radians, counterclockwise seen from above, by which its own axes are turned.
        embedding: (D,) float32, unit length, in the space of the checkpoint.
        sentence: what a captioner says of it, "" without one.
    """

    points: np.ndarray
    label: str | None
    score: float
    box: np.ndarray
    oriented_box: np.ndarray
    embedding: np.ndarray
    sentence: str = ""
