"""References of a checkpoint: written relative to it, found beside it, never uploaded as a path of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from modeling_ulip2 import (
    Ulip2Config,
    Ulip2FeatureExtractor,
    Ulip2Model,
    Ulip2PointModelWithProjection,
    Ulip2Processor,
)
from modeling_ulip2.models.references import Origin, is_local, model_location, written_reference
from tests.hub.fixtures import Uploads
from tests.models import tiny
from tests.models.test_card import NAME


def saved_pair(root: Path) -> Path:
    """A tower and a model beside each other, as the quickstart leaves them; the folder of the model."""
    tiny.tower().save_pretrained(root / "tower")
    torch.manual_seed(0)
    config = Ulip2Config(
        point_config=tiny.POINT_CONFIG,
        projection_dim=tiny.PROJECTION_DIM,
        clip_name_or_path=str(root / "tower"),
    )
    Ulip2Model(config).save_pretrained(root / "model")
    return root / "model"


def reference_in(folder: Path) -> str | None:
    return json.loads((folder / "config.json").read_text())["clip_name_or_path"]


def embeds(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[0, 3, 1]])).text_embeds


def test_moved_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved_pair(tmp_path / "a")
    assert reference_in(model) == "../tower"
    expected = embeds(Ulip2Model.from_pretrained(model))
    (tmp_path / "a").rename(tmp_path / "b")
    loaded = Ulip2Model.from_pretrained(tmp_path / "b/model")
    assert loaded.config.clip_name_or_path == str(tmp_path / "b/tower")
    torch.testing.assert_close(embeds(loaded), expected)
    # named relative to the working directory, used from another, saved elsewhere
    monkeypatch.chdir(tmp_path / "b")
    by_name = AutoModel.from_pretrained("model")
    (tmp_path / "c").mkdir()
    monkeypatch.chdir(tmp_path / "c")
    torch.testing.assert_close(embeds(by_name), expected)
    by_name.save_pretrained("deep/model")
    assert reference_in(tmp_path / "c/deep/model") == "../../../b/tower"
    torch.testing.assert_close(embeds(AutoModel.from_pretrained("deep/model")), expected)


def test_a_linked_checkpoint(tmp_path: Path) -> None:
    model = saved_pair(tmp_path / "a")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/model").symlink_to(model)
    assert embeds(Ulip2Model.from_pretrained(tmp_path / "links/model")).shape == (1, tiny.PROJECTION_DIM)


def test_typed_beside_whoever_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved_pair(tmp_path / "a")
    (tmp_path / "a/tower").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    for typed in ("moved", "./moved"):
        for model_class in (Ulip2Model, AutoModel):
            loaded = model_class.from_pretrained(model, clip_name_or_path=typed)
            assert embeds(loaded) is not None and loaded.config.clip_name_or_path == str(tmp_path / "moved")


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute, as earlier versions wrote"])
def test_gone_is_told_with_its_path_and_what_mends_it(tmp_path: Path, absolute: bool) -> None:
    model = saved_pair(tmp_path / "a")
    if absolute:
        config = json.loads((model / "config.json").read_text())
        config["clip_name_or_path"] = str(tmp_path / "a/tower")
        (model / "config.json").write_text(json.dumps(config))
    (tmp_path / "a/tower").rename(tmp_path / "elsewhere")
    loaded = Ulip2Model.from_pretrained(model)
    with pytest.raises(OSError) as told:
        embeds(loaded)
    for part in (str(tmp_path / "a/tower"), "clip_name_or_path=", "include_towers=True", "on this machine"):
        assert part in str(told.value)
    assert "connect" not in str(told.value)
    assert embeds(Ulip2Model.from_pretrained(model, clip_name_or_path=str(tmp_path / "elsewhere"))) is not None


def test_a_model_without_tower_keeps_the_reference_right(tmp_path: Path) -> None:
    model = saved_pair(tmp_path / "a")
    Ulip2PointModelWithProjection.from_pretrained(model).save_pretrained(tmp_path / "points")
    assert reference_in(tmp_path / "points") == "../a/tower"


def test_an_embedded_tower_is_not_dropped_for_a_folder_that_is_gone(tmp_path: Path) -> None:
    model = Ulip2Model.from_pretrained(saved_pair(tmp_path / "a"))
    model.save_pretrained(tmp_path / "whole", include_towers=True)
    (tmp_path / "a/tower").rename(tmp_path / "gone")
    Ulip2Model.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "again")
    assert embeds(Ulip2Model.from_pretrained(tmp_path / "again")) is not None


# --- uploading -------------------------------------------------------------------------------------------------------

REFUSED = r"(?s)clip_name_or_path is '.*/a/tower', a path of this machine.*owner/name.*include_towers=True"


def test_uploading_a_path_is_refused(tmp_path: Path, uploads: Uploads) -> None:
    model = Ulip2Model.from_pretrained(saved_pair(tmp_path / "a"))
    points = Ulip2PointModelWithProjection.from_pretrained(tmp_path / "a/model")
    for upload in (
        lambda: model.push_to_hub(NAME),
        lambda: model.push_to_hub(NAME, include_towers=False),
        lambda: model.save_pretrained(tmp_path / "pushed", push_to_hub=True, repo_id=NAME),
        lambda: model.config.push_to_hub(NAME),
        lambda: model.config.save_pretrained(tmp_path / "pushed", push_to_hub=True, repo_id=NAME),
        lambda: points.push_to_hub(NAME),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            upload()
    assert not uploads.files and not (tmp_path / "pushed/config.json").exists()


@pytest.mark.parametrize("way", ["push_to_hub", "save_pretrained"])
def test_uploading_with_the_tower_tells_no_path(way: str, tmp_path: Path, uploads: Uploads) -> None:
    model = Ulip2Model.from_pretrained(saved_pair(tmp_path / "a"))
    if way == "push_to_hub":
        model.push_to_hub(NAME, include_towers=True)
    else:
        model.save_pretrained(tmp_path / "copy", include_towers=True, push_to_hub=True, repo_id=NAME)
    for name, content in uploads.files.items():
        if not name.endswith(".safetensors"):
            assert str(tmp_path) not in content.decode(), name
    config = json.loads(uploads.files["config.json"])
    assert config["clip_config"]["model_type"] == "clip" and config["clip_name_or_path"] is None
    # the model in memory is what it was
    assert model.config.clip_name_or_path == str(tmp_path / "a/tower") and model.config.clip_config is None
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for name, content in uploads.files.items():
        (downloaded / name).write_bytes(content)
    torch.testing.assert_close(embeds(Ulip2Model.from_pretrained(downloaded)), embeds(model))


def test_uploading_a_hub_name(tmp_path: Path, uploads: Uploads) -> None:
    model = Ulip2Model.from_pretrained(saved_pair(tmp_path / "a"))
    model.config.clip_name_or_path = "someone/clip"
    model.push_to_hub(NAME)
    assert json.loads(uploads.files["config.json"])["clip_name_or_path"] == "someone/clip"
    assert b"clip_model." not in uploads.files["model.safetensors"]


def test_a_processor_tells_no_path(tmp_path: Path, uploads: Uploads) -> None:
    tiny.tokenizer().save_pretrained(tmp_path / "tower")
    tiny.image_processor().save_pretrained(tmp_path / "tower")
    from transformers import AutoImageProcessor, AutoTokenizer

    parts = AutoTokenizer.from_pretrained(tmp_path / "tower"), AutoImageProcessor.from_pretrained(tmp_path / "tower")
    Ulip2Processor(Ulip2FeatureExtractor(), *parts).push_to_hub(NAME)
    assert uploads.files and not any(str(tmp_path).encode() in content for content in uploads.files.values())


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subfolder", "reference", "resolved"),
    [
        ("owner/repo", "", "./tower", "owner/repo/tower"),
        ("owner/repo", "models/small", "../tower", "owner/repo/models/tower"),
        ("owner/repo", "", "../other/tower", "../other/tower"),  # leads out of the repository
        ("owner/repo", "", "someone/clip", "someone/clip"),
        ("owner/repo", "", None, None),
        ("owner/repo", "", "open_clip:ViT-L-14/openai", "open_clip:ViT-L-14/openai"),
    ],
)
def test_references_of_a_repository(name: str, subfolder: str, reference: str | None, resolved: str | None) -> None:
    assert Origin(name, subfolder).resolve(reference) == resolved


def test_arguments_reach_what_they_hold_for() -> None:
    given = {"token": "t", "cache_dir": "c", "revision": "v1", "trust_remote_code": True, "dtype": "auto"}
    origin = Origin.of("owner/repo", given)
    same = {"token": "t", "cache_dir": "c", "revision": "v1", "trust_remote_code": True}
    assert origin.options_for("owner/repo/tower") == same
    del same["revision"]
    assert origin.options_for("someone/clip") == same


def test_written_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model/tower").mkdir(parents=True)
    (tmp_path / "lm.gguf").touch()
    model = tmp_path / "model"
    assert written_reference(str(model / "tower"), model) == "./tower"
    assert written_reference("./tower", model) == "./tower"
    assert written_reference(str(tmp_path / "lm.gguf"), model) == "../lm.gguf"
    assert written_reference("owner/clip", model) == "owner/clip" and written_reference(None, model) is None
    assert written_reference("/nowhere/tower", model) == "/nowhere/tower"
    monkeypatch.chdir(tmp_path)
    assert written_reference("model/tower", model) == "./tower"
    assert os.path.exists("model/tower") and model_location("a/b/c") == ("a/b", {"subfolder": "c"})
    assert model_location(str(model)) == (str(model), {}) and is_local("open_clip:local-dir:/x")
