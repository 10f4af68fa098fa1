"""Small random towers on disk, made by the tests."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPImageProcessor,
    TimmWrapperConfig,
    VisionTextDualEncoderProcessor,
)

from modeling_ulip2.towers import ConseConfig, ConseModel

WORDS = ["a", "photo", "of", ".", "chair", "table", "lamp", "red", "blue", "wooden", "cat", "dog"]
CLASS_NAMES = ["chair", "table", "red lamp", "wooden cat", "blue dog"]
OPEN_CLIP_PREPROCESSING = {
    "mean": [0.4, 0.45, 0.5],
    "std": [0.2, 0.25, 0.3],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def tiny_conse() -> tuple[ConseModel, VisionTextDualEncoderProcessor]:
    """A random sentence encoder and a random timm classifier, whose batch norms have seen something."""
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    text = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    vision = TimmWrapperConfig(architecture="test_efficientnet", id2label=dict(enumerate(CLASS_NAMES)))
    model = ConseModel(ConseConfig(text_config=text, vision_config=vision, top_k=3, max_length=16)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=16)
    model.set_class_embeds(tokenizer)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    return model, VisionTextDualEncoderProcessor(image_processor, tokenizer)


def save_conse(folder: Path) -> Path:
    model, processor = tiny_conse()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def open_clip_config(**changes: Any) -> dict[str, Any]:
    """Keyword arguments of open_clip's models; `vision_cfg` and `text_cfg` are updated, the rest replaced."""
    config: dict[str, Any] = {
        "embed_dim": 24,
        "vision_cfg": {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 3},
    }
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(config.get(name), dict) else value
    return config


def save_open_clip(folder: Path, **changes: Any) -> str:
    """Writes a random open_clip model with the real vocabulary in open_clip's own layout; returns its name."""
    import open_clip

    config = open_clip_config(**changes)
    config["text_cfg"] |= {"vocab_size": 49408, "context_length": 20}
    torch.manual_seed(1)
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True)
    written = {"model_cfg": config, "preprocess_cfg": OPEN_CLIP_PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
