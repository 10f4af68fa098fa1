"""How processes share work that is kept in files: shard by shard, by number, each file whole or absent.

Process r of n does the shards r, r + n, r + 2 n, … that are not there yet. Whose a shard is depends on its number
alone, never on what happens to be missing when a process looks: processes that start late would see other gaps than
the first, and some shards would be nobody's. What a killed process leaves undone is done by the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def own_shards(num_shards: int, process_index: int = 0, num_processes: int = 1) -> range:
    """The shards, of all, that belong to a process."""
    return range(process_index, num_shards, num_processes)


def own_missing_shards(
    num_shards: int, is_whole: Callable[[int], bool], process_index: int = 0, num_processes: int = 1
) -> list[int]:
    """The shards that a process has to do: its own, without those that are whole."""
    return [shard for shard in own_shards(num_shards, process_index, num_processes) if not is_whole(shard)]


def require_whole(paths: list[Path], is_whole: Callable[[int], bool]) -> None:
    """Raises FileNotFoundError where a shard is not there although every process has done its own."""
    missing = [path for shard, path in enumerate(paths) if not is_whole(shard)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} shards are missing, e.g. {missing[0]}: all processes must write into the "
            "same folder; where machines share none, compute the features on one of them and copy the folder"
        )
