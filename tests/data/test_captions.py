"""What a captioning model learns from: texts about shapes, features computed once, and the collator."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.captions import CaptionCollator, CaptionDataset, read_captioned_shapes, read_texts
from modeling_ulip2.data.pairs import CAPTIONS_CONFIG, CONVERSATIONS_CONFIG, write_pairs
from modeling_ulip2.data.reading import decode_row, read_triplets
from modeling_ulip2.training.point_features import point_features
from tests.models import captioning_world as captioning


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    parts = captioning.save_parts(tmp_path_factory.mktemp("parts"))
    return captioning.captioner(*parts, connector="mlp", compression="resample")


@pytest.fixture(scope="module")
def shapes(dataset: Path) -> Dataset:
    return read_captioned_shapes(str(dataset))


def message(role: str, text: str, with_cloud: bool = False) -> dict[str, Any]:
    cloud = [{"type": "point_cloud", "text": None}] if with_cloud else []
    return {"role": role, "content": [*cloud, {"type": "text", "text": text}]}


def test_captions_of_triplets_come_best_first_from_all_views(shapes: Dataset) -> None:
    texts = read_texts(None, shapes)
    # views 1 and 2 say "a chair" with 0.3 as well, view 0 has two captions
    assert texts[0] == {"id": "made/00.obj", "captions": ["a chair number 0", "a chair", "some chair"]}
    assert read_texts(None, shapes, top_k=1)[0]["captions"] == ["a chair number 0", "a chair"]
    with pytest.raises(ValueError, match="come without captions"):
        read_texts(None, shapes.remove_columns("captions"))


def test_texts_from_elsewhere(tmp_path: Path, shapes: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"id": "made/01.obj", "captions": ["a lamp", "a light"]}, {"id": "nobody", "captions": ["a ghost"]}]
    write_pairs(tmp_path / "captions", CAPTIONS_CONFIG, rows, [], "Captions", "")
    caplog.set_level("INFO")
    assert read_texts(str(tmp_path / "captions"), shapes, 1) == [{"id": "made/01.obj", "captions": ["a lamp"]}]
    assert "15 of 16 shapes have no text; 1 texts have no shape" in caplog.text
    with pytest.raises(ValueError, match="no text about any of the 1 shapes"):
        read_texts(str(tmp_path / "captions"), shapes.select([0]))
    with pytest.raises(ValueError, match="neither the config 'captions' nor 'conversations'"):
        read_texts(str(tmp_path), shapes)
    chat = [message("user", "what is it", with_cloud=True), message("assistant", "a lamp")]
    rows = [{"id": "made/01.obj", "type": "single_round", "messages": chat}]
    write_pairs(tmp_path / "chats", CONVERSATIONS_CONFIG, rows, [], "Chats", "")
    assert read_texts(str(tmp_path / "chats"), shapes) == [{"id": "made/01.obj", "messages": chat}]


def test_features_are_computed_once_and_whole(captioner, shapes: Dataset, tmp_path: Path, monkeypatch) -> None:
    model, processor = captioner
    extractor = processor.feature_extractor
    monkeypatch.setattr("modeling_ulip2.training.point_features.SHAPES_PER_SHARD", 6)
    found = point_features(model, extractor, shapes, tmp_path, batch_size=4)
    assert len(found) == 16 and len(list(tmp_path.rglob("*.safetensors"))) == 3
    for row in (0, 7, 15):
        cloud = decode_row(shapes.select_columns(["xyz", "rgb"]).with_format("arrow")[row])
        values = extractor(cloud, return_tensors="pt")["point_values"]
        alone = model.get_point_features(values).pooler_output[0]
        torch.testing.assert_close(found[shapes[row]["id"]], alone, atol=1e-5, rtol=1e-5)
    expected = found["made/15.obj"].clone()
    # workers of a loader read the same files
    torch.testing.assert_close(pickle.loads(pickle.dumps(found))["made/07.obj"], found["made/07.obj"])

    def never(values: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed again")

    # a shard that was half written is made again, the others are not
    (folder,) = tmp_path.iterdir()
    (folder / "00002.safetensors").write_bytes(b"half")
    monkeypatch.setattr(model, "get_point_features", never)
    with pytest.raises(AssertionError, match="computed again"):
        point_features(model, extractor, shapes, tmp_path)
    (folder / "00002.safetensors").unlink()
    monkeypatch.undo()
    monkeypatch.setattr("modeling_ulip2.training.point_features.SHAPES_PER_SHARD", 6)
    again = point_features(model, extractor, shapes, tmp_path)
    torch.testing.assert_close(again["made/15.obj"], expected)


def test_another_encoder_or_preparation_has_features_of_its_own(captioner, shapes: Dataset, tmp_path: Path) -> None:
    model, processor = captioner
    extractor = copy.deepcopy(processor.feature_extractor)
    few = shapes.select(range(2))
    point_features(model, extractor, few, tmp_path)
    extractor.num_points = 20
    point_features(model, extractor, few, tmp_path)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.point_model.parameters()).add_(1)
    point_features(other, extractor, few, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    with torch.no_grad():
        for parameter in other.point_model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="'made/00.obj'.* not finite"):
        point_features(other, extractor, few, tmp_path)


def answers(processor: Any, batch: dict[str, Any]) -> list[str]:
    labels = batch["labels"]
    return [processor.tokenizer.decode(row[row != -100], skip_special_tokens=True) for row in labels]


def test_a_caption_is_drawn_in_each_pass(captioner, shapes: Dataset, tmp_path: Path) -> None:
    model, processor = captioner
    texts = [{"id": name, "captions": ["a chair", "a table", "a lamp"]} for name in shapes["id"]]
    data = CaptionDataset(shapes, texts, point_features(model, processor.feature_extractor, shapes, tmp_path))
    rows = [data[index] for index in range(len(data))]
    collator = CaptionCollator(processor, prompt="describe the model", seed=1)
    passes = []
    for epoch in range(6):
        collator.set_epoch(epoch)
        batch = collator(rows)
        passes.append(answers(processor, batch))
        assert batch["point_features"].shape == (16, 8, 24)
    assert len({tuple(drawn) for drawn in passes}) == 6
    assert {caption for drawn in passes for caption in drawn} == {"a chair", "a table", "a lamp"}
    # alone, again, and by another collator of the same seed, it draws the same
    collator.set_epoch(2)
    assert answers(processor, collator(rows[3:4])) == passes[2][3:4]
    other = CaptionCollator(processor, prompt="describe the model", seed=1)
    other.set_epoch(2)
    assert answers(processor, other(rows)) == passes[2]
    assert answers(processor, CaptionCollator(processor, seed=2)(rows)) != passes[0]
    # an evaluation always takes the best one
    best = collator.for_evaluation()
    assert answers(processor, best(rows)) == ["a chair"] * 16
    words = processor.tokenizer.decode(batch["input_ids"][0])
    assert "user : " in words and words.count(processor.point_token) == captioning.QUERIES


def test_the_model_learns_from_features_as_from_the_clouds(captioner, dataset: Path, tmp_path: Path) -> None:
    model, processor = captioner
    shapes = read_triplets(str(dataset)).select(range(4))
    texts = read_texts(None, shapes)
    features = point_features(model, processor.feature_extractor, shapes, tmp_path)
    kept, raw = CaptionDataset(shapes, texts, features), CaptionDataset(shapes, texts)
    collator = CaptionCollator(processor).for_evaluation()
    losses = [model(**collator([data[i] for i in range(4)])).loss for data in (kept, raw)]
    torch.testing.assert_close(losses[0], losses[1])
    augmented = CaptionCollator(processor, augmentation=PointAugmentation())
    values = [augmented([raw[0]])["point_values"] for _ in range(2)]
    augmented.set_epoch(1)
    assert torch.equal(*values) and not torch.equal(values[0], augmented([raw[0]])["point_values"])


def test_conversations_keep_their_turns(captioner, shapes: Dataset) -> None:
    _, processor = captioner
    chat = [
        message("user", "what is it", with_cloud=True),
        message("assistant", "a lamp"),
        message("user", "what color is it"),
        message("assistant", "red"),
    ]
    data = CaptionDataset(shapes, [{"id": "made/01.obj", "messages": chat}])
    batch = CaptionCollator(processor)([data[0]])
    assert answers(processor, batch) == ["a lamp red"] and batch["point_values"].shape == (1, 40, 6)
    with pytest.raises(ValueError, match="none of the 1 texts"):
        CaptionDataset(shapes, [{"id": "nobody", "captions": ["x"]}])


def test_rows_say_what_they_are(captioner, shapes: Dataset) -> None:
    data = CaptionDataset(shapes, read_texts(None, shapes))
    row = data[5]
    assert (row["id"], row["text"]) == ("made/05.obj", 5) and row["xyz"].shape == (80, 3)
    assert json.dumps(row["captions"]).count("table") == 3
