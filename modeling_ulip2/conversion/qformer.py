"""Published Q-Formers as the beginning of a connector: those of BLIP-2 and InstructBLIP.

X-InstructBLIP starts from BLIP-2's. Only the Q-Former's tensors are read from a folder or repository, not the vision
and language models beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig

from modeling_ulip2.models.connectors import QFormerConnector
from modeling_ulip2.models.language import checkpoint_files
from modeling_ulip2.models.references import model_location

_KINDS = ("blip-2", "instructblip")


@dataclass
class QFormerLoading:
    """What became of the tensors of a connector.

    Attributes:
        loaded: names that the published weights gave.
        copied: names of layers for text that BLIP-2's Q-Former lacks, copied from its layers for queries, as those
            were once copied from BERT's.
        fresh: names that stay as they were: the projection, the norm of the features, and what reads features of
            another width.
    """

    loaded: list[str]
    copied: list[str]
    fresh: list[str]


def qformer_config_of(name: str, **hub: Any) -> dict[str, Any]:
    """`qformer_config` and `num_query_tokens` of a BLIP-2 or InstructBLIP, as fields of `Ulip2CaptioningConfig`.

    Args:
        hub: `revision`, `token` and `cache_dir` of a hub name.

    Raises:
        ValueError: it is neither.
    """
    place, inside = model_location(name)
    config = AutoConfig.from_pretrained(place, **inside, **hub)
    if config.model_type not in _KINDS:
        raise ValueError(f"{name} is a {config.model_type}, which has no Q-Former: it must be one of {_KINDS}.")
    fields = config.qformer_config.to_dict()
    kept = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
        "hidden_dropout_prob attention_probs_dropout_prob max_position_embeddings initializer_range "
        "layer_norm_eps cross_attention_frequency"
    ).split()
    qformer = {field: fields[field] for field in kept if fields.get(field) is not None}
    return {"qformer_config": qformer, "num_query_tokens": config.num_query_tokens}


@torch.no_grad()
def initialize_qformer(model: Any, name: str, **hub: Any) -> QFormerLoading:
    """Gives the connector of a `Ulip2ForConditionalGeneration` the Q-Former of a BLIP-2 or InstructBLIP.

    Args:
        model: its configuration holds the fields of `qformer_config_of(name)`.
        name: folder or hub name of a model whose weights are safetensors.
        hub: `revision`, `token` and `cache_dir` of a hub name.

    Raises:
        ValueError: the connector is no Q-Former, has another size, or `name` holds no Q-Former.
    """
    connector = model.connector
    if not isinstance(connector, QFormerConnector):
        raise ValueError(f"connector={model.config.connector!r} has no Q-Former.")
    own, published = connector.state_dict(), dict(_published(name, hub))
    if not published:
        raise ValueError(f"{name} holds no Q-Former: none of its tensors is named qformer.… or query_tokens.")
    report = QFormerLoading([], [], [])
    for key, tensor in own.items():
        source, copied = published.get(key), False
        if source is None and _is_text_layer(key):
            source, copied = published.get(_query_layer(key)), True
        if source is None or key.startswith(("language_projection.", "feature_norm.")):
            report.fresh.append(key)
        elif source.shape == tensor.shape:
            tensor.copy_(source)
            (report.copied if copied else report.loaded).append(key)
        elif ".crossattention.attention.key." in key or ".crossattention.attention.value." in key:
            report.fresh.append(key)  # reads features: their width is the encoder's
        else:
            raise ValueError(
                f"{key} of {name} has shape {tuple(source.shape)}, the connector's has {tuple(tensor.shape)}: make "
                "the model with the fields of qformer_config_of."
            )
    return report


def _is_text_layer(key: str) -> bool:
    """Whether it belongs to the feed-forward layers that words pass and queries do not."""
    return ".intermediate." in key or ".output." in key and "attention." not in key


def _query_layer(key: str) -> str:
    return key.replace(".intermediate.", ".intermediate_query.").replace(".output.", ".output_query.")


def _published(name: str, hub: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a Q-Former, by their names in a `QFormerConnector`."""
    place, inside = model_location(name)
    for path in checkpoint_files(place, lambda key: _own_name(key) is not None, **inside, **hub):
        with safe_open(path, framework="pt") as tensors:
            for key in tensors.keys():
                own = _own_name(key)
                if own is not None:
                    yield own, tensors.get_tensor(key)


def _own_name(key: str) -> str | None:
    for part in ("query_tokens", "qformer."):
        start = key.find(part)
        if start == 0 or start > 0 and key[start - 1] == ".":
            # BLIP-2's norm of the queries is InstructBLIP's norm of queries and words
            return key[start:].replace("qformer.layernorm.", "qformer.embeddings.layernorm.")
    return None
