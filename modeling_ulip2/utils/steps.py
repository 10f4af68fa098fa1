"""A long piece of work as commands, one after another or side by side; a second run skips those that are done."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_ulip2.utils.files import write_text

# Threads that wait give their core to the other commands.
_SHARED_CORES = {"OMP_WAIT_POLICY": "PASSIVE"}
_SHOWN_OF_A_LOG = 20  # lines, of a command that failed


@dataclass(frozen=True)
class Step:
    """Words after `python`, what they make, and what they read where the words do not tell it."""

    name: str
    product: Path
    command: tuple[str | Path | int | float, ...]
    inputs: str = ""

    @property
    def words(self) -> list[str]:
        return [str(word) for word in self.command]


class Steps:
    """What is done, and how long it took, is kept in `steps.json`.

    Args:
        folder: of `steps.json`.
        root: where the commands run.
    """

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root, self.file = folder, root, folder / "steps.json"
        self.done: dict[str, dict[str, Any]] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self._write()

    def run(self, name: str, product: Path, *command: str | Path | int | float, inputs: str = "") -> None:
        """Runs a command, unless the same one made `product` before from the same `inputs`."""
        self.run_together([Step(name, product, command, inputs)])

    def run_together(self, steps: Sequence[Step]) -> None:
        """Runs commands that do not need one another at the same time, unless they were done before.

        The first one prints here, the others into a log beside `steps.json`, which is named.

        Raises:
            SystemExit: one failed. What the others made counts.
        """
        missing = [step for step in steps if not self._is_done(step)]
        running = []
        for place, step in enumerate(missing):
            log = None if place == 0 else self.folder / f"{'_'.join(step.name.split())}.log"
            if log is not None:
                print(f"side by side with the one before; its output is in {log}", flush=True)
            running.append((step, log, time.monotonic(), self._start(step, log, len(missing) > 1)))
        failed = []
        try:
            while running:
                time.sleep(0.05)
                for own in list(running):
                    step, log, start, process = own
                    if process.poll() is None:
                        continue
                    running.remove(own)
                    if process.returncode == 0:
                        self.record(step.name, time.monotonic() - start, step.words, step.inputs)
                        continue
                    failed.append(step.name)
                    if log is not None:
                        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                        print("\n".join(lines[-_SHOWN_OF_A_LOG:]), file=sys.stderr)
        finally:
            for *_, process in running:  # stopped: each goes on from its last checkpoint
                process.terminate()
                process.wait()
        if failed:
            names = " and ".join(map(repr, failed))
            sys.exit(f"The step {names} failed (see above). The same command goes on from here once that is mended.")

    def _is_done(self, step: Step) -> bool:
        known = self.done.get(step.name, {})
        print(f"\n== {step.name}\n$ python {shlex.join(step.words)}", flush=True)
        if not step.product.exists() or (known.get("command"), known.get("inputs")) != (step.words, step.inputs):
            return False
        print(f"done before, in {known['seconds']:.0f} s", flush=True)
        return True

    def _start(self, step: Step, log: Path | None, shares: bool) -> subprocess.Popen[bytes]:
        environment = {**_SHARED_CORES, **os.environ} if shares else None
        command = [sys.executable, *step.words]
        if log is None:
            return subprocess.Popen(command, cwd=self.root, env=environment)
        with log.open("wb") as file:
            return subprocess.Popen(command, cwd=self.root, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def record(self, name: str, seconds: float, command: list[str] | None = None, inputs: str = "") -> None:
        self.done[name] = {"seconds": round(seconds, 1), "command": command, "inputs": inputs}
        self._write()

    def _write(self) -> None:
        """In one step, so that a stop leaves the old file or the new one."""
        write_text(self.file, json.dumps(self.done, indent=2) + "\n")

    @property
    def durations(self) -> dict[str, float]:
        return {name: step["seconds"] for name, step in self.done.items()}
