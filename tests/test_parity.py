"""Our outputs against numbers recorded from the published code: `pytest tests/test_parity.py [--vectors DIR]`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.parity import DEVIATION, Case, NotUnderstood, discover, module_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = discover(metafunc.config.getoption("--vectors"))
    metafunc.parametrize("what", [what for _, what in found], ids=[name for name, _ in found])


def test_parity(what: Case | NotUnderstood, record_property: Callable[[str, object], None]) -> None:
    if isinstance(what, NotUnderstood):
        pytest.fail(what.what, pytrace=False)
    module = module_of(what.folder)
    assert module is not None
    try:
        module.check(what)
        what.assert_everything_was_read()
    finally:
        if what.deviations:
            worst = max(what.deviations, key=lambda deviation: deviation.of_tolerance)
            record_property(DEVIATION, [what.folder, what.name, *worst, len(what.deviations)])
