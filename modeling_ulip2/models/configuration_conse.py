"""Configuration of ConSE, a dual encoder made of a sentence encoder and an image classifier."""

from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .references import PortableConfigMixin


class ConseConfig(PortableConfigMixin, PreTrainedConfig):
    """Configuration of [`ConseModel`].

    Args:
        text_config: configuration (or its dict) of the sentence encoder, any `AutoModel`; default BERT.
        vision_config: configuration (or its dict) of the image classifier, any `AutoModelForImageClassification`;
            its `id2label` holds the class names as words; default a timm model.
        top_k: how many of the most probable classes enter an image embedding (T of Norouzi et al. 2013, section 3).
        class_templates: prompts around a class name; a class embedding is the mean over them.
        max_length: tokens read of a caption.
    """

    model_type = "conse"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig, "vision_config": AutoConfig}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    top_k: int = 20
    class_templates: list[str] | tuple[str, ...] = ("a {}", "a photo of a {}.")
    max_length: int = 128
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _sub_config(self.text_config, "bert")
        self.vision_config = _sub_config(self.vision_config, "timm_wrapper")
        self.class_templates = list(self.class_templates)
        if not self.class_templates or any("{}" not in template for template in self.class_templates):
            raise ValueError(f"class_templates: every template needs a {{}} for the name, got {self.class_templates}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        super().__post_init__(**kwargs)

    @property
    def projection_dim(self) -> int:
        """Width of the shared space: that of the sentence encoder."""
        return self.text_config.hidden_size  # type: ignore[union-attr]

    @property
    def class_names(self) -> list[str]:
        """The classifier's labels in the order of its outputs."""
        id2label: dict[int, str] = self.vision_config.id2label  # type: ignore[union-attr,assignment]
        return [id2label[index] for index in range(len(id2label))]

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return len(self.class_names)


def _sub_config(config: dict[str, Any] | PreTrainedConfig | None, default_type: str) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    if not config:
        return CONFIG_MAPPING[default_type]()
    # from_dict, since a timm configuration keeps its class names under another key when written
    return CONFIG_MAPPING[config.get("model_type", default_type)].from_dict(dict(config))
