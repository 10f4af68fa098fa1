"""Labels are embedded once, in turn, and what the benchmarks' labels become is kept on disk."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from rooms import labels
from rooms.labels import LabelEmbeddings
from torch import Tensor

from modeling_ulip2.towers.prompts import class_embeddings

TEMPLATES = ["a {}.", "the {}."]


def encode(texts: list[str]) -> Tensor:
    """(n, 8), from the letters alone."""
    return torch.stack([torch.tensor([hash_ % 97 - 48 for hash_ in _digest(text)]).float() for text in texts])


def _digest(text: str) -> list[int]:
    value = 7
    out = []
    for step in range(8):
        for letter in text:
            value = (value * 31 + ord(letter) + step) % 1_000_003
        out.append(value)
    return out


class Encoder:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.asked += texts
        return encode(texts)


def test_the_rows_are_class_embeddings_and_each_label_is_embedded_once():
    encoder = Encoder()
    embeddings = LabelEmbeddings(encoder, "tower", cache_dir=None)
    names = ["chair", "lamp", "chair", "table"]
    expected = class_embeddings(encode, names, TEMPLATES)
    assert torch.allclose(embeddings.get(names, TEMPLATES), expected)
    assert len(encoder.asked) == 3 * len(TEMPLATES)
    assert torch.allclose(embeddings.get(["table", "bed", "lamp"], TEMPLATES)[0], expected[3])
    assert encoder.asked[3 * len(TEMPLATES) :] == ["a bed.", "the bed."]
    embeddings.get(["chair"], ["{}"])  # other prompts are another label
    assert encoder.asked[-1] == "chair"


def test_the_benchmarks_labels_are_kept_on_disk_and_no_one_elses(tmp_path: Path):
    first = LabelEmbeddings(encode, "tower-a", ["chair", "lamp"], tmp_path / "cache")
    expected = first.get(["chair", "my secret"], TEMPLATES)
    (path,) = (tmp_path / "cache").iterdir()
    assert path.name.startswith("tower-a-") and b"secret" not in path.read_bytes()
    encoder = Encoder()
    second = LabelEmbeddings(encoder, "tower-a", ["chair", "lamp"], tmp_path / "cache")
    assert torch.equal(second.get(["chair"], TEMPLATES)[0], expected[0]) and not encoder.asked
    second.get(["lamp"], TEMPLATES)
    third = LabelEmbeddings(encoder, "tower-a", ["chair", "lamp"], tmp_path / "cache")
    encoder.asked.clear()
    third.get(["lamp", "chair"], TEMPLATES)
    assert not encoder.asked
    LabelEmbeddings(encoder, "tower-b", ["chair"], tmp_path / "cache").get(["chair"], TEMPLATES)
    assert len(encoder.asked) == len(TEMPLATES)


@pytest.mark.parametrize("content", [b"", b"no file of this kind", b"\xff" * 100], ids=["empty", "text", "bytes"])
def test_a_damaged_file_is_written_anew(content: bytes, tmp_path: Path):
    expected = LabelEmbeddings(encode, "tower", ["chair"], tmp_path).get(["chair"], TEMPLATES)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert torch.equal(LabelEmbeddings(encode, "tower", ["chair"], tmp_path).get(["chair"], TEMPLATES), expected)
    encoder = Encoder()
    LabelEmbeddings(encoder, "tower", ["chair"], tmp_path).get(["chair"], TEMPLATES)
    assert not encoder.asked and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_costs_no_answer(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    embeddings = LabelEmbeddings(encode, "tower", ["chair"], tmp_path / "file" / "cache")
    assert embeddings.get(["chair"], TEMPLATES).shape == (1, 8)


def test_a_short_list_does_not_wait_for_a_long_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(labels, "PROMPTS_PER_TURN", 2 * len(TEMPLATES))
    begun, go_on, order = threading.Event(), threading.Event(), []

    def slow(texts: list[str]) -> Tensor:
        begun.set()
        assert go_on.wait(30)
        order.extend(texts)
        return encode(texts)

    embeddings = LabelEmbeddings(slow, "tower", cache_dir=None)
    answers: dict[str, Tensor] = {}

    def ask(kind: str, names: list[str]) -> None:
        answers[kind] = embeddings.get(names, TEMPLATES)

    long = threading.Thread(target=ask, args=("long", [f"label {number}" for number in range(40)]))
    long.start()
    assert begun.wait(30)
    short = threading.Thread(target=ask, args=("short", ["chair", "lamp"]))
    short.start()
    while len(embeddings._jobs) < 1:
        pass
    go_on.set()
    short.join(30), long.join(30)
    assert len(answers["long"]) == 40 and len(answers["short"]) == 2
    assert order.index("the lamp.") < 2 * 2 * len(TEMPLATES)


def test_an_error_reaches_who_asked_and_no_one_else():
    def fail(texts: list[str]) -> Tensor:
        if "bad" in texts:
            raise ValueError("the tower is on fire")
        return encode(texts)

    embeddings = LabelEmbeddings(fail, "tower", cache_dir=None)
    with pytest.raises(ValueError, match="on fire"):
        embeddings.get(["bad"], ["{}"])
    assert embeddings.get(["good"], ["{}"]).shape == (1, 8)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(labels, "MAX_KEPT", 5)
    embeddings = LabelEmbeddings(encode, "tower", cache_dir=None)
    names = [str(number) for number in range(12)]
    assert torch.allclose(embeddings.get(names, TEMPLATES), class_embeddings(encode, names, TEMPLATES))
    assert len(embeddings._rows) == 5


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(labels, "PROMPTS_PER_TURN", 1)
    monkeypatch.setattr(labels, "TICK", 0.01)
    told: list[float] = []
    enough = threading.Event()

    def slow(texts: list[str]) -> Tensor:
        if texts == ["c"]:
            assert enough.wait(30)  # until something was told
        return encode(texts)

    def progress(share: float) -> None:
        told.append(share)
        enough.set()

    LabelEmbeddings(slow, "tower", cache_dir=None).get(["a", "b", "c"], ["{}"], progress)
    assert told and all(0 <= share < 1 for share in told) and told == sorted(told)
