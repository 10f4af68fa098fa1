"""Whether a captioner is worth showing: captions that ignore the shape are caught, and the verdict travels with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modeling_ulip2.evaluation.captions.generation import shuffled_captions
from modeling_ulip2.evaluation.captions.scores import caption_scores
from modeling_ulip2.evaluation.captions.verdict import (
    CAPTIONER_REPORT,
    CaptionerVerdict,
    captioner_verdict,
    judge_captioner,
    verdict_banner,
    verdict_lines,
    write_verdict,
)
from modeling_ulip2.models.model_card import MARK

KINDS = ["a red chair", "a blue table", "a green lamp", "a brown wooden bed", "a white sofa", "a black car"]
REFERENCES = {f"{number:02d}": [KINDS[number % 6]] for number in range(36)}
HONEST = {name: own[0] for name, own in REFERENCES.items()}
CONSTANT = dict.fromkeys(REFERENCES, "a white and black chair")
# right of the shape it knows in one shape of three, and the same sentence for all others
LAZY = {name: own[0] if int(name) % 3 == 0 else "a red chair" for name, own in REFERENCES.items()}
# as varied as the references, and of other shapes
BLIND = shuffled_captions(HONEST, seed=1)


def judge(captions: dict[str, str], folder: Path | None = None, references=REFERENCES) -> CaptionerVerdict:
    scores, control = (
        caption_scores(own, references, tokenizer="regex", meteor=False)
        for own in (captions, shuffled_captions(captions))
    )
    return judge_captioner(captions, references, scores, control, folder)


def test_a_captioner_that_sees_the_shapes_is_fit() -> None:
    verdict = judge(HONEST)
    assert verdict.fit and verdict.reasons == [] and verdict.difference_interval[0] > 0
    assert verdict.top_share == pytest.approx(1 / 6) == verdict.top_reference_share
    assert "Warning" not in "\n".join(verdict_lines(verdict))


@pytest.mark.parametrize(
    "captions, said",
    [
        (CONSTANT, ["no better than those of other shapes", "'a white and black chair' of 36 of 36 shapes"]),
        (LAZY, ["'a red chair' of 30 of 36 shapes"]),
        (BLIND, ["no better than those of other shapes"]),
        (dict.fromkeys(REFERENCES, ""), ["no better", "'' of 36 of 36 shapes"]),
    ],
)
def test_one_that_does_not_is_told_why(captions: dict[str, str], said: list[str]) -> None:
    verdict = judge(captions)
    assert not verdict.fit and len(verdict.reasons) == len(said)
    for reason, words in zip(verdict.reasons, said, strict=True):
        assert words in reason and reason in verdict_banner(verdict)
    assert "**Warning" in verdict_lines(verdict)[0]


def test_captions_may_repeat_themselves_where_the_references_do() -> None:
    references = {name: ["a chair"] if int(name) % 6 else [KINDS[int(name) // 6]] for name in REFERENCES}
    verdict = judge({name: own[0] for name, own in references.items()}, references=references)
    assert verdict.top_share == pytest.approx(5 / 6) and verdict.fit


def test_the_verdict_lies_beside_the_model_and_in_its_card(tmp_path: Path) -> None:
    assert captioner_verdict(tmp_path) is None  # not measured
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    (tmp_path / "README.md").write_text(f"---\ntags: [3d]\n---\n{MARK}\n# Captioner\n")
    write_verdict(judge(CONSTANT, tmp_path), tmp_path)
    reason = captioner_verdict(tmp_path)
    assert reason is not None and "'a white and black chair' of 36 of 36" in reason and reason.endswith(".")
    stored = json.loads((tmp_path / CAPTIONER_REPORT).read_text())
    assert stored["fit"] is False and stored["format_version"] == 1 and set(stored["weights"]) == {weights.name}
    card = (tmp_path / "README.md").read_text()
    assert card.count("## Captions of held-out shapes") == 1 and "not worth showing" in card
    # measured again, the new verdict takes the old one's place
    write_verdict(judge(HONEST, tmp_path), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert captioner_verdict(tmp_path) is None
    assert card.count("## Captions of held-out shapes") == 1 and "not worth showing" not in card
    assert card.startswith("---\ntags: [3d]\n---\n") and "# Captioner" in card


def test_a_verdict_is_not_taken_for_another_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    write_verdict(judge(CONSTANT, tmp_path), tmp_path)
    weights.write_bytes(b"trained further")
    assert captioner_verdict(tmp_path) is None and "other weights" in caplog.text


def test_a_persons_card_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n")
    write_verdict(judge(CONSTANT), tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine\n" and captioner_verdict(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"fit": 1}', '{"fit": false, "reasons": [1]}', '{"fit": false, "weights": []}', "[" * 9999],
)
def test_a_report_that_is_none_is_told_and_not_used(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / CAPTIONER_REPORT).write_text(text)
    assert captioner_verdict(tmp_path) is None and "not used" in caplog.text


def test_a_name_that_is_no_folder_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_verdict(judge(CONSTANT), tmp_path)
    module = "modeling_ulip2.evaluation.captions.verdict.repository_file_or_none"
    monkeypatch.setattr(module, lambda name, file, **options: str(tmp_path / file))
    assert "white and black chair" in (captioner_verdict("someone/captioner") or "")
    monkeypatch.setattr(module, lambda name, file, **options: None)
    assert captioner_verdict("someone/captioner") is None
