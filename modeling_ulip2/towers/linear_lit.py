"""The tower with a learned linear map, made of a ConSE pair and a map; see `models/modeling_linear_lit.py`."""

from __future__ import annotations

import torch

from modeling_ulip2.models.configuration_linear_lit import IN_CHECKPOINT, IN_PACKAGES, LinearLitConfig
from modeling_ulip2.models.modeling_conse import ConseModel
from modeling_ulip2.models.modeling_linear_lit import LinearLitModel

from .conse import locked_encoders
from .fingerprint import weights_digest
from .linear_map import LinearMap

# Weight of the map beside ConSE; chosen on objects by other creators than those of the fit (BlendSwap).
MAP_SHARE = 0.6


def build_linear_lit(base: ConseModel, linear_map: LinearMap, map_share: float = MAP_SHARE) -> LinearLitModel:
    """A ConSE pair with a linear map from its classifier's features (F) into its space (D).

    Where the encoders of `base` are those of the installed packages, checkpoints of the result leave them out.

    Raises:
        ValueError: the map has another width than what the classifier's last layer sees, or than the space.
    """
    wanted = (base.config.projection_dim, base.last_layer.in_features)
    if linear_map.weight.shape != wanted:
        raise ValueError(f"the map is of shape {linear_map.weight.shape}, but the pair needs {wanted}")
    settings = base.config.to_dict()
    for name in ("model_type", "architectures", "auto_map", "transformers_version", "dtype", "torch_dtype"):
        settings.pop(name, None)
    settings |= {"text_config": base.config.text_config, "vision_config": base.config.vision_config}
    config = LinearLitConfig(**settings | {"hidden_dim": wanted[1], "map_share": map_share})
    config.locked_weights = IN_PACKAGES if comes_from_packages(base) else IN_CHECKPOINT
    model = LinearLitModel(config).eval()
    with torch.no_grad():
        model.load_state_dict(base.state_dict(), strict=False)
        model.image_map.weight.copy_(torch.from_numpy(linear_map.weight))
        model.image_map.bias.copy_(torch.from_numpy(linear_map.bias))
        # as a checkpoint holds them, so that it computes what is computed here
        for tensor in (model.image_map.weight, model.image_map.bias, model.class_embeds):
            tensor.copy_(tensor.half())
    return model


def comes_from_packages(base: ConseModel) -> bool:
    """Are both encoders those of the packages of the extra `offline`?"""
    try:
        text_model, classifier, _ = locked_encoders()
    except ImportError:
        return False
    return all(
        weights_digest(own.state_dict()) == weights_digest(packaged.state_dict())
        for own, packaged in ((base.text_model, text_model), (base.image_classifier, classifier))
    )
