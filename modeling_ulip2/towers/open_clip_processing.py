"""The tokenizer and the image processor of an open_clip model as transformers classes, without the Hub."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, decoders, normalizers
from transformers import CLIPImageProcessor, CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
# open_clip cleans a text with ftfy and html.unescape. What of that is a replacement of characters is done here: the
# entities that escaping writes (`&amp;` first, since open_clip unescapes twice), curly quotes, ligatures, controls.
# Repair of mojibake and of full-width letters is not.
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&#x27;": "'", "&nbsp;": " "}
_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}
_CONTROLS = Regex("[\x00-\x08\x0b\x0e-\x1f\x7f]")
_SINGLE_QUOTES, _DOUBLE_QUOTES = Regex("[\u02bc\u2018-\u201b]"), Regex("[\u201c-\u201f]")

_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # PIL's numbers


def tokenizer_from_open_clip(tokenizer: Any) -> PreTrainedTokenizerBase:
    """open_clip's `SimpleTokenizer` (its bundled BPE) as a transformers tokenizer with the same ids, padding included.

    Special tokens written out in a text are read as plain text; open_clip, too, reads `<|endoftext|>` so.

    Raises:
        ValueError: the model uses another tokenizer, or an option that is not expressed here.
    """
    if type(tokenizer).__name__ != "SimpleTokenizer":
        raise ValueError(
            f"text_cfg.hf_tokenizer_name: the model reads text with {type(tokenizer).__name__}, which is no BPE of "
            "open_clip; load that tokenizer with AutoTokenizer"
        )
    if tokenizer.clean_fn.__name__ != "_clean_lower" or tokenizer.reduction_fn is not None:
        raise ValueError("text_cfg.tokenizer_kwargs: only clean='lower' without a reduction_mask can be expressed")
    vocab = {_SPECIAL.get(token, token): index for token, index in tokenizer.encoder.items()}
    clip = CLIPTokenizer(vocab=vocab, merges=list(tokenizer.bpe_ranks))
    backend = clip.backend_tokenizer
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(_CONTROLS, ""),
            *(normalizers.Replace(entity, character) for entity, character in _ENTITIES.items()),
            normalizers.Replace(_SINGLE_QUOTES, "'"),
            normalizers.Replace(_DOUBLE_QUOTES, '"'),
            *(normalizers.Replace(ligature, letters) for ligature, letters in _LIGATURES.items()),
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    backend.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    )
    # Not a CLIPTokenizer, which forgets its normalizer when it is loaded. open_clip pads with id 0, which is "!":
    # special tokens must therefore not be looked for in the text.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=clip.bos_token,
        eos_token=clip.eos_token,
        unk_token=clip.unk_token,
        pad_token=clip.convert_ids_to_tokens(0),
        split_special_tokens=True,
        model_max_length=tokenizer.context_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def image_processor_from_open_clip(preprocess_cfg: Mapping[str, Any]) -> CLIPImageProcessor:
    """open_clip's evaluation transform (`model.visual.preprocess_cfg`) as a `CLIPImageProcessor`.

    Pixels agree to one gray level. Where an odd number of rows or columns is cropped (never of a square image), the
    two libraries round the margin differently, and the crop is one pixel apart.

    Raises:
        ValueError: `resize_mode` or `interpolation` cannot be expressed.
    """
    size = preprocess_cfg["size"]
    height, width = (size, size) if isinstance(size, int) else size
    resize_mode, interpolation = preprocess_cfg["resize_mode"], preprocess_cfg["interpolation"]
    if interpolation not in _RESAMPLE:
        raise ValueError(f"preprocess_cfg.interpolation: {interpolation!r} is none of {', '.join(_RESAMPLE)}")
    if resize_mode == "shortest" and height == width:
        resize: dict[str, Any] = {"size": {"shortest_edge": height}, "do_center_crop": True}
    elif resize_mode == "squash":
        resize = {"size": {"height": height, "width": width}, "do_center_crop": False}
    else:
        raise ValueError(f"preprocess_cfg.resize_mode: {resize_mode!r} to {height} x {width} cannot be expressed")
    return CLIPImageProcessor(
        **resize,
        crop_size={"height": height, "width": width},
        resample=_RESAMPLE[interpolation],
        image_mean=list(preprocess_cfg["mean"]),
        image_std=list(preprocess_cfg["std"]),
        do_convert_rgb=True,
    )
