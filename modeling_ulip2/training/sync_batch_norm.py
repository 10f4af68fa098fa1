"""Batch normalization over the whole batch of several processes, on CPU too.

With it, training on W processes with b samples each is training on one process with W * b samples.
`torch.nn.SyncBatchNorm` does this on GPUs and refuses CPU tensors, where `SyncBatchNorm` stands in for it.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d/2d/3d` whose statistics in training span all processes; gradients flow through them.

    Input and output (B, C, ...) float, any device and backend. Processes may hold batches of different sizes.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got shape {tuple(input.shape)}")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        uses_batch = self.training or self.running_mean is None
        if not uses_batch or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)

        # the sums in float32 at least, whatever autocast made of the input
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = values.new_tensor(values.numel() / values.shape[1])
        dist.all_reduce(count)
        # two rounds rather than sums of squares: E[x^2] - E[x]^2 cancels where the mean is large
        mean = all_reduce(values.sum(dim=axes)) / count  # (C,)
        centerd = values - mean.view(shape)  # (B, C, ...)
        variance = all_reduce(centerd.square().sum(dim=axes)) / count  # (C,)
        self._update_running(mean.detach(), variance.detach(), count)

        normalized = centerd * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor) -> None:
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Makes every BatchNorm of `model` span all processes; parameter names, values and buffers stay as they are.

    GPU modules become torch's `nn.SyncBatchNorm`, the others `SyncBatchNorm`. Returns the model, changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and not _on_gpu(module):
            # a change of class keeps parameters, hooks and references to the module
            module.__class__ = SyncBatchNorm  # type: ignore[assignment]
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if _on_gpu(model) else model


def _on_gpu(module: nn.Module) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    return any(tensor.is_cuda for tensor in tensors)
