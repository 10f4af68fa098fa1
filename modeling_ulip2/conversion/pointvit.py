"""Settings of published Point-BERT, PPAT and Uni3D encoders, and how they become ours. Weights keep their names."""

from __future__ import annotations

from typing import Any

from .encoders import Weights, infer_point_config

# Published configuration field -> ours.
_POINTBERT = {
    "trans_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_group": "num_groups",
    "group_size": "group_size",
    "encoder_dims": "encoder_dims",
    "drop_path_rate": "drop_path_rate",
}
# The encoder has no classification head, and `NAME` is that of its class.
_POINTBERT_UNUSED = {"cls_dim", "NAME"}
_PPAT = {
    "in_dim": "in_channels",
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "dim_head": "head_dim",
    "mlp_dim": "intermediate_size",
    "sa_dim": "set_abstraction_dim",
    "patches": "num_groups",
    "prad": "group_radius",
    "nsamp": "group_size",
    "rel_pe": "relative_position_bias",
    "patch_dropout": "patch_dropout",
}
_UNI3D = {
    "pc_feat_dim": "hidden_size",
    "num_group": "num_groups",
    "group_size": "group_size",
    "pc_encoder_dim": "encoder_dims",
    "patch_dropout": "patch_dropout",
}
_TRUNK = {
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "qkv_fused": "fused_qkv",
    "drop_path_rate": "drop_path_rate",
}
# Fields of the trunk that speak of what Uni3D leaves out, and those that `mlp_kind` and `intermediate_size` express.
_TRUNK_UNUSED = {"img_size", "patch_size", "num_classes", "use_rot_pos_emb", "ref_feat_shape"}
_TRUNK_MLP = {"mlp_ratio", "swiglu_mlp", "scale_mlp"}


def pointbert_config(published: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """Fields of `PointBertConfig` for a published encoder configuration and its weights.

    Raises:
        ValueError: a field of the configuration is unknown, or contradicts the weights.
    """
    _refuse_unknown(published, {*_POINTBERT, *_POINTBERT_UNUSED}, "Point-BERT")
    fields = {ours: published[theirs] for theirs, ours in _POINTBERT.items() if theirs in published}
    for name, value in infer_point_config(weights).items():
        if fields.setdefault(name, value) != value:
            raise ValueError(f"The configuration says {name} = {fields[name]}, the weights {value}.")
    return fields


def ppat_config(published: dict[str, Any]) -> dict[str, Any]:
    """Fields of `PpatConfig` for a published configuration.

    Raises:
        ValueError: a field is unknown.
    """
    # published defaults differ from those of PpatConfig, which are of a released model
    published = {"in_dim": 3} | published
    _refuse_unknown(published, set(_PPAT), "PPAT")
    return {ours: published[theirs] for theirs, ours in _PPAT.items() if theirs in published}


def uni3d_config(published: dict[str, Any], trunk: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Uni3dConfig` for a published configuration and the one of its image model (timm's `Eva`).

    Raises:
        ValueError: a field is unknown, or the two contradict each other.
    """
    _refuse_unknown(published, {*_UNI3D, "embed_dim"}, "Uni3D")  # embed_dim: of the shared space
    _refuse_unknown(trunk, {*_TRUNK, *_TRUNK_UNUSED, *_TRUNK_MLP}, "Uni3D's trunk")
    trunk = {"qkv_fused": True, "mlp_ratio": 4.0} | trunk
    if published["pc_feat_dim"] != trunk["embed_dim"]:
        raise ValueError(f"pc_feat_dim is {published['pc_feat_dim']}, but the trunk is {trunk['embed_dim']} wide.")
    if trunk.get("scale_mlp") and not trunk.get("swiglu_mlp"):
        raise ValueError("A trunk with scale_mlp but without swiglu_mlp is none of Uni3D's.")
    fields = {ours: published[theirs] for theirs, ours in _UNI3D.items() if theirs in published}
    fields |= {ours: trunk[theirs] for theirs, ours in _TRUNK.items() if theirs in trunk}
    fields["intermediate_size"] = int(trunk["mlp_ratio"] * trunk["embed_dim"])
    fields["mlp_kind"] = (
        "gelu" if not trunk.get("swiglu_mlp") else "swiglu_norm" if trunk.get("scale_mlp") else "swiglu"
    )
    return fields


def _refuse_unknown(published: dict[str, Any], known: set[str], what: str) -> None:
    unknown = set(published) - known
    if unknown:
        raise ValueError(f"Unknown fields of a published {what} configuration: {sorted(unknown)}.")
