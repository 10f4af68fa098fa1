"""ConSE (Norouzi et al. 2013, arXiv 1312.5650): an image-text space without image-text training.

Text is embedded by a sentence encoder. An image is embedded as the mean of the embeddings of the class names that a
classifier sees in it, weighted by their probabilities (equation 3). What it knows of images is the classifier's label
set, so it is no substitute for a model trained on image-text pairs; it is real, small and needs no download.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .clip_output import compared, unit_features
from .configuration_conse import ConseConfig
from .transformer_layers import OutputOptions, check_attention_output, passed_on


@dataclass
class ConseImageOutput(BaseModelOutputWithPooling):
    """`pooler_output` (B, D): the image embedding, not normalized; `logits` (B, classes): the classifier's."""

    logits: Tensor | None = None


class ConseModel(PreTrainedModel):
    """Sentence encoder and image classifier as one dual encoder, with the interface of `CLIPModel`.

    Both parts are used as they are: nothing is trained, and there is no logit scale.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, ViTConfig
        >>> from modeling_ulip2.models.configuration_conse import ConseConfig
        >>> from modeling_ulip2.models.modeling_conse import ConseModel
        >>> text_config = BertConfig(hidden_size=48, num_attention_heads=4, num_hidden_layers=1)
        >>> vision_config = ViTConfig(num_hidden_layers=1, id2label={0: "chair", 1: "lamp"})
        >>> model = ConseModel(ConseConfig(text_config=text_config, vision_config=vision_config)).eval()
        >>> list(model.get_text_features(torch.tensor([[101, 3242, 102]])).pooler_output.shape)
        [1, 48]
        >>> list(model.get_image_features(torch.rand(2, 3, 224, 224)).pooler_output.shape)
        [2, 48]
    """

    config_class = ConseConfig
    base_model_prefix = "conse"
    input_modalities = ["image", "text"]
    _supports_sdpa = True
    class_embeds: Tensor

    def __init__(self, config: ConseConfig) -> None:
        super().__init__(config)
        self.text_model = AutoModel.from_config(config.text_config)
        self.image_classifier = AutoModelForImageClassification.from_config(config.vision_config)
        self.register_buffer("class_embeds", torch.zeros(config.num_classes, config.projection_dim))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ConseModel):
            initialization.zeros_(module.class_embeds)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Sentence embeddings: the mean over the tokens. `input_ids` (B, L) -> `pooler_output` (B, D)."""
        if token_type_ids is not None and "token_type_ids" in inspect.signature(self.text_model.forward).parameters:
            kwargs["token_type_ids"] = token_type_ids  # a text is one sentence, so that these are zeros
        kwargs |= passed_on(
            self.config, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )
        check_attention_output(self.text_model.config, kwargs.get("output_attentions", False))
        encoded = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        hidden = encoded.last_hidden_state  # (B, L, D)
        if attention_mask is None:
            pooled = hidden.mean(1)  # (B, D)
        else:
            mask = attention_mask[..., None].to(hidden.dtype)  # (B, L, 1)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)  # (B, D)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: Tensor,
        **options: Unpack[OutputOptions],
    ) -> ConseImageOutput:
        """Convex combinations of class embeddings. `pixel_values` (B, 3, H, W) -> `pooler_output` (B, D)."""
        asked = passed_on(self.config, **options)
        hidden, seen = self._classify(pixel_values, **asked)
        output = self.embed_hidden(hidden)
        output.hidden_states, output.attentions = seen.get("hidden_states"), seen.get("attentions")
        return output

    def get_image_hidden(self, pixel_values: Tensor) -> Tensor:
        """What the classifier's last layer sees of images: `pixel_values` (B, 3, H, W) -> (B, F)."""
        return self._classify(pixel_values)[0]

    def _classify(self, pixel_values: Tensor, **requested: bool) -> tuple[Tensor, Any]:
        """What the last layer sees (B, F), and all that the classifier returns."""
        seen: list[Tensor] = []
        hook = self.last_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            output = self.image_classifier(pixel_values=pixel_values, return_dict=True, **requested)
        finally:
            hook.remove()
        return seen[-1], output

    def embed_hidden(self, hidden: Tensor) -> ConseImageOutput:
        """Image embeddings of what the last layer sees: (B, F) -> `pooler_output` (B, D)."""
        logits = self.last_layer(hidden)  # (B, classes)
        top_k = min(self.config.top_k, logits.shape[-1])
        probs, classes = logits.softmax(-1).topk(top_k, dim=-1)  # (B, T)
        weights = probs / probs.sum(-1, keepdim=True)  # (B, T)
        pooled: Any = torch.einsum("bt,btd->bd", weights, self.class_embeds[classes].to(weights.dtype))  # (B, D)
        return ConseImageOutput(pooler_output=pooled, logits=logits)

    @property
    def last_layer(self) -> nn.Linear:
        """The linear layer that gives the classifier's logits.

        Raises:
            ValueError: it has none of as many outputs as there are classes.
        """
        layers = [
            module
            for module in self.image_classifier.modules()
            if isinstance(module, nn.Linear) and module.out_features == self.config.num_classes
        ]
        if not layers:
            raise ValueError(
                f"{type(self.image_classifier).__name__} has no linear layer with {self.config.num_classes} outputs"
            )
        return layers[-1]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> CLIPOutput:
        """Compares every image with every text.

        Args:
            input_ids, attention_mask, token_type_ids: (T, L), as the tokenizer makes them.
            pixel_values: (I, 3, H, W), as the image processor makes them.
            output_hidden_states, output_attentions: of the sentence encoder and the classifier, as far as they have
                them, in `text_model_output` and `vision_model_output`.
            kwargs: further inputs of the sentence encoder.

        Returns:
            CLIPOutput with `text_embeds` (T, D) and `image_embeds` (I, D), L2-normalized, and their cosines
            `logits_per_image` (I, T) and `logits_per_text` (T, I).
        """
        requested = passed_on(
            self.config, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )
        of_texts: Any = self.get_text_features(
            input_ids, attention_mask, token_type_ids, return_dict=True, **requested, **kwargs
        )
        of_images: Any = self.get_image_features(pixel_values, return_dict=True, **requested)
        return compared(of_texts, of_images)

    @torch.no_grad()
    def set_class_embeds(self, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64) -> None:
        """Embeds the class names in `config.class_templates`. The result is saved with the model."""
        names, templates = self.config.class_names, self.config.class_templates
        prompts = [template.format(name) for name in names for template in templates]
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))  # less padding
        embeds = self.class_embeds.new_empty(len(prompts), self.config.projection_dim)
        for start in range(0, len(prompts), batch_size):
            rows = by_length[start : start + batch_size]
            encoded = tokenizer(
                [prompts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=self.config.max_length,
                return_tensors="pt",
            ).to(self.device)
            embeds[rows] = unit_features(self.get_text_features(encoded["input_ids"], encoded["attention_mask"]))
        per_class = embeds.unflatten(0, (len(names), len(templates))).mean(1)  # (classes, D)
        self.class_embeds.copy_(F.normalize(per_class, dim=-1))
