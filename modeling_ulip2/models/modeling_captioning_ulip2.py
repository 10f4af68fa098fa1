"""Point clouds put into words: a frozen ULIP-2 encoder, a trained connector, and a frozen causal language model.

Section 4.3 of ULIP-2 (arXiv 2305.08275) gives an encoder to X-InstructBLIP (arXiv 2311.18799) and measures captions.
What is trained is the connector, and in a second stage, if one likes, a LoRA adapter of the language model.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple

from .captioning_card import CaptioningCardMixin
from .configuration_captioning_ulip2 import Ulip2CaptioningConfig
from .connectors import MlpConnector, QFormerConnector, make_connector, pool_tokens
from .frozen_parts import FrozenPartsMixin, feature_width, load_frozen_point_model
from .language import add_point_token, load_language_model, load_language_tokenizer
from .private_apis import execution_device
from .references import Origin
from .transformer_layers import check_attention_output, passed_on


@dataclass
class Ulip2CausalLMOutput(ModelOutput):
    """Output of `Ulip2ForConditionalGeneration`.

    loss: scalar, with `labels`: the mean cross-entropy of the labeled tokens.
    logits: (B, L, text_vocab_size); with `labels` (B, K, text_vocab_size), of the K positions before labeled ones.
    past_key_values, hidden_states, attentions: of the language model.
    point_hidden_states: (clouds, num_query_tokens, text_hidden_size), what the connector made of the clouds.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    point_hidden_states: torch.Tensor | None = None


class Ulip2ForConditionalGeneration(FrozenPartsMixin, CaptioningCardMixin, PreTrainedModel, GenerationMixin):
    """Answers in words about point clouds, as InstructBLIP does about images.

    Texts hold a placeholder for every position that a cloud takes (`config.point_token_id`, put there by
    `Ulip2CaptioningProcessor`); the connector's outputs are what the language model reads there. Gradients reach the
    connector and an adapter only.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from modeling_ulip2 import Ulip2Config, Ulip2ForConditionalGeneration, Ulip2PointModel
        >>> encoder = Ulip2PointModel(Ulip2Config(point_config={"model_type": "ulip2_pointnext"}))
        >>> sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> language_model = LlamaForCausalLM(LlamaConfig(vocab_size=100, **sizes))
        >>> model = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        ...     encoder, language_model, connector="mlp", num_query_tokens=4
        ... ).eval()
        >>> ids = torch.tensor([[100, 100, 100, 100, 7, 8, 9]])  # a cloud's 4 placeholders, then a text
        >>> output = model(ids, point_values=torch.rand(1, 1024, 4))
        >>> list(output.logits.shape), list(output.point_hidden_states.shape)
        ([1, 7, 100], [1, 4, 32])
        >>> list(model.generate(ids, point_values=torch.rand(1, 1024, 4), min_new_tokens=5, max_new_tokens=5).shape)
        [1, 5]
    """

    config_class = Ulip2CaptioningConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ["point", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: Ulip2CaptioningConfig):
        super().__init__(config)
        self.connector = make_connector(config)
        self._init_parts()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # the Q-Former, the encoder and the language model are models of their own and initialize themselves
        if isinstance(module, (QFormerConnector, MlpConnector)):
            module.init_weights(self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @classmethod
    def from_point_language_pretrained(
        cls,
        point_model: str | PreTrainedModel,
        language_model: str | PreTrainedModel,
        *,
        point_token_id: int | None = None,
        point_model_kwargs: dict[str, Any] | None = None,
        language_model_kwargs: dict[str, Any] | None = None,
        **config: Any,
    ) -> Any:
        """A new connector between a ULIP-2 encoder and a causal language model.

        Args:
            point_model: hub name or folder of a ULIP-2 checkpoint, or a `Ulip2PointModel` (for "embeds" a
                `Ulip2PointModelWithProjection`).
            language_model: hub name, folder or GGUF file, or a model.
            point_token_id: default: what the tokenizer of the language model gives the placeholder.
            point_model_kwargs, language_model_kwargs: to `from_pretrained` of either.
            config: fields of `Ulip2CaptioningConfig`; widths and vocabulary are those of the two models.
        """
        feature_type = config.get("point_feature_type", Ulip2CaptioningConfig.point_feature_type)
        encoder: Any = point_model
        lm: Any = language_model
        if isinstance(point_model, str):
            config["point_model_name_or_path"] = point_model
            encoder = load_frozen_point_model(point_model, feature_type, **(point_model_kwargs or {}))
        if isinstance(language_model, str):
            config["language_model_name_or_path"] = language_model
            lm = load_language_model(language_model, **(language_model_kwargs or {}))
            if point_token_id is None:
                fetching = Origin.of(language_model, language_model_kwargs or {}).options
                point_token_id = add_point_token(load_language_tokenizer(language_model, **fetching))
        rows, width = lm.get_input_embeddings().weight.shape
        config = {
            "point_hidden_size": feature_width(encoder, feature_type),
            "text_hidden_size": width,
            "text_vocab_size": rows,
            "point_token_id": rows if point_token_id is None else point_token_id,
            **config,
        }
        model = cls(Ulip2CaptioningConfig(**config))
        model.set_point_model(encoder)
        model.set_language_model(lm)
        # ours: at first clouds are read about as loudly as words
        loudness = float(lm.get_input_embeddings().weight.detach().float().std())
        projection = model.connector.language_projection
        nn.init.normal_(projection.weight, std=loudness / projection.in_features**0.5)
        return model

    def get_input_embeddings(self) -> Any:
        """The language model's."""
        return None if self.language_model is None else self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """The language model's."""
        return None if self.language_model is None else self.language_model.get_output_embeddings()

    @can_return_tuple
    @torch.no_grad()
    def get_point_features(self, point_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """What the connector reads of clouds (B, N, in_channels), of the frozen encoder.

        Returns:
            `pooler_output` (B, G, point_hidden_size), which may be kept and passed as `point_features`: one vector per
            cloud has G = 1, pooled tokens have G = `num_query_tokens`. `last_hidden_state`: the encoder's tokens.
        """
        self.load_parts()
        config = self.config
        encoded = self.point_model(point_values, return_dict=True)
        if config.pools_tokens:
            features = pool_tokens(encoded.tokens, encoded.centers, config.num_query_tokens)
        elif config.point_feature_type == "tokens":
            features = encoded.tokens
        else:
            vector = encoded.point_embeds if config.point_feature_type == "embeds" else encoded.pooled
            features = vector.unsqueeze(1)  # (B, 1, D)
        return BaseModelOutputWithPooling(last_hidden_state=encoded.tokens, pooler_output=features)

    def _point_embeds(
        self,
        point_values: torch.Tensor | None,
        point_features: torch.Tensor | None,
        qformer_input_ids: torch.Tensor | None,
        qformer_attention_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """What the language model reads of the clouds, (clouds, num_query_tokens, text_hidden_size)."""
        if point_features is None:
            if point_values is None:
                return None
            point_features = self.get_point_features(point_values, return_dict=True).pooler_output
        elif point_values is not None:
            raise ValueError("Pass point_values or point_features, not both.")
        config = self.config
        expected = (
            f"(clouds, {config.num_query_tokens if config.pools_tokens else 'tokens'}, {config.point_hidden_size})"
        )
        if point_features.ndim != 3 or point_features.shape[-1] != config.point_hidden_size:
            raise ValueError(
                f"The connector reads features {expected}, got {tuple(point_features.shape)}: they come from an "
                "encoder of another width."
            )
        if config.pools_tokens and point_features.shape[1] != config.num_query_tokens:
            raise ValueError(f"The connector reads features {expected}, got {tuple(point_features.shape)}.")
        return self.connector(
            point_features.to(execution_device(self)),
            qformer_input_ids=qformer_input_ids,
            qformer_attention_mask=qformer_attention_mask,
        )

    def _prompt_embeds(self, input_ids: torch.Tensor, point_embeds: torch.Tensor | None) -> torch.Tensor:
        """The language model's inputs (B, L, text_hidden_size), with the clouds at their placeholders."""
        placeholders = input_ids == self.config.point_token_id  # (B, L)
        ids = input_ids.masked_fill(placeholders, 0)  # the placeholder itself is never embedded
        if not torch.compiler.is_compiling():  # a graph cannot look at values
            self._check_prompt(ids, int(placeholders.sum()), 0 if point_embeds is None else len(point_embeds))
        embeddings = self.language_model.get_input_embeddings()
        embeds = embeddings(ids.to(execution_device(embeddings)))  # (B, L, text_hidden_size)
        if point_embeds is None:
            return embeds
        return embeds.masked_scatter(
            placeholders.to(embeds.device).unsqueeze(-1), point_embeds.to(embeds.device, embeds.dtype)
        )

    def _check_prompt(self, ids: torch.Tensor, found: int, clouds: int) -> None:
        """Raises ValueError unless the `found` placeholders are those of the clouds, and other ids (B, L) words."""
        config = self.config
        each, needed = config.num_query_tokens, clouds * config.num_query_tokens
        if found != needed:
            raise ValueError(
                f"The texts hold {found} placeholders (id {config.point_token_id}), but {clouds} clouds of {each} "
                f"positions each need {needed}: let Ulip2CaptioningProcessor make the texts, with one point token for "
                "each cloud."
            )
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < config.text_vocab_size:
            raise ValueError(
                f"input_ids lie in [{int(ids.min())}, {int(ids.max())}], but the language model's vocabulary has "
                f"{config.text_vocab_size} entries: the tokenizer is another model's."
            )

    def _check_length(self, length: int) -> None:
        limit = getattr(self.language_model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length > limit:
            raise ValueError(
                f"The text has {length} positions, placeholders included, but the language model reads {limit} at "
                "most: shorten it, or use fewer clouds or query tokens."
            )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        point_values: torch.Tensor | None = None,
        point_features: torch.Tensor | None = None,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> Ulip2CausalLMOutput:
        """Next-token logits, and the loss of labeled tokens.

        Args:
            input_ids, attention_mask: (B, L) texts, padded left or right, with `num_query_tokens` placeholders for
                each cloud.
            point_values: (clouds, N, in_channels), of all texts, in the order of their placeholders.
            point_features: (clouds, G, point_hidden_size), the `pooler_output` of `get_point_features`, instead of
                `point_values`.
            qformer_input_ids, qformer_attention_mask: (clouds, L') the instruction that goes with each cloud, in the
                Q-Former's tokens.
            labels: (B, L) `input_ids` where the model shall learn to answer, -100 elsewhere.
            num_items_in_batch: number of labeled tokens of all batches that make up a step, as Trainer passes it.
            output_hidden_states, output_attentions: of the language model.
            kwargs: to the language model.

        Raises:
            ValueError: placeholders and clouds differ in number, features have another width, ids are not of the
                language model's vocabulary, the text is longer than the language model reads, or nothing is labeled.
        """
        self.load_parts()
        point_embeds = self._point_embeds(point_values, point_features, qformer_input_ids, qformer_attention_mask)
        self._check_length(input_ids.shape[1])
        asked = passed_on(self.config, output_hidden_states=output_hidden_states, output_attentions=output_attentions)
        check_attention_output(self.language_model.config, asked.get("output_attentions", False))
        inputs = {
            "inputs_embeds": self._prompt_embeds(input_ids, point_embeds),
            "return_dict": True,
            **kwargs,
            **asked,
        }
        accepted = inspect.signature(self.language_model.forward).parameters
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
            if "position_ids" in accepted and "position_ids" not in kwargs:
                # a text has the same positions whatever pads it
                inputs["position_ids"] = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)  # (B, L)
        targets = None
        if labels is not None:
            before, targets = _labeled(labels)  # (K,), (B, K)
            inputs["use_cache"] = False
            if "logits_to_keep" in accepted:
                # the output layer is a large part of a small language model
                inputs["logits_to_keep"] = before
        outputs = self.language_model(**inputs)
        logits, loss = outputs.logits, None
        if targets is not None:
            if "logits_to_keep" not in accepted:
                logits = logits[:, before]
            loss = self.loss_function(
                logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch, shift_labels=targets
            )
        return Ulip2CausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            point_hidden_states=point_embeds,
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        point_values: torch.Tensor | None = None,
        point_features: torch.Tensor | None = None,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answers, by the language model's own `generate`.

        Args:
            input_ids, ...: as in `forward`; several texts are padded left.
            generation_config: default: the language model's own, with what this model's `generation_config` sets.
            kwargs: `max_new_tokens`, `num_beams`, `do_sample`, `streamer`, ... as in transformers.

        Returns:
            (B * num_return_sequences, new tokens) without the prompt, or what `return_dict_in_generate` asks for.

        Raises:
            ValueError: as in `forward`, or texts are padded right.
        """
        self.load_parts()
        point_embeds = self._point_embeds(point_values, point_features, qformer_input_ids, qformer_attention_mask)
        self._check_length(input_ids.shape[1] + 1)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if not bool(attention_mask[:, -1].all()):
            raise ValueError("Texts that are continued must be padded left: their last position is the prompt's end.")
        settings = self._generation_settings(generation_config)
        others = settings.update(**kwargs)  # such as a streamer
        return self.language_model.generate(
            inputs_embeds=self._prompt_embeds(input_ids, point_embeds),
            attention_mask=attention_mask.to(execution_device(self.language_model)),
            generation_config=settings,
            **others,
        )

    def _generation_settings(self, given: GenerationConfig | None) -> GenerationConfig:
        own: Any = self.language_model.generation_config
        settings = copy.deepcopy(own if given is None else given)
        if given is None:
            settings.update(**self.generation_config.to_diff_dict())
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(settings, name) is None:
                setattr(settings, name, getattr(own, name))
        if settings.pad_token_id is None:
            end = settings.eos_token_id
            settings.pad_token_id = end[0] if isinstance(end, list) else end
        return settings


def _labeled(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (B, L) -> positions (K,) whose next token is labeled in any text, and those labels (B, K)."""
    following = labels[:, 1:]  # (B, L - 1)
    before = (following != -100).any(dim=0).nonzero().squeeze(1)  # (K,)
    if len(before) == 0:
        raise ValueError("labels hold -100 alone: there is nothing to learn from.")
    return before, following[:, before]


Ulip2ForConditionalGeneration.register_for_auto_class("AutoModelForMultimodalLM")

__all__ = ["Ulip2CausalLMOutput", "Ulip2ForConditionalGeneration"]
