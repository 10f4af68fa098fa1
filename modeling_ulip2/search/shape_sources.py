"""Where the shapes of an index come from: a triplets dataset, or a bare folder of meshes and clouds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from PIL import Image

from modeling_ulip2.data.images import PORTRAIT_AZIMUTH, draw_cloud, nearest_portrait
from modeling_ulip2.data.objects import OBJECTS_FILE, list_objects, rotate, rotation_matrix
from modeling_ulip2.data.reading import decode_row
from modeling_ulip2.data.schema import TRIPLETS_CONFIG, pack_xyz
from modeling_ulip2.geometry import Camera, Mesh, Renderer, sample_points
from modeling_ulip2.geometry.axes import check_up_axis, resolve_up_axis
from modeling_ulip2.geometry.folders import find_shapes
from modeling_ulip2.geometry.sandbox import path_within
from modeling_ulip2.geometry.shapes import read_shape
from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR, Ulip2FeatureExtractor

from .schema import TEXTS

# Of the picture of a shape that was not rendered before; ours.
PICTURE_SIZE, PICTURE_BACKGROUND = 224, (255, 255, 255)

IndexRow = dict[str, Any]


class ShapeSource(Protocol):
    """N shapes, read one by one, also in worker processes.

    Attributes:
        ids: unique within the source.
        num_points: of every cloud.
        name: of the collection; it qualifies an id that another collection has, too.
        place: a folder's absolute path or a hub name, by which the collection is known again; None where unknown.
        skipped: files of it that hold no shape that is read, with the reason.
    """

    ids: list[str]
    num_points: int

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str | None: ...

    @property
    def skipped(self) -> Mapping[str, str]: ...

    def __getitem__(self, position: int) -> IndexRow:
        """The columns of `schema.index_features` without the embedding; the points stand y up.

        Raises:
            ValueError: this shape cannot be used (`MeshError` with the reason); the others can.
        """
        ...


class TripletSource:
    """The rows of a triplets dataset.

    Args:
        triplets: rows of the `triplets` config.
        labels: category by id.
        place: folder or hub name of the dataset.
    """

    def __init__(
        self, triplets: Dataset, labels: Mapping[str, str] | None = None, place: str | Path | None = None
    ) -> None:
        columns = [*(name for name in TEXTS if name != "category"), "xyz", "rgb", "views", "azimuths"]
        self.ids = list(triplets["id"])
        self.num_points: int = triplets.features["xyz"].shape[0]
        self.place = None if place is None else _place(place)
        self.name = "triplets" if place is None else collection_name(self.place or "")
        self.skipped: dict[str, str] = {}
        self._rows = triplets.select_columns(columns).with_format("arrow")
        self._labels = labels or {}

    def __getitem__(self, position: int) -> IndexRow:
        row = decode_row(self._rows[position])
        azimuths = row["azimuths"]
        row["category"] = self._labels.get(row["id"], "")
        return {
            **{name: row[name] or "" for name in TEXTS},
            "image": row["views"][nearest_portrait(azimuths)] if len(azimuths) else _draw(row["xyz"], row["rgb"]),
            "xyz": row["xyz"],
            "rgb": row["rgb"],
            "warnings": [],
        }


class FolderSource:
    """The meshes and clouds of a folder, with their names, creators and licenses where `objects.csv` tells them.

    Args:
        folder: see `list_objects`.
        num_points: drawn from each surface, and of larger clouds, by `seed`.
        labels: category by id, before that of `objects.csv`.
        root: folder below which meshes may name other files; default: `folder`.
        up_axis: what points up in the files, see `read_shape`.
        default_up_axis: what points up where neither that nor the format says it; a model's feature extractor knows.
        sampling: how a cloud gets `num_points`, see `Ulip2FeatureExtractor`.

    Raises:
        FolderError: no such folder, or no shape in it.
    """

    def __init__(
        self,
        folder: str | Path,
        num_points: int,
        labels: Mapping[str, str] | None = None,
        *,
        root: str | Path | None = None,
        up_axis: str | None = None,
        sampling: str = "random",
        default_up_axis: str = "y",
        seed: int = 0,
    ) -> None:
        self._folder = Path(folder).expanduser().resolve()
        found = find_shapes([self._folder])
        files = [Path(file.path).relative_to(self._folder).as_posix() for file in found.files]
        self._objects = list_objects(self._folder, files=files)
        listed = {row["path"].replace("\\", "/") for row in self._objects}
        self._labels, self._up_axis, self._default_up_axis = labels or {}, up_axis, check_up_axis(default_up_axis)
        self._seed = seed
        self._root = self._folder if root is None else Path(root).expanduser().resolve()
        self._renderer: Renderer | None = None
        # a cloud is stored as the model will read it, but for its place and scale
        self._resample = Ulip2FeatureExtractor(
            num_points=num_points,
            in_channels=6,
            normalize=False,
            sampling="fps" if sampling == "fps" else "random",
            seed=seed,
        )
        self.ids = [row["id"] for row in self._objects]
        self.num_points = num_points
        self.name, self.place = collection_name(str(self._folder)), str(self._folder)
        self.skipped = {Path(path).relative_to(self._folder).as_posix(): why for path, why in found.skipped.items()}
        self.skipped |= {path: f"not in {OBJECTS_FILE}" for path in files if path not in listed}

    def __getitem__(self, position: int) -> IndexRow:
        facts = self._objects[position]
        path = path_within(self._folder, facts["path"])
        rotation = facts["rotation"]
        # a rotation stands the file's shape upright, whatever its axis; what is stored is y up
        up = "y" if rotation else resolve_up_axis(path, self._up_axis) or self._default_up_axis
        shape = read_shape(path, self.num_points, root=self._root, up_axis=up, seed=self._seed)
        mesh = shape.mesh
        if mesh is None:
            xyz = shape.xyz @ rotation_matrix(rotation).T if rotation else shape.xyz  # (n, 3)
            xyz, rgb = self._resampled(xyz, shape.rgb)
        elif rotation:
            mesh = rotate(mesh, rotation)
            xyz, rgb = sample_points(mesh, self.num_points, self._seed)
        else:
            assert shape.rgb is not None  # a mesh's points have colors
            xyz, rgb = shape.xyz, shape.rgb
        facts = facts | {"category": self._labels.get(facts["id"], facts["category"])}
        packed = pack_xyz(xyz)
        return {
            **{name: facts[name] for name in TEXTS},
            "image": _draw(packed, rgb) if mesh is None else self._picture(mesh),
            "xyz": packed,
            "rgb": rgb,
            "warnings": list(shape.warnings),
        }

    def _resampled(self, xyz: np.ndarray, rgb: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """A cloud with `num_points` points, and gray where it has no color: (n, 3) float64 and uint8."""
        center = (xyz.min(axis=0) + xyz.max(axis=0)) / 2  # float32 below would lose the shape of a cloud far away
        cloud: dict[str, Any] = {"xyz": np.asarray(xyz, dtype=np.float64) - center}
        if rgb is not None:
            cloud["rgb"] = rgb
        values = self._resample(cloud, return_tensors="np")["point_values"][0].astype(np.float64)  # (n, 6)
        fill = np.full((len(values), 3), FILL_COLOR)
        colors = fill if rgb is None else values[:, 3:]
        return values[:, :3], np.round(255 * colors).astype(np.uint8)

    def _picture(self, mesh: Mesh) -> dict[str, Any]:
        self._renderer = self._renderer or Renderer("auto", PICTURE_SIZE, background=PICTURE_BACKGROUND)
        return _encoded(self._renderer.render(mesh, [Camera(PORTRAIT_AZIMUTH)]).rgb[0])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_renderer": None}  # worker processes make their own


def _draw(xyz: np.ndarray, rgb: np.ndarray) -> dict[str, Any]:
    """The picture of a shape that has neither views nor a surface: its points (N, 3)."""
    return _encoded(draw_cloud(np.asarray(xyz, np.float32), rgb, PICTURE_SIZE))


def _encoded(picture: np.ndarray) -> dict[str, Any]:
    """A picture (H, W, 3) uint8 as `datasets.Image` stores it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=90)
    return {"bytes": buffer.getvalue(), "path": None}


def collection_name(place: str) -> str:
    """What a collection is called: the last part of its folder's path or its hub name."""
    return Path(place).name or "collection"


def _is_dataset(folder: Path) -> bool:
    """Whether a folder holds triplets; a table of something else may lie among meshes."""
    return (folder / TRIPLETS_CONFIG).is_dir() or (
        any(folder.glob("**/*.parquet")) and not find_shapes([folder]).files
    )


def _place(name: str | Path) -> str:
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else str(name)


def open_source(
    name: str,
    num_points: int,
    labels: Mapping[str, str] | None = None,
    hub: Mapping[str, Any] | None = None,
    **options: Any,
) -> ShapeSource:
    """A triplets dataset by folder or hub name, or a folder of shapes, of which `num_points` points each are drawn.

    Args:
        hub: `revision`, `token` and `cache_dir` of a hub name.
        options: of `FolderSource`, for a folder of shapes; triplets are y up.

    Raises:
        FileNotFoundError: there is no such folder, nor such a dataset on the hub.
    """
    from modeling_ulip2.data.reading import read_triplets

    folder = Path(name).expanduser()
    if folder.is_dir() and not _is_dataset(folder):
        return FolderSource(folder, num_points, labels, **options)
    return TripletSource(read_triplets(name, **(hub or {})), labels, name)
