"""Connectors: what makes of a cloud's features the embeddings that a language model reads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import InstructBlipQFormerModel
from transformers import initialization as init

from .configuration_captioning_ulip2 import Ulip2CaptioningConfig
from .private_apis import weights_at_hand


def pool_tokens(tokens: torch.Tensor, centers: torch.Tensor, num_pooled: int) -> torch.Tensor:
    """Averages tokens into fewer places.

    Centers come in the order of farthest point sampling, so that the first `num_pooled` of them are spread over the
    shape; each token goes to the nearest of these.

    Args:
        tokens: (B, G, C) of patches.
        centers: (B, G, 3) of the same patches.

    Returns:
        (B, num_pooled, C).

    Raises:
        ValueError: there are fewer than `num_pooled` tokens.
    """
    if tokens.shape[1] < num_pooled:
        raise ValueError(
            f"The point encoder gives {tokens.shape[1]} tokens, which cannot be pooled into num_query_tokens = "
            f"{num_pooled}: use fewer, or compression='resample'."
        )
    nearest = torch.cdist(centers.float(), centers[:, :num_pooled].float()).argmin(dim=-1)  # (B, G)
    member = F.one_hot(nearest, num_pooled)  # (B, G, num_pooled)
    # of equal centers only the first is nearest; the others keep their own token at least
    member[:, :num_pooled] |= torch.eye(num_pooled, dtype=member.dtype, device=member.device)
    weights = member.to(tokens.dtype) / member.sum(dim=1, keepdim=True)  # (B, G, num_pooled)
    return weights.transpose(1, 2) @ tokens


class QFormerConnector(nn.Module):
    """BLIP-2's Querying Transformer: learned queries read features (and an instruction), and are projected.

    As in X-InstructBLIP, features pass a LayerNorm first. A cloud's features are (B, G, C); the paper's are one vector
    (B, 1, C).
    """

    def __init__(self, config: Ulip2CaptioningConfig):
        super().__init__()
        qformer_config: Any = config.qformer_config
        width = qformer_config.hidden_size
        self.instruction_aware = config.instruction_aware
        self.feature_norm = nn.LayerNorm(config.point_hidden_size)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.qformer = InstructBlipQFormerModel(qformer_config)
        if not config.instruction_aware:
            _remove_text_layers(self.qformer)
        self.language_projection = nn.Linear(width, config.text_hidden_size)

    def init_weights(self, std: float) -> None:
        # equal queries would stay equal: transformers' zeros are for weights that are loaded
        init.normal_(self.query_tokens, std=std)

    def forward(
        self,
        features: torch.Tensor,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Features (B, G, C) and instructions (B, L) -> (B, num_query_tokens, text_hidden_size)."""
        features = self.feature_norm(features.to(self.feature_norm.weight.dtype))  # (B, G, C)
        queries = self.query_tokens.expand(len(features), -1, -1)  # (B, Q, H)
        ids, mask = self._instruction(len(features), qformer_input_ids, qformer_attention_mask)
        if ids is not None and mask is not None:
            mask = torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)  # (B, Q + L)
        read = self.qformer(
            input_ids=ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=features
        ).last_hidden_state  # (B, Q + L, H)
        return self.language_projection(read[:, : queries.shape[1]])

    def _instruction(
        self, batch: int, ids: torch.Tensor | None, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if not self.instruction_aware:
            return None, None
        if ids is None:
            raise ValueError(
                "The Q-Former reads an instruction: pass qformer_input_ids, which the processor makes if it has a "
                "qformer_tokenizer."
            )
        limit, vocabulary = self.qformer.config.max_position_embeddings, self.qformer.config.vocab_size
        if len(ids) != batch:
            raise ValueError(f"qformer_input_ids needs one row for each of {batch} clouds, got {len(ids)}.")
        if ids.shape[1] > limit:
            raise ValueError(f"The instruction has {ids.shape[1]} tokens; the Q-Former reads {limit} at most.")
        if not torch.compiler.is_compiling() and ids.numel() and int(ids.max()) >= vocabulary:
            raise ValueError(
                f"qformer_input_ids holds {int(ids.max())}, but the Q-Former's vocabulary has {vocabulary} entries: "
                "its tokenizer is another one."
            )
        return ids, mask


def _remove_text_layers(qformer: Any) -> None:
    """Leaves what BLIP-2's Q-Former has when it reads no text: nothing of it would be used or trained."""
    del qformer.embeddings.word_embeddings, qformer.embeddings.position_embeddings
    for layer in qformer.encoder.layer:
        del layer.intermediate, layer.output


class MlpConnector(nn.Module):
    """Two linear layers on pooled features, or between them learned queries that attend to all features (ours)."""

    def __init__(self, config: Ulip2CaptioningConfig):
        super().__init__()
        width = config.connector_hidden_size
        self.resamples = config.compression == "resample"
        self.feature_norm = nn.LayerNorm(config.point_hidden_size)
        self.input_projection = nn.Linear(config.point_hidden_size, width)
        if self.resamples:
            self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
            self.attention = nn.MultiheadAttention(width, config.connector_num_attention_heads, batch_first=True)
            self.hidden_norm = nn.LayerNorm(width)
        self.language_projection = nn.Linear(width, config.text_hidden_size)

    def init_weights(self, std: float) -> None:
        if self.resamples:
            init.normal_(self.query_tokens, std=std)
            init.xavier_uniform_(self.attention.in_proj_weight)
            init.zeros_(self.attention.in_proj_bias)

    def forward(self, features: torch.Tensor, **_: Any) -> torch.Tensor:
        """Features (B, num_query_tokens, C), or (B, G, C) to resample -> (B, num_query_tokens, text_hidden_size)."""
        hidden = self.input_projection(self.feature_norm(features.to(self.feature_norm.weight.dtype)))  # (B, G, H)
        if self.resamples:
            queries = self.query_tokens.expand(len(features), -1, -1)  # (B, Q, H)
            with weights_at_hand(self.attention.out_proj):
                attended, _ = self.attention(queries, hidden, hidden, need_weights=False)
            hidden = self.hidden_norm(queries + attended)
        return self.language_projection(F.gelu(hidden))


def make_connector(config: Ulip2CaptioningConfig) -> QFormerConnector | MlpConnector:
    """The connector that a configuration names."""
    return QFormerConnector(config) if config.connector == "qformer" else MlpConnector(config)


__all__ = ["MlpConnector", "QFormerConnector", "make_connector", "pool_tokens"]
