"""Cards: what they say, that a person's text survives, and uploads of every class. Nothing leaves the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from modeling_ulip2 import (
    CardFacts,
    CardResult,
    Ulip2Config,
    Ulip2FeatureExtractor,
    Ulip2Model,
    Ulip2PointModel,
    Ulip2PointModelWithProjection,
    Ulip2Processor,
)
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from modeling_ulip2.models.model_card import MARK
from tests.hub.fixtures import Uploads
from tests.models import tiny

NAME = "someone/shapes"


def make_config(**kwargs: Any) -> Ulip2Config:
    settings = {"point_config": tiny.POINT_CONFIG, "projection_dim": tiny.PROJECTION_DIM}
    return Ulip2Config(**settings | kwargs)


def make_encoder(model_type: str) -> Any:
    classes: Any = POINT_ENCODERS[model_type]
    return classes.model_class(classes.config_class(**tiny.ENCODERS[model_type]))


EVERY_CLASS: dict[str, Any] = {
    "Ulip2Model": lambda: Ulip2Model(make_config(clip_name_or_path="openai/clip-tiny")),
    "Ulip2PointModel": lambda: Ulip2PointModel(make_config()),
    "Ulip2PointModelWithProjection": lambda: Ulip2PointModelWithProjection(make_config()),
    "Ulip2FeatureExtractor": lambda: Ulip2FeatureExtractor(num_points=40),
    "Ulip2Processor": lambda: Ulip2Processor(
        Ulip2FeatureExtractor(num_points=40), tiny.tokenizer(), tiny.image_processor()
    ),
    **{name: lambda name=name: make_encoder(name) for name in tiny.ENCODERS},
}


@pytest.mark.parametrize("kind", EVERY_CLASS)
def test_push_to_hub(kind: str, uploads: Uploads) -> None:
    saved = EVERY_CLASS[kind]()
    saved.push_to_hub(NAME, tags=["mine"])
    text, data = uploads.text, ModelCard(uploads.text).data
    assert data.library_name == "transformers" and data.pipeline_tag == "feature-extraction"
    assert {"3d", "point-cloud", "ulip-2", "mine"} <= set(data.tags)
    assert type(saved).__name__ in text and f'from_pretrained("{NAME}"' in text and "FOLDER" not in text
    assert any(name.endswith("_ulip2.py") for name in uploads.files)  # remote code goes along
    assert any(name.endswith(".json") for name in uploads.files)
    if "Extractor" not in kind and "Processor" not in kind:
        assert "model.safetensors" in uploads.files and f"{saved.num_parameters():,}" in text
        assert "license | not stated" in text
    assert data.base_model == ("openai/clip-tiny" if kind == "Ulip2Model" else None)


@pytest.mark.parametrize("kind", EVERY_CLASS)
def test_save_pretrained_writes_a_card(kind: str, tmp_path: Path) -> None:
    EVERY_CLASS[kind]().save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\n") and MARK in text and 'from_pretrained("FOLDER"' in text
    assert ModelCard(text).data.library_name == "transformers"


def test_facts(uploads: Uploads, tmp_path: Path) -> None:
    model = Ulip2Model(make_config(clip_name_or_path="owner/repository/tower"))
    model.card_facts = CardFacts(
        title="Chairs",
        license="cc-by-4.0",
        datasets=["someone/triplets"],
        training="Ten epochs on chairs.",
        results=[CardResult("ModelNet40", "top-1 accuracy, per cent", 61.5)],
        tags=["furniture"],
    )
    model.save_pretrained(tmp_path)
    for text in ((tmp_path / "README.md").read_text(), model.push_to_hub(NAME) and uploads.text):
        data = ModelCard(text).data
        assert (data.license, data.datasets, data.base_model) == (
            "cc-by-4.0",
            ["someone/triplets"],
            "owner/repository",
        )
        assert "furniture" in data.tags and data.model_name == "Chairs"
        (result,) = data.eval_results
        assert (result.dataset_name, result.metric_value) == ("ModelNet40", 61.5)
        for words in ("# Chairs\n", "Ten epochs on chairs.", "top-1 accuracy, per cent | 61.5", "`someone/triplets`"):
            assert words in text


def test_a_tower_of_this_machine_is_no_base_model(tmp_path: Path) -> None:
    tiny.tower().save_pretrained(tmp_path / "tower")
    model = Ulip2Model(make_config(clip_name_or_path=str(tmp_path / "tower")))
    text = str(model.card())
    assert ModelCard(text).data.base_model is None and "`tower`, a local folder" in text and str(tmp_path) not in text
    model.set_clip_model(tiny.tower())
    model.save_pretrained(tmp_path / "model", include_towers=True)
    text = (tmp_path / "model" / "README.md").read_text()
    assert "`clip`, part of this checkpoint" in text
    assert f"parameters | {Ulip2Model(make_config()).num_parameters():,}, the image-text model not counted" in text


def test_a_persons_card_survives(uploads: Uploads, tmp_path: Path) -> None:
    model, mine = EVERY_CLASS["Ulip2Model"](), "# Mine\n\nWritten by hand.\n"
    model.save_pretrained(tmp_path)
    model.card_facts = CardFacts(license="mit")
    model.save_pretrained(tmp_path)  # written by saving: renewed
    assert "license | mit" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(mine)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == mine
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=NAME)
    assert (tmp_path / "README.md").read_text() == uploads.text == mine

    uploads.start_with("---\nlicense: mit\n---\n\n# On the hub\n")
    model.push_to_hub(NAME)
    assert "# On the hub" in uploads.text and MARK not in uploads.text
    uploads.start_with(str(model.card(NAME)).replace("mit", "apache-2.0"))
    model.push_to_hub(NAME)  # written by an earlier upload: renewed
    assert "license | mit" in uploads.text


def test_the_card_of_a_processor_gives_way_to_that_of_the_model(tmp_path: Path) -> None:
    for order in (("Ulip2Model", "Ulip2Processor"), ("Ulip2Processor", "Ulip2Model")):
        folder = tmp_path / order[0]
        for kind in order:
            EVERY_CLASS[kind]().save_pretrained(folder)
        assert "# Ulip2Model\n" in (folder / "README.md").read_text()


def test_saving_and_uploading_at_once(uploads: Uploads, tmp_path: Path) -> None:
    for kind in ("Ulip2PointModelWithProjection", "Ulip2FeatureExtractor", "Ulip2Processor"):
        EVERY_CLASS[kind]().save_pretrained(str(tmp_path / kind), push_to_hub=True, repo_id=NAME)
        assert f"# {kind}\n" in uploads.text and f'"{NAME}"' in uploads.text


def test_usage_of_the_card_runs(tmp_path: Path) -> None:
    """The code in a card, as it stands, on a model saved with its card."""
    model = EVERY_CLASS["Ulip2Model"]().eval()
    model.save_pretrained(tmp_path)
    Ulip2FeatureExtractor(num_points=40).save_pretrained(tmp_path)
    code = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {"cloud": tiny.clouds(1)[0]}
    exec(code.replace("FOLDER", str(tmp_path)).replace(", trust_remote_code=True", ""), scope)
    with torch.no_grad():
        features = Ulip2FeatureExtractor(num_points=40)(scope["cloud"])
        torch.testing.assert_close(scope["point_embeds"], model(**features).point_embeds)
