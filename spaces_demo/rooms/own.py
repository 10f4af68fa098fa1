"""The demo's own collection, for a fresh clone: a few shapes at once, many more when another process has built them.

The first shapes begin the index, and the process appends to it. So a row always means the same shape, whichever state
of the collection a page was made of.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from collect import COMPLETE, INDEX, MESHES

from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.search.build import build_index
from modeling_ulip2.search.index import ShapeIndex
from modeling_ulip2.search.shape_sources import FolderSource
from modeling_ulip2.utils.files import whole_path

from .engine import Engine
from .shared import LOOK_LANE, QUIET

logger = logging.getLogger(__name__)

# Rows of a file: a build that is stopped loses no more than these.
SHARD_SIZE = 20
# Seconds between two looks of a page.
LOOK = 2.0
# Seconds that the process gets to end in.
STOP = 10.0
LINE_ID = "collection-progress"


def open_own(embedder: Ulip2Embedder, folder: Path, first: Path) -> ShapeIndex:
    """The index of the demo's own collection as far as it is complete, begun with the shapes of the folder `first`.

    Raises:
        FolderError: `first` holds no shape and there is no index yet.
    """
    index = folder / INDEX
    try:
        opened = ShapeIndex.open(index)
        opened.require_model(embedder.model, embedder.feature_extractor)
        return opened
    except (FileNotFoundError, ValueError) as error:  # none yet, or one by another model
        logger.info("the collection begins anew: %s", error)
    (folder / COMPLETE).unlink(missing_ok=True)
    source = FolderSource(first, embedder.feature_extractor.num_points)
    if index.is_dir():
        shutil.rmtree(index)
    opened = build_index(source, index, embedder, shard_size=SHARD_SIZE, progress=False)
    for name in source.ids:  # the viewer takes meshes from one folder
        with whole_path(folder / MESHES / name) as partial:
            shutil.copyfile(first / name, partial)
    return opened


class Growth:
    """Follows the process that builds the collection, and gives the engine what it made.

    Args:
        engine: over `open_own`.
        folder: of the collection.
        command: starts the process, see `collect`.

    Attributes:
        text: how far it is, or why it ended.
        share: of the shapes that are embedded, None while unknown.
        state: "building", "ready" or "failed".
    """

    def __init__(self, engine: Engine, folder: Path, command: Sequence[str]) -> None:
        self.engine, self.folder, self._command = engine, folder, list(command)
        self.text, self.share, self.state = "Starting", None, "building"
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="collection", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the end."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Ends the process; the next start goes on."""
        if (process := self._process) is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # it sees that
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()

    def _follow(self) -> None:
        try:
            failed = self._run()
            if not failed:
                self.engine.renew(ShapeIndex.open(self.folder / INDEX))
        except (OSError, ValueError) as error:
            failed = str(error)
        if failed:
            # a page may be public: no paths of the machine
            self.text = " ".join(failed.replace(f"{self.folder.resolve().parent.parent}/", "").split())
            print(f"The demo's collection was not built: {failed}", file=sys.stderr)
        self.state = "failed" if failed else "ready"

    def _run(self) -> str:
        """Why the process failed, "" if it did not."""
        failed = ""
        with subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            self._process = process
            assert process.stdout is not None
            for line in process.stdout:
                try:
                    said = json.loads(line)
                except ValueError:
                    continue  # a library's word
                if isinstance(said, dict) and "failed" in said:
                    failed = said["failed"] or "no reason was given"
                elif isinstance(said, dict) and "text" in said:
                    self.text, self.share = said["text"], said.get("share")
        if process.returncode and not failed:
            failed = f"the process that builds it ended with status {process.returncode}"
        return failed

    def html(self) -> str:
        """The line above the rooms, "" when there is nothing more to say."""
        count = f"{len(self.engine.index):,} shapes"
        if self.state == "ready":
            return ""
        if self.state == "failed":
            why = escape(self.text.rstrip("."))
            return (
                f'<p class="failure" role="status">The collection could not be built: {why}. You see the {count} that '
                "are here; the next start of the demo tries again.</p>"
            )
        share = "" if self.share is None else f' value="{self.share:.4f}"'
        return (
            f'<p class="progress" role="status">The collection is being built. {escape(self.text)}. Meanwhile '
            f"{count} are here; everything works with them and with your files.</p>"
            f'<progress max="1" aria-label="The collection"{share}></progress>'
        )


def build(growth: Growth, demo: gr.Blocks) -> gr.State:
    """The line about the progress, and a state that changes on a page when the collection has grown."""
    line = gr.HTML(growth.html(), elem_id=LINE_ID, elem_classes="notes")
    timer = gr.Timer(LOOK)
    version = gr.State(growth.engine.version)

    def look() -> tuple[Any, ...]:
        going_on = growth.state == "building"  # first: what is read afterwards is not older
        return growth.html(), gr.Timer(active=going_on), growth.engine.version

    # queued: else Gradio tells no page that a state has changed
    options = {**QUIET, "queue": True, **LOOK_LANE}
    gr.on([demo.load, timer.tick], look, None, [line, timer, version], **options)
    return version
