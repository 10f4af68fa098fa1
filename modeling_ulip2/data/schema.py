"""What a triplet is: the columns of a row, and the columns of its precomputed embeddings.

Only stock feature types are used, so that `load_dataset` reads the files without this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:  # takes seconds
    from datasets import Features

# A shape by the names of its columns, or of what stages work on.
Row: TypeAlias = dict[str, Any]

TRIPLETS_CONFIG = "triplets"
FEATURES_CONFIG = "features"
# What is up in the points of triplets and of an index of shapes, whatever a feature extractor expects of files.
STORED_UP_AXIS = "y"

# Half precision keeps 11 bits. A shape whose coordinates are larger than this many radii would lose more than
# a thousandth of its radius to rounding, so it is moved to the origin first.
MAX_OFFSET_IN_RADII = 4.0
# Radii outside this range would overflow half precision or fall among its subnormal numbers.
MIN_RADIUS, MAX_RADIUS = 2.0**-11, 2.0**15


def triplet_features(num_points: int, *, depth: bool = False, sources: bool = False) -> Features:
    """Columns of the `triplets` config, for shapes of `num_points` points seen in V views.

    - `id`: path of the mesh in its folder, with `/`; `source`, `name`, `license`, `creator`: strings, "" where unknown
    - `xyz` (num_points, 3) float16: points on the surface, y up, in the file's own unit (see `pack_xyz`)
    - `rgb` (num_points, 3) uint8: their sRGB colors
    - `views` [V]: encoded RGB images
    - `azimuths`, `elevations`, `distances` [V], `shifts` (V, 2), `fov`, `size`, `target` (3,): the cameras, see below
    - `captions` and `caption_scores`, k for each of V views: every caption of a view and its cosine similarity with
      the view, best first; k may differ from view to view, so top-k is a choice of the training run
    - with `sources`: `caption_sources`, k for each of V views: the captioner that said each caption first
    - with `depth`: `depths` [V], 16-bit PNG, 0 where there is nothing, and `depth_scale`, the distance from the camera
      plane that one step stands for

    View v is seen by a perspective camera with a full angle of view of `fov` degrees that looks at `target` from
    `distances[v]` away, `azimuths[v]` degrees around the y axis (0 looks at the +z side, 90 at the +x side) and
    `elevations[v]` degrees above the horizon, and that was then moved by `shifts[v]` to its right and upwards, which
    centers the object in the picture; the picture is square with `size` pixels per side. Distances, shifts, `target`
    and depth are in the frame and unit of `xyz`. What a dataset's makers never told is None. Datasets from before the
    columns `distances`, `shifts`, `fov`, `size` and `target` are read like any other; without `shifts` there were
    none.
    """
    from datasets import Array2D, Features, Image, List, Value

    columns: dict[str, Any] = {
        "id": Value("string"),
        "source": Value("string"),
        "name": Value("string"),
        "license": Value("string"),
        "creator": Value("string"),
        "xyz": Array2D((num_points, 3), "float16"),
        "rgb": Array2D((num_points, 3), "uint8"),
        "views": List(Image()),
        "azimuths": List(Value("float32")),
        "elevations": List(Value("float32")),
        "distances": List(Value("float32")),
        "shifts": List(List(Value("float32"), length=2)),
        "fov": Value("float32"),
        "size": Value("int32"),
        "target": List(Value("float32"), length=3),
        "captions": List(List(Value("string"))),
        "caption_scores": List(List(Value("float32"))),
    }
    if sources:
        columns["caption_sources"] = List(List(Value("string")))
    if depth:
        columns |= {"depths": List(Image()), "depth_scale": Value("float32")}
    return Features(columns)


def features_features(dim: int, *, depth: bool = False, hidden: int = 0) -> Features:
    """Columns of the `features` config: the frozen towers' L2-normalized embeddings of size `dim`, by `id`.

    - `image_embeds` [V][dim] float16, in the order of `views`
    - `text_embeds` [V][k][dim] float16, in the order of `captions`
    - with `depth`: `depth_embeds` [V][dim] float16, in the order of `depths`
    - with `hidden`: `image_hidden` [V][hidden] float16, what the last layer of the tower's image classifier sees of
      each view, on which a linear map can be fitted
    """
    from datasets import Features, List, Value

    embedding = List(Value("float16"), length=dim)
    columns = {"id": Value("string"), "image_embeds": List(embedding), "text_embeds": List(List(embedding))}
    if depth:
        columns["depth_embeds"] = List(embedding)
    if hidden:
        columns["image_hidden"] = List(List(Value("float16"), length=hidden))
    return Features(columns)


def error_features() -> Features:
    """Columns of `errors.parquet`: what could not become a triplet, why, and the shard it would have been in."""
    from datasets import Features, Value

    return Features(
        {"id": Value("string"), "reason": Value("string"), "message": Value("string"), "shard": Value("int32")}
    )


def warning_features() -> Features:
    """Columns of `warnings.parquet`: what had to be left out or guessed about a shape that did become a triplet."""
    from datasets import Features, Value

    return Features({"id": Value("string"), "message": Value("string"), "shard": Value("int32")})


@dataclass(frozen=True)
class Packing:
    """How coordinates are changed so that half precision can carry them: `(xyz - offset) * scale`."""

    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    @classmethod
    def of(cls, xyz: np.ndarray) -> Packing:
        """The packing of points (N, 3), which changes nothing wherever it can.

        A shape far from the origin is centerd on its bounding box, and a shape too large or too small is scaled by a
        power of two: both change nothing for a model, whose feature extractor centers and scales every cloud.

        Raises:
            ValueError: a coordinate is NaN or infinite.
        """
        if not np.isfinite(xyz).all():
            raise ValueError("point coordinates must be finite, found NaN or infinity")
        xyz = xyz.astype(np.float64)  # (N, 3)
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        radius = float((high - low).max()) / 2
        far = np.abs(xyz).max() > MAX_OFFSET_IN_RADII * radius
        fits = radius == 0 or MIN_RADIUS <= radius < MAX_RADIUS / MAX_OFFSET_IN_RADII
        offset = (low + high) / 2 if far else np.zeros(3)
        return cls(tuple(offset.tolist()), 1.0 if fits else float(2.0 ** -np.ceil(np.log2(radius))))

    def __call__(self, xyz: np.ndarray) -> np.ndarray:
        """Points (N, 3) as float64 in the packed frame."""
        return (xyz.astype(np.float64) - np.array(self.offset)) * self.scale  # (N, 3)


def pack_xyz(xyz: np.ndarray) -> np.ndarray:
    """Points (N, 3) as finite float16 that still holds their shape to a thousandth of its radius; see `Packing`.

    Raises:
        ValueError: a coordinate is NaN or infinite.
    """
    return Packing.of(xyz)(xyz).astype(np.float16)
