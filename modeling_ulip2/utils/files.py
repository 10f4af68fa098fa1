"""Files that are there whole or not at all: written under a temporary name, renamed when done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LEFTOVERS = ".*.part"  # pattern of the temporary names


def temporary_path(path: Path) -> Path:
    """Where this process writes what becomes `path`; of the pattern `LEFTOVERS`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that becomes `path`, on the disk, when the block ends without an exception."""
    partial = temporary_path(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for libraries that write files by name.

    What the block writes there becomes `path`, on the disk, when it ends without an exception; a block that leaves
    nothing there leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(path)
    try:
        yield partial
        if partial.is_file():
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))
