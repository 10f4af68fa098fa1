"""Configurations: one for the tri-modal model, one for each point encoder, and the one table that joins them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig


class PointBertConfig(PreTrainedConfig):
    """Configuration of the Point-BERT encoder. The defaults are those of the released ULIP-2 checkpoint (10k points).

    Args:
        in_channels: 3 for xyz, 6 for xyz and rgb.
        hidden_size: width of the transformer; the pooled feature has twice as many channels.
        num_hidden_layers, num_attention_heads, mlp_ratio: of the transformer.
        num_groups, group_size: patches a cloud, and points in a patch.
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

    def validate_architecture(self) -> None:
        """Called by transformers when a configuration is made or saved."""
        if self.in_channels < 3:
            raise ValueError(f"in_channels counts x, y and z and must be at least 3, got {self.in_channels}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads ({self.num_attention_heads})."
            )
        for name in ("num_hidden_layers", "num_groups", "group_size", "encoder_dims"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


class Uni3dConfig(PreTrainedConfig):
    """Configuration of the Uni3D encoder. The defaults are those of Uni3D-B; `UNI3D_SIZES` lists the published sizes.

    Args:
        in_channels: columns of the input: xyz and rgb make 6.
        hidden_size, num_hidden_layers, num_attention_heads: of the transformer; the pooled feature has `hidden_size`.
        intermediate_size: channels inside the MLP.
        fused_qkv: whether queries, keys and values come from one layer.
        mlp_kind: "gelu", "swiglu" (gate and value packed in one layer) or "swiglu_norm" (two layers, an inner norm).
        num_groups, group_size: patches a cloud, and points in a patch.
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

    def validate_architecture(self) -> None:
        """Called by transformers when a configuration is made or saved."""
        if self.mlp_kind not in ("gelu", "swiglu", "swiglu_norm"):
            raise ValueError(f"mlp_kind must be 'gelu', 'swiglu' or 'swiglu_norm', got {self.mlp_kind!r}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})."
            )
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"patch_dropout is a share and must lie in [0, 1), got {self.patch_dropout}.")


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
        num_groups: patches a cloud.
        group_radius, group_size: a patch takes the first `group_size` points within this distance of its centre.
        set_abstraction_dim: channels of a patch before it is projected to `hidden_size`.
        relative_position_bias: add a learned function of the offset between two centres to their attention.
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

    def validate_architecture(self) -> None:
        """Called by transformers when a configuration is made or saved."""
        if self.in_channels < 3:
            raise ValueError(f"in_channels counts x, y and z and must be at least 3, got {self.in_channels}.")
        if not self.group_radius > 0:
            raise ValueError(f"group_radius must be positive, got {self.group_radius}.")
        if not 0 <= self.patch_dropout < self.num_groups:
            raise ValueError(
                f"patch_dropout counts patches and must lie in [0, num_groups = {self.num_groups}), got "
                f"{self.patch_dropout}."
            )


class PointNextConfig(PreTrainedConfig):
    """Configuration of the PointNeXt encoder. The defaults are those of PointNeXt-S as published with ULIP and ULIP-2.

    `POINTNEXT_SIZES` lists the wider and deeper sizes. Those were published as segmentation networks; here they have the
    strides, radii and head of PointNeXt-S, which is a choice of ours.

    Args:
        in_channels: columns of the input: xyz, and in the published model the height y - min(y).
        width: channels of the stem; every strided stage doubles them.
        blocks: layers of every stage: the first pools, the others are inverted residual blocks.
        strides: 1 for the stem, then the factor by which a stage thins out points; the last is 1 and pools everything.
        sa_layers: convolutions in a pooling layer.
        sa_residual: residual connection around a pooling layer.
        radius, radius_scaling: radius of the first ball, and its growth from stage to stage.
        num_neighbors: points in a ball.
        normalize_offsets: divide offsets from the centre by the radius.
        expansion: how much wider an inverted residual block is inside.
        head_dims: widths of the layers behind the pooling; the last is the width of the pooled feature.
        head_dropout: dropout behind each of them.
        hidden_act: as everywhere in transformers.
    """

    model_type = "ulip2_pointnext"
    base_config_key = "point_config"

    in_channels: int = 4
    width: int = 32
    blocks: list | tuple = (1, 1, 1, 1, 1, 1)
    strides: list | tuple = (1, 2, 2, 2, 2, 1)
    sa_layers: int = 2
    sa_residual: bool = True
    radius: float | int = 0.15
    radius_scaling: float | int = 1.5
    num_neighbors: int = 32
    normalize_offsets: bool = True
    expansion: int = 4
    head_dims: list | tuple = (512, 256)
    head_dropout: float | int = 0.5
    hidden_act: str = "relu"

    @property
    def channels(self) -> list[int]:
        """Width of every stage."""
        widths = [self.width]
        for stride in self.strides:
            widths.append(widths[-1] * (2 if stride > 1 else 1))
        return widths[1:]

    @property
    def radii(self) -> list[list[float]]:
        """Radius of the ball in every layer of every stage; the last stage needs none."""
        radii, radius = [], self.radius
        for stride, blocks in zip(self.strides, self.blocks, strict=True):
            wider = radius if stride == 1 else radius * self.radius_scaling
            radii.append([radius] + [wider] * (blocks - 1))
            radius = wider
        return radii

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        return self.channels[-2]

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature."""
        return self.head_dims[-1]

    @property
    def min_points(self) -> int:
        """Fewer points would leave none behind the last stride."""
        return math.prod(self.strides)

    def validate_architecture(self) -> None:
        """Called by transformers when a configuration is made or saved."""
        _check_counts(self, "width", "sa_layers", "num_neighbors", "expansion", "blocks", "strides", "head_dims")
        if self.in_channels < 3:
            raise ValueError(f"in_channels counts x, y and z and must be at least 3, got {self.in_channels}.")
        if len(self.blocks) != len(self.strides) or len(self.strides) < 2:
            raise ValueError(f"blocks and strides must be equally long, at least 2: {self.blocks}, {self.strides}.")
        if self.strides[-1] != 1 or self.blocks[-1] != 1 or 1 in self.strides[1:-1]:
            raise ValueError(
                f"Only the stem and the last stage have stride 1, and the last has one block: strides {self.strides}, "
                f"blocks {self.blocks}."
            )
        if not (self.radius > 0 and self.radius_scaling > 0):
            raise ValueError(f"radius and radius_scaling must be positive: {self.radius}, {self.radius_scaling}.")


# What distinguishes the sizes of PointNeXt (arXiv 2206.04670, section 3.2.3): arguments of `PointNextConfig`.
POINTNEXT_SIZES: dict[str, dict[str, Any]] = {
    "small": dict(),
    "base": dict(blocks=(1, 2, 3, 2, 2, 1), sa_layers=1, sa_residual=False),
    "large": dict(blocks=(1, 3, 5, 3, 3, 1), sa_layers=1, sa_residual=False),
    "xlarge": dict(blocks=(1, 4, 7, 4, 4, 1), sa_layers=1, sa_residual=False, width=64),
}


class PointNet2Config(PreTrainedConfig):
    """Configuration of the PointNet++ encoder. The defaults are those of the single-scale network of ULIP.

    `POINTNET2_MSG` holds the arguments of the multi-scale network. Lists have an entry for every level of sampling; inside
    it, radii, neighbours and widths have an entry for every scale.

    Args:
        in_channels: columns of the input: xyz (3), or xyz and further features such as rgb or normals (6).
        multi_scale: several scales a level ("MSG"), named and ordered as in the multi-scale network.
        num_centers: centres of every level.
        radii, num_neighbors: of the ball around a centre; the latter also of how many points in it are taken.
        mlp_dims: widths of the layers on every point of a ball.
        global_dims: widths of the layers on all centres of the last level.
        head_dims, head_dropout: widths of the two layers behind the pooling, and dropout behind each.
    """

    model_type = "ulip2_pointnet2"
    base_config_key = "point_config"

    in_channels: int = 3
    multi_scale: bool = False
    num_centers: list | tuple = (512, 128)
    radii: list | tuple = ((0.2,), (0.4,))
    num_neighbors: list | tuple = ((32,), (64,))
    mlp_dims: list | tuple = (((64, 64, 128),), ((128, 128, 256),))
    global_dims: list | tuple = (256, 512, 1024)
    head_dims: list | tuple = (512, 256)
    head_dropout: list | tuple = (0.4, 0.4)

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        return sum(widths[-1] for widths in self.mlp_dims[-1])

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature."""
        return self.head_dims[-1]

    def validate_architecture(self) -> None:
        """Called by transformers when a configuration is made or saved."""
        _check_counts(self, "num_centers", "global_dims", "head_dims")
        if self.in_channels < 3:
            raise ValueError(f"in_channels counts x, y and z and must be at least 3, got {self.in_channels}.")
        for name in ("radii", "num_neighbors", "mlp_dims"):
            levels = getattr(self, name)
            if len(levels) != len(self.num_centers) or [len(x) for x in levels] != [len(x) for x in self.radii]:
                raise ValueError(
                    f"{name} must have an entry for each of the {len(self.num_centers)} levels and, inside it, for each "
                    f"scale of radii, got {levels}."
                )
        if not self.multi_scale and any(len(level) != 1 for level in self.radii):
            raise ValueError(f"Without multi_scale there is one radius a level, got {self.radii}.")
        if len(self.head_dims) != 2 or len(self.head_dropout) != 2:
            raise ValueError(f"head_dims and head_dropout have two entries: {self.head_dims}, {self.head_dropout}.")


# The multi-scale network of PointNet++ (arXiv 1706.02413, appendix B.1): arguments of `PointNet2Config`.
POINTNET2_MSG: dict[str, Any] = dict(
    multi_scale=True,
    radii=((0.1, 0.2, 0.4), (0.2, 0.4, 0.8)),
    num_neighbors=((16, 32, 128), (32, 64, 128)),
    mlp_dims=(((32, 32, 64), (64, 64, 128), (64, 96, 128)), ((64, 64, 128), (128, 128, 256), (128, 128, 256))),
    head_dropout=(0.4, 0.5),
)


class PointMLPConfig(PreTrainedConfig):
    """Configuration of the PointMLP encoder. The defaults are those of ULIP; `POINTMLP_ELITE` holds the small variant.

    Args:
        in_channels: columns of the input: xyz (3), or xyz and further features.
        num_points: the first stage samples num_points // reducers[0] centres, whatever the size of a cloud.
        embed_dim: channels of a point before the first stage.
        dim_expansion: growth of the channels in every stage.
        pre_blocks, pos_blocks: residual layers of every stage, on every neighbour and on every centre.
        k_neighbors: points in a group.
        reducers: how much every stage thins out centres.
        groups: groups of the convolutions in residual layers.
        res_expansion: how much wider (or narrower) a residual layer is inside.
        use_bias: bias in the convolutions.
        use_xyz: coordinates of the neighbours as further features.
        normalize: what a group is normalised by: "anchor" (its centre), "center" (its mean) or None.
        head_dims: widths of the layers behind the pooling; the last is the width of the pooled feature.
        head_dropout: dropout behind each of them.
        hidden_act: as everywhere in transformers.
    """

    model_type = "ulip2_pointmlp"
    base_config_key = "point_config"

    in_channels: int = 3
    num_points: int = 1024
    embed_dim: int = 64
    dim_expansion: list | tuple = (2, 2, 2, 2)
    pre_blocks: list | tuple = (2, 2, 2, 2)
    pos_blocks: list | tuple = (2, 2, 2, 2)
    k_neighbors: list | tuple = (24, 24, 24, 24)
    reducers: list | tuple = (2, 2, 2, 2)
    groups: int = 1
    res_expansion: float | int = 1.0
    use_bias: bool = False
    use_xyz: bool = False
    normalize: str | None = "anchor"
    head_dims: list | tuple = (512, 256)
    head_dropout: float | int = 0.5
    hidden_act: str = "relu"

    @property
    def channels(self) -> list[int]:
        """Width of every stage."""
        return [self.embed_dim * math.prod(self.dim_expansion[: i + 1]) for i in range(len(self.dim_expansion))]

    @property
    def num_centers(self) -> list[int]:
        """Centres of every stage."""
        centers, count = [], self.num_points
        for reducer in self.reducers:
            count //= reducer
            centers.append(count)
        return centers

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        return self.channels[-1]

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature."""
        return self.head_dims[-1]

    def validate_architecture(self) -> None:
        """Called by transformers when a configuration is made or saved."""
        _check_counts(self, "num_points", "embed_dim", "dim_expansion", "k_neighbors", "reducers", "groups", "head_dims")
        if self.in_channels < 3:
            raise ValueError(f"in_channels counts x, y and z and must be at least 3, got {self.in_channels}.")
        stages = ("dim_expansion", "pre_blocks", "pos_blocks", "k_neighbors", "reducers")
        if len({len(getattr(self, name)) for name in stages}) != 1:
            raise ValueError(f"{', '.join(stages)} must have an entry for every stage and be equally long.")
        if self.normalize not in ("anchor", "center", None):
            raise ValueError(f"normalize must be 'anchor', 'center' or None, got {self.normalize!r}.")
        available = [self.num_points, *self.num_centers[:-1]]
        if self.num_centers[-1] < 1 or any(k > n for k, n in zip(self.k_neighbors[1:], available[1:], strict=True)):
            raise ValueError(
                f"The stages sample {self.num_centers} centres, which k_neighbors {self.k_neighbors} exceed: a group of a "
                "later stage is taken from the centres of the stage before."
            )


# PointMLP-elite (arXiv 2202.07123, section 3.3): arguments of `PointMLPConfig`.
POINTMLP_ELITE: dict[str, Any] = dict(
    embed_dim=32, dim_expansion=(2, 2, 2, 1), pre_blocks=(1, 1, 2, 1), pos_blocks=(1, 1, 2, 1), res_expansion=0.25
)


def _check_counts(config: PreTrainedConfig, *names: str) -> None:
    """Raises ValueError unless the named fields are, or hold, integers of at least 1."""
    for name in names:
        value = getattr(config, name)
        for count in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be at least 1 (an integer), got {value}.")


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
    if known is not None and known.config_class is not config_class:
        raise ValueError(f"The point encoder {model_type!r} is already registered with {known.config_class.__name__}.")
    POINT_ENCODERS[model_type] = PointEncoderClasses(config_class, model_class)


class Ulip2Config(PreTrainedConfig):
    """Configuration of `Ulip2Model`. The defaults are those of the released ULIP-2 Point-BERT (10k coloured points).

    The frozen image-text model ("tower") is named, not contained: `clip_name_or_path` is a hub name or folder of any dual
    encoder with `get_text_features` and `get_image_features`. Only a checkpoint saved with its tower holds `clip_config`.

    Args:
        point_config: configuration of the point encoder; a dict needs `model_type` (default: Point-BERT).
        projection_dim: width of the space shared with the tower.
        projection_bias: whether the projection into it has a bias (OpenShape's and Uni3D's have).
        clip_name_or_path: the tower, loaded when texts or images first need it; None: there is none.
        clip_config: configuration of a tower whose weights are part of this checkpoint.
        logit_scale_init_value: initial logarithm of the logit scale (inverse temperature).
        gather_with_grad: in distributed training, let gradients flow through the gathered embeddings of other processes.
            The original does not (False); with True the gradient is the one that a single process would compute.
    """

    model_type = "ulip2"
    sub_configs = {"point_config": PreTrainedConfig, "clip_config": AutoConfig}

    point_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 1280
    projection_bias: bool = False
    clip_name_or_path: str | None = None
    clip_config: dict | PreTrainedConfig | None = None
    logit_scale_init_value: float | int = math.log(1 / 0.07)
    gather_with_grad: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.point_config = _point_config(self.point_config)
        if isinstance(self.clip_config, dict):
            self.clip_config = _clip_config(self.clip_config)
        super().__post_init__(**kwargs)


def _point_config(value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    model_type = fields.pop("model_type", PointBertConfig.model_type)
    if model_type not in POINT_ENCODERS:
        raise ValueError(
            f"point_config.model_type is {model_type!r}; known point encoders are {sorted(POINT_ENCODERS)}. Add your own "
            "with register_point_encoder before loading."
        )
    return POINT_ENCODERS[model_type].config_class(**fields)


def _clip_config(value: dict) -> PreTrainedConfig:
    fields = dict(value)
    model_type = fields.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"clip_config.model_type is {model_type!r}, which transformers does not know. Import the package that defines "
            "this image-text model first."
        )
    return CONFIG_MAPPING[model_type](**fields)


PointBertConfig.register_for_auto_class()
PointMLPConfig.register_for_auto_class()
PointNet2Config.register_for_auto_class()
PointNextConfig.register_for_auto_class()
PpatConfig.register_for_auto_class()
Uni3dConfig.register_for_auto_class()
Ulip2Config.register_for_auto_class()

__all__ = [
    "PointBertConfig",
    "PointMLPConfig",
    "PointNet2Config",
    "PointNextConfig",
    "PpatConfig",
    "Ulip2Config",
    "Uni3dConfig",
    "register_point_encoder",
]
