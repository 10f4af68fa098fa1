"""Work that processes share by files: every shard is somebody's, whoever starts late or dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_ulip2.data.reading import read_triplets
from modeling_ulip2.data.shares import own_missing_shards, own_shards, require_whole
from modeling_ulip2.training import features as module
from modeling_ulip2.training.features import computed_features
from modeling_ulip2.utils.files import whole_path
from tests.data import late_ranks

ROOT = Path(__file__).parents[2]


def start_ranks(*arguments: Path | str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, late_ranks.__file__, *map(str, arguments)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.slow  # two processes import everything once more; the killed rank below is the quick sibling
def test_a_rank_that_starts_late_leaves_no_shard_to_nobody(dataset, tower_folder, tmp_path: Path) -> None:
    ranks = start_ranks(dataset, tower_folder, tmp_path)
    for rank, (out, errors) in enumerate(process.communicate(timeout=240) for process in ranks):
        assert f"rank {rank} has everything" in out, errors[-3000:]
    assert len(list((tmp_path / "towers").rglob("train-*.parquet"))) == 6
    assert len(list((tmp_path / "points").rglob("*.safetensors"))) == 6
    assert not list(tmp_path.rglob("*.part"))


def test_the_next_run_does_what_a_killed_rank_left(dataset, tower_folder, tower, tmp_path: Path, monkeypatch) -> None:
    ranks = start_ranks(dataset, tower_folder, tmp_path, "kill")
    ranks[1].communicate(timeout=240)
    assert ranks[1].returncode == -9
    late_ranks.wait_for(tmp_path / "towers", "train-00004-of-*.parquet")  # rank 0 does its own
    ranks[0].kill()
    ranks[0].communicate()
    done = {path.name for path in (tmp_path / "towers").rglob("train-*.parquet")}
    assert done == {f"train-{shard:05d}-of-00006.parquet" for shard in (0, 2, 4)}

    monkeypatch.setattr(module, "ROWS_PER_SHARD", late_ranks.SHARD)
    written, real = [], module.write_parquet

    def write(path: Path, *rest):
        written.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(module, "write_parquet", write)
    triplets = read_triplets(str(dataset))
    found = computed_features(triplets, tower, cache_dir=tmp_path / "towers")
    assert list(found["id"]) == list(triplets["id"])
    assert written == [f"train-{shard:05d}-of-00006.parquet" for shard in (1, 3, 5)]


@pytest.mark.parametrize("count, processes", [(0, 2), (1, 4), (7, 2), (12, 5)])
def test_every_shard_has_one_owner(count: int, processes: int) -> None:
    shares = [own_shards(count, index, processes) for index in range(processes)]
    assert sorted(shard for share in shares for shard in share) == list(range(count))
    done = {0, 3}
    assert own_missing_shards(7, done.__contains__, 1, 2) == [1, 5]


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with pytest.raises(KeyboardInterrupt), whole_path(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with whole_path(path) as partial:
        partial.write_text("all of it")
    assert path.read_text() == "all of it" and list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="1 of 2 shards are missing, e.g. .*other"):
        require_whole([path, tmp_path / "other"], [True, False].__getitem__)
