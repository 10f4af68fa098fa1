"""One object that asks any frozen dual encoder: `load_tower("…").encode_text(["a chair"])`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from modeling_ulip2.models.references import model_location
from modeling_ulip2.models.tower import OPEN_CLIP_PREFIX, load_tower_model

from .base import Tower
from .transformers_tower import TransformersTower


def load_tower(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Tower:
    """Loads a dual encoder (CLIP, SigLIP, ConSE, …) with its tokenizer and image processor.

    Args:
        name_or_path: a folder, a name on the Hub, a folder inside a repository there (`owner/repository/folder`), or
            `open_clip:MODEL/TAG`, which calls open_clip directly.
        device: default: a GPU if there is one.
        dtype: of the weights, default float32; embeddings are float32 in any case.
        options: further arguments of `from_pretrained`, such as `revision`, `token` and `trust_remote_code`.

    Raises:
        OSError, ValueError: it cannot be loaded; the message says why.
    """
    name = str(name_or_path)
    if name.startswith(OPEN_CLIP_PREFIX):
        from .open_clip_tower import load_open_clip_tower

        return load_open_clip_tower(name, device, dtype)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # float16 would round the weights otherwise than the bfloat16 of the fingerprint
    half = dtype is torch.float16
    try:
        model = load_tower_model(name, dtype=torch.float32 if half else dtype or torch.float32, **options)
    except OSError as error:  # of an unreachable hub, which names nothing
        if name in str(error):
            raise
        raise OSError(f"{name}: {error}") from error
    place, inside = model_location(name)
    options["trust_remote_code"] = bool(options.get("trust_remote_code"))  # None would ask at the terminal
    processor = AutoProcessor.from_pretrained(place, **inside, **options)
    tokenizer = getattr(processor, "tokenizer", None) or AutoTokenizer.from_pretrained(place, **inside, **options)
    image_processor = getattr(processor, "image_processor", None) or AutoImageProcessor.from_pretrained(
        place, **inside, **options
    )
    local = Path(name)
    label = local.resolve().name if local.is_dir() else name
    tower = TransformersTower(model.to(device), tokenizer, image_processor, label)
    if half:
        tower.to_dtype(torch.float16)
    return tower
