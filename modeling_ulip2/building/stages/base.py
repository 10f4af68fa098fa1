"""What a stage is: a class called with a batch and returning a batch, picklable, constructed in the worker.

A batch is a dict of columns, each a list with an entry per object, which is what Ray Data's `map_batches` hands to a
class, too. An object that fails stays in its batch with `error` and `message` filled in, and later stages leave it
alone, so that nothing is lost on the way.
"""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from typing import Any, TypeAlias

from modeling_ulip2.data.schema import Row
from modeling_ulip2.geometry import MeshError
from modeling_ulip2.utils.machine_paths import without_paths

Batch: TypeAlias = dict[str, list[Any]]


class ObjectError(ValueError):
    """An object that cannot become a triplet. `reason` is a short word for statistics, the message is for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


class Stage:
    """A step over a batch.

    `batch_size` is how many objects the engine hands over at once; None stands for a whole shard. A stage with
    `on_gpu` runs a model: where there are GPUs, engines run it and all stages after it in a process per GPU, and the
    stages before it in processes that see none.
    """

    batch_size: int | None = 1
    on_gpu: bool = False

    def __call__(self, batch: Batch) -> Batch:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What the build's manifest and dataset card should say about this stage; values must fit into JSON."""
        return {}


class RowStage(Stage):
    """A stage that treats its objects one by one; what an object raises becomes that object's error."""

    def process(self, row: Row) -> Row:
        """The columns to add or replace. A value of None removes the column from what later stages see."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> Batch:
        rows = to_rows(batch)
        for row in rows:
            if row["error"] is None:
                try:
                    row.update(self.process(row))
                except Exception as error:
                    row["error"], row["message"] = explain(error)
        return to_batch(rows)


def explain(error: Exception) -> tuple[str, str]:
    """Reason and message of an error, without the machine's paths, as `errors.parquet` keeps them."""
    if isinstance(error, MeshError | ObjectError):
        return error.reason, without_paths(str(error.args[0]))
    if isinstance(error, MemoryError):
        return "out_of_memory", "there was not enough memory for this object"
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = without_paths(f"{type(error).__name__}: {error}")
    return "internal_error", f"{what} ({Path(place.filename).name}, line {place.lineno})"


def to_rows(batch: Batch) -> list[Row]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def to_batch(rows: list[Row]) -> Batch:
    """Columns of all rows; a row without a column, such as one that failed early, has None there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def alive(batch: Batch) -> list[int]:
    """Positions of the objects that have not failed."""
    return [i for i, error in enumerate(batch["error"]) if error is None]


def by_length(text: str) -> tuple[int, str]:
    """Sorts texts for a tower: neighbors of like length waste little padding."""
    return len(text), text


def object_seed(seed: int, object_id: str) -> int:
    """The seed of one object: it depends on nothing else, neither on its shard nor on the number of processes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{object_id}".encode()).digest()[:6], "big")


def local_name(name_or_path: str) -> str:
    """What a published manifest may call a local file or folder: its last part, not where this machine has it."""
    scheme, _, place = name_or_path.rpartition("local-dir:")  # as open_clip has it
    path = Path(place)
    return f"{scheme}{path.resolve().name}" if path.exists() else name_or_path
