"""Configuration of the model that puts point clouds into words."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, InstructBlipQFormerConfig, PreTrainedConfig

from .configuration_pointconv import check_counts
from .configuration_ulip2 import Ulip2Config, known_config
from .references import ReferringConfigMixin

# What the connector reads of a cloud: one vector a patch, the encoder's own vector, or the vector in the shared space.
POINT_FEATURE_TYPES = ("tokens", "pooled", "embeds")
CONNECTORS = ("qformer", "mlp")
COMPRESSIONS = ("pool", "resample")


class Ulip2CaptioningConfig(ReferringConfigMixin, PreTrainedConfig):
    """Configuration of `Ulip2ForConditionalGeneration`. The defaults of the connector are those of X-InstructBLIP.

    The frozen parts are named, not contained: the point encoder is any ULIP-2 checkpoint, the language model any
    causal one of transformers. Only a checkpoint saved with a part holds its configuration.

    Args:
        point_model_name_or_path: hub name or folder of a ULIP-2 checkpoint.
        point_model_config: configuration of a point encoder whose weights are part of this checkpoint.
        language_model_name_or_path: hub name, folder, or GGUF file (`FOLDER/FILE.gguf`) of a causal language model.
        text_config: configuration of a language model whose weights are part of this checkpoint.
        point_feature_type: what the connector reads of a cloud: "tokens", one vector for each patch; "pooled", the
            encoder's own vector; "embeds", the vector in the shared space, as in the paper.
        point_hidden_size: channels of these features.
        text_hidden_size, text_vocab_size: width and rows of the language model's input embeddings.
        point_token_id: stands in `input_ids` where the connector's outputs go. It is never embedded, so that it may
            lie beyond the language model's vocabulary, which stays as it is.
        connector: "qformer" (the Querying Transformer of BLIP-2, section 4.3 of the paper) or "mlp".
        num_query_tokens: positions that one cloud takes in the language model.
        qformer_config: of the Q-Former; default: the size of BERT-base, as published.
        instruction_aware: whether the Q-Former reads the instruction beside the cloud, as in InstructBLIP; without,
            it has the layers of BLIP-2's.
        compression: how the "mlp" makes `num_query_tokens` of all tokens: "pool" averages those nearest to each of
            the first so many centers, "resample" lets learned queries attend to all. Both are ours.
        connector_hidden_size, connector_num_attention_heads: of the "mlp" and its resampler.
        lora_config: arguments of peft's `LoraConfig`, where the language model has an adapter.
        initializer_range: standard deviation of new weights.
    """

    model_type = "ulip2_captioning"
    sub_configs = {
        "point_model_config": Ulip2Config,
        "qformer_config": InstructBlipQFormerConfig,
        "text_config": AutoConfig,
    }
    references = {
        "point_model_name_or_path": ("point_model_config", "include_point_model"),
        "language_model_name_or_path": ("text_config", "include_language_model"),
    }

    point_model_name_or_path: str | None = None
    point_model_config: dict | PreTrainedConfig | None = None
    language_model_name_or_path: str | None = None
    text_config: dict | PreTrainedConfig | None = None
    point_feature_type: str = "tokens"
    point_hidden_size: int = 384
    text_hidden_size: int = 4096
    text_vocab_size: int = 32000
    point_token_id: int = 32000
    connector: str = "qformer"
    num_query_tokens: int = 32
    qformer_config: dict | PreTrainedConfig | None = None
    instruction_aware: bool = True
    compression: str = "pool"
    connector_hidden_size: int = 1024
    connector_num_attention_heads: int = 8
    lora_config: dict | None = None
    initializer_range: float = 0.02
    # what ties a language model's embeddings is its own configuration
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.point_model_config, dict):
            self.point_model_config = Ulip2Config(**self.point_model_config)
        if isinstance(self.text_config, dict):
            self.text_config = known_config(self.text_config, "text_config", "language model")
        if self.connector == "qformer":
            self.qformer_config = _qformer_config(self.qformer_config, self.point_hidden_size)
        super().__post_init__(**kwargs)
        self.validate_architecture()

    @property
    def reads_instructions(self) -> bool:
        """Whether the connector needs `qformer_input_ids`."""
        return self.connector == "qformer" and self.instruction_aware

    @property
    def pools_tokens(self) -> bool:
        """Whether the features of a cloud are its tokens, averaged into `num_query_tokens` places."""
        return self.connector == "mlp" and self.compression == "pool" and self.point_feature_type == "tokens"

    def validate_architecture(self) -> None:
        """Raises ValueError where fields contradict each other."""
        _check_choice(self, "point_feature_type", POINT_FEATURE_TYPES)
        _check_choice(self, "connector", CONNECTORS)
        _check_choice(self, "compression", COMPRESSIONS)
        check_counts(self, "point_hidden_size", "text_hidden_size", "text_vocab_size", "num_query_tokens")
        check_counts(self, "connector_hidden_size", "connector_num_attention_heads")
        if self.connector != "mlp":
            return
        if self.compression == "pool" and self.point_feature_type != "tokens" and self.num_query_tokens != 1:
            raise ValueError(
                f"One vector per cloud (point_feature_type={self.point_feature_type!r}) is nothing to pool: use "
                "num_query_tokens=1, compression='resample' or connector='qformer'."
            )
        if self.compression == "resample" and self.connector_hidden_size % self.connector_num_attention_heads:
            raise ValueError(
                f"connector_hidden_size ({self.connector_hidden_size}) must be a multiple of "
                f"connector_num_attention_heads ({self.connector_num_attention_heads})."
            )


def _check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _qformer_config(value: dict | PreTrainedConfig | None, point_hidden_size: int) -> PreTrainedConfig:
    """A configuration of its own, that reads features of this width."""
    fields = value.to_dict() if isinstance(value, PreTrainedConfig) else dict(value or {})
    fields.pop("model_type", None)
    return InstructBlipQFormerConfig(**fields | {"encoder_hidden_size": point_hidden_size})


Ulip2CaptioningConfig.register_for_auto_class()

__all__ = ["COMPRESSIONS", "CONNECTORS", "POINT_FEATURE_TYPES", "Ulip2CaptioningConfig"]
