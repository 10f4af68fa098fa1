"""The pipeline `point-cloud-to-text` and the command `ulip2 caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import Pipeline, TextStreamer, pipeline

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.cli import main
from modeling_ulip2.pipelines.point_cloud_to_text import POINT_CLOUD_TO_TEXT
from tests.dataset_scripts.shapes import write_box
from tests.models import captioning_world as world


@pytest.fixture(scope="module")
def captioner(parts: tuple[str, str]) -> tuple[Any, Any]:
    """Clouds are loud, so that answers depend on them."""
    model, processor = world.captioner(*parts, connector="mlp", compression="resample")
    model.connector.language_projection.weight.data.mul_(5)
    return model, processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, captioner: tuple[Any, Any]) -> str:
    path = tmp_path_factory.mktemp("captioner")
    for part in captioner:
        part.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def caption(folder: str) -> Pipeline:
    return pipeline(POINT_CLOUD_TO_TEXT, model=folder, device="cpu")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_box(tmp_path_factory.mktemp("mesh") / "box.obj", size=(1, 2, 0.3))


SETTINGS = {"min_new_tokens": 6}


def expected(captioner: tuple[Any, Any], shape: Any, prompt: str = world.PROMPT, **settings: Any) -> str:
    model, processor = captioner
    inputs = processor.apply_chat_template(
        world.conversation(shape, prompt=prompt), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids = model.generate(**inputs, **{**SETTINGS, "max_new_tokens": 8, **settings})
    return processor.decode(ids[0], skip_special_tokens=True).strip()


def test_paths_arrays_mappings_and_batches(caption: Any, captioner: tuple[Any, Any], box: Path) -> None:
    cloud = world.cloud(1)
    shapes = [box, cloud, {"xyz": cloud[:30, :3]}, str(box)]
    want = [expected(captioner, shape) for shape in shapes]
    assert len(set(want)) > 1
    for batch_size in (1, 3):
        found = caption(shapes, max_new_tokens=8, generate_kwargs=SETTINGS, batch_size=batch_size)
        assert found == [[{"generated_text": text}] for text in want]
    assert caption(box, max_new_tokens=8, generate_kwargs=SETTINGS) == [{"generated_text": want[0]}]


def test_prompts_and_settings(caption: Any, captioner: tuple[Any, Any], box: Path) -> None:
    (asked,) = caption(box, prompt="what color is it", max_new_tokens=8, generate_kwargs=SETTINGS)
    assert asked["generated_text"] == expected(captioner, box, "what color is it")
    beams = {"num_beams": 3, "num_return_sequences": 2, **SETTINGS}
    found = caption([box, world.cloud(1)], max_new_tokens=8, generate_kwargs=beams, batch_size=2)
    assert [len(answers) for answers in found] == [2, 2]
    assert found[0][0]["generated_text"] == expected(captioner, box, num_beams=3)
    plain = caption(box, chat_template="plain", max_new_tokens=8, generate_kwargs=SETTINGS)
    assert plain != caption(box, max_new_tokens=8, generate_kwargs=SETTINGS)


def test_streaming(caption: Any, box: Path) -> None:
    pieces: list[str] = []

    class Pieces(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.append(text)

    streamer = Pieces(caption.tokenizer or caption.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    found = caption(box, max_new_tokens=8, generate_kwargs=SETTINGS, streamer=streamer)
    assert len(pieces) > 2 and "".join(pieces).split() == found[0]["generated_text"].split()


def test_bad_input(caption: Any, folder: str, box: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        caption(box, prompt=" ")
    with pytest.raises(ValueError, match="given twice"):
        caption(box, max_new_tokens=3, generate_kwargs={"max_new_tokens": 4})
    with pytest.raises(ValueError, match="A shape is a path"):
        caption(world.cloud(0)[:, :3].ravel())
    with pytest.raises(ValueError, match="there is no such file"):
        caption(str(tmp_path / "missing.obj"))
    with pytest.raises(ValueError, match="needs processor="):
        features = Ulip2FeatureExtractor()
        pipeline(POINT_CLOUD_TO_TEXT, model=caption.model, processor=features, feature_extractor=features)
    assert caption([]) == []


def test_command(folder: str, captioner: tuple[Any, Any], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["caption", str(box), "--model", folder, "--max_new_tokens", "8"]
    want = expected(captioner, box, min_new_tokens=0)
    assert main([*arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.split() == want.split()
    two = ["caption", str(box), *arguments[1:]]
    assert main([*two, "--num_beams", "2", "--prompt", "what color is it"]) == 0
    want = expected(captioner, box, "what color is it", min_new_tokens=0, num_beams=2)
    assert capsys.readouterr().out.split() == [f"{box}:", *want.split()] * 2
    assert main([*arguments, "--prompt", ""]) == 2
    assert "prompt is empty" in capsys.readouterr().err
    assert main([*arguments, "--language_model", "nowhere"]) == 2
    assert "The language model 'nowhere'" in capsys.readouterr().err
