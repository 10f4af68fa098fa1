from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel

from modeling_ulip2 import (
    AutoModelForPointCloudClassification,
    Ulip2Config,
    Ulip2ForPointCloudClassification,
    Ulip2Model,
)
from modeling_ulip2.models.modeling_classification_ulip2 import smoothed_cross_entropy
from tests.models import tiny


def model(encoder: str = "ulip2_pointbert", **config: Any) -> Ulip2ForPointCloudClassification:
    torch.manual_seed(0)
    point_config = {"model_type": encoder, **tiny.ENCODERS[encoder]}
    return Ulip2ForPointCloudClassification(Ulip2Config(point_config=point_config, **{"num_labels": 4} | config))


def clouds(own: Ulip2ForPointCloudClassification, batch: int = 3) -> torch.Tensor:
    return tiny.clouds(batch, channels=own.config.point_config.in_channels)


def test_pointnext_s_has_its_published_size() -> None:
    """1.367 M parameters at the 15 classes of ScanObjectNN: the encoder of ULIP-2 and one linear layer."""
    with torch.device("meta"):
        own = Ulip2ForPointCloudClassification(
            Ulip2Config(point_config={"model_type": "ulip2_pointnext"}, num_labels=15)
        )
    assert own.point_model.num_parameters() == 1_363_264
    assert own.num_parameters() == 1_363_264 + 15 * 257 == 1_367_119


def test_the_head_is_the_published_one_of_the_encoder() -> None:
    kinds = [type(layer) for layer in model().classifier]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear] and model().classifier[0].out_features == 256
    point_mae = model(classifier_dims=(256, 256), classifier_norm=True).classifier
    assert [type(layer) for layer in point_mae] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]
    for encoder in set(tiny.ENCODERS) - {"ulip2_pointbert"}:
        assert [type(layer) for layer in model(encoder).classifier] == [nn.Linear]
    assert [type(layer) for layer in model(classifier_dims=()).classifier] == [nn.Linear]


@pytest.mark.parametrize("encoder", list(tiny.ENCODERS))
def test_logits_and_loss_with_every_encoder(encoder: str) -> None:
    own, labels = model(encoder).eval(), torch.tensor([0, 3, 1])
    output = own(clouds(own), labels=labels)
    assert output.logits.shape == (3, 4)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in own.classifier.parameters())
    assert own(clouds(own)).loss is None


def test_smoothing_gives_the_share_to_the_wrong_classes() -> None:
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0])
    targets = torch.full((5, 4), 0.3 / 3).scatter(1, labels[:, None], 0.7)
    expected = -(targets * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, 0.3), expected)
    own = model(label_smoothing=0.3, classifier_dims=(), classifier_dropout=0.0)
    own.point_model.eval()  # the head alone is in training mode: its logits are the same in both
    output = own(clouds(own), labels=labels[:3])
    torch.testing.assert_close(output.loss, smoothed_cross_entropy(output.logits, labels[:3], 0.3))
    output = own.eval()(clouds(own), labels=labels[:3])
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels[:3]))


def test_other_problems_are_those_of_transformers() -> None:
    own = model().eval()
    several = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    output = own(clouds(own), labels=several)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, several))
    own = model(num_labels=1).eval()
    output = own(clouds(own), labels=torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[:, 0], torch.tensor([0.5, 1.0, 2.0])))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 4, 1], r"\[0, 4\).*got 0 to 4"), ([-1, 0, 1], "got -1 to 1"), ([[0], [1], [2]], r"shape \(3,\)")],
)
def test_wrong_labels_are_refused(labels: list, message: str) -> None:
    own = model().eval()
    with pytest.raises(ValueError, match=message):
        own(clouds(own), labels=torch.tensor(labels))


@pytest.mark.parametrize(
    ("field", "value"), [("label_smoothing", 1.0), ("classifier_dropout", -0.1), ("classifier_dims", (0,))]
)
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Ulip2Config(**{field: value})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(5)
    own = Ulip2Model(Ulip2Config(point_config=tiny.POINT_CONFIG, projection_dim=tiny.PROJECTION_DIM))
    own.set_clip_model(tiny.tower())
    own.save_pretrained(folder, include_towers=True)
    return folder


def test_a_pretrained_folder_gives_its_encoder_alone(pretrained: Path) -> None:
    own, report = Ulip2ForPointCloudClassification.from_pretrained(pretrained, num_labels=4, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert all(name.startswith("classifier.") for name in report["missing_keys"]) and report["missing_keys"]
    whole = Ulip2Model.from_pretrained(pretrained)
    for name, value in whole.point_model.state_dict().items():
        assert torch.equal(own.point_model.state_dict()[name], value)
    bound = own.classifier[0].in_features ** -0.5
    assert own.classifier[0].weight.abs().max() <= bound and own.classifier[0].weight.std() > 0.4 * bound
    assert own.config.clip_config is None


def test_a_folder_comes_back_as_the_class_that_saved_it(pretrained: Path, tmp_path: Path) -> None:
    names = {0: "chair", 1: "lamp", 2: "table"}
    own = AutoModelForPointCloudClassification.from_pretrained(pretrained, id2label=names, classifier_norm=True).eval()
    own.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).id2label == names
    for auto_class in (AutoModel, AutoModelForPointCloudClassification):
        loaded = auto_class.from_pretrained(tmp_path).eval()
        assert type(loaded) is Ulip2ForPointCloudClassification
        torch.testing.assert_close(loaded(clouds(own)).logits, own(clouds(own)).logits)
    assert type(AutoModel.from_pretrained(pretrained)) is Ulip2Model
    assert not any("clip_model" in name or "projection" in name for name in own.state_dict())


def test_the_card_names_the_classes() -> None:
    card = model(num_labels=2, id2label={0: "chair", 1: "lamp"}).card("someone/shapes")
    assert "Point clouds to 2 classes" in card.text and "chair, lamp" in card.text
    assert 'pipeline("point-cloud-classification", model="someone/shapes")' in card.text
    assert card.data.pipeline_tag == "other" and "point-cloud-classification" in card.data.tags
