"""Caption metrics against cases worked out by hand, and what they do with bad input and with a Java that fails."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import pytest
import torch

from modeling_ulip2.evaluation.captions import words as caption_words
from modeling_ulip2.evaluation.captions.scores import caption_scores, read_predictions, sentence_scores, shape_scores
from modeling_ulip2.evaluation.captions.words import JavaError, Meteor, java_is_available, split_captions

needs_java = pytest.mark.skipif(not java_is_available(), reason="there is no Java")


def scores(predictions, references):
    return caption_scores(predictions, references, tokenizer="regex", meteor=False)


def test_cider_of_a_corpus_worked_out_by_hand():
    """Vedantam et al. 2015 in the variant of COCO (CIDEr-D), two shapes with one reference each.

    idf of an n-gram is ln(2 / shapes whose references have it): 0 for "a", which is in both, and ln 2 for all others,
    also for those in no reference (counted as in one). ln 2 cancels out of every cosine.

    chair, "a red chair" against itself: the cosines of its 1-, 2- and 3-grams are 1. It has no 4-grams, which counts
    as 0. Mean over n = 1..4: 3/4, times 10: 7.5.

    table, "a blue blue table" against "a blue table":
    1-grams: (blue 2, table 1) and (blue 1, table 1); each count is clipped to the reference's, so the product is
             1 + 1; the norms are sqrt 5 and sqrt 2: 2 / sqrt 10
    2-grams: (a blue, blue blue, blue table) and (a blue, blue table): 2 / sqrt 6
    3-grams: none in common; 4-grams: the reference has none.
    One word more: the Gaussian penalty of width 6 is exp(-1 / 72).
    """
    found = scores(
        {"chair": "A red chair.", "table": "a blue blue table"}, {"chair": ["a red chair"], "table": ["a blue table"]}
    )
    table = 10 / 4 * (2 / math.sqrt(10) + 2 / math.sqrt(6)) * math.exp(-1 / 72)
    assert found.per_caption["cider"] == pytest.approx([7.5, table])
    assert found.metrics["cider"] == pytest.approx((7.5 + table) / 2) == pytest.approx(5.537, abs=1e-3)


def test_cider_averages_over_references():
    """A second reference without a common word halves the score; its words count for idf with the first's."""
    found = scores(
        {"chair": "red chair", "table": "lamp"}, {"chair": ["red chair", "something else"], "table": ["blue table"]}
    )
    # 1- and 2-grams agree with the first reference (cosine 1), nothing with the second: 10 * (2 / 4) / 2
    assert found.per_caption["cider"] == pytest.approx([2.5, 0])


def test_bleu_and_rouge_worked_out_by_hand():
    """ "the red chair" against "the red wooden chair"; the other shape is right to the word.

    BLEU-1 counts over the corpus: 3 + 4 of 3 + 4 words, and is punished for 7 words against 8: exp(1 - 8/7).
    BLEU-2: 1 of 2 and 3 of 3 pairs of words, 4/5, and the geometric mean with 1.
    ROUGE-L: the longest common subsequence is 3 long, precision 1, recall 3/4, F with beta 1.2.
    """
    found = scores(
        {"a": "the red chair", "b": "a big round table"}, {"a": ["the red wooden chair"], "b": ["a big round table"]}
    )
    brevity = math.exp(1 - 8 / 7)
    assert found.metrics["bleu_1"] == pytest.approx(brevity, rel=1e-6)
    assert found.metrics["bleu_2"] == pytest.approx(brevity * math.sqrt(4 / 5), rel=1e-6)
    rouge = (1 + 1.2**2) * 1 * 0.75 / (0.75 + 1.2**2 * 1)
    assert found.per_caption["rouge_l"] == pytest.approx([rouge, 1])
    assert found.metrics["rouge_l"] == pytest.approx((rouge + 1) / 2)
    assert found.subset(["b"])["rouge_l"] == pytest.approx(1) and "bleu_1" not in found.subset(["b"])


def test_a_blank_caption_counts_as_wrong_and_a_reference_may_be_blank_beside_another():
    found = scores({"a": " … ", "b": "a table"}, {"a": ["a chair"], "b": ["?!", "a table"]})
    assert found.blank == ["a"] and found.per_caption["cider"][0] == found.per_caption["rouge_l"][0] == 0
    assert found.per_caption["rouge_l"][1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({}, {}, "0 captions cannot be scored"),
        ({"a": "x"}, {"a": ["x"]}, "takes two shapes or more"),
        ({"a": "x", "b": "y"}, {"a": ["x"]}, "1 of 2 captions have no references, e.g. 'b'"),
        ({"a": "x", "b": None}, {"a": ["x"], "b": ["y"]}, "caption of 'b' is no string"),
        ({"a": "x", "b": "y"}, {"a": ["x"], "b": "y"}, "references of 'b' must be a list"),
        ({"a": "x", "b": "y"}, {"a": ["x"], "b": []}, "references of 'b' must be a list"),
        ({"a": "x", "b": "y"}, {"a": ["x"], "b": ["…"]}, "references of 'b' hold no word"),
    ],
)
def test_what_cannot_be_scored(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        scores(predictions, references)


def test_predictions_are_read_and_checked(tmp_path: Path):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"id": "a", "prediction": "x", "references": []}\n\n{"id": "b", "prediction": ""}\n')
    assert read_predictions(path) == {"a": "x", "b": ""}
    for line, message in [
        ('{"id": "a", "prediction": "y"}', "line 4: 'a' has a caption already"),
        ('{"id": "c"}', "line 4: not a JSON object with id and prediction"),
        ("[1]", "line 4: not a JSON object"),
        ("{", "line 4: not a JSON object"),
        ('{"id": "c", "prediction": 3}', "line 4: id and prediction must be strings"),
    ]:
        other = tmp_path / "other.jsonl"
        other.write_text(path.read_text() + line + "\n")
        with pytest.raises(ValueError, match=message):
            read_predictions(other)


CAPTIONS = [
    "A man's 3D-printed low-poly chair, red (big).",
    "",
    "It doesn't have 3.5 legs; the o'clock 4x4 car / truck & co-pilot.",
    "un café | noir",
]


def test_words_without_java():
    found, used = split_captions(CAPTIONS, "regex")
    assert used == "regex" and found == [
        "a man 's 3d-printed low-poly chair red big",
        "",
        "it does n't have 3.5 legs the o'clock 4x4 car truck & co-pilot",
        "un café noir",
    ]
    with pytest.raises(ValueError, match="no tokenizer 'words'"):
        split_captions(CAPTIONS, "words")


@needs_java
def test_stanfords_tokenizer_gives_the_same_words():
    found, used = split_captions([caption for caption in CAPTIONS if "/" not in caption])
    assert used == "ptb" and found == split_captions([c for c in CAPTIONS if "/" not in c], "regex")[0]
    # brackets and the like go, as in COCO's evaluation
    assert split_captions(["a (red) [old] chair: 'x'"], "ptb")[0] == ["a red -lsb- old -rsb- chair x"]


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a script of the given lines in the place of Java."""

    def make(script: str) -> None:
        path = tmp_path / "java"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


def test_a_java_that_hangs_or_fails_is_an_error(fake_java):
    fake_java("exec sleep 60")
    with Meteor(timeout=0.5) as meteor, pytest.raises(JavaError, match="no score within 0.5 s"):
        meteor({"a": ["x"], "b": ["y"]}, {"a": ["x"], "b": ["y"]})
    with pytest.raises(JavaError, match="PTB tokenizer took more than 0.5 s"):
        caption_words._split_by_ptb(["a chair"], timeout=0.5)
    fake_java("echo out of memory >&2; exit 1")
    with Meteor(timeout=30) as meteor, pytest.raises(JavaError, match="out of memory"):
        meteor({"a": ["x"], "b": ["y"]}, {"a": ["x"], "b": ["y"]})
    with pytest.raises(JavaError, match="0 lines for 1 captions and ended with code 1: out of memory"):
        split_captions(["a chair"], "ptb")


def test_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = caption_scores({"a": "x", "b": "y"}, {"a": ["x"], "b": ["y"]})
    assert found.tokenizer == "regex" and "meteor" not in found.metrics and "no Java" in found.left_out["meteor"]
    assert found.to_dict()["tokenizer"] == "regex"
    with pytest.raises(JavaError, match="needs Java"):
        split_captions(["x"], "ptb")
    with pytest.raises(JavaError, match="needs Java"):
        caption_scores({"a": "x", "b": "y"}, {"a": ["x"], "b": ["y"]}, meteor=True)


@pytest.mark.slow
@needs_java
def test_meteor_knows_words_of_the_same_meaning_and_serves_twice():
    references = {"a": ["a big red car"], "b": ["a dog"]}
    with Meteor() as meteor:
        right = caption_scores({"a": "a big red car", "b": "a dog"}, references, meteor=meteor)
        related = caption_scores({"a": "a large red automobile", "b": "a dogs"}, references, meteor=meteor)
        wrong = caption_scores({"a": "tables of glass", "b": ""}, references, meteor=meteor)
    assert right.metrics["meteor"] > 0.99 and right.tokenizer == "ptb"
    # no other metric sees that "large" is "big"
    assert 0.3 < related.metrics["meteor"] < 1 and wrong.metrics["meteor"] < 0.05


def encode(texts: list[str]) -> torch.Tensor:
    """A direction for each first letter: a (1, 0), b (0, 1), anything else between them; not normalized."""
    return torch.tensor([{"a": [2.0, 0.0], "b": [0.0, 3.0]}.get(text[0], [1.0, 1.0]) for text in texts])


def test_meaning_is_closeness_to_the_nearest_reference():
    found = sentence_scores(encode, {"x": "a", "y": "c", "z": "  "}, {"x": ["b", "c"], "y": ["c", "b"], "z": ["a"]})
    assert found == pytest.approx([math.sqrt(0.5), 1, 0])


def test_closeness_to_the_shape_is_the_mean_over_its_embeddings():
    embeds = {"x": torch.tensor([5.0, 0.0]), "y": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    assert shape_scores(encode, {"x": "a", "y": "b"}, embeds) == pytest.approx([1, 0.5])
    with pytest.raises(ValueError, match="1 of 2 captions have no embedding, e.g. 'z'"):
        shape_scores(encode, {"x": "a", "z": "b"}, embeds)
    with pytest.raises(ValueError, match="NaN"):
        shape_scores(encode, {"x": "a"}, {"x": torch.tensor([float("nan"), 0.0])})
    # a language model that says nothing without points: its captions score 0, and the work of the others is not lost
    assert shape_scores(encode, {"x": " ", "y": ""}, embeds) == [0, 0]
    added = scores({"x": "a", "y": "b"}, {"x": ["a"], "y": ["b"]}).with_scores("point_score", [1, 0.5])
    assert added.metrics["point_score"] == 0.75 and added.subset(["y"])["point_score"] == 0.5
    with pytest.raises(ValueError, match="1 scores 'point_score' for 2 captions"):
        added.with_scores("point_score", [1])
