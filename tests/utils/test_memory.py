from __future__ import annotations

import sys

import numpy as np
import pytest

from modeling_ulip2.utils.memory import peak_memory, reset_peak_memory


def test_the_peak_holds_what_was_given_back():
    before = peak_memory()
    block = np.ones(2**24)  # 128 MiB
    del block
    assert peak_memory() >= max(before, 2**27)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets its peak")
def test_the_peak_begins_anew():
    block = np.ones(2**24)
    del block
    before = peak_memory()
    if not reset_peak_memory():
        pytest.skip("this system does not let a process reset its peak")
    assert peak_memory() < before - 2**26
