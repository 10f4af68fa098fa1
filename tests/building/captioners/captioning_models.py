"""Small random captioning models on disk, of the classes that the real ones have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    T5Config,
)

SIZE, PATCH, QUERIES = 32, 16, 4
WORDS = "a photo of an the red blue green chair table lamp car tree with and on wooden small large old".split()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} answer"
)
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = TRANSFORMER | {"image_size": SIZE, "patch_size": PATCH}


def build_tokenizer(*, ends: bool = False, **options: Any) -> PreTrainedTokenizerFast:
    """A word per token; a text begins with <s>, and with `ends` it ends with </s>."""
    words = [*SPECIAL, *WORDS, "answer", *(f"word{chr(97 + i)}" for i in range(8))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{' </s>' if ends else ''}", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        **options,
    )


def save_blip2(folder: Path, language_model: str = "opt") -> Path:
    tokenizer = build_tokenizer(ends=language_model == "t5")
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    text = {
        "opt": {"model_type": "opt", "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
        | {name: TRANSFORMER[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
        "t5": T5Config(d_model=16, d_ff=32, d_kv=8, num_layers=2, num_heads=2, decoder_start_token_id=0).to_dict(),
    }[language_model] | ids
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=TRANSFORMER | {"encoder_hidden_size": 16, "vocab_size": len(tokenizer)},
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = Blip2Processor(BlipImageProcessor(size={"height": SIZE, "width": SIZE}), tokenizer, QUERIES)
    return _save(folder, Blip2ForConditionalGeneration, config, processor)


def save_blip(folder: Path) -> Path:
    tokenizer = build_tokenizer(ends=True)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    text = TRANSFORMER | {"encoder_hidden_size": 16, "max_position_embeddings": 64} | ids
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    processor = BlipProcessor(BlipImageProcessor(size={"height": SIZE, "width": SIZE}), tokenizer)
    return _save(folder, BlipForConditionalGeneration, config, processor)


def save_llava(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    tokenizer = build_tokenizer(extra_special_tokens={"image_token": "<image>"})
    text = LlamaConfig(
        **TRANSFORMER, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, head_dim=8
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=chat_template,
        num_additional_image_tokens=1,
    )
    return _save(folder, LlavaForConditionalGeneration, config, processor)


def _save(folder: Path, model_class, config, processor) -> Path:
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():  # a fresh model hardly looks at its picture, and says what its last layer is fond of
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    if model_class is BlipForConditionalGeneration:
        model.text_decoder.cls.predictions.bias.data[2] -= 10.0  # this one would say nothing at all
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
