"""Scenes as rows of a dataset: parquet that `load_dataset` reads without this package, and back.

DIR/complete/train-00000-of-00009.parquet, …    a config for each way of scanning, a file for each scene
DIR/errors.parquet                              what could not become a scene, and why
DIR/README.md                                   the card
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modeling_ulip2.data.card import UNKNOWN_LICENSE, config_entry, config_info
from modeling_ulip2.data.reading import load_config, on_the_hub
from modeling_ulip2.utils.files import whole_file, write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.parquet import ENCODING

from .schema import Scene

if TYPE_CHECKING:
    from datasets import Dataset, Features

_PREVIEW_SIDE = 512
# What hides a room from someone who looks down at it.
_ABOVE = ("ceiling", "roof")


def scene_features() -> Features:
    """Columns of a config of scenes, N points and K objects in a row.

    - `id`: string; `preview`: picture of the scene from above, without its ceilings
    - `xyz` [N] of 3 float32: meters, y up; single precision, as half of it would leave steps of 8 mm in a house
    - `rgb` [N] of 3 uint8, sRGB, or None; `normals` [N] of 3 float32, unit vectors, or None
    - `instance` [N] int32: the object of each point, an index into `categories`, -1 for none; None without annotation
    - `categories`, `names` [K]: what each object is called, in one word of a vocabulary and in its own name
    - `source`, `license`: strings, "" where unknown; `warnings`: sentences on what had to be assumed or left out
    """
    from datasets import Features, Image, List, Value

    return Features(
        {
            "id": Value("string"),
            "preview": Image(),
            "xyz": List(List(Value("float32"), length=3)),
            "rgb": List(List(Value("uint8"), length=3)),
            "normals": List(List(Value("float32"), length=3)),
            "instance": List(Value("int32")),
            "categories": List(Value("string")),
            "names": List(Value("string")),
            "source": Value("string"),
            "license": Value("string"),
            "warnings": List(Value("string")),
        }
    )


def write_scenes(path: Path, scenes: Sequence[Scene]) -> None:
    """Writes scenes as a parquet file, whole or not at all, a row group for each: a viewer reads one at a time."""
    schema = scene_features().arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file, pq.ParquetWriter(file, schema, **ENCODING) as writer:
        for scene in scenes:
            writer.write_table(_row(scene, schema))


def _row(scene: Scene, schema: pa.Schema) -> pa.Table:
    buffer = io.BytesIO()
    preview(scene).save(buffer, format="PNG")
    values: dict[str, Any] = {
        "id": scene.id,
        "preview": {"bytes": buffer.getvalue(), "path": None},
        "xyz": scene.xyz,
        "rgb": scene.rgb,
        "normals": scene.normals,
        "instance": scene.instance,
        "categories": scene.categories,
        "names": scene.names or [""] * len(scene.categories),
        "source": scene.source,
        "license": scene.license,
        "warnings": scene.warnings,
    }
    return pa.Table.from_arrays([_column(values[field.name], field.type) for field in schema], schema=schema)


def _column(value: Any, kind: pa.DataType) -> pa.Array:
    """A column with one row."""
    if not isinstance(value, np.ndarray):
        return pa.array([value], kind)
    flat = pa.array(np.ascontiguousarray(value).reshape(-1))
    inner = pa.FixedSizeListArray.from_arrays(flat, value.shape[1]) if value.ndim == 2 else flat
    # lists of `datasets` name their items in their own way
    return pa.ListArray.from_arrays(pa.array([0, len(value)], pa.int32()), inner).cast(kind)


def preview(scene: Scene, side: int = _PREVIEW_SIDE) -> Any:
    """A picture (side, side) of a scene from above, without ceilings and roofs: the highest point of each pixel."""
    from PIL import Image

    shown = np.ones(len(scene.xyz), dtype=bool)
    if scene.instance is not None and scene.categories:
        hidden = np.array([*(category in _ABOVE for category in scene.categories), False])  # -1 is the last
        shown = ~hidden[scene.instance]
    picture = np.full((side, side, 3), 255, dtype=np.uint8)
    xyz = scene.xyz[shown]
    if len(xyz):
        rgb = np.full((len(xyz), 3), 128, dtype=np.uint8) if scene.rgb is None else scene.rgb[shown]
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        span = max(float((high - low)[[0, 2]].max()), 1e-6) * 1.04
        middle = (low + high) / 2
        place = ((xyz[:, [0, 2]] - middle[[0, 2]]) / span + 0.5) * side  # (P, 2) column, row
        column, row = np.clip(place.astype(np.int64), 0, side - 1).T
        order = np.argsort(xyz[:, 1], kind="stable")  # what is written last is seen
        picture[row[order], column[order]] = rgb[order]
    return Image.fromarray(picture)


class SceneRows(Sequence[Scene]):
    """The scenes of a dataset, each read when it is asked for.

    Args:
        ids: of the scenes.
        read: gives a scene's row as a table.
    """

    def __init__(self, ids: list[str], read: Callable[[int], pa.Table]) -> None:
        self.ids, self._read = ids, read

    @classmethod
    def of_files(cls, paths: Sequence[Path]) -> SceneRows:
        """The rows of parquet files, read from them: a copy in the cache of `datasets` would cost minutes.

        Raises:
            ValueError: a file is damaged, or holds no scenes.
        """
        ids: list[str] = []
        places: list[tuple[Path, int, int]] = []
        for path in paths:
            try:
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    own = file.read_row_group(group, columns=["id"])["id"].to_pylist()
                    places += [(path, group, row) for row in range(len(own))]
                    ids += own
            except (OSError, ValueError, KeyError) as error:
                raise ValueError(f"{path} holds no scenes ({error})") from None

        def read(index: int) -> pa.Table:
            path, group, row = places[index]
            file = pq.ParquetFile(path)
            columns = [name for name in file.schema_arrow.names if name != "preview"]
            return file.read_row_group(group, columns=columns).slice(row, 1)

        return cls(ids, read)

    @classmethod
    def of_dataset(cls, rows: Dataset) -> SceneRows:
        """The rows of an open dataset."""
        ids = rows.select_columns(["id"]).with_format("arrow")[:]["id"].to_pylist()
        kept = rows.select_columns([name for name in rows.column_names if name != "preview"]).with_format("arrow")
        return cls(ids, lambda index: kept[index : index + 1])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} scenes")
        return scene_of(self._read(int(index) % len(self)))

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))

    def named(self, name: str) -> Scene:
        """The scene called `name`.

        Raises:
            KeyError: there is none; the message names those that there are.
        """
        if name not in self.ids:
            raise KeyError(f"there is no scene {name!r}, only {', '.join(self.ids[:20])}")
        return self[self.ids.index(name)]


def scene_of(table: pa.Table) -> Scene:
    """The scene in a table of one row.

    Raises:
        ValueError: columns are missing, or what they hold is no scene.
    """
    missing = [name for name in ("id", "xyz") if name not in table.column_names]
    if missing or len(table) != 1:
        raise ValueError(f"the row is no scene: it lacks {missing}" if missing else "one row is one scene")

    def numbers(name: str, dtype: type, width: int | None) -> np.ndarray | None:
        if name not in table.column_names or not table[name][0].is_valid:
            return None
        values = table[name][0].values
        if width is not None:
            values = values.flatten()
        array: np.ndarray = np.asarray(values.to_numpy(zero_copy_only=False), dtype=dtype)
        return array if width is None else array.reshape(-1, width)

    def plain(name: str, default: Any) -> Any:
        value = table[name][0].as_py() if name in table.column_names else None
        return default if value is None else value

    xyz = numbers("xyz", np.float32, 3)
    return Scene(
        id=plain("id", ""),
        xyz=np.zeros((0, 3), np.float32) if xyz is None else xyz,
        rgb=numbers("rgb", np.uint8, 3),
        normals=numbers("normals", np.float32, 3),
        instance=numbers("instance", np.int32, None),
        categories=plain("categories", []),
        names=plain("names", []),
        source=plain("source", ""),
        license=plain("license", ""),
        warnings=plain("warnings", []),
    )


def read_scenes(dataset: str, config: str, **hub: Any) -> SceneRows:
    """The scenes of one config of a dataset folder or of a hub repository.

    Args:
        hub: `revision`, `token` and `cache_dir` of a repository.

    Raises:
        FileNotFoundError: there is no such folder, nor on the hub, or the folder has no such config.
    """
    folder = Path(dataset).expanduser()
    if folder.is_dir():
        paths = sorted((folder / config).glob("*.parquet"))
        if not paths:
            there = sorted({path.parent.name for path in folder.glob("*/*.parquet")})
            raise FileNotFoundError(f"{dataset} holds no scenes {config!r}; it has {', '.join(there) or 'none'}")
        return SceneRows.of_files(paths)
    with on_the_hub(dataset, "scan homes with dataset_scripts/sweet_home_3d_homes.py"):
        return SceneRows.of_dataset(load_config(dataset, config, **hub))


@dataclass
class ConfigCounts:
    """What a config of scenes holds: scenes, points, annotated objects with points, bytes on disk and in memory."""

    scenes: int = 0
    points: int = 0
    objects: int = 0
    size: int = 0
    data_size: int = 0

    def add(self, path: Path) -> tuple[set[str], dict[str, int]]:
        """Counts a file of scenes; its licenses, and the objects of each category."""
        licenses: set[str] = set()
        categories: dict[str, int] = {}
        self.size += path.stat().st_size
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["id", "instance", "categories", "license"])
            self.data_size += file.metadata.row_group(group).total_byte_size
            for row in range(len(table)):
                self.scenes += 1
                instance = table["instance"][row]
                values = instance.values.to_numpy() if instance.is_valid else np.zeros(0, np.int32)
                self.points += len(values)
                seen = np.unique(values[values >= 0])
                self.objects += len(seen)
                names = table["categories"][row].as_py() or []
                for number in seen:
                    categories[names[number]] = categories.get(names[number], 0) + 1
                licenses.add(table["license"][row].as_py() or UNKNOWN_LICENSE)
        return licenses, categories


def write_card(
    folder: Path, title: str, configs: Mapping[str, str], source: str, errors: int, limits: Sequence[str] = ()
) -> None:
    """Writes the README.md of a folder of scenes, which makes it a dataset.

    Args:
        configs: by name, a sentence on how its scans were made; those without files are left out.
        source: Markdown on where the scenes come from.
        errors: number of scenes in `errors.parquet`.
        limits: sentences on what is known to be wrong, beside what all scenes have in common.
    """
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    counts: dict[str, ConfigCounts] = {}
    licenses: set[str] = set()
    categories: dict[str, int] = {}
    for config in configs:
        files = sorted((folder / config).glob("train-*.parquet"))
        if files:
            counts[config] = ConfigCounts()
            for path in files:
                own, seen = counts[config].add(path)
                licenses |= own
                if config == next(iter(counts)):
                    categories = {name: categories.get(name, 0) + seen.get(name, 0) for name in {*categories, *seen}}
    data = DatasetCardData(
        pretty_name=title,
        license=sorted(licenses)[0] if len(licenses) == 1 else sorted(licenses) or None,
        language="en",
        task_categories=["image-segmentation", "zero-shot-classification"],
        tags=["3d", "point-cloud", "indoor-scenes", "instance-segmentation", "ulip-2"],
        size_categories="n<1K",
        configs=[config_entry(name, default=name == next(iter(counts))) for name in counts],
    )
    infos = {n: config_info(n, scene_features(), c.scenes, c.size, c.data_size) for n, c in counts.items()}
    DatasetInfosDict(infos).to_dataset_card_data(data)
    table = markdown_table(
        ["config", "scenes", "points", "objects with points"],
        [(f"`{n}`", f"{c.scenes:,}", f"{c.points:,}", f"{c.objects:,}") for n, c in counts.items()],
    )
    usage = [
        "from datasets import load_dataset",
        "",
        f'scenes = load_dataset("…", "{next(iter(counts), "complete")}", split="train").with_format("numpy")',
        'xyz, instance = scenes[0]["xyz"], scenes[0]["instance"]  # (N, 3) meters, y up; (N,) index of an object',
    ]
    counted = [(name, f"{count:,}") for name, count in sorted(categories.items())]
    told = ["Objects that were not seen have a name and no point.", *limits]
    if errors:
        told.append(f"{errors:,} scenes could not be read (`errors.parquet`).")
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {title}",
        "Scans of furnished rooms as colored points, with the object of each point.",
        "\n".join(table),
        "\n".join(f"- `{name}`: {configs[name]}" for name in counts),
        "```python\n" + "\n".join(usage) + "\n```",
        f"## Source\n\n{source.strip()}",
        "## Columns\n\n" + "\n".join(line.strip() for line in _columns_text()),
        "## Objects\n\n" + "\n".join(markdown_table(["category", "objects"], counted)),
        "## Licenses\n\nEvery row names its license; points and pictures are derived from what it covers.",
        "## Limits\n\n" + "\n".join(f"- {line}" for line in told),
        "",
    ]
    write_text(folder / "README.md", "\n\n".join(section for section in sections if section) + "\n")


def _columns_text() -> list[str]:
    """The list of columns in the docstring of `scene_features`, whose lines may go on."""
    lines: list[str] = []
    for line in (scene_features.__doc__ or "").splitlines()[1:]:
        if line.strip().startswith("- "):
            lines.append(line.strip())
        elif line.strip() and lines:
            lines[-1] += " " + line.strip()
    return lines
