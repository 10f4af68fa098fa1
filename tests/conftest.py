"""Options and settings that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


# A missing model must fail at once, not after a time-out; set before transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

DEFAULT_VECTORS = Path(__file__).parent / "vectors"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        type=lambda value: Path(value).resolve(),
        default=DEFAULT_VECTORS,
        help="directory of reference vectors for tests/test_parity.py (default: tests/vectors)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tests.parity import DEVIATIONS

    if not DEVIATIONS:
        return
    terminalreporter.section("largest deviation from the reference vectors")
    for folder in sorted({deviation.folder for deviation in DEVIATIONS}):
        of_folder = [deviation for deviation in DEVIATIONS if deviation.folder == folder]
        worst = max(of_folder, key=lambda deviation: deviation.of_tolerance)
        terminalreporter.write_line(
            f"{folder:<18} {worst.absolute:9.2e} = {worst.of_tolerance:6.3f} of the tolerance "
            f"({worst.case}: {worst.tensor}; {len(of_folder)} comparisons)"
        )
