"""What the readers of caption and instruction files share: finding the shape that a text is about, and the output."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from modeling_ulip2.data.pairs import CLOUDS_CONFIG, cloud_features, pair_error_features, write_pairs
from modeling_ulip2.data.shards import shard_path
from modeling_ulip2.geometry.cloud import near_origin
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.points import POINT_SUFFIXES, read_points
from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.parquet import write_parquet

CLOUDS_PER_SHARD = 512
# A file of texts is read whole.
MAX_BYTES = 4 * 2**30

Error = dict[str, Any]


class PairsError(ValueError):
    """The texts, the shapes or the output cannot be used; the message says what to do."""


class NamedShapes:
    """Shapes by the names that files of texts call them by: the id, or its last part without suffix.

    "000-023/0b3a….glb" is found by "0b3a…", and PointLLM's "0b3a…_8192.npy" as well.
    """

    def __init__(self, ids: Iterable[str]):
        self.ids = list(ids)
        self._exact = set(self.ids)
        self._short: dict[str, list[str]] = {}
        for name in self.ids:
            stem = re.sub(r"\.[A-Za-z0-9]+$", "", name.rpartition("/")[2])
            for short in {stem, re.sub(r"_\d+$", "", stem)}:
                self._short.setdefault(short, []).append(name)

    def find(self, name: str) -> str:
        """The id of the shape.

        Raises:
            LookupError: there is none, or several; the message says which.
        """
        if name in self._exact:
            return name
        found = self._short.get(name, [])
        if len(found) == 1:
            return found[0]
        raise LookupError(f"{name!r} may be {found[0]!r} or {found[1]!r}" if found else f"there is no shape {name!r}")


def list_clouds(folder: Path) -> list[str]:
    """Paths of the point files below a folder, relative to it, sorted.

    Raises:
        PairsError: no such folder, or no point file in it.
    """
    if not folder.is_dir():
        raise PairsError(f"{folder} is not a folder")
    found = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in POINT_SUFFIXES
    )
    if not found:
        raise PairsError(f"{folder} has no point file ({', '.join(POINT_SUFFIXES)})")
    return found


def named_shapes(triplets: str | None, clouds: Path | None) -> NamedShapes:
    """The shapes that texts may be about: of a triplets dataset, or of a folder of point files.

    Raises:
        PairsError: both or neither is given, or the folder has no point file.
    """
    if (triplets is None) == (clouds is None):
        raise PairsError("name the shapes: either --triplets or --clouds")
    if triplets is None:
        return NamedShapes(list_clouds(Path(str(clouds))))
    from modeling_ulip2.data.reading import read_triplets  # takes seconds

    return NamedShapes(list(read_triplets(triplets)["id"]))


def reader_parser(description: str | None, option: str, what: str) -> argparse.ArgumentParser:
    """The options that all readers of files of texts have.

    Args:
        option, what: of the file: its name and its help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(option, type=Path, required=True, help=what)
    parser.add_argument("--triplets", help="folder or hub name of a triplets dataset that has the shapes")
    parser.add_argument("--clouds", type=Path, help="folder of point files instead, such as OBJECT_ID_8192.npy")
    parser.add_argument("--num-points", type=int, default=8192, help="points per cloud [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the points that are left out [%(default)s]")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    return parser


def convert_texts(
    args: argparse.Namespace,
    file: Path,
    config: str,
    text: str,
    read: Callable[[NamedShapes], tuple[list[dict[str, Any]], list[Error]]],
) -> tuple[int, int]:
    """Writes the texts of a file as a dataset folder, with the clouds of their shapes where `--clouds` gives them.

    Args:
        args: options of `reader_parser`.
        file: with the texts.
        config: of the dataset.
        text: what the card says of it, with `{file}` for the name of the file.
        read: gives rows and errors.

    Returns:
        numbers of the rows that were written, and of the lines and clouds that could not be used.

    Raises:
        PairsError, OSError: the file, the shapes or the output cannot be used.
    """
    shapes = named_shapes(args.triplets, args.clouds)
    settings = vars(args) | {"sha256": digest(file)}
    rows, errors = read(shapes)
    told = text.format(file=file.name)
    return finish(args.output, settings, config, rows, errors, told, args.clouds, args.num_points, args.seed)


def finish(
    output: Path,
    settings: Mapping[str, object],
    config: str,
    rows: list[dict[str, Any]],
    errors: list[Error],
    text: str,
    clouds: Path | None,
    num_points: int,
    seed: int,
) -> tuple[int, int]:
    """Writes texts, their clouds where those are files, errors and card; numbers of texts and of errors.

    Raises:
        PairsError: not one text is left, or the output cannot be used.
    """
    with claim_output(output, settings) as folder:
        if clouds is not None:
            ids = sorted({row["id"] for row in rows})
            failures = write_clouds(folder, clouds, ids, num_points, seed)
            errors = errors + [error(0, name, "cloud", why) for name, why in failures.items()]
            rows = [row for row in rows if row["id"] not in failures]
        if not rows:
            reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(e["reason"] for e in errors).items())
            raise PairsError(f"not one text is about a shape that is there ({reasons or 'the file is empty'})")
        others = [CLOUDS_CONFIG] if clouds is not None else []
        write_pairs(folder, config, rows, errors, output.resolve().name, text, others)
    return len(rows), len(errors)


def error(row: int, name: str, reason: str, message: str) -> Error:
    """A row of `errors.parquet`."""
    return dict(zip(pair_error_features(), (row, name, reason, message), strict=True))


@contextmanager
def claim_output(output: Path, settings: Mapping[str, object]) -> Iterator[Path]:
    """A folder beside `output` to write into, which becomes `output` when all went well.

    What a stopped run with the same settings left there stays, so that the next one goes on.

    Raises:
        PairsError: `output` exists and is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PairsError(f"{output} exists: choose another --output, or move it away")
    partial = output.with_name(f".{output.name}.part")
    note = partial / "settings.json"
    text = json.dumps(settings, default=str, sort_keys=True)
    if partial.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != text):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_text(note, text)
    yield partial
    note.unlink()
    if output.is_dir():
        output.rmdir()
    partial.replace(output)


def digest(path: Path) -> str:
    """Tells whether a file of texts is still the same.

    Raises:
        PairsError: it is larger than `MAX_BYTES`.
    """
    if path.stat().st_size > MAX_BYTES:
        raise PairsError(f"{path} has {path.stat().st_size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} are read")
    return sha256_of(path)


def write_clouds(folder: Path, clouds: Path, ids: Sequence[str], num_points: int, seed: int) -> dict[str, str]:
    """Writes the point files `ids` below `clouds` as the config `clouds`; returns the ids that failed, and why.

    Points beyond `num_points` are left out by lot; a cloud without color gets the gray of the zero-shot protocol.
    """
    num_shards = -(-len(ids) // CLOUDS_PER_SHARD)
    failures: dict[str, str] = {}
    for shard in tqdm(range(num_shards), desc="clouds", unit="shard"):
        path = shard_path(folder, CLOUDS_CONFIG, shard, num_shards)
        note = path.with_suffix(".errors.json")
        if not (path.is_file() and note.is_file()):
            rows: list[Mapping[str, Any]] = []
            failed: dict[str, str] = {}
            for name in ids[shard * CLOUDS_PER_SHARD : (shard + 1) * CLOUDS_PER_SHARD]:
                try:
                    rows.append({"id": name, **_read_cloud(clouds / name, num_points, seed)})
                except (MeshError, PairsError) as problem:
                    failed[name] = str(problem.args[0])
            write_parquet(path, rows, cloud_features(num_points))
            write_text(note, json.dumps(failed))
        failures |= json.loads(note.read_text(encoding="utf-8"))
    for note in (folder / CLOUDS_CONFIG).glob("*.errors.json"):
        note.unlink()
    return failures


def _read_cloud(path: Path, num_points: int, seed: int) -> dict[str, np.ndarray]:
    from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR  # takes seconds

    xyz, rgb = read_points(path)
    if len(xyz) < num_points:
        raise PairsError(f"it holds {len(xyz)} points, {num_points} are wanted")
    if rgb is None:
        rgb = np.full(xyz.shape, round(255 * FILL_COLOR), dtype=np.uint8)
    if len(xyz) > num_points:
        kept = np.sort(np.random.default_rng(seed).permutation(len(xyz))[:num_points])
        xyz, rgb = xyz[kept], rgb[kept]
    return {"xyz": near_origin(xyz), "rgb": rgb}
