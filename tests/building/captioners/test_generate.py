"""Captioners with a model: tiny random ones of the real classes, through the code that the real ones take."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from modeling_ulip2.building.captioners import generate
from modeling_ulip2.building.captioners.generate import (
    Blip2Captioner,
    BlipCaptioner,
    Decoding,
    VlmCaptioner,
    is_caption,
)
from modeling_ulip2.building.meshes import main, parse_arguments
from modeling_ulip2.building.stages.base import to_batch
from tests.dataset_scripts.shapes import write_box
from tests.training.world import write_tower

from .captioning_models import WORDS, save_blip, save_blip2, save_llava

SMALL = Decoding(captions_per_view=3, max_new_tokens=6)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "blip2": save_blip2(root / "blip2"),
        "blip2-t5": save_blip2(root / "blip2-t5", "t5"),
        "blip": save_blip(root / "blip"),
        "vlm": save_llava(root / "vlm"),
    }


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("tower"))


CLASSES = {"blip2": Blip2Captioner, "blip2-t5": Blip2Captioner, "blip": BlipCaptioner, "vlm": VlmCaptioner}


def make(folders, kind: str, **options):
    options = {"decoding": SMALL, "device": "cpu", "dtype": "float32", "prompt": "a photo of"} | options
    return CLASSES[kind](str(folders[kind]), **options)


def picture(seed: int, size: int = 24) -> dict:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(256, size=(size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def make_object(name: str, views: int = 4) -> dict:
    seed = sum(map(ord, name))
    return {"id": name, "views": [picture(seed + i) for i in range(views)], "error": None, "message": None}


@pytest.mark.parametrize("kind", list(CLASSES))
def test_a_model_captions_each_view_and_leaves_the_prompt_out(folders, kind):
    captions = make(folders, kind)(to_batch([make_object("a")]))["captions"][0]
    assert len(captions) == 4 and all(1 <= len(own) <= 3 for own in captions)
    words = {word for own in captions for text in own for word in text.split()}
    assert words <= {*WORDS, "answer", *(f"word{chr(97 + i)}" for i in range(8))} and len(words) > 5
    assert all(len(text.split()) <= 6 for own in captions for text in own)
    assert len({tuple(own) for own in captions}) == 4  # each view has its own


@pytest.mark.parametrize("kind", list(CLASSES))
def test_what_is_drawn_depends_on_the_object_and_the_seed_alone(folders, kind):
    captioner = make(folders, kind)
    together = captioner(to_batch([make_object("a"), make_object("b"), make_object("c")]))["captions"]
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    again = [captioner(to_batch([make_object(name)]))["captions"][0] for name in "cab"]
    assert torch.equal(before, torch.random.get_rng_state())  # others' draws are left alone
    assert together == [again[1], again[2], again[0]]
    assert make(folders, kind)(to_batch([make_object("a")]))["captions"][0] == together[0]
    assert make(folders, kind, seed=1)(to_batch([make_object("a")]))["captions"][0] != together[0]
    twin = make_object("a") | {"id": "twin"}
    assert captioner(to_batch([twin]))["captions"][0] != together[0]


@pytest.mark.parametrize("kind", list(CLASSES))
def test_captions_come_from_the_picture_that_they_are_for(folders, kind, monkeypatch):
    """With next to no chance in the draw, a view gets the same words wherever it stands in its batch."""
    monkeypatch.setattr(generate, "is_caption", lambda text: True)  # random models go round in circles
    captioner = make(folders, kind, decoding=Decoding(1, top_p=1e-6, max_new_tokens=6))
    views = [picture(seed) for seed in range(6)]
    rows = [make_object("a") | {"views": views}, make_object("b") | {"views": views[::-1]}]
    forwards, backwards = captioner(to_batch(rows))["captions"]
    assert forwards == backwards[::-1] and len({tuple(own) for own in forwards}) > 1


def test_views_go_through_the_model_in_batches_of_one_object(folders, monkeypatch):
    captioner = make(folders, "blip2", views_per_batch=3)
    seen = []
    monkeypatch.setattr(captioner, "caption_images", lambda images, seed: seen.append((len(images), seed)) or [[]])
    captioner.caption({"id": ["a", "b"], "views": [[picture(0)] * 7, [picture(0)] * 2]})
    assert [count for count, _ in seen] == [3, 3, 1, 2] and len({seed for _, seed in seen}) == 4


def test_the_prompt_is_heard(folders):
    options = {"decoding": Decoding(1, top_p=1e-6, max_new_tokens=6)}
    rows = to_batch([make_object("a", views=6)])
    assert make(folders, "blip2", **options)(rows) != make(folders, "blip2", prompt="the old", **options)(rows)
    captioner = make(folders, "vlm", prompt="red or blue ?")
    assert captioner.chat == "<image> red or blue ? answer"


def test_objects_that_failed_are_left_alone(folders):
    failed = {"id": "b", "views": None, "error": "empty", "message": ""}
    assert make(folders, "blip")(to_batch([make_object("a", 1), failed]))["captions"][1] is None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a red chair", True),
        ("", False),
        (" . , 12 !", False),
        ("chair chair chair chair", False),
        ("a chair and a chair and a chair and a chair and", False),
        ("a chair, a chair, a table and a chair", True),
        ("ein Stuhl", True),
        ("椅子", True),
    ],
)
def test_degenerate_captions_are_known(text, good):
    assert is_caption(text) == good


def test_the_manifest_says_what_was_used(folders):
    captioner = make(folders, "blip2", dtype="bfloat16", prompt=None)
    description = captioner.describe()
    assert json.loads(json.dumps(description)) == description
    assert description["model"] == "blip2" and description["precision"] == "bfloat16"
    assert description["prompt"] == "a photo of" and description["top_p"] == 0.9
    assert description["weights"].startswith("blip-2-v2-") and len(description["weights"]) == len("blip-2-v2-") + 16
    assert captioner(to_batch([make_object("a")]))["captions"][0]


def test_models_of_another_kind_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="is a model of type 'blip', where 'blip-2' is expected"):
        Blip2Captioner(str(folders["blip"]))
    with pytest.raises(OSError, match="absent"):
        BlipCaptioner(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="has no chat template"):
        VlmCaptioner(str(save_llava(tmp_path / "mute", chat_template=None)))


def test_a_build_with_blip2_has_rows_and_card_that_say_so(folders, tower, tmp_path):
    for name in ("a", "b", "c"):
        write_box(tmp_path / "meshes" / f"{name}.obj", color=(1, 0, ord(name) / 200))
    options = [
        "--captioner",
        "blip2",
        "metadata",
        "--caption-model",
        str(folders["blip2"]),
        "--captions-per-view",
        "3",
    ]
    options += ["--max-new-tokens", "5", "--num-points", "16", "--views", "2", "--size", "32", "--dtype", "float32"]
    options += ["--tower", str(tower), "--metadata-captions", "1", "--device", "cpu", "--num-proc", "0"]
    outputs = [tmp_path / f"of {size}" for size in (1, 3)]
    for output, size in zip(outputs, ("1", "3"), strict=True):
        main(["--meshes", str(tmp_path / "meshes"), "--output", str(output), "--shard-size", size, *options])
    columns = ["id", "captions", "views", "xyz"]  # the ranking embeds a shard's captions together: other last bits
    read = [pq.read_table(output / "triplets", columns=columns).sort_by("id").to_pylist() for output in outputs]
    assert read[0] == read[1] and len(read[0]) == 3  # whatever shard they were in
    assert all(2 <= len(own) <= 4 for row in read[0] for own in row["captions"])
    manifest = json.loads((outputs[0] / "manifest.json").read_text())
    assert manifest["settings"]["caption_prompt"] == "a photo of"
    assert manifest["stages"]["Blip2Captioner"]["captions_per_view"] == 3
    card = (outputs[0] / "README.md").read_text()
    for fact in ("`blip2`", "prompt: a photo of", "top_p: 0.9", "are ours", "published neither"):
        assert fact in card
    with pytest.raises(SystemExit, match="caption_prompt was"):
        more = ["--caption-prompt", "an"]
        main(["--meshes", str(tmp_path / "meshes"), "--output", str(outputs[0]), "--shard-size", "1", *options, *more])


@pytest.mark.parametrize(
    "options",
    [
        ["--captioner", "blip", "blip2"],
        ["--caption-model", "a"],
        ["--top-p", "0"],
        ["--temperature", "0"],
        ["--captions-per-view", "0"],
    ],
)
def test_impossible_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as error:
        parse_arguments(["--meshes", "a", "--output", "b", *options])
    assert error.value.code == 2 and options[0] in capsys.readouterr().err
