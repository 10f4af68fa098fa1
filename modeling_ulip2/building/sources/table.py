"""What the script of each source leaves behind: `objects.csv` and `SOURCE.md`, which `build_triplets.py` reads."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling_ulip2.data.objects import OBJECT_COLUMNS, OBJECTS_FILE, SOURCE_FILE
from modeling_ulip2.utils.files import write_text


class CollectionError(RuntimeError):
    """A collection is not laid out as it should be; the message says what was expected, and where."""


def write_source(folder: Path, rows: Sequence[Mapping[str, str]], source: str) -> None:
    """Write the table of objects and the source's part of the dataset card, each whole or not at all.

    `source` gains the number of objects and of each license.

    Raises:
        CollectionError: there is no object.
        OSError: the folder cannot be written.
    """
    if not rows:
        raise CollectionError("not one object was found")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SOURCE_FILE, f"{source.strip()}\n\n{counts(rows)}\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, OBJECT_COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / OBJECTS_FILE, table.getvalue())


def counts(rows: Sequence[Mapping[str, str]]) -> str:
    licenses = Counter(row.get("license") or "unknown" for row in rows)
    categories = len({row["category"] for row in rows if row.get("category")})
    told = ", ".join(f"{name}: {count:,}" for name, count in sorted(licenses.items()))
    return f"{len(rows):,} objects were found ({told}){f', of {categories:,} categories' if categories else ''}."


def read_json(path: Path) -> Any:
    """A JSON file, compressed with gzip if its name says so.

    Raises:
        CollectionError: it is missing, cut short or no JSON.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise CollectionError(f"there is no {path}") from None
    except (OSError, EOFError, ValueError) as error:
        raise CollectionError(f"{path} cannot be read: {error}") from error
