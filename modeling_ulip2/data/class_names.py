"""Class names of the zero-shot benchmarks; their sources are named in `NOTICE.md`."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _read(file: str) -> dict[str, Any]:
    return json.loads(files(__package__).joinpath(file).read_text(encoding="utf-8"))


def _entry(file: str, name: str) -> dict[str, Any]:
    entries = _read(file)
    if name not in entries:
        raise ValueError(f"{name!r} is not in {file}; it has {', '.join(entries)}")
    return entries[name]


def load_class_names(name: str = "modelnet40") -> list[str]:
    """Class names in label order: `modelnet40` (40), `scanobjectnn` (15), `shapenet55` (55), `objaverse_lvis` (1,156).

    Names are spelt as in their source: Objaverse-LVIS writes underscores ("alarm_clock").
    """
    return list(_entry("class_names.json", name)["names"])


def load_synsets(name: str = "shapenet55") -> dict[str, str]:
    """Class names by WordNet synset, such as "02691156"; only `shapenet55` has them."""
    entry = _entry("class_names.json", name)
    if "synsets" not in entry:
        raise ValueError(f"the classes of {name!r} have no synsets")
    return dict(zip(entry["synsets"], entry["names"], strict=True))
