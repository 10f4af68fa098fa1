"""How an index names the model and the collections outside of it: relative to itself, so that all move together."""

from __future__ import annotations

import os
from pathlib import Path


def stored_place(place: str | Path, folder: str | Path) -> str:
    """How the index in `folder` remembers a model or a collection.

    A folder becomes a path relative to the index, which begins with "./" or "../", so that both can be moved or copied
    together; where the two have nothing but the root of the file system in common, its absolute path. A name on the
    hub stays as it is.
    """
    path = Path(place).expanduser()
    if not path.exists():
        return str(place)
    path, folder = path.resolve(), Path(folder).expanduser().resolve()
    try:
        together = len(Path(os.path.commonpath([path, folder])).parts) > 1
        relative = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # two drives
        return str(path)
    if not together:
        return str(path)
    return relative if relative.startswith("..") else f"./{relative}"


def found_place(stored: str, folder: str | Path) -> str:
    """Where `stored_place` leads, seen from the index as it lies now: an absolute path, or a name on the hub."""
    if stored.startswith(("./", "../")):
        return os.path.normpath(Path(folder).expanduser().resolve() / stored)
    return stored
