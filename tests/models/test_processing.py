"""The processor: clouds, captions and images into what `Ulip2Model` takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from tests.models import tiny


@pytest.fixture()
def processor() -> Ulip2Processor:
    features = Ulip2FeatureExtractor(num_points=32)
    return Ulip2Processor(features, tiny.tokenizer(), tiny.image_processor())


def model() -> Ulip2Model:
    config = Ulip2Config(point_config=tiny.POINT_CONFIG, projection_dim=tiny.PROJECTION_DIM)
    model = Ulip2Model(config).eval()
    model.set_clip_model(tiny.tower())
    return model


def image(color: str) -> Image.Image:
    return Image.new("RGB", (40, 30), color)


def cloud() -> np.ndarray:
    return np.random.default_rng(0).random((50, 6))


def test_the_three_modalities_go_straight_into_the_model(processor: Ulip2Processor) -> None:
    batch = processor(
        point_clouds=[cloud(), cloud()[:, :3]], text=["a red chair", "a lamp"], images=[image("red"), image("blue")]
    )
    assert set(batch) == {"point_values", "input_ids", "attention_mask", "pixel_values"}
    assert batch["point_values"].shape == (2, 32, 6) and batch["pixel_values"].shape == (2, 3, 16, 16)
    assert model()(**batch, return_loss=True).loss.isfinite()


@pytest.mark.parametrize("given", ["point_clouds", "text", "images"])
def test_any_one_modality(processor: Ulip2Processor, given: str) -> None:
    batch = processor(**{given: {"point_clouds": cloud(), "text": "a chair", "images": image("red")}[given]})
    output = model()(**batch)
    embeds = {"point_clouds": output.point_embeds, "text": output.text_embeds, "images": output.image_embeds}
    assert embeds[given].shape == (1, tiny.PROJECTION_DIM)


def test_captions_in_lists_of_any_length(processor: Ulip2Processor) -> None:
    batch = processor(text=[["a chair", "red chair of a table"], [], ["a lamp"]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 2, 7)
    assert batch["text_mask"].tolist() == [[True, True], [False, False], [True, False]]
    assert batch["attention_mask"].any(dim=-1).tolist() == batch["text_mask"].tolist()
    embeds = model()(**batch).text_embeds
    torch.testing.assert_close(embeds[2], model()(**processor(text="a lamp")).text_embeds[0])
    assert embeds[1].abs().max() == 0 and embeds.isfinite().all()


def test_long_captions_are_cut_to_what_the_tower_reads(processor: Ulip2Processor) -> None:
    batch = processor(text=["a " * 500, "a lamp"])
    assert batch["input_ids"].shape == (2, tiny.CONTEXT)
    assert batch["input_ids"][0, -1] == 1  # the end is still marked
    assert model()(**batch).text_embeds.isfinite().all()


@pytest.mark.parametrize("text", ["", "  ", ["a lamp", ""], [["a lamp"], ["a lamp", "\n"]], [None], []])
def test_empty_captions_are_refused(processor: Ulip2Processor, text: object) -> None:
    with pytest.raises(ValueError, match="Caption|caption"):
        processor(text=text)


def test_nothing_is_refused(processor: Ulip2Processor) -> None:
    with pytest.raises(ValueError, match="Nothing to prepare"):
        processor()


def test_towers_without_attention_mask_get_the_length_they_were_trained_with(processor: Ulip2Processor) -> None:
    processor.tokenizer.model_input_names = ["input_ids"]
    assert set(processor(text=["a lamp"])) == {"input_ids"}
    assert processor(text=["a lamp"])["input_ids"].shape == (1, tiny.CONTEXT)
    nested = processor(text=[["a lamp"], ["a chair", "a table"]])
    assert nested["text_mask"].tolist() == [[True, False], [True, True]]
    torch.testing.assert_close(model()(**nested).text_embeds[0], model()(**processor(text=["a lamp"])).text_embeds[0])


def test_arrays_instead_of_tensors(processor: Ulip2Processor) -> None:
    batch = processor(point_clouds=cloud(), text=[["a lamp"]], images=image("red"), return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in batch.values())


def test_save_and_load(processor: Ulip2Processor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = Ulip2Processor.from_pretrained(tmp_path)
    assert loaded.feature_extractor.num_points == 32
    arguments = {"point_clouds": cloud(), "text": ["a red lamp"], "images": image("red")}
    for name, value in processor(**arguments).items():
        assert torch.equal(loaded(**arguments)[name], value), name
