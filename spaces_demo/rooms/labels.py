"""Embeddings of labels, each computed once. Knows nothing about Gradio.

A label is the mean of its prompts (`class_embeddings`), so 1,156 labels in 64 prompts are 73,984 texts: minutes on a
CPU. One thread of low priority embeds them a few at a time, every waiting list in its turn: a short list never waits
for a long one to end, and a search waits for neither. What the benchmarks' labels become is kept on disk.
"""

from __future__ import annotations

import contextvars
import hashlib
import json
import logging
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modeling_ulip2.towers.prompts import class_embeddings
from modeling_ulip2.utils.files import whole_path

logger = logging.getLogger(__name__)

# `HF_HOME` says where it lies.
CACHE_DIR = Path(constants.HF_HOME) / "ulip2" / "labels"
# Rows kept in memory: at 1,280 numbers each, 42 MB.
MAX_KEPT = 8192
# Texts of one list before it is another list's turn.
PROMPTS_PER_TURN = 256
NICE = 10
# Seconds between two looks at how far a list has come.
TICK = 0.2

Templates = tuple[str, ...]


class LabelEmbeddings:
    """What labels become under a tower. Safe to share between threads.

    Args:
        encode_text: list of texts -> (n, D).
        fingerprint: of the tower; another one never reads this one's files.
        durable: labels that are kept on disk, under all prompts; a visitor's own never are.
        cache_dir: where they are kept; None: only in memory.
    """

    def __init__(
        self,
        encode_text: Callable[[list[str]], Tensor],
        fingerprint: str,
        durable: Iterable[str] = (),
        cache_dir: Path | None = CACHE_DIR,
    ) -> None:
        self._encode_text, self._fingerprint = encode_text, fingerprint
        self._durable, self._cache_dir = frozenset(durable), cache_dir
        self._rows: OrderedDict[tuple[str, Templates], Tensor] = OrderedDict()
        self._stored: dict[Templates, dict[str, Tensor]] = {}
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def get(
        self, names: Sequence[str], templates: Sequence[str], progress: Callable[[float], object] | None = None
    ) -> Tensor:
        """One L2-normalized row for each name, (C, D) float32; see `class_embeddings`.

        Args:
            progress: told, while there is something to compute, what share of it is done.
        """
        prompts = tuple(templates)
        with self._changed:
            known = {name: row for name in names if (row := self._known(name, prompts)) is not None}
            missing = [name for name in dict.fromkeys(names) if name not in known]
            if missing:
                job = _Job(missing, prompts)
                self._jobs.append(job)
                self._start()
                self._changed.notify()
        if missing:
            while not job.done.wait(TICK):
                if progress is not None:
                    progress(len(job.rows) / len(missing))
            if job.error is not None:
                raise job.error
            known |= job.rows
        return torch.stack([known[name] for name in names])  # (C, D)

    def _known(self, name: str, templates: Templates) -> Tensor | None:
        """Under the lock."""
        if (name, templates) in self._rows:
            self._rows.move_to_end((name, templates))
            return self._rows[name, templates]
        if name not in self._durable:
            return None
        if templates not in self._stored:
            self._stored[templates] = self._read(templates)
        return self._stored[templates].get(name)

    def _start(self) -> None:
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="labels", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own; those that torch starts inherit it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs.popleft()
            try:
                self._turn(job)
            except Exception as error:
                job.error = error
                job.missing.clear()
            if job.missing:
                with self._changed:
                    self._jobs.append(job)  # behind those who came meanwhile
                continue
            try:
                self._write(job)
            except Exception as error:  # a full disk costs time, and no answer
                logger.warning("labels are kept in memory alone: %s", error)
            job.done.set()

    def _turn(self, job: _Job) -> None:
        chosen: list[str] = []
        while job.missing and len(chosen) < max(1, PROMPTS_PER_TURN // len(job.templates)):
            name = job.missing.popleft()
            with self._changed:
                row = self._known(name, job.templates)  # another list may have had it
            if row is None:
                chosen.append(name)
            else:
                job.rows[name] = row
        if not chosen:
            return
        rows = job.context.run(class_embeddings, self._encode_text, chosen, job.templates)  # (n, D)
        with self._changed:
            for name, row in zip(chosen, rows.clone(), strict=True):
                job.rows[name] = self._rows[name, job.templates] = row
            while len(self._rows) > MAX_KEPT:
                self._rows.popitem(last=False)

    # --- on disk -----------------------------------------------------------------------------------------------------

    def _path(self, templates: Templates) -> Path | None:
        if self._cache_dir is None:
            return None
        digest = hashlib.sha256(json.dumps(templates).encode()).hexdigest()[:16]
        return self._cache_dir / f"{self._fingerprint}-{digest}.safetensors"

    def _read(self, templates: Templates) -> dict[str, Tensor]:
        path = self._path(templates)
        if path is None or not path.is_file():
            return {}
        try:
            with safe_open(path, "pt") as file:
                names, rows = json.loads(file.metadata()["names"]), file.get_tensor("label_embeds")  # (C, D)
            return dict(zip(names, rows, strict=True))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s cannot be read and is written anew (%s)", path, error)
            return {}

    def _write(self, job: _Job) -> None:
        """Adds what a list brought, in one step; what another process wrote meanwhile stays."""
        path = self._path(job.templates)
        fresh = {name: row for name, row in job.rows.items() if name in self._durable}
        if path is None or not fresh:
            return
        rows = self._read(job.templates) | fresh
        with self._changed:
            self._stored[job.templates] = rows
        with whole_path(path) as partial:
            save_file({"label_embeds": torch.stack([*rows.values()])}, partial, {"names": json.dumps([*rows])})


class _Job:
    """A list of labels that somebody waits for."""

    def __init__(self, names: Sequence[str], templates: Templates) -> None:
        self.missing, self.templates = deque(names), templates
        self.rows: dict[str, Tensor] = {}
        self.done = threading.Event()
        self.error: Exception | None = None
        self.context = contextvars.copy_context()  # tells ZeroGPU for whom it works
