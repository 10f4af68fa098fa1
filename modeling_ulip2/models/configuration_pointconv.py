"""Configurations of the convolutional point encoders: PointNeXt, PointNet++ and PointMLP."""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedConfig


def check_channels(config: Any) -> None:
    """Raises ValueError unless an input holds at least x, y and z."""
    if config.in_channels < 3:
        raise ValueError(f"in_channels counts x, y and z and must be at least 3, got {config.in_channels}.")


def check_counts(config: Any, *names: str, least: int = 1) -> None:
    """Raises ValueError unless the named fields are, or hold, integers of at least `least`."""
    for name in names:
        counts = _flat(getattr(config, name))
        if not counts or not all(isinstance(count, int) and count >= least for count in counts):
            raise ValueError(f"{name} must be at least {least} (an integer), got {getattr(config, name)}.")


def check_shares(config: Any, *names: str) -> None:
    """Raises ValueError unless the named fields lie, or hold what lies, in [0, 1)."""
    for name in names:
        if not all(0 <= share < 1 for share in _flat(getattr(config, name))):
            raise ValueError(f"{name} is a share and must lie in [0, 1), got {getattr(config, name)}.")


def _flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, (list, tuple)) else [value]


class PointConvConfig(PreTrainedConfig):
    """What the three have in common: fields are checked when a configuration is made."""

    base_config_key = "point_config"

    in_channels: int = 3
    head_dims: list | tuple = (512, 256)

    @property
    def output_dim(self) -> int:
        """Channels of the pooled feature."""
        return self.head_dims[-1]

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.validate_architecture()

    def validate_architecture(self) -> None:
        """Raises ValueError where a field is out of range or fields contradict each other."""
        check_channels(self)
        check_counts(self, "head_dims")


class PointNextConfig(PointConvConfig):
    """Configuration of the PointNeXt encoder. The defaults are those of PointNeXt-S as published with ULIP.

    `POINTNEXT_SIZES` lists the wider and deeper sizes. Those were published as segmentation networks; here they have
    the strides, radii and head of PointNeXt-S, which is a choice of ours.

    Args:
        in_channels: columns of the input: xyz, and in the published model the height y - min(y).
        width: channels of the stem; every strided stage doubles them.
        blocks: layers of every stage: the first pools, the others are inverted residual blocks.
        strides: 1 for the stem, then the factor by which a stage thins out points; the last is 1 and pools everything.
        sa_layers: convolutions in a pooling layer.
        sa_residual: residual connection around a pooling layer.
        radius, radius_scaling: radius of the first ball, and its growth from stage to stage.
        num_neighbors: points in a ball.
        normalize_offsets: divide offsets from the center by the radius.
        expansion: how much wider an inverted residual block is inside.
        head_dims: widths of the layers behind the pooling; the last is the width of the pooled feature.
        head_dropout: dropout behind each of them.
        hidden_act: as everywhere in transformers.
    """

    model_type = "ulip2_pointnext"

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
    def min_points(self) -> int:
        """Fewer points would leave none behind the last stride."""
        return math.prod(self.strides)

    def validate_architecture(self) -> None:
        super().validate_architecture()
        check_counts(self, "width", "sa_layers", "num_neighbors", "expansion", "blocks", "strides")
        check_shares(self, "head_dropout")
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


class PointNet2Config(PointConvConfig):
    """Configuration of the PointNet++ encoder. The defaults are those of the single-scale network of ULIP.

    `POINTNET2_MSG` holds the arguments of the multi-scale network. Lists have an entry for every level of sampling;
    inside it, radii, neighbors and widths have an entry for every scale.

    Args:
        in_channels: columns of the input: xyz (3), or xyz and further features such as rgb or normals (6).
        multi_scale: several scales a level ("MSG"), named and ordered as in the multi-scale network.
        num_centers: centers of every level.
        radii, num_neighbors: of the ball around a center; the latter also of how many points in it are taken.
        mlp_dims: widths of the layers on every point of a ball.
        global_dims: widths of the layers on all centers of the last level.
        head_dims, head_dropout: widths of the two layers behind the pooling, and dropout behind each.
    """

    model_type = "ulip2_pointnet2"

    multi_scale: bool = False
    num_centers: list | tuple = (512, 128)
    radii: list | tuple = ((0.2,), (0.4,))
    num_neighbors: list | tuple = ((32,), (64,))
    mlp_dims: list | tuple = (((64, 64, 128),), ((128, 128, 256),))
    global_dims: list | tuple = (256, 512, 1024)
    head_dropout: list | tuple = (0.4, 0.4)

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        return sum(widths[-1] for widths in self.mlp_dims[-1])

    def validate_architecture(self) -> None:
        super().validate_architecture()
        check_counts(self, "num_centers", "global_dims", "num_neighbors", "mlp_dims")
        check_shares(self, "head_dropout")
        for name in ("radii", "num_neighbors", "mlp_dims"):
            levels = getattr(self, name)
            if len(levels) != len(self.num_centers) or [len(x) for x in levels] != [len(x) for x in self.radii]:
                raise ValueError(
                    f"{name} must have an entry for each of the {len(self.num_centers)} levels and, inside it, for "
                    f"each scale of radii, got {levels}."
                )
        if not all(radius > 0 for radius in _flat(self.radii)):
            raise ValueError(f"radii must be positive, got {self.radii}.")
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


class PointMLPConfig(PointConvConfig):
    """Configuration of the PointMLP encoder. The defaults are those of ULIP; `POINTMLP_ELITE` is the small variant.

    Args:
        in_channels: columns of the input: xyz (3), or xyz and further features.
        num_points: the first stage samples num_points // reducers[0] centers, whatever the size of a cloud.
        embed_dim: channels of a point before the first stage.
        dim_expansion: growth of the channels in every stage.
        pre_blocks, pos_blocks: residual layers of every stage, on every neighbor and on every center.
        k_neighbors: points in a group.
        reducers: how much every stage thins out centers.
        groups: groups of the convolutions in residual layers.
        res_expansion: how much wider (or narrower) a residual layer is inside.
        use_bias: bias in the convolutions.
        use_xyz: coordinates of the neighbors as further features.
        normalize: what a group is normalized by: "anchor" (its center), "center" (its mean) or None.
        head_dims: widths of the layers behind the pooling; the last is the width of the pooled feature.
        head_dropout: dropout behind each of them.
        hidden_act: as everywhere in transformers.
    """

    model_type = "ulip2_pointmlp"

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
    head_dropout: float | int = 0.5
    hidden_act: str = "relu"

    @property
    def channels(self) -> list[int]:
        """Width of every stage."""
        return [self.embed_dim * math.prod(self.dim_expansion[: i + 1]) for i in range(len(self.dim_expansion))]

    @property
    def num_centers(self) -> list[int]:
        """Centers of every stage."""
        centers, count = [], self.num_points
        for reducer in self.reducers:
            count //= reducer
            centers.append(count)
        return centers

    @property
    def hidden_size(self) -> int:
        """Channels of a token."""
        return self.channels[-1]

    def validate_architecture(self) -> None:
        super().validate_architecture()
        check_counts(self, "num_points", "embed_dim", "dim_expansion", "k_neighbors", "reducers", "groups")
        check_counts(self, "pre_blocks", "pos_blocks", least=0)
        check_shares(self, "head_dropout")
        if not self.res_expansion > 0:
            raise ValueError(f"res_expansion must be positive, got {self.res_expansion}.")
        stages = ("dim_expansion", "pre_blocks", "pos_blocks", "k_neighbors", "reducers")
        if len({len(getattr(self, name)) for name in stages}) != 1:
            raise ValueError(f"{', '.join(stages)} must have an entry for every stage and be equally long.")
        if self.normalize not in ("anchor", "center", None):
            raise ValueError(f"normalize must be 'anchor', 'center' or None, got {self.normalize!r}.")
        available = [self.num_points, *self.num_centers[:-1]]
        if self.num_centers[-1] < 1 or any(k > n for k, n in zip(self.k_neighbors[1:], available[1:], strict=True)):
            raise ValueError(
                f"The stages sample {self.num_centers} centers, which k_neighbors {self.k_neighbors} exceed: a group "
                "of a later stage is taken from the centers of the stage before."
            )


# PointMLP-elite (arXiv 2202.07123, section 3.3): arguments of `PointMLPConfig`.
POINTMLP_ELITE: dict[str, Any] = dict(
    embed_dim=32, dim_expansion=(2, 2, 2, 1), pre_blocks=(1, 1, 2, 1), pos_blocks=(1, 1, 2, 1), res_expansion=0.25
)

for _config_class in (PointNextConfig, PointNet2Config, PointMLPConfig):
    _config_class.register_for_auto_class()

__all__ = [
    "POINTMLP_ELITE",
    "POINTNET2_MSG",
    "POINTNEXT_SIZES",
    "PointMLPConfig",
    "PointNet2Config",
    "PointNextConfig",
]
