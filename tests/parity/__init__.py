"""How reference vectors are checked, one module per folder of vectors.

A directory of vectors holds folders (`point_ops`, `pointbert_xyz`, ...) of safetensors and JSON files. The folder
`foo` is understood by the module `tests/parity/foo.py`, which offers two functions:

    cases(folder: Path) -> Iterable[Case]   # walk the folder; its JSON files say which configuration and case it is
    check(case: Case) -> None               # run our code, compare with `case.close` and `case.equal`

`tests/test_parity.py` finds the modules by name, so a new folder needs a new module and nothing else. Nothing may pass
unseen: a folder without a module, a file that no case claims, and a tensor that a check never read all fail by name.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

# Name under which a test reports the largest deviation of its case; `tests/conftest.py` prints them by folder.
DEVIATION = "deviation from reference vectors"

# The suggested tolerance of the vectors: 1e-5 absolute or 1e-4 relative.
ATOL, RTOL = 1e-5, 1e-4


class Deviation(NamedTuple):
    """Largest absolute difference in one comparison, and its size in units of the tolerance."""

    tensor: str
    absolute: float
    of_tolerance: float


class TensorFile(Mapping[str, torch.Tensor]):
    """A safetensors file, or the part of it whose names start with `prefix`; knows which tensors were read."""

    def __init__(self, path: Path, prefix: str = ""):
        self.path, self.prefix = path, prefix
        self._file = safe_open(str(path), framework="pt")
        self._names = [name.removeprefix(prefix) for name in self._file.keys() if name.startswith(prefix)]
        self.unread = set(self._names)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(f"{self.path} has no tensor {self.prefix}{name}")
        self.unread.discard(name)
        return self._file.get_tensor(self.prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class Case:
    """One thing to check: `files` are the paths it accounts for, `data` whatever its module wants to carry along."""

    folder: str
    name: str
    files: list[Path]
    data: Any = None
    deviations: list[Deviation] = field(default_factory=list, repr=False)
    _opened: list[TensorFile] = field(default_factory=list, repr=False)

    def open(self, path: Path, prefix: str = "") -> TensorFile:
        """Opens a safetensors file; each tensor in it (those starting with `prefix`) must be read by the check."""
        tensors = TensorFile(path, prefix)
        self._opened.append(tensors)
        return tensors

    def close(self, name: str, actual: Any, expected: Any, atol: float = ATOL, rtol: float = RTOL) -> None:
        """Asserts |actual - expected| <= max(atol, rtol * |expected|) everywhere and keeps the largest deviation."""
        actual, expected = torch.as_tensor(actual).detach(), torch.as_tensor(expected)
        assert actual.shape == expected.shape, (
            f"{self.folder}/{self.name}: {name} has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        )
        actual, expected = actual.double(), expected.double()
        difference = (actual - expected).abs()
        ratio = difference / expected.abs().mul(rtol).clamp(min=atol)
        largest = difference.max().item() if difference.numel() else 0.0
        of_tolerance = ratio.max().item() if ratio.numel() else 0.0
        self.deviations.append(Deviation(name, largest, of_tolerance))
        # `not <=` rather than `>`: a NaN must fail
        if not of_tolerance <= 1:
            raise AssertionError(
                f"{self.folder}/{self.name}: {name} is off by {largest:.3e} ({of_tolerance:.2f} times the tolerance "
                f"{atol} absolute / {rtol} relative)"
            )

    def equal(self, name: str, actual: Any, expected: Any) -> None:
        """Asserts that two integer (or any) arrays are the same, element by element."""
        actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
        assert actual.shape == expected.shape, (
            f"{self.folder}/{self.name}: {name} has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        )
        wrong = int((actual != expected).sum())
        self.deviations.append(Deviation(name, float(wrong), float(wrong)))
        assert wrong == 0, f"{self.folder}/{self.name}: {name} differs in {wrong} of {expected.numel()} places"

    def assert_everything_was_read(self) -> None:
        unread = sorted(f"{file.path.name}: {file.prefix}{name}" for file in self._opened for name in file.unread)
        assert not unread, f"{self.folder}/{self.name}: the check does not understand the tensors {unread}"


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def module_of(folder: str) -> ModuleType | None:
    """The module `tests.parity.<folder>`, or None where there is none."""
    name = f"{__name__}.{folder}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


@dataclass(frozen=True)
class NotUnderstood:
    """A folder or file that no module accounts for: its test fails."""

    what: str


def discover(directory: Path) -> list[tuple[str, Case | NotUnderstood]]:
    """Everything that `directory` holds, as (test id, what to check)."""
    if not directory.is_dir():
        return [(str(directory), NotUnderstood(f"{directory} is not a directory"))]
    found: list[tuple[str, Case | NotUnderstood]] = []
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        module = module_of(folder.name)
        if module is None:
            missing = f"there is no tests/parity/{folder.name}.py for the folder {folder.name}"
            found.append((folder.name, NotUnderstood(missing)))
            continue
        claimed: set[Path] = set()
        for case in module.cases(folder):
            found.append((f"{case.folder}/{case.name}", case))
            claimed.update(case.files)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path not in claimed):
            name = path.relative_to(directory).as_posix()
            found.append((name, NotUnderstood(f"no case of tests/parity/{folder.name}.py accounts for {name}")))
    if not found:
        found.append((str(directory), NotUnderstood(f"{directory} holds no folder of vectors")))
    return found
