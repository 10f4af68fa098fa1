from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.data.random_order import random_order, take_rows


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 64, 65, 1000, 10_000, 70_001])
def test_order_and_what_is_drawn_next_are_those_of_numpy(number: int, half: bool) -> None:
    for seed in range(20 if number < 2000 else 3):
        ours, numpys = np.random.default_rng(seed), np.random.default_rng(seed)
        if half:  # 32 of the 64 bits of a word wait for the next draw
            assert ours.integers(5) == numpys.integers(5)
        expected = np.arange(number)
        numpys.shuffle(expected)
        np.testing.assert_array_equal(random_order(number, ours), expected)
        draws = [(rng.integers(1000), rng.random(), rng.integers(1000), rng.normal()) for rng in (ours, numpys)]
        assert draws[0] == draws[1]


def test_another_generator_is_left_to_numpy() -> None:
    expected = np.arange(100)
    np.random.Generator(np.random.MT19937(3)).shuffle(expected)
    np.testing.assert_array_equal(random_order(100, np.random.Generator(np.random.MT19937(3))), expected)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i8", ">f4", "O"])
def test_taken_rows_are_those_of_numpy(dtype: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr("modeling_ulip2.models.compiled.HAS_NUMBA", False)
    rng = np.random.default_rng(0)
    for values in (
        rng.integers(200, size=(50, 3)),
        rng.integers(200, size=(50, 6)),
        rng.integers(9, size=(99, 3))[::2],
    ):
        values, chosen = values.astype(dtype), random_order(50, rng)[:20]
        taken = take_rows(values, chosen)
        assert taken.dtype == values.dtype
        np.testing.assert_array_equal(taken, values[chosen])
