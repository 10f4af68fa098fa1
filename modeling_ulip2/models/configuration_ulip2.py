"""Configurations: one for the tri-modal model, one for each point encoder, and the one table that joins them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_conse import ConseConfig
from .configuration_pointconv import (
    POINTMLP_ELITE,
    POINTNET2_MSG,
    POINTNEXT_SIZES,
    PointMLPConfig,
    PointNet2Config,
    PointNextConfig,
    check_channels,
    check_counts,
    check_shares,
)
from .configuration_slip import SlipConfig
from .loss import LOSS_TYPES
from .references import ReferringConfigMixin


def _check_heads(config: Any) -> None:
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size ({config.hidden_size}) must be a multiple of num_attention_heads "
            f"({config.num_attention_heads})."
        )


class PointBertConfig(PreTrainedConfig):
    """Configuration of the Point-BERT encoder. The defaults are those of the released ULIP-2 checkpoint (10k points).

    `POINTBERT_SIZES` lists the sizes of the paper's backbone table.

    Args:
        in_channels: 3 for xyz, 6 for xyz and rgb.
        hidden_size: width of the transformer; the pooled feature has twice as many channels.
        num_hidden_layers, num_attention_heads, mlp_ratio: of the transformer.
        num_groups, group_size: patches per cloud, and points per patch.
        encoder_dims: channels of a patch token before it is projected to `hidden_size`.
        drop_path_rate: stochastic depth, rising linearly from 0 in the first block to this in the last.
        hidden_act, layer_norm_eps: as everywhere in transformers.
    """

    model_type = "ulip2_pointbert"
    base_config_key = "point_config"

    in_channels: int = 6
    hidden_size: int = 384
    num_hidden_layers: int = 18
    num_attention_heads: int = 6
    mlp_ratio: float | int = 4.0
    num_groups: int = 512
    group_size: int = 32
    encoder_dims: int = 256
    drop_path_rate: float | int = 0.1
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature: [CLS, max over the other tokens]."""
        return 2 * self.hidden_size

    @property
    def classifier_dims(self) -> tuple[int, ...]:
        """Hidden layer of the head with which Point-BERT was fine-tuned (its code, `PointTransformer`)."""
        return (256,)

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.validate_architecture()

    def validate_architecture(self) -> None:
        """Raises ValueError where fields contradict each other."""
        check_channels(self)
        check_counts(self, "hidden_size", "num_hidden_layers", "num_attention_heads")
        check_counts(self, "num_groups", "group_size", "encoder_dims")
        _check_heads(self)
        check_shares(self, "drop_path_rate")
        if int(self.mlp_ratio * self.hidden_size) < 1:
            raise ValueError(f"mlp_ratio must be positive, got {self.mlp_ratio}.")


# The sizes of the backbone table of ULIP-2 (arXiv 2305.08275): arguments of `PointBertConfig`, by the parameters that
# the table gives. It gives nothing else. Depth alone, at the width of the released encoders, meets four of its counts
# to the digit, and two of them are known otherwise (ULIP's encoder, and ULIP-2's). The smallest is met by several
# shapes and by none of that width; the one here is a choice of ours.
POINTBERT_SIZES: dict[str, dict[str, Any]] = {
    "5.3M": dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=4),
    "21.9M": dict(num_hidden_layers=12),
    "32.5M": dict(num_hidden_layers=18),
    "43.1M": dict(num_hidden_layers=24),
    "85.7M": dict(num_hidden_layers=48),
}


class Uni3dConfig(PreTrainedConfig):
    """Configuration of the Uni3D encoder. The defaults are those of Uni3D-B; `UNI3D_SIZES` lists the published sizes.

    Args:
        in_channels: columns of the input: xyz and rgb make 6.
        hidden_size, num_hidden_layers, num_attention_heads: of the transformer; the pooled feature has `hidden_size`.
        intermediate_size: channels inside the MLP.
        fused_qkv: whether queries, keys and values come from one layer.
        mlp_kind: "gelu", "swiglu" (gate and value packed in one layer) or "swiglu_norm" (two layers, an inner norm).
        num_groups, group_size: patches per cloud, and points per patch.
        encoder_dims: channels of a patch token before it is projected to `hidden_size`.
        drop_path_rate: stochastic depth, rising linearly from 0 in the first block to this in the last.
        patch_dropout: share of the patches left out in training.
        layer_norm_eps, initializer_range: as everywhere in transformers.
    """

    model_type = "ulip2_uni3d"
    base_config_key = "point_config"

    in_channels: int = 6
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 2048
    fused_qkv: bool = False
    mlp_kind: str = "swiglu_norm"
    num_groups: int = 512
    group_size: int = 64
    encoder_dims: int = 512
    drop_path_rate: float | int = 0.0
    patch_dropout: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature: CLS."""
        return self.hidden_size

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.validate_architecture()

    def validate_architecture(self) -> None:
        """Raises ValueError where fields contradict each other."""
        if self.mlp_kind not in ("gelu", "swiglu", "swiglu_norm"):
            raise ValueError(f"mlp_kind must be 'gelu', 'swiglu' or 'swiglu_norm', got {self.mlp_kind!r}.")
        check_channels(self)
        check_counts(self, "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        check_counts(self, "num_groups", "group_size", "encoder_dims")
        _check_heads(self)
        check_shares(self, "drop_path_rate", "patch_dropout")


# What distinguishes the published sizes of Uni3D (arXiv 2310.06773, table 1): arguments of `Uni3dConfig`.
UNI3D_SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(hidden_size=192, num_attention_heads=3, intermediate_size=512, fused_qkv=True, mlp_kind="swiglu"),
    "small": dict(hidden_size=384, num_attention_heads=6, intermediate_size=1024, fused_qkv=True, mlp_kind="swiglu"),
    "base": dict(hidden_size=768, num_attention_heads=12, intermediate_size=2048),
    "large": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=2730),
    "giant": dict(
        hidden_size=1408,
        num_hidden_layers=40,
        num_attention_heads=16,
        intermediate_size=6144,
        fused_qkv=True,
        mlp_kind="gelu",
    ),
}


class PpatConfig(PreTrainedConfig):
    """Configuration of OpenShape's point patch transformer (PPAT). The defaults are those of its ViT-bigG-14 release.

    Args:
        in_channels: columns of the input, which enter a patch beside the relative position: xyz (3), xyz and rgb (6).
        hidden_size, num_hidden_layers, num_attention_heads, head_dim, intermediate_size: of the transformer.
        num_groups: patches per cloud.
        group_radius, group_size: a patch takes the first `group_size` points within this distance of its center.
        set_abstraction_dim: channels of a patch before it is projected to `hidden_size`.
        relative_position_bias: add a learned function of the offset between two centers to their attention.
        patch_dropout: how many patches fewer are sampled in training.
        layer_norm_eps: as everywhere in transformers.
    """

    model_type = "ulip2_ppat"
    base_config_key = "point_config"

    in_channels: int = 6
    hidden_size: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    head_dim: int = 64
    intermediate_size: int = 1536
    num_groups: int = 384
    group_radius: float | int = 0.2
    group_size: int = 64
    set_abstraction_dim: int = 256
    relative_position_bias: bool = False
    patch_dropout: int = 0
    layer_norm_eps: float = 1e-5

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature: CLS."""
        return self.hidden_size

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.validate_architecture()

    def validate_architecture(self) -> None:
        """Raises ValueError where fields contradict each other."""
        check_channels(self)
        check_counts(self, "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim")
        check_counts(self, "intermediate_size", "num_groups", "group_size", "set_abstraction_dim")
        if not self.group_radius > 0:
            raise ValueError(f"group_radius must be positive, got {self.group_radius}.")
        if not 0 <= self.patch_dropout < self.num_groups:
            raise ValueError(
                f"patch_dropout counts patches and must lie in [0, num_groups = {self.num_groups}), got "
                f"{self.patch_dropout}."
            )


@dataclass
class PointEncoderClasses:
    """A point encoder: its configuration class and, once the file that defines it is imported, its model class."""

    config_class: type[PreTrainedConfig]
    model_class: type[Any] | None = None


# The one table of point encoders, by `model_type`. The files of the encoders add their model classes.
POINT_ENCODERS: dict[str, PointEncoderClasses] = {
    PointBertConfig.model_type: PointEncoderClasses(PointBertConfig),
    PointMLPConfig.model_type: PointEncoderClasses(PointMLPConfig),
    PointNet2Config.model_type: PointEncoderClasses(PointNet2Config),
    PointNextConfig.model_type: PointEncoderClasses(PointNextConfig),
    PpatConfig.model_type: PointEncoderClasses(PpatConfig),
    Uni3dConfig.model_type: PointEncoderClasses(Uni3dConfig),
}


def register_point_encoder(
    model_type: str, config_class: type[PreTrainedConfig], model_class: type[Any] | None = None
) -> None:
    """Adds a point encoder, so that `Ulip2Config(point_config={"model_type": model_type, ...})` finds it.

    Args:
        model_type: the name under which configurations refer to it; must equal `config_class.model_type`.
        config_class: needs the attributes `in_channels` and `output_dim` (channels of the pooled feature).
        model_class: a `PreTrainedModel` whose `forward(point_values)` takes (B, N, in_channels) and returns
            `PointEncoderOutput`.

    Raises:
        ValueError: the names disagree, or the name belongs to another encoder.
    """
    if config_class.model_type != model_type:
        raise ValueError(f"{config_class.__name__}.model_type is {config_class.model_type!r}, not {model_type!r}.")
    known = POINT_ENCODERS.get(model_type)
    if known is not None and _full_name(known.config_class) != _full_name(config_class):
        raise ValueError(f"The point encoder {model_type!r} is already registered with {known.config_class.__name__}.")
    POINT_ENCODERS[model_type] = PointEncoderClasses(config_class, model_class)


def _full_name(cls: type) -> tuple[str, str]:
    """The same for a class that was defined anew, as a notebook's cell does when it runs again."""
    return cls.__module__, cls.__qualname__


class Ulip2Config(ReferringConfigMixin, PreTrainedConfig):
    """Configuration of `Ulip2Model`. The defaults are those of the released ULIP-2 Point-BERT (10k colored points).

    The frozen image-text model ("tower") is named, not contained: `clip_name_or_path` is a hub name or folder of any
    dual encoder with `get_text_features` and `get_image_features`. Only a checkpoint saved with its tower holds
    `clip_config`.

    Args:
        point_config: configuration of the point encoder; a dict needs `model_type` (default: Point-BERT).
        projection_dim: width of the space shared with the tower.
        projection_bias: whether the projection into it has a bias (OpenShape's and Uni3D's have).
        clip_name_or_path: the tower, loaded when texts or images first need it; None: there is none.
        clip_config: configuration of a tower whose weights are part of this checkpoint.
        logit_scale_init_value: initial logarithm of the logit scale (inverse temperature).
        gather_with_grad: in distributed training, let gradients flow through the gathered embeddings of other
            processes. The original does not (False); with True the gradient is the one that a single process would
            compute.
        text_loss_weight, image_loss_weight: of points against texts and of points against images in the loss; 1 and 1
            are the published ones.
        loss_type: "clip" (cross-entropy over the batch, the published one) or "siglip" (each pair by itself, arXiv
            2303.15343; the model then has a `logit_bias`).
        logit_bias_init_value: of "siglip"; -10 is the paper's, which goes with a `logit_scale_init_value` of log(10).
        loss_chunk_size: rows of a process that the loss compares with the global batch at a time, which bounds its
            memory; None: all.
        classifier_dims: widths of the hidden layers of `Ulip2ForPointCloudClassification`; (): a linear head. None:
            as published with the encoder. Point-BERT's is (256,); PointNeXt, PointNet++ and PointMLP end in hidden
            layers of their own, so that theirs is linear; for the others nothing was published, and it is linear.
        classifier_norm: BatchNorm behind each hidden layer. (256, 256) with BatchNorm is Point-MAE's head.
        classifier_dropout: dropout behind each hidden layer.
        label_smoothing: share of the target that all other classes have between them, in training only.
        num_labels, id2label, label2id, problem_type: as everywhere in transformers.
    """

    model_type = "ulip2"
    sub_configs = {"point_config": PreTrainedConfig, "clip_config": AutoConfig}
    references = {"clip_name_or_path": ("clip_config", "include_towers")}

    point_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 1280
    projection_bias: bool = False
    clip_name_or_path: str | None = None
    clip_config: dict | PreTrainedConfig | None = None
    logit_scale_init_value: float | int = math.log(1 / 0.07)
    gather_with_grad: bool = True
    text_loss_weight: float | int = 1.0
    image_loss_weight: float | int = 1.0
    loss_type: str = "clip"
    logit_bias_init_value: float | int = -10.0
    loss_chunk_size: int | None = None
    classifier_dims: list | tuple | None = None
    classifier_norm: bool = False
    classifier_dropout: float | int = 0.5
    label_smoothing: float | int = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        self.point_config = _point_config(self.point_config)
        if isinstance(self.clip_config, dict):
            self.clip_config = _clip_config(self.clip_config)
        super().__post_init__(**kwargs)
        check_counts(self, "projection_dim")
        check_shares(self, "classifier_dropout", "label_smoothing")
        if self.loss_type not in LOSS_TYPES:
            raise ValueError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, not {self.loss_type!r}.")
        weights = (self.text_loss_weight, self.image_loss_weight)
        if min(weights) < 0 or not sum(weights):
            raise ValueError(
                "text_loss_weight and image_loss_weight must not be negative, and one of them positive, got "
                f"{self.text_loss_weight} and {self.image_loss_weight}."
            )
        if self.loss_chunk_size is not None:
            check_counts(self, "loss_chunk_size")
        if self.classifier_dims:
            check_counts(self, "classifier_dims")

    @property
    def hidden_classifier_dims(self) -> tuple[int, ...]:
        """`classifier_dims`, or where those are None the published ones of the encoder."""
        published = getattr(self.point_config, "classifier_dims", ())
        return tuple(published if self.classifier_dims is None else self.classifier_dims)


def _point_config(value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    model_type = fields.pop("model_type", PointBertConfig.model_type)
    if model_type not in POINT_ENCODERS:
        raise ValueError(
            f"point_config.model_type is {model_type!r}; known point encoders are {sorted(POINT_ENCODERS)}. Add your "
            "own with register_point_encoder before loading."
        )
    return POINT_ENCODERS[model_type].config_class(**fields)


# AutoConfig learns of these with the model's code; a configuration may be read without it.
_OWN_TOWERS: dict[str, type[PreTrainedConfig]] = {
    ConseConfig.model_type: ConseConfig,
    SlipConfig.model_type: SlipConfig,
}


def _clip_config(value: dict) -> PreTrainedConfig:
    own = _OWN_TOWERS.get(value.get("model_type", ""))
    if own is not None:
        return own(**{name: field for name, field in value.items() if name != "model_type"})
    return known_config(value, "clip_config", "image-text model")


def known_config(value: dict, field: str, what: str) -> PreTrainedConfig:
    """The configuration of a model inside another's, as the class that transformers knows by its `model_type`.

    Args:
        field, what: its name in the outer configuration, and what the model is, for the message.

    Raises:
        ValueError: transformers knows no such type.
    """
    fields = dict(value)
    model_type = fields.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"{field}.model_type is {model_type!r}, which transformers does not know. Import the package that "
            f"defines this {what} first."
        )
    return CONFIG_MAPPING[model_type](**fields)


PointBertConfig.register_for_auto_class()
PpatConfig.register_for_auto_class()
Uni3dConfig.register_for_auto_class()
Ulip2Config.register_for_auto_class()

__all__ = [
    "POINTBERT_SIZES",
    "POINTMLP_ELITE",
    "POINTNET2_MSG",
    "POINTNEXT_SIZES",
    "UNI3D_SIZES",
    "PointBertConfig",
    "PointMLPConfig",
    "PointNet2Config",
    "PointNextConfig",
    "PpatConfig",
    "Ulip2Config",
    "Uni3dConfig",
    "known_config",
    "register_point_encoder",
]
