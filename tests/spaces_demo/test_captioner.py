from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from modeling_ulip2.evaluation.captions.verdict import CAPTIONER_REPORT
from modeling_ulip2.geometry.shapes import read_shape
from modeling_ulip2.models.captioning_card import PROMPT

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms.caption import turns  # noqa: E402
from rooms.captioner import MAX_TURNS, Captioner, Turn, UnfitError  # noqa: E402


@pytest.fixture(scope="module")
def features(captioner: Captioner, box: Path) -> torch.Tensor:
    return captioner.read(read_shape(box, 40))


def generated(captioner: Captioner, box: Path, question: str) -> str:
    """What `generate` answers in one piece, about the file itself."""
    cloud = read_shape(box, 40).cloud
    content = [{"type": "point_cloud", "point_cloud": cloud}, {"type": "text", "text": question}]
    inputs = captioner.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids = captioner.model.generate(**inputs, max_new_tokens=captioner.max_new_tokens, do_sample=False, num_beams=1)
    return captioner.processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


def test_the_words_that_arrive_are_the_answer(captioner: Captioner, features: torch.Tensor, box: Path):
    so_far = list(captioner.answer(features, PROMPT))
    assert so_far[-1] == generated(captioner, box, PROMPT) != ""
    assert len(so_far) > 2 and all(after.startswith(before) for before, after in zip(so_far, so_far[1:], strict=False))
    assert so_far[-1] != list(captioner.answer(features, "what color is it"))[-1]


def test_the_shape_and_the_axis_matter(captioner: Captioner, features: torch.Tensor, box: Path):
    turned = captioner.read(read_shape(box, 40, up_axis="z"))
    assert turned.shape == features.shape and not torch.allclose(turned, features, atol=1e-3)


def test_one_that_is_no_better_than_chance_is_refused(captioner: Captioner, tmp_path: Path):
    report = {"format_version": 1, "fit": False, "reasons": ["it says 'a chair' of 171 of 171 shapes"], "weights": {}}
    (tmp_path / CAPTIONER_REPORT).write_text(json.dumps(report))
    with pytest.raises(UnfitError, match="not worth showing. It says 'a chair' of 171 of 171 shapes"):
        Captioner.load(tmp_path)
    (tmp_path / CAPTIONER_REPORT).write_text(json.dumps(report | {"fit": True, "reasons": []}))
    with pytest.raises((ValueError, OSError)) as caught:  # it is tried, and there is no model
        Captioner.load(tmp_path)
    assert not isinstance(caught.value, UnfitError)


def test_earlier_turns_are_remembered_up_to_a_number(captioner: Captioner, features: torch.Tensor):
    first = Turn("describe it", "a red chair.")
    alone, after = (list(captioner.answer(features, "what is it", past))[-1] for past in ([], [first]))
    assert alone != after
    latest = [Turn("what is it", "a lamp.")] * MAX_TURNS
    forgotten = [list(captioner.answer(features, "what is it", past))[-1] for past in (latest, [first, *latest])]
    assert forgotten[0] == forgotten[1]


def test_whoever_stops_listening_ends_the_work(captioner: Captioner, features: torch.Tensor):
    answer = captioner.answer(features, PROMPT)
    next(answer)
    answer.close()
    assert not captioner._lock.locked()
    assert list(captioner.answer(features, PROMPT))[-1]


def test_errors_reach_the_listener(captioner: Captioner, features: torch.Tensor):
    with pytest.raises(ValueError, match="Ask something"):
        list(captioner.answer(features, "  "))
    with pytest.raises(ValueError, match="501 letters"):
        list(captioner.answer(features, "a" * 501))
    with pytest.raises(ValueError, match="another width"):
        list(captioner.answer(features[..., :3], PROMPT))
    assert not captioner._lock.locked()


def test_a_chat_as_turns():
    chat = [
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": [{"type": "text", "text": "a chair"}]},
        {"role": "user", "content": "unanswered"},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
        {"role": "assistant", "content": "a lamp"},
    ]
    assert turns(chat) == [Turn("what?", "a chair"), Turn("and now?", "a lamp")]


def test_a_folder_without_a_captioner(tmp_path: Path):
    with pytest.raises((ValueError, OSError)):
        Captioner.load(tmp_path)
