"""Every published layout is recognized by its names, every tensor accounted for, and the model computes the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_ulip2 import PointBertModel, Ulip2Model
from modeling_ulip2.conversion import (
    ConversionError,
    PublishedCheckpoint,
    convert,
    convert_checkpoint,
    read_checkpoint,
)
from modeling_ulip2.towers import SlipModel
from tests.conversion import published
from tests.models import tiny


@pytest.mark.parametrize("name", list(published.LAYOUTS))
def test_layout(name: str, tmp_path: Path) -> None:
    file = published.LAYOUTS[name]()
    checkpoint = read_checkpoint(file.save(tmp_path / "file.pt"))
    conversion = convert(checkpoint, file.point_config)
    assert conversion.layout.name == file.layout
    model = conversion.model
    assert not model.training and not any(p.is_meta for p in [*model.parameters(), *model.buffers()])
    taken = len(model.state_dict()) + (len(conversion.tower.state_dict()) - 1 if conversion.tower else 0)
    assert taken - len(conversion.added) + len(conversion.unused) == len(checkpoint.state_dict)
    if file.encoder is None:
        assert isinstance(model, SlipModel)
        return
    assert conversion.encoder is not None and conversion.encoder.model_type == file.encoder.config.model_type
    points = tiny.clouds(2, channels=file.encoder.config.in_channels)
    with torch.no_grad():
        if file.embed is None:
            assert isinstance(model, PointBertModel)
            torch.testing.assert_close(model(points).pooled, file.encoder(points).pooled)
        else:
            assert isinstance(model, Ulip2Model)
            torch.testing.assert_close(model.get_point_features(points).pooler_output, file.embed(points))


def test_scale_beside_the_model_is_taken() -> None:
    content = published.openshape().content
    model = convert(_checkpoint(content), published.openshape().point_config).model
    assert model.logit_scale.item() == 3


@pytest.mark.parametrize("name", ["ulip1_pointbert", "slip"])
def test_slip_computes_the_same(name: str, tmp_path: Path) -> None:
    file = published.LAYOUTS[name]()
    conversion = convert(read_checkpoint(file.save(tmp_path / "file.pt")), file.point_config)
    tower = conversion.tower or conversion.model
    ids = torch.tensor([[5, 9, 59, 0, 0], [5, 1, 2, 3, 59]])
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for ours, theirs in (
            (tower.get_text_features(ids), file.tower.get_text_features(ids)),
            (tower.get_image_features(pixels), file.tower.get_image_features(pixels)),
        ):
            assert torch.equal(ours.pooler_output, theirs.pooler_output)


def test_convert_checkpoint_gives_the_model_its_slip_tower(tmp_path: Path) -> None:
    file = published.ulip(with_slip=True)
    model = convert_checkpoint(file.save(tmp_path / "file.pt"), file.point_config)
    ids = torch.tensor([[5, 9, 59]])
    with torch.no_grad():
        expected = file.tower.get_text_features(ids).pooler_output
        assert torch.equal(model.get_text_features(ids).pooler_output, expected)


def test_encoder_alone_is_no_tri_modal_model(tmp_path: Path) -> None:
    file = published.pointbert_pretraining()
    with pytest.raises(ConversionError, match="PointBertModel alone"):
        convert_checkpoint(file.save(tmp_path / "file.pt"), file.point_config)


def test_tensors_are_those_of_the_file_in_its_precision() -> None:
    file = published.uni3d()
    half = {name: value.half() for name, value in file.content["module"].items()}
    checkpoint = _checkpoint({"module": half})
    model = convert(checkpoint, file.point_config).model
    assert model.dtype == torch.float16
    stored = checkpoint.state_dict["point_encoder.encoder2trans.weight"]
    assert model.point_model.encoder2trans.weight.data_ptr() == stored.data_ptr()


# --- what does not fit -----------------------------------------------------------------------------------------------

DAMAGES: dict[str, tuple[str, str, Any, str]] = {
    "missing encoder tensor": ("uni3d", "point_encoder.visual.blocks.0.norm2.bias", None, "1 missing: "),
    "missing logit scale": ("uni3d", "logit_scale", None, "1 missing: "),
    "missing projection bias": ("uni3d", "point_encoder.trans2embed.bias", None, "1 missing: "),
    "unexpected encoder tensor": ("openshape", "ppat.extra.weight", torch.zeros(2), "1 unexpected: "),
    "unexpected tensor": ("openshape", "something.else", torch.zeros(2), "no place there: "),
    "misshapen": ("openshape_first", "pc_encoder.ppat.lift.2.bias", torch.zeros(3), "1 misshapen: "),
    "misshapen projection": ("ulip2_pointbert", "pc_projection", torch.zeros(5, 20), "1 misshapen: "),
    "missing in PointNeXt": ("ulip2_pointnext", "point_encoder.prediction.head.0.0.weight", None, "1 missing: "),
    "missing in pre-training": ("pointbert_pretraining", "transformer_q.norm.weight", None, "1 missing: "),
    "missing in SLIP": ("slip", "ln_final.bias", None, "ln_final.bias"),
    "misshapen in ULIP-1's tower": ("ulip1_pointbert", "ln_final.bias", torch.zeros(3), "ln_final.bias"),
    "not zero": ("uni3d", "point_encoder.visual.blocks.0.attn.k_bias", torch.ones(24), "not zero"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_tensors_that_do_not_fit_are_named(damage: str) -> None:
    layout, name, value, words = DAMAGES[damage]
    file = published.LAYOUTS[layout]()
    tensors = _checkpoint(file.content).state_dict
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(ConversionError) as caught:
        convert(PublishedCheckpoint(tensors, name="broken.pt"), file.point_config)
    message = str(caught.value)
    assert "broken.pt" in message or damage == "not zero"
    assert name.removeprefix("point_encoder.") in message and words in message


def test_unknown_layout_says_what_is_known() -> None:
    checkpoint = PublishedCheckpoint({"backbone.weight": torch.zeros(2)}, name="other.pt")
    with pytest.raises(ConversionError, match="other.pt has none of the published layouts.*Uni3D.*backbone.weight"):
        convert(checkpoint)


def test_unknown_encoder_in_a_known_layout() -> None:
    tensors = {"point_encoder.fancy.weight": torch.zeros(2), "pc_projection": torch.zeros(2, 2)}
    with pytest.raises(ConversionError, match="No known point encoder.*fancy.weight"):
        convert(PublishedCheckpoint(tensors | {"logit_scale": torch.zeros(())}))


def test_ignored_tensors_are_reported() -> None:
    file = published.openshape()
    tensors = _checkpoint(file.content).state_dict | {"mine.a": torch.zeros(1), "mine.b": torch.zeros(1)}
    conversion = convert(PublishedCheckpoint(tensors), file.point_config, ignore=r"mine\..*")
    assert conversion.unused == {"mine.a": "left out as asked", "mine.b": "left out as asked"}


def test_unknown_and_impossible_settings() -> None:
    checkpoint = _checkpoint(published.uni3d().content)
    with pytest.raises(ConversionError, match="Uni3dConfig has no field depth"):
        convert(checkpoint, {"depth": 3})
    with pytest.raises(ConversionError, match="hidden_size .24. must be a multiple"):
        convert(checkpoint, published.uni3d().point_config | {"num_attention_heads": 5})


def test_settings_that_no_weight_shows_are_said_to_be_assumed() -> None:
    file = published.ulip()
    fields = {"num_attention_heads": 2, "num_groups": 8}
    assert convert(_checkpoint(file.content), fields).assumed == {"group_size": 32}


def _checkpoint(content: dict[str, Any]) -> PublishedCheckpoint:
    """What reading a file with this content gives, its tensors in memory."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(content, Path(folder) / "file.pt")
        checkpoint = read_checkpoint(Path(folder) / "file.pt")
        return PublishedCheckpoint({name: value.clone() for name, value in checkpoint.state_dict.items()})
