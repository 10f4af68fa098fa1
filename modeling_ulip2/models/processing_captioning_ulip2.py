"""Texts with point clouds in them, as `Ulip2ForConditionalGeneration` reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoFeatureExtractor, AutoTokenizer, BatchFeature, PreTrainedConfig
from transformers.processing_utils import ProcessorMixin

from .captioning_card import CaptioningProcessorCardMixin
from .chat import PLAIN, PLAIN_TEMPLATE, Message, answer_spans, label_tokens, read_clouds, read_message
from .language import POINT_TOKEN, add_point_token, load_language_tokenizer
from .private_apis import MoreArgumentsMixin
from .references import model_location

_QFORMER_TOKENIZER = "qformer_tokenizer"


class Ulip2CaptioningProcessor(CaptioningProcessorCardMixin, MoreArgumentsMixin, ProcessorMixin):
    """Prepares texts and the point clouds in them.

    In a text, `point_token` stands for a cloud; it is repeated for every position that a cloud takes. Texts are padded
    left, so that a batch can be continued.

    Args:
        feature_extractor: the `Ulip2FeatureExtractor` of the point encoder.
        tokenizer: of the language model. The point token is added to it, and where it has no token for padding, its
            end token pads.
        qformer_tokenizer: of the Q-Former, where that reads instructions (BERT's vocabulary, as published).
        num_query_tokens: positions that a cloud takes; the model's.
        point_token: what stands for a cloud.
        chat_template: a Jinja template, or "plain" for `PLAIN_TEMPLATE`; default: the tokenizer's, or else the plain
            one.
    """

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        qformer_tokenizer: Any = None,
        num_query_tokens: int = 32,
        point_token: str = POINT_TOKEN,
        chat_template: str | None = None,
    ):
        if num_query_tokens < 1:
            raise ValueError(f"num_query_tokens must be at least 1, got {num_query_tokens}.")
        self.qformer_tokenizer = qformer_tokenizer
        self.num_query_tokens = num_query_tokens
        self.point_token = point_token
        self.point_token_id = add_point_token(tokenizer, point_token)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        template = PLAIN_TEMPLATE if chat_template == PLAIN else chat_template or tokenizer.chat_template
        super().__init__(feature_extractor, tokenizer, chat_template=template or PLAIN_TEMPLATE)

    @classmethod
    def from_model(
        cls, model: Any, qformer_tokenizer: Any = None, tokenizer: Any = None, feature_extractor: Any = None
    ) -> Any:
        """The processor that goes with a `Ulip2ForConditionalGeneration`.

        Args:
            qformer_tokenizer: a tokenizer, or the hub name or folder of one; needed if the connector reads
                instructions.
            tokenizer, feature_extractor: default: those beside the language model and the point encoder.
        """
        config = model.config
        for name, given, own in (
            ("language_model_name_or_path", "tokenizer", tokenizer),
            ("point_model_name_or_path", "feature_extractor", feature_extractor),
        ):
            if own is None and getattr(config, name) is None:
                raise ValueError(f"The model's configuration has no {name}: pass {given}.")
        if tokenizer is None:
            name = config.language_model_name_or_path
            tokenizer = load_language_tokenizer(name, **model._origin.options_for(name))
        if feature_extractor is None:
            name = config.point_model_name_or_path
            place, inside = model_location(name)
            options = model._origin.options_for(name)
            feature_extractor = AutoFeatureExtractor.from_pretrained(place, **inside, **options)
        if isinstance(qformer_tokenizer, (str, os.PathLike)):
            place, inside = model_location(os.fspath(qformer_tokenizer))
            qformer_tokenizer = AutoTokenizer.from_pretrained(place, **inside)
        if config.reads_instructions:
            _check_qformer_tokenizer(qformer_tokenizer, config.qformer_config)
        else:
            qformer_tokenizer = None
        processor = cls(feature_extractor, tokenizer, qformer_tokenizer, config.num_query_tokens)
        if processor.point_token_id != config.point_token_id:
            raise ValueError(
                f"The tokenizer gives {processor.point_token} the id {processor.point_token_id}, the model's "
                f"point_token_id is {config.point_token_id}: it is the tokenizer of another language model."
            )
        return processor

    def __call__(
        self,
        point_clouds: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        instruction: str | Sequence[str] | None = None,
        colors: Any = None,
        return_tensors: str = "pt",
        **text_kwargs: Any,
    ) -> BatchFeature:
        """Prepares texts, each with one point token for every cloud in it.

        Args:
            point_clouds, colors: see `Ulip2FeatureExtractor.__call__`; the clouds of all texts in the order of their
                tokens. None: the batch gets its `point_values` or `point_features` from elsewhere, or has no clouds.
            text: one or several.
            instruction: what the Q-Former reads, for each cloud or one for all; default: the text around the cloud.
            return_tensors: "pt" or "np".
            text_kwargs: to the tokenizer.

        Returns:
            BatchFeature with `input_ids` and `attention_mask` (B, L), `point_values` (clouds, N, C), and
            `qformer_input_ids` and `qformer_attention_mask` (clouds, L') if there is a `qformer_tokenizer`.

        Raises:
            ValueError: an empty text, texts with more or fewer point tokens than there are clouds, a text that is cut
                within a cloud, or what the feature extractor refuses.
        """
        texts = [text] if isinstance(text, str) else list(text or ())
        self._check_texts(texts)
        counts = [one.count(self.point_token) for one in texts]
        features: dict[str, Any] = {}
        if point_clouds is not None:
            features |= self.feature_extractor(point_clouds, colors=colors, return_tensors=return_tensors)
            self._check_clouds(len(features["point_values"]), counts)
        features |= self._tokenize(texts, return_tensors, **text_kwargs)
        if self.qformer_tokenizer is not None and any(counts):
            if instruction is None:
                around = [" ".join(one.replace(self.point_token, " ").split()) for one in texts]
                instruction = [words for words, count in zip(around, counts, strict=True) for _ in range(count)]
            features |= self._instructions(instruction, sum(counts), return_tensors)
        return BatchFeature(features)

    def _check_texts(self, texts: Sequence[Any]) -> None:
        if not texts:
            raise ValueError("There is no text: pass a prompt with the point token in it, or use apply_chat_template.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"Text {index} is no string but {type(text).__name__}.")
            if not text.replace(self.point_token, "").strip():
                raise ValueError(
                    f"Text {index} is empty: say what the model shall do, such as 'describe the 3d model.'"
                )

    def _check_clouds(self, clouds: int, counts: list[int]) -> None:
        if sum(counts) == clouds:
            return
        where = " (in each text: " + ", ".join(map(str, counts)) + ")" if len(counts) > 1 else ""
        hint = f"put {self.point_token} where a cloud belongs" if sum(counts) < clouds else "leave some out"
        raise ValueError(f"There are {clouds} clouds but {sum(counts)} point tokens{where}: {hint}.")

    def _tokenize(self, texts: list[str], return_tensors: str, **kwargs: Any) -> dict[str, Any]:
        expanded = [text.replace(self.point_token, self.point_token * self.num_query_tokens) for text in texts]
        settings = {"padding": True, "padding_side": "left", "return_token_type_ids": False, **kwargs}
        tokens = self.tokenizer(expanded, return_tensors=return_tensors, **settings)
        ids: Any = tokens["input_ids"]
        found = int((ids == self.point_token_id).sum())
        wanted = sum(text.count(self.point_token) for text in expanded)
        if found != wanted:
            raise ValueError(
                f"Of {wanted} positions for clouds the tokenizer left {found}: the text is too long for its "
                "max_length, or the tokenizer does not know the point token."
            )
        return dict(tokens)

    def _instructions(self, instruction: str | Sequence[str], clouds: int, return_tensors: str) -> dict[str, Any]:
        instructions = [instruction] * clouds if isinstance(instruction, str) else list(instruction)
        if len(instructions) != clouds:
            raise ValueError(f"There are {clouds} clouds but {len(instructions)} instructions.")
        tokens = self.qformer_tokenizer(
            instructions, padding=True, padding_side="right", return_tensors=return_tensors, verbose=False
        )
        length, limit = tokens["input_ids"].shape[1], self.qformer_tokenizer.model_max_length
        if length > limit:
            raise ValueError(
                f"An instruction has {length} tokens, the Q-Former reads {limit} at most: pass a shorter one as "
                "`instruction`."
            )
        return {f"qformer_{name}": tokens[name] for name in ("input_ids", "attention_mask")}

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_labels: bool = False,
        return_tensors: str = "pt",
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Renders conversations, and prepares them with their clouds.

        Args:
            conversation: messages with `role` and `content`, or a list of conversations. Content is a string, or a
                list of parts: `{"type": "text", "text": ...}` and `{"type": "point_cloud", ...}`, the latter with
                "point_cloud" (an array, a mapping with "xyz" and "rgb", or a path) or "path"; with neither, the batch
                gets its clouds or their features from elsewhere. Files are read if `modeling_ulip2` is installed.
            chat_template: a Jinja template, the name of one, or "plain" for `PLAIN_TEMPLATE`; default: this
                processor's.
            add_generation_prompt: end with what precedes an answer.
            tokenize: False returns the rendered texts.
            return_dict: as in transformers; with False and `tokenize`, `input_ids` alone.
            return_labels: also return `labels` (B, L): the ids of what assistants say and of the end token behind it,
                -100 elsewhere.
            processor_kwargs: to `__call__`.
            kwargs: to the template.

        Returns:
            A text or list of texts, `input_ids`, or what `__call__` returns. An instruction that the Q-Former reads is
            the text of the message that its cloud stands in.

        Raises:
            ValueError: no message, an unknown part, clouds given for some point tokens only, or as in `__call__`.
        """
        single = isinstance(conversation, Sequence) and bool(conversation) and isinstance(conversation[0], Mapping)
        conversations = [conversation] if single else list(conversation)
        if not conversations or not all(conversations):
            raise ValueError("There is no message in the conversation.")
        template = PLAIN_TEMPLATE if chat_template == PLAIN else chat_template or self.chat_template
        flat = [[read_message(message, self.point_token) for message in messages] for messages in conversations]

        def render(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
            spoken = [{"role": message.role, "content": message.content} for message in messages]
            return self.tokenizer.apply_chat_template(
                spoken,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **kwargs,
            )

        texts = [render(messages, add_generation_prompt) for messages in flat]
        if not tokenize:
            return texts[0] if single else texts
        call = dict(processor_kwargs or {})
        if self.tokenizer.bos_token is not None and all(text.startswith(self.tokenizer.bos_token) for text in texts):
            call["add_special_tokens"] = False
        said = [message for messages in flat for message in messages]
        shapes = [shape for message in said for shape in message.clouds]
        clouds = read_clouds(shapes, self.feature_extractor.num_points)
        instructions = [message.words for message in said for _ in message.clouds]
        if return_labels:
            call["return_offsets_mapping"] = True
        features = self(clouds, texts, instruction=instructions, return_tensors=return_tensors, **call)
        if return_labels:
            end_token = self.tokenizer.eos_token
            spans = [
                [(self._shifted(start, text), self._shifted(stop, text)) for start, stop in found]
                for text, found in zip(texts, (answer_spans(m, render, end_token) for m in flat), strict=True)
            ]
            features["labels"] = label_tokens(features["input_ids"], features.pop("offset_mapping"), spans)
        return features if return_dict else features["input_ids"]

    def _shifted(self, position: int, text: str) -> int:
        """Where a position of a text lies when its point tokens are repeated."""
        added = len(self.point_token) * (self.num_query_tokens - 1)
        return position + text[:position].count(self.point_token) * added

    # --- the second tokenizer, which transformers would demand of every processor of this class ----------------------

    @classmethod
    def get_attributes(cls) -> list[str]:
        """What transformers saves and loads by itself."""
        return ["feature_extractor", "tokenizer"]

    @property
    def model_input_names(self) -> list[str]:
        """Keys of what `__call__` returns."""
        names = ["input_ids", "attention_mask", "point_values"]
        return names if self.qformer_tokenizer is None else [*names, "qformer_input_ids", "qformer_attention_mask"]

    def to_dict(self) -> dict[str, Any]:
        """As in transformers; of the Q-Former's tokenizer only whether there is one."""
        tokenizer, self.qformer_tokenizer = self.qformer_tokenizer, None
        try:
            fields = super().to_dict()
        finally:
            self.qformer_tokenizer = tokenizer
        fields.pop(_QFORMER_TOKENIZER, None)
        return fields | {"reads_instructions": tokenizer is not None}

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the Q-Former's tokenizer has a folder of its own."""
        if self.qformer_tokenizer is not None:
            self.qformer_tokenizer.save_pretrained(os.path.join(save_directory, _QFORMER_TOKENIZER))
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def more_arguments(cls, name: Any, processor_dict: dict[str, Any], **kwargs: Any) -> list[Any]:
        """The Q-Former's tokenizer, or None where the model reads no instructions."""
        subfolder = kwargs.get("subfolder", "")
        if not processor_dict.get("reads_instructions"):
            return [None]
        folder = f"{subfolder}/{_QFORMER_TOKENIZER}" if subfolder else _QFORMER_TOKENIZER
        # with a configuration of its own it is not looked for in that folder, where there is none
        kwargs = {**kwargs, "subfolder": folder, "config": PreTrainedConfig()}
        return [AutoTokenizer.from_pretrained(name, **kwargs)]


def _check_qformer_tokenizer(tokenizer: Any, config: Any) -> None:
    if tokenizer is None:
        raise ValueError(
            "The Q-Former reads instructions: pass its qformer_tokenizer (published: BERT's, 'bert-base-uncased'), or "
            "make the model with instruction_aware=False."
        )
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The qformer_tokenizer has {len(tokenizer)} tokens, but the Q-Former's vocabulary has "
            f"{config.vocab_size}: its tokenizer is another one."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_position_embeddings)


Ulip2CaptioningProcessor.register_for_auto_class()

__all__ = ["PLAIN_TEMPLATE", "Ulip2CaptioningProcessor"]
