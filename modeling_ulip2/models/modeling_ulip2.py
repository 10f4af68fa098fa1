"""ULIP-2 (arXiv 2305.08275): a point encoder whose features lie in the space of a frozen image-text model.

The image-text model ("tower") is loaded by name when a text or an image first needs it, and stays out of checkpoints
unless asked: what was trained is the point encoder, one projection and the logit scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_ulip2 import Ulip2Config
from .loss import ContrastiveTerms, average_captions, contrastive_loss, contrastive_terms
from .modeling_point_ulip2 import PointProjection, Ulip2PreTrainedModel, feature_output
from .point_encoder import PointEncoderOutput
from .tower import FrozenTowerMixin
from .tower_inputs import image_inputs, sort_inputs, text_inputs
from .transformer_layers import OutputOptions, passed_on

# Upper bound of the logarithm of the logit scale, as in the original: a scale of 100.
MAX_LOGIT_SCALE = 4.6052


@dataclass
class Ulip2Output(ModelOutput):
    """Output of `Ulip2Model`; what its inputs do not allow is None. Embeddings are float32 and of unit length.

    loss: scalar, with `return_loss`.
    logits_per_point_text, logits_per_point_image: (B points, B texts or images), cosine times logit scale.
    point_embeds, text_embeds, image_embeds: (B, projection_dim); a text embedding is the mean over its captions.
    point_model_output: tokens, centers, ... of the point encoder.
    text_loss, image_loss, text_accuracy, image_accuracy: of the loss, see `ContrastiveTerms`; without gradient.
    """

    loss: torch.Tensor | None = None
    logits_per_point_text: torch.Tensor | None = None
    logits_per_point_image: torch.Tensor | None = None
    point_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    point_model_output: PointEncoderOutput | None = None
    text_loss: torch.Tensor | None = None
    image_loss: torch.Tensor | None = None
    text_accuracy: torch.Tensor | None = None
    image_accuracy: torch.Tensor | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """What is there, with the output of the point encoder as a tuple too."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


class Ulip2Model(FrozenTowerMixin, Ulip2PreTrainedModel):
    """Point encoder, projection, logit scale, and a frozen image-text tower by reference.

    The tower named by `config.clip_name_or_path` is loaded on the first call that needs it; see `FrozenTowerMixin`.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import Ulip2Config, Ulip2Model
        >>> config = Ulip2Config(point_config={"model_type": "ulip2_pointnext"}, projection_dim=512)
        >>> model = Ulip2Model(config).eval()
        >>> texts = torch.randn(3, 512)  # a tower's features of 3 texts; with a tower, pass input_ids
        >>> output = model(point_values=torch.rand(2, 1024, 4), text_embeds=texts)
        >>> list(output.point_embeds.shape), list(output.logits_per_point_text.shape)
        ([2, 512], [2, 3])
    """

    _keys_to_ignore_on_load_unexpected = [r"^clip_model\."]

    def __init__(self, config: Ulip2Config):
        super().__init__(config)
        self._make_point_model(config)
        self.point_projection = PointProjection(config)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        bias = torch.tensor(float(config.logit_bias_init_value)) if config.loss_type == "siglip" else None
        self.logit_bias: nn.Parameter | None
        self.register_parameter("logit_bias", None if bias is None else nn.Parameter(bias))
        self._init_tower()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Ulip2Model):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if isinstance(bias := module.logit_bias, nn.Parameter):
                init.constant_(bias, self.config.logit_bias_init_value)

    @classmethod
    def from_release(cls, name: str, **kwargs: Any) -> Any:
        """A published checkpoint by its name in `ulip2 releases`, fetched and converted on first use, and kept.

        Args:
            kwargs: of `from_pretrained`; `revision` is that of the repository in which the checkpoint lies.

        Raises:
            ValueError: there is no such checkpoint.
            FileNotFoundError: the hub does not have or give its file.
        """
        try:
            from modeling_ulip2.conversion.named import converted_release
        except ImportError as error:
            raise ImportError(
                "Published checkpoints are converted by the package: pip install modeling-ulip2"
            ) from error
        fetching = {key: kwargs.get(key) for key in ("token", "cache_dir", "force_download")}
        folder = converted_release(name, revision=kwargs.pop("revision", None), **fetching)
        kwargs.pop("force_download", None)
        return cls.from_pretrained(folder, **kwargs)

    @can_return_tuple
    def get_point_features(
        self,
        point_values: torch.Tensor,
        **options: Unpack[OutputOptions],
    ) -> BaseModelOutputWithPooling:
        """Features of clouds (B, N, in_channels) in the shared space.

        Returns:
            `pooler_output` (B, projection_dim), not normalized; `last_hidden_state` (B, G, C), the encoder's tokens.
        """
        return feature_output(*self._project(point_values, **options))

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **tower_inputs: Any,
    ) -> BaseModelOutputWithPooling:
        """Features of texts in the shared space, by the tower.

        Args:
            input_ids, attention_mask: (B, L), as the tower's tokenizer makes them.
            output_hidden_states, output_attentions: of the tower, as far as it has them.
            tower_inputs: what else a tokenizer makes, such as `token_type_ids`; given to towers that take it.

        Returns:
            `pooler_output` (B, projection_dim), not normalized, and what else the tower returns.
        """
        tower = self.get_clip_model()
        given = text_inputs(tower, {"input_ids": input_ids, "attention_mask": attention_mask, **tower_inputs})
        asked = passed_on(self.config, output_hidden_states=output_hidden_states, output_attentions=output_attentions)
        return self._checked("text", tower.get_text_features(**given, **asked))

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **tower_inputs: Any,
    ) -> BaseModelOutputWithPooling:
        """Features of images in the shared space, by the tower.

        Args:
            pixel_values: (B, 3, H, W), or as the tower's image processor makes them.
            output_hidden_states, output_attentions: of the tower, as far as it has them.
            tower_inputs: what else an image processor makes, such as SigLIP 2's `pixel_attention_mask` and
                `spatial_shapes`.

        Returns:
            `pooler_output` (B, projection_dim), not normalized, and what else the tower returns.
        """
        tower = self.get_clip_model()
        given = image_inputs(tower, {"pixel_values": pixel_values, **tower_inputs})
        asked = passed_on(self.config, output_hidden_states=output_hidden_states, output_attentions=output_attentions)
        return self._checked("image", tower.get_image_features(**given, **asked))

    def _checked(self, modality: str, features: Any) -> BaseModelOutputWithPooling:
        if isinstance(features, torch.Tensor):  # what transformers 4 returned, and what many custom models still do
            features = BaseModelOutputWithPooling(pooler_output=features)
        pooled = features.pooler_output
        if pooled.ndim != 2:
            raise ValueError(
                f"The image-text tower {type(self.get_clip_model()).__name__} makes {modality} features of shape "
                f"{tuple(pooled.shape)}, where one vector for each {modality} is needed: (batch, channels)."
            )
        self._check_width(f"the tower's {modality} features", pooled)
        return features

    def _check_width(self, what: str, embeds: torch.Tensor) -> None:
        if embeds.shape[-1] != self.config.projection_dim:
            raise ValueError(
                f"{what} have {embeds.shape[-1]} channels, but this model projects points to projection_dim = "
                f"{self.config.projection_dim}: it belongs to another image-text tower."
            )

    def _caption_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        tower_inputs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token ids (B, L) -> (B, D), None; (B, K, L) -> (B, K, D) and the mask (B, K) of captions that are there."""
        features: Any
        if input_ids.ndim == 2:
            features = self.get_text_features(
                input_ids, attention_mask, return_dict=True, **tower_inputs
            ).pooler_output
            return features, None
        present = torch.ones_like(input_ids[..., 0], dtype=torch.bool)  # (B, K)
        if text_mask is not None:
            present = text_mask.bool()
        elif attention_mask is not None:
            present = attention_mask.bool().any(dim=-1)
        tokens_mask = None if attention_mask is None else attention_mask[present]  # (captions, L)
        tower_inputs = {
            name: value[present] if isinstance(value, torch.Tensor) and value.ndim >= 3 else value
            for name, value in tower_inputs.items()
        }  # (captions, L)
        features = self.get_text_features(
            input_ids[present], tokens_mask, return_dict=True, **tower_inputs
        ).pooler_output
        padded = features.new_zeros(*present.shape, features.shape[-1])  # (B, K, D)
        padded[present] = features
        return padded, present

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **tower_inputs: Any,
    ) -> Ulip2Output:
        """Embeds any subset of the three modalities and compares points with the other two.

        Args:
            point_values: (B, N, in_channels) clouds.
            pixel_values: (B, 3, H, W) images as the tower's image processor makes them.
            input_ids, attention_mask: (B, L) one caption a shape, or (B, K, L) several; in the latter a row of zeros
                in the mask stands for a caption that is not there.
            image_embeds: (B, D) precomputed tower features; used instead of `pixel_values`.
            text_embeds: (B, D) or (B, K, D) precomputed tower features; used instead of `input_ids`.
            text_mask: (B, K), true for captions that are there, beside (B, K, L) or (B, K, D).
            return_loss: compute the contrastive loss (needs points, and texts or images).
            output_hidden_states, output_attentions: of the point encoder.
            tower_inputs: what else the tower's tokenizer and image processor make, such as `token_type_ids`, of the
                shape of `input_ids`, and SigLIP 2's `pixel_attention_mask` and `spatial_shapes`.

        Raises:
            TypeError: neither the model nor its tower takes an input of that name.
            ValueError: nothing to embed, or features of another width than `projection_dim`.
        """
        of_texts, of_images = sort_inputs(self.get_clip_model, tower_inputs)
        encoded, point_embeds = None, None
        if point_values is not None:
            projected, encoded = self._project(
                point_values, output_hidden_states=output_hidden_states, output_attentions=output_attentions
            )
            point_embeds = F.normalize(projected.float(), dim=-1)  # (B, D)
        if image_embeds is None and pixel_values is not None:
            image_embeds = self.get_image_features(pixel_values, return_dict=True, **of_images).pooler_output
        if image_embeds is not None:
            self._check_width("image_embeds", image_embeds)
            image_embeds = F.normalize(image_embeds.float(), dim=-1)  # (B, D)
        if text_embeds is None and input_ids is not None:
            text_embeds, text_mask = self._caption_features(input_ids, attention_mask, text_mask, of_texts)
        if text_embeds is not None:
            self._check_width("text_embeds", text_embeds)
            text_embeds = average_captions(text_embeds, text_mask)  # (B, D)
        if point_embeds is None and text_embeds is None and image_embeds is None:
            raise ValueError(
                "Nothing to embed: pass point_values, pixel_values, input_ids, image_embeds or text_embeds."
            )

        scale = self.logit_scale.float().exp()
        terms: dict[str, torch.Tensor | None] = {}
        if return_loss:
            if point_embeds is None:
                raise ValueError("return_loss=True needs point_values.")
            compared = self.compare(point_embeds, text_embeds, image_embeds)
            terms = vars(compared.detached()) | {"loss": compared.loss}

        def logits(embeds: torch.Tensor | None) -> torch.Tensor | None:
            if point_embeds is None or embeds is None:
                return None
            with torch.autocast(point_embeds.device.type, enabled=False):
                return scale * point_embeds @ embeds.T  # (B points, B others)

        return Ulip2Output(
            **terms,
            logits_per_point_text=logits(text_embeds),
            logits_per_point_image=logits(image_embeds),
            point_embeds=point_embeds,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            point_model_output=encoded,
        )

    def compare(
        self, point_embeds: torch.Tensor, text_embeds: torch.Tensor | None, image_embeds: torch.Tensor | None
    ) -> ContrastiveTerms:
        """The loss of embeddings (B, D) that `forward` returned, in the way that the configuration says."""
        return contrastive_terms(
            point_embeds,
            text_embeds,
            image_embeds,
            self.logit_scale.float().exp(),
            self.config.gather_with_grad,
            text_weight=self.config.text_loss_weight,
            image_weight=self.config.image_loss_weight,
            loss_type=self.config.loss_type,
            logit_bias=self.logit_bias,
            chunk_size=self.config.loss_chunk_size,
        )

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the logit scale between 1 and 100; to be called after every optimizer step."""
        self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


Ulip2Model.register_for_auto_class("AutoModel")

__all__ = ["Ulip2Model", "Ulip2Output", "average_captions", "contrastive_loss"]
