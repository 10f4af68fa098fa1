"""Tiny language models, tokenizers and captioning models that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from modeling_ulip2 import (
    Ulip2CaptioningProcessor,
    Ulip2Config,
    Ulip2FeatureExtractor,
    Ulip2ForConditionalGeneration,
    Ulip2PointModelWithProjection,
)
from tests.models import tiny

WORDS = ["<unk>", "<s>", "</s>", "user", "assistant", ":", ".", "a", "red", "blue", "wooden", "chair", "table", "lamp"]
WORDS += ["describe", "the", "3d", "model", "what", "color", "is", "it", "and", "compare", "\n"]
VOCABULARY = 40  # rows of the embeddings: more than the tokenizer has, as in most language models
WIDTH = 32
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ' : ' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)
QFORMER = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
PROMPT = "describe the 3d model."
QUERIES = 3


def language_model(kind: str = "llama", seed: int = 2, **fields: Any) -> Any:
    """A random Llama or Qwen2; its weights are large, so that answers depend on what is read."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        "initializer_range": 0.4,
        "tie_word_embeddings": kind == "qwen2",
        **fields,
    }
    torch.manual_seed(seed)
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**sizes)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """Word by word, without special tokens at either end."""
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=model,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def qformer_tokenizer() -> PreTrainedTokenizerFast:
    """Reads `WORDS`, as the Q-Former's BERT tokenizer would."""
    fast = tokenizer(chat=False)
    fast.add_special_tokens({"pad_token": "[PAD]"})
    return fast


def point_model(seed: int = 0) -> Ulip2PointModelWithProjection:
    torch.manual_seed(seed)
    config = Ulip2Config(point_config=tiny.POINT_CONFIG, projection_dim=tiny.PROJECTION_DIM)
    return Ulip2PointModelWithProjection(config).eval()


def feature_extractor() -> Ulip2FeatureExtractor:
    return Ulip2FeatureExtractor(num_points=40)


def save_parts(folder: Any, kind: str = "llama", chat: bool = True) -> tuple[str, str]:
    """Folders of a point encoder and of a language model, each with what belongs to it."""
    points, language = folder / "points", folder / "language"
    point_model().save_pretrained(points)
    feature_extractor().save_pretrained(points)
    language_model(kind).save_pretrained(language)
    tokenizer(chat).save_pretrained(language)
    return str(points), str(language)


def captioner(points: str, language: str, **fields: Any) -> tuple[Any, Any]:
    """A model with a random connector, and its processor; queries are large, so that clouds matter."""
    fields = {"num_query_tokens": QUERIES, "initializer_range": 0.5, **fields}
    if fields.get("connector", "qformer") == "qformer":
        fields.setdefault("qformer_config", QFORMER)
    else:
        fields = {"connector_hidden_size": 16, "connector_num_attention_heads": 2, **fields}
    torch.manual_seed(3)
    model = Ulip2ForConditionalGeneration.from_point_language_pretrained(points, language, **fields).eval()
    return model, Ulip2CaptioningProcessor.from_model(model, qformer_tokenizer=qformer_tokenizer())


def cloud(seed: int = 0) -> np.ndarray:
    """Points (60, 6) of one color, stretched: seeds give clouds that an untrained encoder tells apart."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(60, 3)) * rng.uniform(0.05, 1, size=3)
    return np.concatenate([xyz, np.tile(rng.integers(2, size=3), (60, 1))], axis=1)


def conversation(*clouds: Any, prompt: str = PROMPT, answer: str | None = None) -> list[dict[str, Any]]:
    """One turn about clouds, and what the assistant says if there is an answer."""
    content: list[dict[str, Any]] = [{"type": "point_cloud", "point_cloud": one} for one in clouds]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages
