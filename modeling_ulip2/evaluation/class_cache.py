"""Class embeddings on disk: 1,156 classes are 73,984 prompts, and the text tower may be 10 GB."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modeling_ulip2.towers import Tower
from modeling_ulip2.towers.prompts import class_embeddings
from modeling_ulip2.utils.files import whole_path


def cached_class_embeddings(
    reference: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    cache_dir: Path,
    load: Callable[[], Tower],
) -> tuple[Tensor, dict[str, str]]:
    """`class_embeddings` of a tower, read from `cache_dir` where the same were made before.

    Args:
        reference: names the tower; for a folder, its weights' names, sizes and times enter the key, too.
        class_names, templates: as for `class_embeddings`.
        cache_dir: may be shared by many models and benchmarks.
        load: loads the tower, called only where it is needed.

    Returns:
        (C, D) float32, and the tower's `name` and `fingerprint`.
    """
    key = json.dumps([reference, _weights(Path(reference)), list(class_names), list(templates)])
    path = cache_dir / f"classes-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            embeds, told = file.get_tensor("class_embeds"), file.metadata()
            if len(embeds) == len(class_names):
                return embeds, {name: told[name] for name in ("name", "fingerprint")}
    except (OSError, SafetensorError, KeyError, TypeError):
        pass  # not there, or not whole
    tower = load()
    embeds = class_embeddings(tower.encode_text, class_names, templates)  # (C, D)
    told = {"name": tower.name, "fingerprint": tower.fingerprint}
    with whole_path(path) as partial:
        save_file({"class_embeds": embeds.contiguous()}, partial, told)
    return embeds, told


def _weights(folder: Path) -> list[tuple[str, int, int]]:
    files = sorted(path for pattern in ("*.safetensors", "*.bin", "*.json") for path in folder.glob(pattern))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
