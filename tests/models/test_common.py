"""The common tests of `ModelTester`, for every encoder, every head and every tower of the package."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from transformers import BertConfig, LlamaConfig, PreTrainedModel, ViTConfig

from modeling_ulip2 import (
    Ulip2CaptioningConfig,
    Ulip2Config,
    Ulip2ForConditionalGeneration,
    Ulip2ForPointCloudClassification,
    Ulip2Model,
    Ulip2PointModel,
    Ulip2PointModelWithProjection,
)
from modeling_ulip2.models.configuration_conse import ConseConfig
from modeling_ulip2.models.configuration_linear_lit import LinearLitConfig
from modeling_ulip2.models.configuration_slip import SlipConfig
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from modeling_ulip2.models.modeling_conse import ConseModel
from modeling_ulip2.models.modeling_linear_lit import LinearLitModel
from modeling_ulip2.models.modeling_slip import SlipModel
from tests.models import tiny
from tests.models.common import ModelTester

TRANSFORMERS = ("ulip2_pointbert", "ulip2_ppat", "ulip2_uni3d")


class EncoderTester(ModelTester):
    """A point encoder by itself; `fields` replace those of the tiny configuration."""

    model_type: ClassVar[str]
    fields: ClassVar[dict[str, Any]] = {}
    stages: ClassVar[int] = 2

    def __init_subclass__(cls) -> None:
        cls.has_attention = getattr(cls, "model_type", "") in TRANSFORMERS

    def make(self) -> PreTrainedModel:
        classes: Any = POINT_ENCODERS[self.model_type]
        return classes.model_class(classes.config_class(**tiny.ENCODERS[self.model_type] | self.fields))

    def inputs(self, batch: int = 3) -> dict[str, torch.Tensor]:
        channels = POINT_ENCODERS[self.model_type].config_class(**tiny.ENCODERS[self.model_type]).in_channels
        return {"point_values": tiny.clouds(batch, channels=channels)}

    def trained(self, output: Any) -> list[torch.Tensor]:
        return [output.pooled, output.tokens]

    def expected_states(self, model: Any) -> int:
        return super().expected_states(model) if self.has_attention else self.stages


class TestPointBertModel(EncoderTester):
    model_type = "ulip2_pointbert"


class TestPpatModel(EncoderTester):
    model_type = "ulip2_ppat"
    fields: ClassVar[dict[str, Any]] = {"num_hidden_layers": 2}


class TestPpatModelWithRelativePositions(EncoderTester):
    model_type = "ulip2_ppat"
    fields: ClassVar[dict[str, Any]] = {"relative_position_bias": True}
    slow_attentions: ClassVar[tuple[str, ...]] = ()

    def test_flex_attention_is_refused_on_a_cpu(self, model: Any) -> None:
        model.set_attn_implementation("flex_attention")
        with pytest.raises(ValueError, match="cannot add a bias"):
            self.run(model)


class TestUni3dModel(EncoderTester):
    model_type = "ulip2_uni3d"


class TestUni3dModelOfTinySize(EncoderTester):
    model_type = "ulip2_uni3d"
    fields: ClassVar[dict[str, Any]] = {"mlp_kind": "swiglu", "fused_qkv": True, "num_hidden_layers": 2}


class TestUni3dModelOfGiantSize(EncoderTester):
    model_type = "ulip2_uni3d"
    fields: ClassVar[dict[str, Any]] = {"mlp_kind": "gelu", "fused_qkv": True}


class TestPointMLPModel(EncoderTester):
    model_type = "ulip2_pointmlp"


class TestPointMLPEliteModel(EncoderTester):
    model_type = "ulip2_pointmlp"
    fields: ClassVar[dict[str, Any]] = {"res_expansion": 0.25, "groups": 2, "use_bias": True, "normalize": "center"}


class TestPointNet2Model(EncoderTester):
    model_type = "ulip2_pointnet2"


class TestPointNet2ModelOfManyScales(EncoderTester):
    model_type = "ulip2_pointnet2"
    fields: ClassVar[dict[str, Any]] = {
        "multi_scale": True,
        "radii": ((0.2, 0.3), (0.4, 0.6)),
        "num_neighbors": ((4, 8), (4, 4)),
        "mlp_dims": (((8, 8), (8, 8)), ((12, 16), (12, 16))),
    }


class TestPointNextModel(EncoderTester):
    model_type = "ulip2_pointnext"
    stages = 3


class HeadTester(ModelTester):
    """A model around a point encoder; subclasses name another encoder in `model_type`."""

    model_class: ClassVar[Any]
    model_type: ClassVar[str] = "ulip2_pointbert"
    fields: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls.has_attention = cls.model_type in TRANSFORMERS

    def config(self) -> Ulip2Config:
        point_config = {"model_type": self.model_type, **tiny.ENCODERS[self.model_type]}
        return Ulip2Config(point_config=point_config, projection_dim=tiny.PROJECTION_DIM, **self.fields)

    def make(self) -> PreTrainedModel:
        return self.model_class(self.config())

    def inputs(self, batch: int = 3) -> dict[str, torch.Tensor]:
        point_config: Any = self.config().point_config
        return {"point_values": tiny.clouds(batch, channels=point_config.in_channels)}

    def expected_states(self, model: Any) -> int:
        return model.config.point_config.num_hidden_layers + 1 if self.has_attention else 3


class TestUlip2PointModel(HeadTester):
    model_class = Ulip2PointModel


class TestUlip2PointModelOfPointNext(TestUlip2PointModel):
    model_type = "ulip2_pointnext"


class TestUlip2PointModelWithProjection(HeadTester):
    model_class = Ulip2PointModelWithProjection
    main = "point_embeds"

    def test_features_are_those_of_forward(self, model: Any) -> None:
        with torch.no_grad():
            output = model(**self.inputs(), output_hidden_states=True)
            features = model.get_point_features(**self.inputs(), output_hidden_states=True)
        assert torch.equal(features.pooler_output, output.point_embeds)
        assert torch.equal(features.last_hidden_state, output.tokens)
        assert len(features.hidden_states) == self.expected_states(model)


class TestUlip2PointModelWithProjectionOfPointNext(TestUlip2PointModelWithProjection):
    model_type = "ulip2_pointnext"


class TestUlip2ForPointCloudClassification(HeadTester):
    model_class = Ulip2ForPointCloudClassification
    main = "logits"
    fields: ClassVar[dict[str, Any]] = {"num_labels": 4}

    def training_inputs(self) -> dict[str, torch.Tensor]:
        return self.inputs(4) | {"labels": torch.tensor([0, 3, 1, 2])}


class TestUlip2ForPointCloudClassificationOfPointNext(TestUlip2ForPointCloudClassification):
    model_type = "ulip2_pointnext"
    fields: ClassVar[dict[str, Any]] = {"num_labels": 4, "classifier_dims": (8,), "classifier_norm": True}


class TestUlip2Model(HeadTester):
    """With its tower inside, so that all of it is in the checkpoint."""

    model_class = Ulip2Model

    def config(self) -> Ulip2Config:
        config = super().config()
        config.clip_config = tiny.tower().config
        return config

    def inputs(self, batch: int = 3) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        ids = torch.randint(2, len(tiny.WORDS), (batch, tiny.CONTEXT), generator=generator)
        ids[:, -1] = 1  # <end>
        pixels = torch.rand(batch, 3, 16, 16, generator=generator)
        return super().inputs(batch) | {
            "pixel_values": pixels,
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        }

    def training_inputs(self) -> dict[str, Any]:
        return self.inputs(4) | {"return_loss": True}

    def main_of(self, output: Any) -> torch.Tensor:
        return torch.cat([output.point_embeds, output.text_embeds, output.image_embeds], dim=-1)

    def states_of(self, output: Any, name: str) -> Any:
        return output.point_model_output[name] if name in output.point_model_output else None

    def test_features_have_one_type(self, model: Any) -> None:
        inputs = self.inputs()
        with torch.no_grad():
            output = model(**inputs)
            found = {
                "point_embeds": model.get_point_features(inputs["point_values"], output_hidden_states=True),
                "text_embeds": model.get_text_features(inputs["input_ids"], output_hidden_states=True),
                "image_embeds": model.get_image_features(inputs["pixel_values"], output_hidden_states=True),
            }
        for name, features in found.items():
            unit = torch.nn.functional.normalize(features.pooler_output, dim=-1)
            torch.testing.assert_close(unit, output[name])
            assert features.last_hidden_state.shape[0] == 3 and len(features.hidden_states) >= 2


class TestUlip2ModelOfPointNext(TestUlip2Model):
    model_type = "ulip2_pointnext"


class CaptioningTester(ModelTester):
    """With both frozen parts inside."""

    main = "logits"
    connector: ClassVar[dict[str, Any]]
    export_options: ClassVar[dict[str, Any]] = {"use_cache": False}
    skips: ClassVar[dict[str, str]] = {
        "test_there_are_no_embeddings_to_resize": "the vocabulary is that of the frozen language model",
        "test_options_that_it_does_not_know_are_refused": "they go to the language model, which may know them",
    }

    def make(self) -> PreTrainedModel:
        point_config = Ulip2Config(point_config=tiny.POINT_CONFIG, projection_dim=tiny.PROJECTION_DIM)
        sizes = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        language = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32)
        config = Ulip2CaptioningConfig(
            point_model_config=point_config,
            text_config=language,
            point_hidden_size=tiny.POINT_CONFIG["hidden_size"],
            text_hidden_size=16,
            text_vocab_size=30,
            point_token_id=30,
            num_query_tokens=3,
            initializer_range=0.5,
            **self.connector,
        )
        model = Ulip2ForConditionalGeneration(config)
        model.set_point_model(model.point_model)
        model.set_language_model(model.language_model)
        return model

    def inputs(self, batch: int = 3) -> dict[str, torch.Tensor]:
        words = torch.randint(0, 30, (batch, 6), generator=torch.Generator().manual_seed(4))
        ids = torch.cat([torch.full((batch, 3), 30), words], dim=1)  # (B, 9)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "point_values": tiny.clouds(batch)}
        if self.connector["connector"] == "qformer":
            given |= {"qformer_input_ids": words, "qformer_attention_mask": torch.ones_like(words)}
        return given

    def training_inputs(self) -> dict[str, torch.Tensor]:
        inputs = self.inputs(4)
        return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["input_ids"] == 30, -100)}

    def expected_states(self, model: Any) -> int:
        return model.config.text_config.num_hidden_layers + 1

    def test_features_have_the_type_of_transformers(self, model: Any) -> None:
        inputs = self.inputs()
        features = model.get_point_features(inputs["point_values"])
        assert features.pooler_output.shape[0] == 3
        assert features.pooler_output.shape[2] == model.config.point_hidden_size == features.last_hidden_state.shape[2]
        found = model.get_point_features(inputs["point_values"], return_dict=False)
        assert torch.equal(found[1], features.pooler_output)


class TestUlip2ForConditionalGenerationWithQFormer(CaptioningTester):
    # what the last layer makes of the instruction: only the queries are read behind it
    unread = r"qformer\.encoder\.layer\.1\.(intermediate|output)\."

    connector: ClassVar[dict[str, Any]] = {
        "connector": "qformer",
        "qformer_config": {
            "vocab_size": 30,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 24,
        },
    }


class TestUlip2ForConditionalGenerationWithMlp(CaptioningTester):
    connector: ClassVar[dict[str, Any]] = {"connector": "mlp", "connector_hidden_size": 12}


class TestUlip2ForConditionalGenerationWithResampler(CaptioningTester):
    connector: ClassVar[dict[str, Any]] = {
        "connector": "mlp",
        "compression": "resample",
        "connector_hidden_size": 12,
        "connector_num_attention_heads": 2,
    }


class TowerTester(ModelTester):
    """An image-text tower of the package."""

    def main_of(self, output: Any) -> torch.Tensor:
        return torch.cat([output.text_embeds, output.image_embeds], dim=-1)

    def trained(self, output: Any) -> list[torch.Tensor]:
        return [output.logits_per_image]

    def states_of(self, output: Any, name: str) -> Any:
        return output.text_model_output[name] if name in output.text_model_output else None

    def inputs(self, batch: int = 3) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        ids = torch.randint(2, len(tiny.WORDS) - 1, (batch, tiny.CONTEXT), generator=generator)
        return {"input_ids": ids, "pixel_values": torch.rand(batch, 3, 16, 16, generator=generator)}


class TestSlipModel(TowerTester):
    skips: ClassVar[dict[str, str]] = {
        "test_there_are_no_embeddings_to_resize": "texts end where their token id is largest: no token may be added",
    }

    def make(self) -> PreTrainedModel:
        config = SlipConfig(
            vocab_size=len(tiny.WORDS),
            max_position_embeddings=tiny.CONTEXT,
            text_hidden_size=16,
            text_num_attention_heads=2,
            text_num_hidden_layers=2,
            image_size=16,
            patch_size=8,
            vision_hidden_size=24,
            vision_num_attention_heads=2,
            vision_num_hidden_layers=2,
            projection_dim=tiny.PROJECTION_DIM,
        )
        return SlipModel(config)

    def expected_states(self, model: Any) -> int:
        return model.config.text_num_hidden_layers + 1


class TestConseModel(TowerTester):
    slow_attentions: ClassVar[tuple[str, ...]] = ()
    skips: ClassVar[dict[str, str]] = {
        "test_training_step_moves_what_is_trained": "nothing of it is trained",
        "test_there_are_no_embeddings_to_resize": "the vocabulary is that of the sentence encoder",
        "test_options_that_it_does_not_know_are_refused": "they go to the sentence encoder, which may know them",
    }

    def make(self) -> PreTrainedModel:
        layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = BertConfig(vocab_size=len(tiny.WORDS), max_position_embeddings=tiny.CONTEXT, **layers)
        vision = ViTConfig(image_size=16, patch_size=8, num_labels=3, **layers)
        config = ConseConfig(text_config=text, vision_config=vision, top_k=2)
        model = ConseModel(config)
        model.class_embeds.normal_(generator=torch.Generator().manual_seed(5))
        return model

    def expected_states(self, model: Any) -> int:
        return model.config.text_config.num_hidden_layers + 1

    def test_flex_attention_is_refused(self, model: Any) -> None:
        """The encoders may be any of transformers, and not all of these have it."""
        with pytest.raises(ValueError, match="does not support .*flex_attention"):
            model.set_attn_implementation("flex_attention")


class TestLinearLitModel(TestConseModel):
    """With its locked encoders inside."""

    def make(self) -> PreTrainedModel:
        conse = TestConseModel().make()
        config = LinearLitConfig(
            text_config=conse.config.text_config,
            vision_config=conse.config.vision_config,
            top_k=2,
            hidden_dim=16,
            map_share=0.5,
        )
        model: Any = LinearLitModel(config)
        generator = torch.Generator().manual_seed(5)
        for tensor in (model.class_embeds, model.image_map.weight, model.image_map.bias):
            tensor.data.normal_(generator=generator)
        return model
