"""ULIP-2 (arXiv 2305.08275): a point encoder whose features lie in the space of a frozen image-text model.

The image-text model ("tower") is loaded by name when a text or an image first needs it, and stays out of checkpoints
unless asked: what was trained is the point encoder, one projection and the logit scale.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from .configuration_ulip2 import POINT_ENCODERS, Ulip2Config
from .pointbert_ulip2 import PointEncoderOutput

# Upper bound of the logarithm of the logit scale, as in the original: a scale of 100.
MAX_LOGIT_SCALE = 4.6052


@dataclass
class Ulip2PointModelOutput(ModelOutput):
    """Projected point features and what the encoder returned.

    point_embeds: (B, projection_dim), not normalised.
    tokens (B, G, C), pooled (B, D), centers (B, G, 3), hidden_states, attentions: see `PointEncoderOutput`.
    """

    point_embeds: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    centers: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class Ulip2Output(ModelOutput):
    """Output of `Ulip2Model`; what its inputs do not allow is None. Embeddings are float32 and of unit length.

    loss: scalar, with `return_loss`.
    logits_per_point_text, logits_per_point_image: (B points, B texts or images), cosine times logit scale.
    point_embeds, text_embeds, image_embeds: (B, projection_dim); a text embedding is the mean over its captions.
    point_model_output: tokens, centres, ... of the point encoder.
    """

    loss: torch.Tensor | None = None
    logits_per_point_text: torch.Tensor | None = None
    logits_per_point_image: torch.Tensor | None = None
    point_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    point_model_output: PointEncoderOutput | None = None


class _GatherWithGrad(torch.autograd.Function):
    """Concatenates the rows of all processes; backward sums what every process wants of this process's rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.size = rows.shape[0]
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.size, ctx.size)


def contrastive_loss(
    point_embeds: torch.Tensor,
    text_embeds: torch.Tensor | None,
    image_embeds: torch.Tensor | None,
    logit_scale: torch.Tensor,
    gather_with_grad: bool = True,
) -> torch.Tensor:
    """Contrastive loss over the global batch (ULIP-2, section 3.3, equation 2).

    For point-text and point-image, where both are given: cross-entropy of points against all partners and of partners
    against all points, halved; the two are summed. Row i of every tensor belongs to shape i. In a distributed group
    each process compares its own rows with the rows of all processes, which must hold equally many.

    Args:
        point_embeds, text_embeds, image_embeds: (B, D) of this process, normalised here.
        logit_scale: scalar factor of the cosines (exponentiated, not its logarithm).
        gather_with_grad: let gradients flow through the rows of other processes. With it, the gradient averaged over
            processes is that of one process holding the whole batch; without it (the original) about half of that.

    Returns:
        Scalar, the mean over this process's rows.
    """
    partners = [embeds for embeds in (text_embeds, image_embeds) if embeds is not None]
    if not partners:
        raise ValueError("The loss compares points with texts or images: pass text_embeds, image_embeds or both.")
    for embeds in partners:
        if embeds.shape != point_embeds.shape:
            raise ValueError(
                f"Embeddings must have equal shapes, row i for shape i: points have {tuple(point_embeds.shape)}, "
                f"texts or images {tuple(embeds.shape)}."
            )
    with torch.autocast(point_embeds.device.type, enabled=False):
        local = [F.normalize(embeds.float(), dim=-1) for embeds in (point_embeds, *partners)]  # (B, D) each
        everywhere, first_row = local, 0
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            rows = torch.cat(local, dim=1)  # (B, modalities * D): one collective for all
            everywhere = list(
                _GatherWithGrad.apply(rows if gather_with_grad else rows.detach()).chunk(len(local), dim=1)
            )
            first_row = dist.get_rank() * len(point_embeds)
        target = torch.arange(len(point_embeds), device=point_embeds.device) + first_row  # (B,)
        scale = logit_scale.float()
        loss = scale.new_zeros(())
        for i in range(1, len(local)):
            per_point = scale * local[0] @ everywhere[i].T  # (B, B of all processes)
            per_partner = scale * local[i] @ everywhere[0].T  # (B, B of all processes)
            loss = loss + (F.cross_entropy(per_point, target) + F.cross_entropy(per_partner, target)) / 2
        return loss


def average_captions(text_embeds: torch.Tensor, text_mask: torch.Tensor | None = None) -> torch.Tensor:
    """One text embedding per shape: every caption normalised, averaged, normalised again.

    Args:
        text_embeds: (B, D) or (B, K, D).
        text_mask: (B, K), true for captions that are there; default: all. A row without any gives a zero embedding.

    Returns:
        (B, D) float32.
    """
    text_embeds = F.normalize(text_embeds.float(), dim=-1)
    if text_embeds.ndim == 2:
        return text_embeds
    if text_mask is not None:
        text_embeds = text_embeds * text_mask.unsqueeze(-1)
    # a sum has the direction of the mean
    return F.normalize(text_embeds.sum(dim=1), dim=-1)


class Ulip2PreTrainedModel(PreTrainedModel):
    config_class = Ulip2Config
    base_model_prefix = ""
    main_input_name = "point_values"
    input_modalities = ["point", "image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # the encoder and an embedded tower are models of their own and initialise themselves
        if isinstance(module, (Ulip2PointModelWithProjection, Ulip2Model)):
            projection = module.point_projection
            # as ULIP initialises its projections, whatever the width of the encoder
            init.normal_(projection.weight, std=512**-0.5)
            if projection.bias is not None:
                init.zeros_(projection.bias)
        if isinstance(module, Ulip2Model):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)


def _make_point_model(config: Ulip2Config) -> PreTrainedModel:
    point_config: Any = config.point_config
    model_class = POINT_ENCODERS[point_config.model_type].model_class
    if model_class is None:
        raise ValueError(
            f"The point encoder {point_config.model_type!r} has a configuration but no model class: pass one "
            "to register_point_encoder, or import the file that defines it."
        )
    return model_class._from_config(point_config)


def _make_projection(config: Ulip2Config) -> nn.Linear:
    point_config: Any = config.point_config
    return nn.Linear(point_config.output_dim, config.projection_dim, bias=config.projection_bias)


class Ulip2PointModel(Ulip2PreTrainedModel):
    """The point encoder alone, from any ULIP-2 checkpoint."""

    input_modalities = ["point"]
    _keys_to_ignore_on_load_unexpected = [r"^clip_model\.", r"^point_projection\.", r"^logit_scale$"]

    def __init__(self, config: Ulip2Config):
        super().__init__(config)
        self.point_model = _make_point_model(config)
        self.post_init()

    def forward(
        self, point_values: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> PointEncoderOutput:
        """Encodes clouds `point_values` (B, N, in_channels); see the encoder, for example `PointBertModel.forward`."""
        return self.point_model(
            point_values, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )


class Ulip2PointModelWithProjection(Ulip2PreTrainedModel):
    """The point encoder and its projection into the shared space, from any ULIP-2 checkpoint; no tower needed."""

    input_modalities = ["point"]
    _keys_to_ignore_on_load_unexpected = [r"^clip_model\.", r"^logit_scale$"]

    def __init__(self, config: Ulip2Config):
        super().__init__(config)
        self.point_model = _make_point_model(config)
        self.point_projection = _make_projection(config)
        self.post_init()

    def forward(
        self, point_values: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> Ulip2PointModelOutput:
        """Embeds clouds `point_values` (B, N, in_channels) as `point_embeds` (B, projection_dim), not normalised."""
        encoded = self.point_model(
            point_values, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )
        return Ulip2PointModelOutput(point_embeds=self.point_projection(encoded.pooled), **encoded)


class Ulip2Model(Ulip2PreTrainedModel):
    """Point encoder, projection, logit scale, and a frozen image-text tower by reference.

    The tower named by `config.clip_name_or_path` is loaded on the first call that needs it, follows the model's
    device, never trains and is no part of `state_dict()`. Only in a model loaded from a checkpoint that embeds its
    tower is it the submodule `clip_model`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^clip_model\."]

    def __init__(self, config: Ulip2Config):
        super().__init__(config)
        self.point_model = _make_point_model(config)
        self.point_projection = _make_projection(config)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        # a list hides a module from torch: this is the tower by reference
        self._referenced_tower: list[Any] = []
        if config.clip_config is not None:
            self.clip_model = AutoModel.from_config(config.clip_config).requires_grad_(False).eval()
        self.post_init()

    # --- the tower ---------------------------------------------------------------------------------------------------

    def get_clip_model(self) -> Any:
        """The frozen image-text model, loaded now if it has not been, on this model's device."""
        embedded = self._modules.get("clip_model")
        if embedded is not None:
            return embedded
        if not self._referenced_tower:
            self.load_clip_model()
        tower = self._referenced_tower[0]
        if tower.device != self.device:
            tower.to(self.device)
        return tower

    def load_clip_model(self, **kwargs: Any) -> None:
        """Loads the tower named by `config.clip_name_or_path`; `kwargs` go to `AutoModel.from_pretrained`."""
        name = self.config.clip_name_or_path
        if name is None:
            raise ValueError(
                "This model has no image-text tower: set config.clip_name_or_path to the name or folder of one, call "
                "set_clip_model, or pass precomputed text_embeds and image_embeds."
            )
        try:
            tower = AutoModel.from_pretrained(name, **kwargs)
        except (OSError, ValueError) as error:
            raise OSError(
                f"The image-text tower {name!r} (clip_name_or_path of the configuration) could not be loaded: {error} "
                "If it lies elsewhere, pass clip_name_or_path=... to from_pretrained."
            ) from error
        self._refer_to(tower)

    def set_clip_model(self, tower: PreTrainedModel) -> None:
        """Uses an image-text model that is already in memory; checkpoints refer to it by its `name_or_path`."""
        self._refer_to(tower)
        self.config.clip_name_or_path = tower.name_or_path or None

    def _refer_to(self, tower: PreTrainedModel) -> None:
        for method in ("get_text_features", "get_image_features"):
            if not hasattr(tower, method):
                raise ValueError(f"{type(tower).__name__} is no image-text tower: it has no {method}.")
        self._modules.pop("clip_model", None)
        self.config.clip_config = None
        self._referenced_tower = [tower.requires_grad_(False).eval()]

    def train(self, mode: bool = True) -> Ulip2Model:
        super().train(mode)
        if "clip_model" in self._modules:
            self.clip_model.eval()  # frozen: no dropout
        return self

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        *,
        include_towers: bool | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the model as transformers does, by default without the weights of its image-text tower.

        Args:
            include_towers: True embeds the tower (loading it if need be); False leaves a reference to
                `config.clip_name_or_path`. Default: embed it only if it has no name to refer to and would be lost.
            state_dict, kwargs: as in `PreTrainedModel.save_pretrained`.
        """
        embedded = "clip_model" in self._modules
        if include_towers is None:
            include_towers = self.config.clip_name_or_path is None and (embedded or bool(self._referenced_tower))
        if state_dict is not None:
            state_dict = {name: value for name, value in state_dict.items() if not name.startswith("clip_model.")}
            if include_towers:
                tower = self.get_clip_model().state_dict()
                state_dict |= {f"clip_model.{name}": value for name, value in tower.items()}
        with self._saved_with_tower(include_towers):
            super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

    @contextmanager
    def _saved_with_tower(self, included: bool) -> Iterator[None]:
        """While it lasts, the tower is a submodule and part of the configuration, or neither."""
        module, config = self._modules.pop("clip_model", None), self.config.clip_config
        try:
            self.config.clip_config = None
            if included:
                tower = module or self.get_clip_model()
                self._modules["clip_model"], self.config.clip_config = tower, tower.config
            yield
        finally:
            self._modules.pop("clip_model", None)
            if module is not None:
                self._modules["clip_model"] = module
            self.config.clip_config = config

    # --- features ----------------------------------------------------------------------------------------------------

    def get_point_features(self, point_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """`pooler_output` (B, projection_dim), not normalised, of clouds (B, N, in_channels); tokens beside it."""
        encoded = self.point_model(point_values)
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.tokens, pooler_output=self.point_projection(encoded.pooled)
        )

    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """`pooler_output` (B, projection_dim), not normalised, of token ids (B, L), by the tower."""
        mask = {} if attention_mask is None else {"attention_mask": attention_mask}
        return self._checked("text", self.get_clip_model().get_text_features(input_ids=input_ids, **mask))

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """`pooler_output` (B, projection_dim), not normalised, of images (B, 3, H, W), by the tower."""
        return self._checked("image", self.get_clip_model().get_image_features(pixel_values=pixel_values))

    def _checked(self, modality: str, features: Any) -> BaseModelOutputWithPooling:
        if isinstance(features, torch.Tensor):  # what transformers 4 returned, and what many custom models still do
            features = BaseModelOutputWithPooling(pooler_output=features)
        self._check_width(f"the tower's {modality} features", features.pooler_output)
        return features

    def _check_width(self, what: str, embeds: torch.Tensor) -> None:
        if embeds.shape[-1] != self.config.projection_dim:
            raise ValueError(
                f"{what} have {embeds.shape[-1]} channels, but this model projects points to projection_dim = "
                f"{self.config.projection_dim}: it belongs to another image-text tower."
            )

    def _caption_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Token ids (B, L) -> (B, D), None; (B, K, L) -> (B, K, D) and the mask (B, K) of captions that are there."""
        features: Any
        if input_ids.ndim == 2:
            features = self.get_text_features(input_ids, attention_mask).pooler_output
            return features, None
        if attention_mask is None:
            present, mask = torch.ones_like(input_ids[..., 0], dtype=torch.bool), None  # (B, K)
        else:
            present = attention_mask.bool().any(dim=-1)  # (B, K)
            mask = attention_mask[present]  # (captions, L)
        features = self.get_text_features(input_ids[present], mask).pooler_output  # (captions, D)
        padded = features.new_zeros(*present.shape, features.shape[-1])  # (B, K, D)
        padded[present] = features
        return padded, present

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
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Ulip2Output:
        """Embeds any subset of the three modalities and compares points with the other two.

        Args:
            point_values: (B, N, in_channels) clouds.
            pixel_values: (B, 3, H, W) images as the tower's image processor makes them.
            input_ids, attention_mask: (B, L) one caption a shape, or (B, K, L) several; in the latter a row of zeros
                in the mask stands for a caption that is not there.
            image_embeds: (B, D) precomputed tower features; used instead of `pixel_values`.
            text_embeds: (B, D) or (B, K, D) precomputed tower features; used instead of `input_ids`.
            text_mask: (B, K), true for captions that are there, beside `text_embeds` (B, K, D).
            return_loss: compute the contrastive loss (needs points, and texts or images).
            output_hidden_states, output_attentions: of the point encoder.
        """
        encoded, point_embeds = None, None
        if point_values is not None:
            encoded = self.point_model(
                point_values, output_hidden_states=output_hidden_states, output_attentions=output_attentions
            )
            point_embeds = F.normalize(self.point_projection(encoded.pooled).float(), dim=-1)  # (B, D)
        if image_embeds is None and pixel_values is not None:
            image_embeds = self.get_image_features(pixel_values).pooler_output
        if image_embeds is not None:
            self._check_width("image_embeds", image_embeds)
            image_embeds = F.normalize(image_embeds.float(), dim=-1)  # (B, D)
        if text_embeds is None and input_ids is not None:
            text_embeds, text_mask = self._caption_features(input_ids, attention_mask)
        if text_embeds is not None:
            self._check_width("text_embeds", text_embeds)
            text_embeds = average_captions(text_embeds, text_mask)  # (B, D)
        if point_embeds is None and text_embeds is None and image_embeds is None:
            raise ValueError(
                "Nothing to embed: pass point_values, pixel_values, input_ids, image_embeds or text_embeds."
            )

        scale = self.logit_scale.float().exp()
        loss = None
        if return_loss:
            if point_embeds is None:
                raise ValueError("return_loss=True needs point_values.")
            loss = contrastive_loss(point_embeds, text_embeds, image_embeds, scale, self.config.gather_with_grad)

        def logits(embeds: torch.Tensor | None) -> torch.Tensor | None:
            if point_embeds is None or embeds is None:
                return None
            with torch.autocast(point_embeds.device.type, enabled=False):
                return scale * point_embeds @ embeds.T  # (B points, B others)

        return Ulip2Output(
            loss=loss,
            logits_per_point_text=logits(text_embeds),
            logits_per_point_image=logits(image_embeds),
            point_embeds=point_embeds,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            point_model_output=encoded,
        )

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the logit scale between 1 and 100; to be called after every optimiser step."""
        self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


for _model_class in (Ulip2PointModel, Ulip2PointModelWithProjection, Ulip2Model):
    _model_class.register_for_auto_class("AutoModel")

__all__ = [
    "Ulip2Model",
    "Ulip2Output",
    "Ulip2PointModel",
    "Ulip2PointModelOutput",
    "Ulip2PointModelWithProjection",
    "Ulip2PreTrainedModel",
    "average_captions",
    "contrastive_loss",
]
