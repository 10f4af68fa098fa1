"""The layouts of the releases, each a stage that reads one shape: cloud, views, captions.

What the releases document about themselves is little. What is assumed here is said in `ASSUMPTIONS` and goes into the
dataset card.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modeling_ulip2.building.sources.table import CollectionError, read_json
from modeling_ulip2.building.stages.base import ObjectError, RowStage
from modeling_ulip2.data.class_names import load_synsets
from modeling_ulip2.data.schema import Packing, Row
from modeling_ulip2.geometry import read_npy, read_points
from modeling_ulip2.geometry.sandbox import Sandbox

from .caption_index import CaptionIndex, clean_captions

NO_COLOR = 102  # 0.4 gray, with which ULIP-2 is asked about clouds without color
MAX_VIEW_BYTES, MAX_VIEW_SIDE = 16 << 20, 4096
MAX_CLOUD_BYTES = 64 << 20
COMMON = [
    "Captions keep the order of the release, taken for the ranking by CLIP that ULIP-2 describes; their scores were "
    "not published and are missing, unless they were ranked anew.",
    "Azimuths follow from the names or numbers of the views. Elevation, distance and angle of view were not published "
    "and are missing.",
    "Clouds are taken as they are, y up. Where a cloud has no color, `rgb` is 0.4 gray.",
]


class ReadRelease(RowStage):
    """`path` -> `xyz`, `rgb`, `views` with their cameras as far as they are known, `captions`, `caption_scores` None.

    With `depth`, also `depths`, without a metric scale. Views or captions that are missing are a warning; a shape
    without any fails.

    Args:
        root: the release's folder. Nothing outside it is read.
        num_points: how many points every cloud must have.
    """

    license: str
    source: str
    title: str
    assumptions: Sequence[str] = COMMON
    num_views: int

    def __init__(self, root: str, num_points: int, depth: bool = False, captions: str | None = None) -> None:
        self.root, self.num_points, self.depth = Path(root), num_points, depth
        self.index = CaptionIndex(Path(captions)) if captions else None

    @classmethod
    def list_objects(cls, root: Path, num_points: int) -> Iterator[dict[str, str]]:
        """Rows of the release's shapes, by id.

        Raises:
            CollectionError: the folder does not have the layout.
        """
        raise NotImplementedError

    def views(self, row: Row) -> list[tuple[str, float, list[str]]]:
        """Path, azimuth and captions of every view that the release should have."""
        raise NotImplementedError

    def process(self, row: Row) -> Row:
        xyz, rgb = read_points(self._find(row["path"]), max_bytes=MAX_CLOUD_BYTES)
        sandbox = Sandbox(self.root, max_bytes=MAX_VIEW_BYTES * 4 * self.num_views)
        views, warnings = [], []
        for path, azimuth, captions in self.views(row):
            try:
                view = read_view(sandbox.read(path))
                depth = depth_as_stored(sandbox.read(depth_path(path))) if self.depth else None
            except (OSError, ValueError) as error:  # MeshError is a ValueError
                warnings.append(f"view {path}: {error.args[0] if error.args else error}")
                continue
            views.append((view, azimuth, captions, depth))
        if not views:
            raise ObjectError("no_views", f"none of its views can be read; the first: {(warnings or ['none'])[0]}")
        if silent := sum(not captions for _, _, captions, _ in views):
            warnings.append(f"{silent} of {len(views)} views have no captions")
        images, azimuths, captions, depths = zip(*views, strict=True)
        new = self.cloud(xyz, rgb) | cameras(azimuths) | {"views": list(images), "warnings": warnings}
        new |= say(list(captions))
        return new | ({"depths": list(depths), "depth_scale": None} if self.depth else {})

    def _find(self, path: str) -> Path:
        return Sandbox(self.root, MAX_CLOUD_BYTES).find(path)

    def cloud(self, xyz: np.ndarray, rgb: np.ndarray | None) -> Row:
        if len(xyz) != self.num_points:
            raise ObjectError(
                "other_count", f"its cloud has {len(xyz)} points, not {self.num_points}: see --num-points"
            )
        rgb = np.full_like(xyz, NO_COLOR, dtype=np.uint8) if rgb is None else rgb
        return {"xyz": Packing.of(xyz)(xyz).astype(np.float16), "rgb": rgb}


def say(captions: list[list[str]]) -> Row:
    """The columns of captions without scores."""
    if not any(captions):
        raise ObjectError("no_captions", "the release has no caption for it")
    return {"captions": captions, "caption_scores": [[None] * len(own) for own in captions]}


def cameras(azimuths: Sequence[float]) -> Row:
    unknown = [None] * len(azimuths)
    row: Row = {"azimuths": list(azimuths), "elevations": unknown, "distances": unknown, "shifts": None}
    return row | {"fov": None, "size": None, "target": None}


def read_view(data: bytes) -> dict[str, Any]:
    """A view as it is stored, once it is known to be a picture."""
    _open(data).convert("RGB")
    return {"bytes": data, "path": None}


def depth_as_stored(data: bytes) -> dict[str, Any]:
    """A depth picture as a 16-bit PNG in which 0 is empty and near is small, whatever its own range."""
    values = np.asarray(_open(data))
    values = values[..., 0] if values.ndim == 3 else values  # gray, or gray three times
    top = 255 if values.dtype == np.uint8 else 65535
    depth = np.where(values >= top, 0, values.astype(np.uint16) + 1).astype(np.uint16)  # (H, W), white is empty
    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except OSError:
        raise ValueError("it is no picture") from None
    if max(image.size) > MAX_VIEW_SIDE:
        raise ValueError(f"it is a picture of {image.size[0]} x {image.size[1]} pixels, refused")
    image.load()
    return image


def depth_path(path: str) -> str:
    return re.sub(r"\.png$", "_depth0001.png", path)


class UlipObjaverse(ReadRelease):
    """`<clouds>/<uid>/<uid>_<points>.npz`, `<views>/<uid>/000.png` to `011.png`, and one JSON file of captions."""

    license, source, title = "odc-by", "ulip_objaverse", "ULIP-Objaverse triplets"
    num_views = 12
    clouds, pictures = "objaverse_pc_parallel", ("rendered_images_split_100", "render_images_split_100", "images")
    caption_file = "merged_data.json"

    @classmethod
    def list_objects(cls, root: Path, num_points: int) -> Iterator[dict[str, str]]:
        folder = root / cls.clouds
        if not folder.is_dir():
            raise CollectionError(f"{root} has no folder {cls.clouds} with <uid>/<uid>_{num_points}.npz")
        cls.find_pictures(root)
        for shape in sorted(path.name for path in folder.iterdir() if path.is_dir()):
            names = [f"{shape}_{num_points}.npz", f"{shape}_{num_points}.npy", f"{shape}.npz", f"{shape}.npy"]
            name = next((name for name in names if (folder / shape / name).is_file()), names[0])
            yield {"path": f"{cls.clouds}/{shape}/{name}", "id": shape, "name": ""}

    def __init__(self, root: str, num_points: int, depth: bool = False, captions: str | None = None) -> None:
        super().__init__(root, num_points, depth, captions)
        self.folder = self.find_pictures(self.root)

    @classmethod
    def find_pictures(cls, root: Path) -> str:
        found = [name for name in cls.pictures if (root / name).is_dir()]
        if not found:
            raise CollectionError(f"{root} has none of the folders {', '.join(cls.pictures)} with <uid>/000.png")
        return found[0]

    def views(self, row: Row) -> list[tuple[str, float, list[str]]]:
        assert self.index is not None
        paths = [f"{self.folder}/{row['id']}/{view:03d}.png" for view in range(self.num_views)]
        return [(path, 360.0 * view / self.num_views, self.index(path)) for view, path in enumerate(paths)]


class UlipShapenet(ReadRelease):
    """`shapenet_pc/<shape>.npy`, views `<shape>_r_<degrees>.png` with `…_depth0001.png`, `captions/<shape>.json`.

    A shape is called `<synset>-<model>`.
    """

    license, source, title = "other", "ulip_shapenet", "ULIP-ShapeNet triplets (shapenet-55)"
    num_views = 30
    clouds, pictures, texts = "shapenet_pc", "only_rgb_depth_images", "captions"
    assumptions = [
        *COMMON,
        "Depth pictures are taken for those of the renderer whose file names they have: near is dark, white is empty. "
        "Their scale is unknown: `depth_scale` is missing.",
    ]

    @classmethod
    def list_objects(cls, root: Path, num_points: int) -> Iterator[dict[str, str]]:
        files = sorted((root / cls.clouds).glob("*.npy"))
        if not files:
            raise CollectionError(f"{root} has no {cls.clouds}/<synset>-<model>.npy")
        taxonomy = root / "taxonomy.json"
        entries = read_json(taxonomy) if taxonomy.is_file() else []
        names = load_synsets("shapenet55")
        names |= {entry["synsetId"]: entry["name"].split(",")[0].replace("_", " ") for entry in entries}
        for file in files:
            synset = file.stem.partition("-")[0]
            yield {
                "path": f"{cls.clouds}/{file.name}",
                "id": file.stem,
                "name": names.get(synset, ""),
                "group": synset,
            }

    def views(self, row: Row) -> list[tuple[str, float, list[str]]]:
        name = row["id"]
        try:
            text = Sandbox(self.root, MAX_VIEW_BYTES).read(f"{self.texts}/{name}.json").decode("utf-8")
            captions = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ObjectError("no_captions", f"{self.texts}/{name}.json cannot be used: {error}") from error
        flat = (self.root / self.pictures / f"{name}_r_000.png").is_file()
        folder = (
            self.pictures if flat or not (self.root / self.pictures / name).is_dir() else f"{self.pictures}/{name}"
        )
        views = []
        for degrees in range(0, 360, 360 // self.num_views):
            file = f"{name}_r_{degrees:03d}.png"
            own = captions.get(file) if isinstance(captions, dict) else None
            views.append((f"{folder}/{file}", float(degrees), clean_captions(own)))
        return views


class OpenshapeLvis(ReadRelease):
    """`lvis.json` and the `.npy` dictionaries that it names: clouds and captions, no pictures.

    A dictionary's captions (`blip_caption`, `msft_caption`, then the texts of `text` and `retrieval_text`) are those
    of the shape, not of a view: the row has one list of them and no views.
    """

    license, source, title = "odc-by", "openshape_lvis", "Objaverse-LVIS dictionaries of OpenShape"
    num_views = 1
    texts = ("blip_caption", "msft_caption", "text", "retrieval_text")
    assumptions = [
        "The dictionaries are pickles; they are read without executing anything of them.",
        "They hold no pictures: `views` is empty, and `captions` holds one list, of the whole shape, without scores.",
        COMMON[-1],
    ]

    @classmethod
    def list_objects(cls, root: Path, num_points: int) -> Iterator[dict[str, str]]:
        content = read_json(root / "lvis.json")
        try:
            if isinstance(content, dict):  # ULIP: {uid: file}
                rows = [{"path": str(path), "id": str(uid), "name": ""} for uid, path in content.items()]
            else:  # OpenShape: a list of shapes
                rows = [
                    {
                        "path": str(shape["data_path"]),
                        "id": str(shape["uid"]),
                        "name": str(shape["category"]).replace("_", " "),
                        "category": str(shape["category"]),
                    }
                    for shape in content
                ]
        except (TypeError, KeyError) as error:
            raise CollectionError(
                f"{root / 'lvis.json'} lists no shapes with uid, category and data_path: {error!r}"
            ) from error
        yield from sorted(rows, key=lambda row: row["id"])

    def process(self, row: Row) -> Row:
        content = read_npy(self._locate(row["path"]), max_bytes=MAX_CLOUD_BYTES)
        if not isinstance(content, dict) or "xyz" not in content:
            raise ObjectError("corrupt", "it is no dictionary with xyz")
        xyz, rgb = np.asarray(content["xyz"], dtype=np.float64), content.get("rgb")
        if xyz.ndim != 2 or xyz.shape[1] != 3:
            raise ObjectError("corrupt", f"its xyz has the shape {xyz.shape}")
        if rgb is not None:
            rgb = np.rint(np.clip(np.asarray(rgb, dtype=np.float32), 0, 1) * 255).astype(np.uint8)
            if rgb.shape != xyz.shape:
                raise ObjectError("corrupt", f"its rgb has the shape {rgb.shape} for {len(xyz)} points")
        texts = [text for name in self.texts for text in _flat(content.get(name))]
        return self.cloud(xyz, rgb) | cameras([]) | {"views": [], "warnings": []} | say([clean_captions(texts)])

    def _locate(self, path: str) -> Path:
        """The file by its path below the root, which the lists write from another folder."""
        sandbox, parts = Sandbox(self.root, MAX_CLOUD_BYTES), Path(path).parts
        for start in range(len(parts)):
            if (self.root / Path(*parts[start:])).is_file():
                return sandbox.find("/".join(parts[start:]))
        return sandbox.find(parts[-1] if parts else path)


def _flat(value: Any) -> Iterator[str]:
    """The texts of a string, or of lists of them in any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | np.ndarray):
        for each in value:
            yield from _flat(each)


LAYOUTS: dict[str, type[ReadRelease]] = {
    "ulip-objaverse": UlipObjaverse,
    "ulip-shapenet": UlipShapenet,
    "openshape-lvis": OpenshapeLvis,
}
