"""What every transformer of this package shares: the attention call, the pre-norm block, and what a run records.

Subclasses name their parameters as the published checkpoints do. Which attention runs is transformers' choice
(`attn_implementation`); the eager one stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack

from .private_apis import attention_of


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out; (B, heads, T, channels) each -> (B, T, heads, channels), weights (B, heads, T, T).

    attention_mask: (B or 1, heads or 1, T, T), added to the logits. Without one, `module.is_causal` decides.
    """
    weights = torch.matmul(query, key.transpose(-2, -1)) * scaling  # (B, heads, T, T)
    if attention_mask is not None:
        weights = weights + attention_mask
    elif module.is_causal:
        weights = weights + torch.full_like(weights[0, 0], -torch.inf).triu(1)
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


@cache
def causal_block_mask(length: int, device: torch.device) -> Any:
    """The causal mask over `length` tokens for flex attention, which does not ask a module whether it is causal."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return query >= key

    return create_block_mask(sees, None, None, length, length, device=str(device))


class SelfAttention(nn.Module):
    """Self-attention without its projections, which subclasses add under their published names."""

    def __init__(self, config: PreTrainedConfig, num_heads: int, head_dim: int, is_causal: bool = False):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.scaling = head_dim**-0.5
        self.is_causal = is_causal

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, heads * head_dim) each and a bias of the logits (B, 1, T, T) -> the same shape, and weights.

        Weights are (B, heads, T, T) from eager attention, None from any other.

        Raises:
            ValueError: flex attention is to add a bias on a CPU.
        """
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)
            for part in (query, key, value)
        )
        name = attention_of(self.config)
        if name == "flex_attention" and bias is not None and query.device.type == "cpu":
            # seen with torch 2.13: its compiled kernel ends the process
            raise ValueError(
                "attn_implementation='flex_attention' cannot add a bias to the logits on a CPU: choose 'sdpa' or "
                "'eager'."
            )
        if name == "flex_attention" and self.is_causal:
            bias = causal_block_mask(query.shape[2], query.device)
        function: Callable[..., Any] = eager_attention_forward if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
        attended, weights = function(self, query, key, value, bias, dropout=0.0, scaling=self.scaling)
        return attended.flatten(2), weights


def drop_path(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Stochastic depth: leaves out the branch (B, T, C) of a random share `rate` of the samples, in training only."""
    if rate == 0 or not training:
        return branch
    keep = 1 - rate
    return branch * branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep).div_(keep)


def drop_path_rates(highest: float, num_layers: int) -> list[float]:
    """Stochastic depth of every block: rising linearly from 0 in the first to `highest` in the last."""
    return torch.linspace(0, highest, num_layers, device="cpu").tolist()


class PreNormBlock(GradientCheckpointingLayer):
    """Transformer block: norm and attention, norm and MLP, each added to the residual stream.

    With a `drop_path_rate`, whole branches are dropped in training, sample by sample.
    """

    drop_path_rate = 0.0

    def branches(self) -> tuple[Any, Any, Any, Any]:
        """Norm and attention, norm and MLP; attention returns its weights as well."""
        return self.norm1, self.attn, self.norm2, self.mlp

    def forward(self, hidden_states: torch.Tensor, *context: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, C) and what attention takes beside it -> (B, T, C), attention weights or None."""
        norm, attention, mlp_norm, mlp = self.branches()
        attended, weights = attention(norm(hidden_states), *context)
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)  # (B, T, C)
        branch = mlp(mlp_norm(hidden_states))  # (B, T, C)
        return hidden_states + drop_path(branch, self.drop_path_rate, self.training), weights


def run_blocks(
    blocks: Iterable[Any],
    hidden_states: torch.Tensor,
    *context: Any,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
) -> BaseModelOutput:
    """Tokens (B, T, C) through blocks, each of which gets `context` too.

    Recorded here and not by transformers' `capture_outputs`, which every version since 5.0 does in another way.

    Returns:
        last_hidden_state (B, T, C); on request hidden_states, the input of the first block and the output of every
        block, (B, T, C) each, and attentions, (B, heads, T, T) of every block.
    """
    states, attentions = [hidden_states], []
    for block in blocks:
        hidden_states, weights = block(hidden_states, *context)
        if output_hidden_states:
            states.append(hidden_states)
        if output_attentions:
            attentions.append(weights)
    return BaseModelOutput(
        last_hidden_state=hidden_states,
        hidden_states=tuple(states) if output_hidden_states else None,
        attentions=tuple(attentions) if output_attentions else None,
    )


class OutputOptions(TypedDict, total=False):
    """What every forward may be asked for beside its features; default: what the configuration says."""

    output_hidden_states: bool | None
    output_attentions: bool | None


def requested_outputs(
    config: PreTrainedConfig, output_hidden_states: bool | None = None, output_attentions: bool | None = None
) -> dict[str, bool]:
    """What a call asks for beside the features; what it does not say, the configuration does."""
    said = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
    return {name: bool(getattr(config, name) if value is None else value) for name, value in said.items()}


def passed_on(config: PreTrainedConfig, **options: Unpack[OutputOptions]) -> dict[str, bool]:
    """What a model that holds another asks of it: what the call or its own configuration wants.

    What neither speaks of is left to the other's configuration; not every model knows both names.
    """
    requested = requested_outputs(config, **options)
    return {name: value for name, value in requested.items() if value or options.get(name) is not None}


def check_attention_output(config: PreTrainedConfig, output_attentions: bool) -> None:
    """Raises ValueError if attention weights are asked of an implementation that does not make them."""
    if output_attentions and attention_of(config) != "eager":
        raise ValueError(f"output_attentions needs attn_implementation='eager', not {attention_of(config)!r}.")


__all__ = [
    "OutputOptions",
    "PreNormBlock",
    "SelfAttention",
    "check_attention_output",
    "drop_path",
    "drop_path_rates",
    "eager_attention_forward",
    "passed_on",
    "requested_outputs",
    "run_blocks",
]
