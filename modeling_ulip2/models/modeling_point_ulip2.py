"""The point side of ULIP-2 (arXiv 2305.08275): the encoder, with or without its projection into the shared space."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_ulip2 import POINT_ENCODERS, Ulip2Config
from .model_card import ModelCardMixin
from .modeling_pointbert import PointBertModel
from .modeling_pointmlp import PointMLPModel
from .modeling_pointnet2 import PointNet2Model
from .modeling_pointnext import PointNextModel
from .modeling_ppat import PpatModel
from .modeling_uni3d import Uni3dModel
from .point_encoder import PointEncoderOutput
from .private_apis import new_model
from .referring import ReferringModelMixin
from .transformer_layers import OutputOptions, passed_on

# The encoders of the package: importing their files registers them and makes them travel with every checkpoint.
POINT_MODELS = (PointBertModel, PointMLPModel, PointNet2Model, PointNextModel, PpatModel, Uni3dModel)


@dataclass
class Ulip2PointModelOutput(ModelOutput):
    """Projected point features and what the encoder returned.

    point_embeds: (B, projection_dim), not normalized.
    tokens (B, G, C), pooled (B, D), centers (B, G, 3), hidden_states, attentions: see `PointEncoderOutput`.
    """

    point_embeds: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    centers: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class Ulip2PreTrainedModel(ReferringModelMixin, ModelCardMixin, PreTrainedModel):
    config_class = Ulip2Config
    base_model_prefix = ""
    main_input_name = "point_values"
    input_modalities = ["point", "image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    point_model: Any
    point_projection: Any

    def _make_point_model(self, config: Ulip2Config) -> None:
        self.point_model = make_point_model(config)
        # convolutional encoders have no blocks to compute again
        self.supports_gradient_checkpointing = self.point_model.supports_gradient_checkpointing

    def _encode(self, point_values: torch.Tensor, **said: Unpack[OutputOptions]) -> PointEncoderOutput:
        """Clouds by the encoder; what a call does not say, this model's configuration says, or else the encoder's."""
        options = passed_on(self.config, **said)
        if not self.point_model.config.return_dict:
            options["return_dict"] = True
        return self.point_model(point_values, **options)

    def _project(
        self, point_values: torch.Tensor, **options: Unpack[OutputOptions]
    ) -> tuple[torch.Tensor, PointEncoderOutput]:
        """Projected features (B, projection_dim), not normalized, and what the encoder returned."""
        encoded = self._encode(point_values, **options)
        return self.point_projection(encoded.pooled), encoded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # the encoder and an embedded tower are models of their own and initialize themselves
        if isinstance(module, PointProjection):
            # as ULIP initializes its projections, whatever the width of the encoder
            init.normal_(module.weight, std=512**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)


class PointProjection(nn.Linear):
    """Pooled features (B, D) into the shared space, (B, projection_dim)."""

    # A class of its own, since transformers initializes what a checkpoint lacks module by module, and passes by a
    # model around it that has no parameters itself.
    def __init__(self, config: Ulip2Config):
        point_config: Any = config.point_config
        super().__init__(point_config.output_dim, config.projection_dim, bias=config.projection_bias)


def make_point_model(config: Ulip2Config) -> PreTrainedModel:
    """The point encoder of a configuration, with random weights."""
    point_config: Any = config.point_config
    model_class = POINT_ENCODERS[point_config.model_type].model_class
    if model_class is None:
        raise ValueError(
            f"The point encoder {point_config.model_type!r} has a configuration but no model class: pass one "
            "to register_point_encoder, or import the file that defines it."
        )
    return new_model(model_class, point_config)


def without_tower(config: Ulip2Config) -> Ulip2Config:
    """A copy for models that hold no tower: what they save must not promise the weights of one."""
    config = copy.copy(config)
    config.clip_config = None
    return config


class Ulip2PointModel(Ulip2PreTrainedModel):
    """The point encoder alone, from any ULIP-2 checkpoint.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import Ulip2Config, Ulip2PointModel
        >>> model = Ulip2PointModel(Ulip2Config(point_config={"model_type": "ulip2_pointnext"})).eval()
        >>> output = model(torch.rand(2, 1024, 4), output_hidden_states=True)
        >>> list(output.pooled.shape), len(output.hidden_states)
        ([2, 256], 5)
    """

    input_modalities = ["point"]
    _keys_to_ignore_on_load_unexpected = [r"^clip_model\.", r"^point_projection\.", r"^logit_(scale|bias)$"]

    def __init__(self, config: Ulip2Config):
        super().__init__(without_tower(config))
        self._make_point_model(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        **options: Unpack[OutputOptions],
    ) -> PointEncoderOutput:
        """Encodes clouds `point_values` (B, N, in_channels); see the encoder, for example `PointBertModel.forward`."""
        return self._encode(point_values, **options)


class Ulip2PointModelWithProjection(Ulip2PreTrainedModel):
    """The point encoder and its projection into the shared space, from any ULIP-2 checkpoint; no tower needed.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import Ulip2Config, Ulip2PointModelWithProjection
        >>> model = Ulip2PointModelWithProjection(Ulip2Config(point_config={"model_type": "ulip2_pointnext"})).eval()
        >>> output = model(torch.rand(2, 1024, 4))
        >>> list(output.point_embeds.shape)
        [2, 1280]
        >>> torch.equal(model.get_point_features(torch.ones(1, 32, 4)).pooler_output, model(torch.ones(1, 32, 4))[0])
        True
    """

    input_modalities = ["point"]
    _keys_to_ignore_on_load_unexpected = [r"^clip_model\.", r"^logit_(scale|bias)$"]

    def __init__(self, config: Ulip2Config):
        super().__init__(without_tower(config))
        self._make_point_model(config)
        self.point_projection = PointProjection(config)
        self.post_init()

    @can_return_tuple
    def get_point_features(
        self,
        point_values: torch.Tensor,
        **options: Unpack[OutputOptions],
    ) -> BaseModelOutputWithPooling:
        """As `Ulip2Model.get_point_features`."""
        return feature_output(*self._project(point_values, **options))

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        **options: Unpack[OutputOptions],
    ) -> Ulip2PointModelOutput:
        """Embeds clouds `point_values` (B, N, in_channels) as `point_embeds` (B, projection_dim), not normalized."""
        embeds, encoded = self._project(point_values, **options)
        return Ulip2PointModelOutput(point_embeds=embeds, **encoded)


def feature_output(embeds: torch.Tensor, encoded: PointEncoderOutput) -> BaseModelOutputWithPooling:
    """Projected features (B, D) beside the tokens of the patches, as transformers returns features."""
    return BaseModelOutputWithPooling(
        last_hidden_state=encoded.tokens,
        pooler_output=embeds,
        hidden_states=encoded.hidden_states,
        attentions=encoded.attentions,
    )


for _model_class in (Ulip2PointModel, Ulip2PointModelWithProjection):
    _model_class.register_for_auto_class("AutoModel")

__all__ = [
    "PointProjection",
    "Ulip2PointModel",
    "Ulip2PointModelOutput",
    "Ulip2PointModelWithProjection",
    "Ulip2PreTrainedModel",
    "make_point_model",
    "feature_output",
    "without_tower",
]
