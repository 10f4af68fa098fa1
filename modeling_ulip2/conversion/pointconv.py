"""Settings of published PointNeXt, PointNet++ and PointMLP encoders as ours. Weights keep their names."""

from __future__ import annotations

from typing import Any

# Published configuration field -> ours, and what a field that we do not have must say.
_POINTNEXT_ENCODER = {
    "in_channels": "in_channels",
    "width": "width",
    "blocks": "blocks",
    "strides": "strides",
    "sa_layers": "sa_layers",
    "sa_use_res": "sa_residual",
    "radius": "radius",
    "radius_scaling": "radius_scaling",
    "nsample": "num_neighbors",
    "normalize_dp": "normalize_offsets",
    "expansion": "expansion",
    "act": "hidden_act",
}
_POINTNEXT_HEAD = {"mlps": "head_dims", "dropout": "head_dropout"}
_POINTNEXT_FIXED = {
    "feature_type": "dp_fj",
    "reduction": "max",
    "group": "ballquery",
    "order": "conv-norm-act",
    "norm": ("bn", "bn1d"),
    "num_classes": -1,
}
_POINTMLP = {
    "points": "num_points",
    "embed_dim": "embed_dim",
    "dim_expansion": "dim_expansion",
    "pre_blocks": "pre_blocks",
    "pos_blocks": "pos_blocks",
    "k_neighbors": "k_neighbors",
    "reducers": "reducers",
    "groups": "groups",
    "res_expansion": "res_expansion",
    "activation": "hidden_act",
    "bias": "use_bias",
    "use_xyz": "use_xyz",
    "normalize": "normalize",
}
_ACTIVATIONS = {"leakyrelu": "leaky_relu"}


def pointnext_config(published: dict[str, Any]) -> dict[str, Any]:
    """Fields of `PointNextConfig` for a published configuration with the parts `encoder` and `head`."""
    _refuse_unknown(published, {"encoder", "head"}, "PointNeXt")
    fields = _renamed(published["encoder"], _POINTNEXT_ENCODER, _POINTNEXT_FIXED, "PointNeXt")
    return fields | _renamed(published["head"], _POINTNEXT_HEAD, _POINTNEXT_FIXED, "PointNeXt")


def pointmlp_config(published: dict[str, Any]) -> dict[str, Any]:
    """Fields of `PointMLPConfig` for a published configuration."""
    fields = _renamed(published, _POINTMLP, {}, "PointMLP")
    if "hidden_act" in fields:
        fields["hidden_act"] = _ACTIVATIONS.get(fields["hidden_act"], fields["hidden_act"])
    return fields


def pointnet2_config(published: dict[str, Any]) -> dict[str, Any]:
    """Fields of `PointNet2Config` for a published configuration."""
    _refuse_unknown(published, {"normal_channel"}, "PointNet++")
    return {"in_channels": 6 if published.get("normal_channel") else 3}


def _renamed(published: dict[str, Any], names: dict[str, str], fixed: dict[str, Any], encoder: str) -> dict[str, Any]:
    _refuse_unknown(published, set(names) | set(fixed), encoder)
    for name, allowed in fixed.items():
        allowed = allowed if isinstance(allowed, tuple) else (allowed,)
        if published.get(name, allowed[0]) not in allowed:
            raise ValueError(
                f"A published {encoder} with {name} = {published[name]!r} is not supported, only {allowed}."
            )
    return {ours: published[theirs] for theirs, ours in names.items() if theirs in published}


def _refuse_unknown(published: dict[str, Any], known: set[str], encoder: str) -> None:
    unknown = set(published) - known
    if unknown:
        raise ValueError(f"Unknown fields of a published {encoder} configuration: {sorted(unknown)}.")
