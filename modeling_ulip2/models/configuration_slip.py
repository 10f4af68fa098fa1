"""Configuration of SLIP, the image-text model of ULIP's first generation."""

from typing import Any

from transformers import PreTrainedConfig


class SlipConfig(PreTrainedConfig):
    """Configuration of [`SlipModel`]. The defaults are those of SLIP ViT-B/16, the tower of ULIP-1.

    Args:
        projection_dim: width of the shared space.
        vocab_size, max_position_embeddings: of CLIP's tokenizer, and tokens read of a text.
        text_hidden_size, text_num_hidden_layers, text_num_attention_heads: of the text transformer.
        image_size, patch_size: pixels of an image and of a patch, both square.
        vision_hidden_size, vision_num_hidden_layers, vision_num_attention_heads: of the vision transformer.
        text_layer_norm_eps, vision_layer_norm_eps: of their LayerNorms.
        logit_scale_init_value: initial logarithm of the logit scale.
        initializer_range: as everywhere in transformers.
    """

    model_type = "slip"

    projection_dim: int = 512
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    text_hidden_size: int = 512
    text_num_hidden_layers: int = 12
    text_num_attention_heads: int = 8
    image_size: int = 224
    patch_size: int = 16
    vision_hidden_size: int = 768
    vision_num_hidden_layers: int = 12
    vision_num_attention_heads: int = 12
    text_layer_norm_eps: float = 1e-5
    vision_layer_norm_eps: float = 1e-6
    logit_scale_init_value: float | int = 2.6592600369327783
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.validate_architecture()

    def validate_architecture(self) -> None:
        """Raises ValueError where fields contradict each other."""
        for part in ("text", "vision"):
            width, heads = getattr(self, f"{part}_hidden_size"), getattr(self, f"{part}_num_attention_heads")
            if width % heads:
                raise ValueError(f"{part}_hidden_size ({width}) must be a multiple of its number of heads ({heads}).")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size}).")
