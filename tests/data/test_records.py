"""Records at scale, after crashes, and of the format before."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from modeling_ulip2.data.records import (
    BUILD,
    Entry,
    OutputError,
    ShardLog,
    convert_manifest,
    is_told,
    read_log,
    read_manifest,
)
from modeling_ulip2.data.shards import BuildFolder, FeaturesFolder, shard_path
from modeling_ulip2.utils.files import write_text

SHARDS = 6
OBJECTS = [{"id": str(number)} for number in range(2 * SHARDS)]
WRITES = ("fsync", "replace", "write", "truncate", "ftruncate", "unlink", "open", "link", "mkdir")


def tell(folder: BuildFolder) -> None:
    write_text(folder.path / "README.md", f"{folder.totals()['triplets']} of {folder.num_shards} shards")


def finish(folder: BuildFolder, shard: int) -> None:
    """A shard whose file is no parquet: what is in it does not matter here."""
    import pyarrow as pa

    path = shard_path(folder.path, "triplets", shard, folder.num_shards)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": [shard]}), path)
    record = {"triplets": 1, "errors": {"empty": shard % 2}, "bytes": {"triplets": path.stat().st_size}}
    folder.commit(
        shard,
        record,
        [{"id": f"e{shard}", "reason": "empty", "message": ""}] * (shard % 2),
        [{"id": f"w{shard}", "message": "ö"}],
    )


def build(path: Path) -> None:
    with BuildFolder(path, {"seed": 0}, OBJECTS, 2, tell) as folder:
        folder.check_stages({"Embed": {"fingerprint": "one"}})
        for shard in reversed(folder.missing_shards()):
            finish(folder, shard)


def state(path: Path) -> dict[str, object]:
    """All that a finished folder says, whatever the order in which its shards were made."""
    manifest = read_manifest(path)
    assert is_told(path, BUILD, manifest)
    return {
        "entries": list(read_log(path)),
        "manifest": {key: value for key, value in manifest.items() if key != "told"},
        "errors": pq.read_table(path / "errors.parquet").to_pylist(),
        "warnings": pq.read_table(path / "warnings.parquet").to_pylist(),
        "card": (path / "README.md").read_text(),
        "files": sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()),
    }


def die_at(number: int, work: Callable[[], None], half: bool = False) -> bool:
    """Runs `work` in a fork that ends, as by `kill -9`, before its `number`-th call that changes a file.

    half: a `write` is begun and not finished. Returns whether the fork died.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    calls = 0

    def guard(name: str, function: Callable) -> Callable:
        def guarded(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                if half and name == "write":
                    function(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os._exit(9)
            return function(*arguments, **options)

        return guarded

    try:
        for name in WRITES:
            setattr(os, name, guard(name, getattr(os, name)))
        work()
    except BaseException:  # noqa: BLE001
        os._exit(1)
    os._exit(0)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


@needs_fork
@pytest.mark.parametrize("half", [False, True])
def test_killed_anywhere_a_build_can_be_completed(tmp_path, half):
    build(tmp_path / "whole")
    expected = state(tmp_path / "whole")
    for number in range(1, 1000):
        path = tmp_path / str(number)
        died = die_at(number, lambda path=path: build(path), half)
        build(path)
        assert state(path) == expected, f"killed before write {number}"
        if not died:
            break
    assert not died and number > 30  # there was something to die at, and all of it was tried


@needs_fork
def test_killed_twice(tmp_path):
    """The second run dies while it makes up for the first."""
    build(tmp_path / "whole")
    expected = state(tmp_path / "whole")
    for number in range(1, 60, 3):
        path = tmp_path / str(number)
        die_at(38, lambda path=path: build(path))
        die_at(number, lambda path=path: build(path), half=True)
        build(path)
        assert state(path) == expected


def costs(path: Path, commits: range) -> dict[str, int]:
    """What this process reads and writes for the commits, in bytes and calls, as the system counts it."""

    def count() -> dict[str, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        return {name: int(value) for name, value in (line.split(": ") for line in lines)}

    record = {"triplets": 64, "errors": {"empty": 1}, "bytes": {"triplets": 2**20}}
    with BuildFolder(path, {}, OBJECTS * 2000, 2, tell) as folder:
        for shard in range(commits.start):
            folder.log.append(Entry(shard, record, [], []))
        before, inode = count(), (path / BUILD.log).stat().st_ino
        files = {file: file.stat().st_mtime_ns for file in path.iterdir()}
        for shard in commits:
            folder.commit(10_000 + shard % 100, record, [{"id": "e", "reason": "empty", "message": ""}])
            folder.totals()
        after = count()
        changed = {file.name for file in path.iterdir() if files.get(file) != file.stat().st_mtime_ns}
        assert changed == {BUILD.log} and (path / BUILD.log).stat().st_ino == inode
    return {name: after[name] - before[name] for name in ("rchar", "wchar", "syscw")}


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process writes")
def test_a_commit_costs_a_line_however_many_there_are(tmp_path):
    few, many = costs(tmp_path / "few", range(0, 100)), costs(tmp_path / "many", range(5000, 5100))
    assert many["wchar"] <= few["wchar"] + 100 and many["syscw"] == few["syscw"] == 100
    assert many["rchar"] <= few["rchar"] + 4096  # of counting itself
    assert few["wchar"] < 100 * 300


def test_a_torn_line_is_cut_off_and_a_damaged_one_left_out(tmp_path):
    path = tmp_path / "shards.jsonl"
    lines = [Entry(shard, {"triplets": shard, "bytes": {}}, [], []).to_line() for shard in range(4)]
    path.write_bytes(lines[0] + lines[1] + lines[2][:-1])
    assert [entry.shard for entry in ShardLog(path)] == [0, 1]
    assert path.read_bytes().endswith(lines[2][:-1])  # who only reads leaves it as it is
    log = ShardLog(path, writable=True)
    log.append(Entry(3, {"triplets": 3, "bytes": {}}, [], []))
    assert path.read_bytes() == lines[0] + lines[1] + lines[3] and log.totals() == {"triplets": 4, "bytes": Counter()}
    log.close()
    path.write_bytes(lines[0] + b"\0" * 20 + b"\n" + lines[2])
    with pytest.warns(UserWarning, match="1 lines of .*shards.jsonl cannot be read"):
        log = ShardLog(path)
    assert [entry.shard for entry in log] == [0, 2] and log[2].record["triplets"] == 2


def test_a_lost_log_is_no_beginning(tmp_path):
    build(tmp_path)
    (tmp_path / "shards.jsonl").rename(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="shards.jsonl is missing: it says which shards are made. Restore it"):
        build(tmp_path)


def old(path: Path) -> dict[str, object]:
    """Makes a folder what the version before left; returns its state beforehand."""
    build(path)
    expected = state(path)
    manifest = read_manifest(path) | {"format": 2, "shards": {}}
    manifest["shards"] = {str(entry.shard): entry.record for entry in read_log(path)}
    del manifest["told"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "shards.jsonl").unlink()
    return expected


def test_a_folder_of_the_format_before_is_read_and_completed(tmp_path):
    expected = old(tmp_path)
    assert list(read_log(tmp_path)) == expected["entries"]
    shard_path(tmp_path, "triplets", 1, SHARDS).unlink()
    build(tmp_path)
    assert state(tmp_path) == expected
    manifest = read_manifest(tmp_path) | {"format": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match=r"another version \(format 1\)"):
        read_manifest(tmp_path)


@needs_fork
def test_killed_while_the_format_changes(tmp_path):
    for number in range(1, 40):
        path = tmp_path / str(number)
        expected = old(path)
        died = die_at(number, lambda path=path: convert_manifest(path, BUILD))
        assert list(read_log(path)) == expected["entries"]
        build(path)
        assert state(path) == expected
        if not died:
            break
    assert not died


@needs_fork
def test_killed_while_a_build_forgets_its_features(tmp_path):
    files = [{"file": "train-00000-of-00001.parquet"}]

    def add(path: Path) -> None:
        with FeaturesFolder(path, {}, files, 1):
            pass

    for number in range(1, 60):
        path = tmp_path / str(number)
        path.mkdir()
        with BuildFolder(path, {"features": True}, OBJECTS[:1], 1, tell) as folder:
            folder.commit(0, {"triplets": 1, "bytes": {"triplets": 1, "features": 2}}, [])
        died = die_at(number, lambda path=path: add(path))
        add(path)
        manifest = read_manifest(path)
        assert manifest["settings"]["features"] is False and is_told(path, BUILD, manifest)
        assert [entry.record["bytes"] for entry in read_log(path)] == [{"triplets": 1}]
        if not died:
            break
    assert not died


def test_a_stopped_build_tells_of_what_is_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), BuildFolder(tmp_path, {"seed": 0}, OBJECTS, 2, tell) as folder:
        for shard in (4, 1):
            finish(folder, shard)
        assert not (tmp_path / "README.md").exists()  # not for each of them
        raise KeyboardInterrupt
    found = state(tmp_path)
    assert found["card"] == f"2 of {SHARDS} shards" and [row["id"] for row in found["errors"]] == ["e1"]
    assert [row["id"] for row in found["warnings"]] == ["w1", "w4"]


def test_nothing_is_written_anew_where_nothing_was_made(tmp_path):
    build(tmp_path)
    (tmp_path / "README.md").write_text("a person's own words")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    build(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()} == before
