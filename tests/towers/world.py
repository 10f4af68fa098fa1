"""Small random towers on disk, made by the tests."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPImageProcessor,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTextConfig,
    SiglipVisionConfig,
    TimmWrapperConfig,
    VisionTextDualEncoderProcessor,
)

from modeling_ulip2.towers import ConseConfig, ConseModel, SlipConfig, SlipModel

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


_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def _word_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """Word by word, with a mask as most tokenizers make one."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=length
    )


def save_siglip(folder: Path) -> Path:
    torch.manual_seed(0)
    text = SiglipTextConfig(**_SIZES, vocab_size=len(WORDS) + 3, max_position_embeddings=8, projection_size=16)
    vision = SiglipVisionConfig(**_SIZES, image_size=16, patch_size=8)
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    image_processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    SiglipProcessor(image_processor, _word_tokenizer(8)).save_pretrained(folder)
    return folder


def save_siglip2(folder: Path) -> Path:
    """With images of any shape, as patches: `pixel_attention_mask` and `spatial_shapes` belong to the pixels."""
    torch.manual_seed(0)
    text = {**_SIZES, "vocab_size": len(WORDS) + 3, "max_position_embeddings": 8, "projection_size": 16}
    vision = {**_SIZES, "num_patches": 16, "patch_size": 8}
    Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).save_pretrained(folder)
    image_processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    Siglip2Processor(image_processor, _word_tokenizer(8)).save_pretrained(folder)
    return folder


def save_chinese_clip(folder: Path) -> Path:
    """A dual encoder of transformers with BERT's tokenizer, which makes `token_type_ids`."""
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    text = {**_SIZES, "vocab_size": len(vocabulary), "max_position_embeddings": 16}
    config = ChineseCLIPConfig(
        text_config=text, vision_config={**_SIZES, "image_size": 16, "patch_size": 8}, projection_dim=12
    )
    model = ChineseCLIPModel(config)
    torch.nn.init.normal_(model.text_model.embeddings.token_type_embeddings.weight)
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=16)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    VisionTextDualEncoderProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def save_slip(folder: Path) -> Path:
    from modeling_ulip2.towers.slip import slip_processor

    torch.manual_seed(0)
    sizes = {f"{part}_{name}": _SIZES[name] for part in ("text", "vision") for name in tuple(_SIZES)[:3]}
    config = SlipConfig(projection_dim=20, max_position_embeddings=12, image_size=16, patch_size=8, **sizes)
    SlipModel(config).save_pretrained(folder)
    processor = slip_processor(config)
    processor.tokenizer.model_max_length = 12
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
