"""Options and settings that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A missing model must fail at once, not after a time-out; set before transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not os.path.exists("/dev/nvidiactl"):  # Triton's kernels run in its interpreter; set before Triton is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.hub.fixtures import loopback_hub, uploads  # noqa: E402, F401

DEFAULT_VECTORS = Path(__file__).parent / "vectors"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        type=lambda value: Path(value).resolve(),
        default=DEFAULT_VECTORS,
        help="directory of reference vectors for tests/test_parity.py (default: tests/vectors)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the largest deviation of each folder of vectors; properties of reports also come from xdist's workers."""
    from tests.parity import DEVIATION

    reports = [report for group in terminalreporter.stats.values() for report in group]
    found = [
        value
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == DEVIATION
    ]
    if not found:
        return
    terminalreporter.section("largest deviation from the reference vectors")
    for folder in sorted({value[0] for value in found}):
        of_folder = [value for value in found if value[0] == folder]
        _, case, tensor, absolute, of_tolerance, _ = max(of_folder, key=lambda value: value[4])
        comparisons = sum(value[5] for value in of_folder)
        terminalreporter.write_line(
            f"{folder:<18} {absolute:9.2e} = {of_tolerance:6.3f} of the tolerance "
            f"({case}: {tensor}; {len(of_folder)} cases, {comparisons} comparisons)"
        )
