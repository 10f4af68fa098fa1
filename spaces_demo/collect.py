"""Builds the demo's own collection; the demo runs it in a process of its own and shows what it says.

    python spaces_demo/collect.py --model checkpoints/ulip2-small --folder outputs/demo \\
        --fetch dataset_scripts/sweet_home_3d.py

Fetches the meshes into `FOLDER/meshes` and appends their shapes to the index `FOLDER/index`, which
`rooms.own.open_own` began with a few shapes. Stopped at any time, the next run goes on. Prints one JSON object per
line: `{"text", "share"}` while it works (`share` is None while nobody knows how much there is), `{"failed"}` where it
had to give up.

It ends when its standard input is closed, so it never outlives the demo.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from modeling_ulip2.building.sources.debian import cache_folder
from modeling_ulip2.data.labels import read_labels
from modeling_ulip2.data.objects import list_objects
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.search.build import IndexReport, build_index
from modeling_ulip2.search.index import read_info, read_shapes
from modeling_ulip2.search.shape_sources import FolderSource, IndexRow, ShapeSource
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.scripts import BAD_INPUT, DONE, STOPPED, is_expected, one_line

# Names within the folder of the collection; `rooms.own` uses them, too.
MESHES, INDEX, COMPLETE = "meshes", "index", "complete"
# Seconds between two lines about progress.
TICK = 1.0
# Seconds to tidy up in, when it is stopped.
TIDY = 30.0
# The visitors come first.
NICE = 10
FETCHING, PACKAGE_SIZE = "Fetching the meshes of Sweet Home 3D", 120_000_000


class Chosen:
    """Some shapes of a source, by id."""

    def __init__(self, source: ShapeSource, ids: Collection[str]) -> None:
        self._source = source
        self._places = [place for place, name in enumerate(source.ids) if name in ids]
        self.ids = [source.ids[place] for place in self._places]
        self.num_points, self.name, self.place, self.skipped = (
            source.num_points,
            source.name,
            source.place,
            source.skipped,
        )

    def __getitem__(self, position: int) -> IndexRow:
        return self._source[self._places[position]]


def fetch(script: Path, meshes: Path) -> None:
    """Calls `main` of a script of `dataset_scripts` with `--output`; its output goes to standard error.

    Raises:
        FileNotFoundError: there is no such script.
        SystemExit: with the script's own sentence.
    """
    if not script.is_file():
        raise FileNotFoundError(f"there is no {script.name} here to fetch the meshes with")
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(sys.stderr):
        module.main(["--output", str(meshes)])


def collect(
    model: Path, folder: Path, script: Path, labels: Path | None = None, tower: str | None = None
) -> IndexReport:
    """Fetches and indexes what is missing; the file `complete` in the folder says that nothing is.

    Raises:
        ValueError, OSError, SystemExit: with the reason for which it cannot go on.
    """
    meshes, index = folder / MESHES, folder / INDEX
    with telling(lambda: _fetched(meshes)):
        fetch(script, meshes)
    # one process: the other processors are the visitors'
    embedder = Ulip2Embedder.from_pretrained(model, tower=tower, num_workers=0)
    # the first shapes are some of these in another format: nobody wants to find them twice
    known = _first_shapes(index)
    ids = {row["id"] for row in list_objects(meshes) if (row["name"], row["creator"]) not in known}
    num_points = read_info(index)["num_points"]
    source = Chosen(FolderSource(meshes, num_points, read_labels(labels) if labels else None), ids)
    report = IndexReport()

    def done() -> tuple[str, float]:
        count = report.present + len(report.added) + len(report.failures)
        return f"Embedding shapes: {count:,} of {len(source.ids):,}", count / max(1, len(source.ids))

    with telling(done):
        build_index(source, index, embedder, append=True, progress=False, report=report)
    write_text(folder / COMPLETE, f"{len(report.added) + report.present} shapes\n")
    for failure in report.failures:
        print(f"{failure.id} was left out: {failure.message}", file=sys.stderr)
    return report


def _first_shapes(index: Path) -> set[tuple[str, str]]:
    """Name and creator of the shapes that the index began with."""
    shapes = read_shapes(index)
    columns = [shapes[column][:] for column in ("collection", "name", "creator")]
    return {(name, creator) for collection, name, creator in zip(*columns, strict=True) if collection == columns[0][0]}


def _fetched(meshes: Path) -> tuple[str, float | None]:
    if count := sum(1 for _ in meshes.rglob("*.obj")):
        return f"{FETCHING}: {count:,} objects unpacked", None
    loaded = 0
    with contextlib.suppress(OSError):  # the file gets another name when it is whole
        loaded = max((file.stat().st_size for file in cache_folder().rglob("*.deb")), default=0)
    share = min(1.0, loaded / PACKAGE_SIZE)
    return f"{FETCHING}: {share * PACKAGE_SIZE / 1e6:.0f} of {PACKAGE_SIZE / 1e6:.0f} MB", share


@contextlib.contextmanager
def telling(state: Callable[[], tuple[str, float | None]]) -> Iterator[None]:
    """Says what `state` gives, now and every `TICK` seconds."""
    over = threading.Event()

    def repeat() -> None:
        while True:
            text, share = state()
            say(text=text, share=share)
            if over.wait(TICK):
                return

    thread = threading.Thread(target=repeat, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def say(**fields: Any) -> None:
    print(json.dumps(fields), file=sys.__stdout__, flush=True)


def end_with_parent() -> None:
    """Interrupts this process when its standard input is closed; what it began (a download, files) is removed."""
    descriptor, main_thread = sys.stdin.fileno(), threading.get_ident()

    def wait() -> None:
        while os.read(descriptor, 1):  # not `sys.stdin.read`, whose lock would abort the end of the process
            pass
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main_thread, signal.SIGINT)
            time.sleep(TIDY)
        os._exit(STOPPED)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the Ulip2Model that made the index")
    parser.add_argument("--tower", help="image-text model, where the model's own has moved")
    parser.add_argument("--folder", type=Path, required=True, help="holds meshes/ and index/")
    parser.add_argument("--fetch", type=Path, required=True, help="script whose main takes --output FOLDER")
    parser.add_argument("--labels", type=Path, help="CSV with the category of each path")
    args = parser.parse_args(argv)
    end_with_parent()
    if hasattr(os, "nice"):
        os.nice(NICE)
    try:
        collect(args.model, args.folder, args.fetch, args.labels, args.tower)
    except KeyboardInterrupt:
        return STOPPED
    except SystemExit as ended:
        say(failed=str(ended.code))
        return BAD_INPUT
    except Exception as error:
        if is_expected(error):
            say(failed=one_line(error))
        else:
            traceback.print_exc()
            say(failed=f"{type(error).__name__}; the server's log tells more")
        return BAD_INPUT
    return DONE


if __name__ == "__main__":
    status = main()
    if status == STOPPED:  # at once: nobody waits for what Python and its libraries tidy up
        os._exit(status)
    sys.exit(status)
