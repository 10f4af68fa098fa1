"""Groups of near-duplicates: no split cuts through one, and its members are no negatives of each other."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from modeling_ulip2.utils.disjoint_sets import DisjointSets

COPY, VARIANT = "copy", "variant"
KINDS = (COPY, VARIANT)


def near_duplicate_groups(
    ids: Sequence[str], table: str | Path | None = None, kinds: Collection[str] = KINDS
) -> dict[str, str]:
    """The group of every shape, called by the first of its members among `ids`; a shape without copies is alone.

    Args:
        ids: the shapes.
        table: CSV with the columns `a` and `b`, ids of two shapes that are alike, and perhaps `kind`. What is alike by
            way of a shape that is not in `ids` is alike, too. None: all are alone.
        kinds: which pairs count: `copy` (one silhouette), `variant` (numbered, seasonal, recolored siblings).

    Raises:
        ValueError: the table cannot be read; the message names the file and the line.
    """
    alike: DisjointSets[str] = DisjointSets()
    for a, b in _read_pairs(Path(table), kinds) if table is not None else ():
        alike.join(a, b)
    first: dict[str, str] = {}
    return {name: first.setdefault(alike.root(name), name) for name in ids}


def _read_pairs(table: Path, kinds: Collection[str]) -> Iterable[tuple[str, str]]:
    if not table.is_file():
        raise ValueError(f"there is no table of near-duplicates {table}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"a", "b"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{table} needs the columns a and b; its columns are {reader.fieldnames}")
            for row in reader:
                a, b, kind = (row.get(name) or "" for name in ("a", "b", "kind"))
                if not a or not b or (kind and kind not in KINDS):
                    wrong = f"kind is {kind!r}, not one of {', '.join(KINDS)}" if a and b else "an id is missing"
                    raise ValueError(f"{table}, line {reader.line_num}: {wrong}")
                if not kind or kind in kinds:
                    yield a, b
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} is not a UTF-8 table of comma-separated values: {error}") from error


def extend_to_groups(chosen: Iterable[str], groups: Mapping[str, str]) -> set[str]:
    """The chosen shapes and all their near-duplicates."""
    wanted = {groups[name] for name in chosen}
    return {name for name, group in groups.items() if group in wanted}
