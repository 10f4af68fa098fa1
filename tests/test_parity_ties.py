"""Recorded gradients on another processor: what flips at rounding passes, and a wrong gradient does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.parity import Case, module_of, pointbert, ties
from tests.parity.ties import Gradients

VECTORS = Path(__file__).parent / "vectors"
FOLDERS = ["pointbert_xyz", "pointbert_xyzrgb", "pointmlp"]


@pytest.fixture(scope="module", params=FOLDERS)
def step(request: pytest.FixtureRequest) -> Any:
    """A recorded training step: `compare(gradients)` checks them against the recording."""
    module: Any = module_of(request.param)
    (case,) = (case for case in module.cases(VECTORS / request.param) if case.name.endswith("train_step"))
    home: Any = pointbert if module.check is pointbert.check else module
    taken: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "check_gradients", lambda *arguments: taken.append(arguments))
        home.check(case)
    ((_, actual, norms, tensors, exact),) = taken
    with pytest.MonkeyPatch.context() as patch:
        # a wider circle, as the ties of this recording are few; what their flips do is computed once for all tests
        patch.setattr(ties, "ROUNDING", 3e-5)
        patch.setattr(ties, "MAX_TIES", 12)
        changes = ties.changes_of(exact)
        real = ties.changes_of
        patch.setattr(ties, "changes_of", lambda run: changes if run is exact else real(run))

        def compare(gradients: Gradients) -> None:
            home.check_gradients(Case(case.folder, case.name, case.files), gradients, norms, tensors, exact)

        recorded = [name for name in norms if f"grad.{name}" in tensors]
        yield SimpleNamespace(compare=compare, actual=actual, changes=changes, recorded=recorded)


def on_another_processor(step: Any, *flips: int, share: float = 1.0) -> Gradients:
    """This machine's gradients, with some ties decided the other way."""
    return {
        name: (own.double() + share * sum(step.changes[flip][name] for flip in flips)).float()
        for name, own in step.actual.items()
    }


def telling(step: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ties whose flip is beyond the tolerance: without an explanation the comparison fails."""
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(pointbert, "explain", lambda run, actual, *rest: (actual, 0))
        for flip in range(len(step.changes)):
            try:
                step.compare(on_another_processor(step, flip))
            except AssertionError:
                found.append(flip)
    return found


def test_the_recording_holds_here_without_any_flip_or_with_few(step: Any) -> None:
    step.compare(step.actual)


def test_a_flip_at_rounding_is_explained(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = telling(step, monkeypatch)
    assert found, "no tie of this recording matters, so that it tells nothing"
    for flips in ([found[0]], found[-1:], found[:2], found[:3]):
        step.compare(on_another_processor(step, *flips))


def scaled_channel(gradients: Gradients, name: str) -> None:
    gradients[name][0] *= 1.01


def lost_channel(gradients: Gradients, name: str) -> None:
    gradients[name][-1] = 0


def exchanged_channels(gradients: Gradients, name: str) -> None:
    gradients[name] = gradients[name].flip(0)


def scaled(gradients: Gradients, name: str) -> None:
    gradients[name] *= 1.001


def one_entry(gradients: Gradients, name: str) -> None:
    gradients[name].view(-1)[gradients[name].abs().argmax()] *= 1.01


def not_a_number(gradients: Gradients, name: str) -> None:
    gradients[name].view(-1)[0] = torch.nan


FAULTS = [scaled_channel, lost_channel, exchanged_channels, scaled, one_entry, not_a_number]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("flips", [0, 1])
def test_a_wrong_gradient_is_caught(
    step: Any, fault: Callable[[Gradients, str], None], flips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a flip beside it, too: an explanation of one part covers nothing else."""
    names = [name for name in step.recorded if step.actual[name].ndim > 1 and len(step.actual[name]) > 1]
    chosen = telling(step, monkeypatch)[:flips] if flips else []
    for name in (names[0], names[-1]):
        gradients = {key: own.clone() for key, own in on_another_processor(step, *chosen).items()}
        fault(gradients, name)
        with pytest.raises(AssertionError, match="is off by"):
            step.compare(gradients)


@pytest.mark.parametrize("share", [0.5, 2.0, -1.0])
def test_a_flip_counts_whole_or_not_at_all(step: Any, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step from a branch to the other has one size; from where this machine stands, the way back is none."""
    flip = telling(step, monkeypatch)[0]
    gradients = on_another_processor(step, flip, share=share)
    if share == -1.0:
        return step.compare(gradients)  # as if this machine had flipped and the recording had not
    with pytest.raises(AssertionError, match="is off by"):
        step.compare(gradients)


def test_a_term_that_is_dropped_is_caught() -> None:
    """The gradient through the maximum over a patch is left out, in the model itself."""
    module: Any = module_of("pointbert_xyz")
    (case,) = (case for case in module.cases(VECTORS / "pointbert_xyz") if case.name.endswith("train_step"))
    with pytest.MonkeyPatch.context() as patch:
        largest = pointbert.PointBertModel.__module__
        patch.setattr(f"{largest}._largest", lambda points: points.max(dim=1).values.detach() + points.mean(dim=1) * 0)
        with pytest.raises(AssertionError, match="is off by"):
            module.check(case)


def test_branches_are_those_of_the_functions() -> None:
    """Ties by hand: 1e-7 above zero, and two maxima 1e-7 apart; exact copies are none."""
    values = torch.tensor([[1.0, -1.0, 1e-7], [0.5, 0.5, 1.0], [0.5, -0.5, 1.0 - 1e-7]], dtype=torch.float64)

    def run() -> Gradients:
        leaf = values.clone().requires_grad_()
        (torch.nn.functional.relu(leaf).max(dim=0).values * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
        assert leaf.grad is not None
        return {"values": leaf.grad}

    found, straight = ties.ties_of(run)
    torch.testing.assert_close(straight["values"], torch.tensor([[1.0, 0, 0], [0, 2, 4], [0, 0, 0]]).double())
    assert {(tie.call, tie.place, tie.other) for tie in found} == {(0, 2, None), (1, 2, 2)}
    (maximum,) = (tie for tie in found if tie.call == 1)
    moved = ties.flipped(run, maximum)["values"]
    torch.testing.assert_close(moved, torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 4]]).double())
