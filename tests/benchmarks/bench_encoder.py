"""Time per cloud of the official ULIP-2 Point-BERT, stage by stage, beside a straightforward version in the same run.

    python tests/benchmarks/bench_encoder.py [--points 10000 --batch 1 --threads 1 --repeats 7 --device cpu]

"Straightforward" is the encoder as the papers describe it, in eager torch: a loop for the sampling, all distances by
one matrix product, 1x1 convolutions over the concatenation [maximum, point], BatchNorm by itself, attention written
out. The two take turns, so that whatever else the machine does meets both; the figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.models.modeling_pointbert import PointBertAttention, sample_patches
from modeling_ulip2.models.point_ops import farthest_point_sample, gather_points, nearest_neighbors


def straightforward_sampling(xyz: torch.Tensor, num_samples: int) -> torch.Tensor:
    """The near-origin rule, but not the order among ties, which does not occur in a random cloud."""
    batch = torch.arange(len(xyz), device=xyz.device)
    excluded = (xyz**2).sum(-1) <= 1e-3  # (B, N)
    distance = torch.full(xyz.shape[:2], 1e10, device=xyz.device)
    last, chosen = torch.zeros_like(batch), []
    for _ in range(num_samples):
        chosen.append(last)
        distance = torch.minimum(distance, ((xyz - xyz[batch, last][:, None]) ** 2).sum(-1))
        last = distance.masked_fill(excluded, -1).argmax(-1)
    return torch.stack(chosen, dim=1)  # (B, num_samples)


def straightforward_grouping(points: torch.Tensor, centers: torch.Tensor, size: int) -> torch.Tensor:
    xyz = points[..., :3]
    distance = (centers**2).sum(-1)[..., None] + (xyz**2).sum(-1)[:, None] - 2 * centers @ xyz.transpose(1, 2)
    neighborhood = gather_points(points, distance.topk(size, largest=False).indices)  # (B, G, M, C)
    return torch.cat([neighborhood[..., :3] - centers[:, :, None], neighborhood[..., 3:]], dim=-1)


def straightforward_patches(model: PointBertModel, neighborhood: torch.Tensor) -> torch.Tensor:
    batch, groups, size, _ = neighborhood.shape
    features = model.encoder.first_conv(neighborhood.flatten(0, 1).transpose(1, 2))  # (B * G, 256, M)
    maximum = features.max(dim=2, keepdim=True).values.expand(-1, -1, size)
    features = model.encoder.second_conv(torch.cat([maximum, features], dim=1))  # (B * G, encoder_dims, M)
    return features.max(dim=2).values.view(batch, groups, -1)


def straightforward_attention(attention: PointBertAttention, values: torch.Tensor) -> torch.Tensor:
    batch, tokens, channels = values.shape
    qkv = attention.qkv(values).reshape(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    weights = (query @ key.transpose(-2, -1) * attention.scaling).softmax(dim=-1)
    return attention.proj((weights @ value).transpose(1, 2).reshape(batch, tokens, channels))


def straightforward_transformer(model: PointBertModel, tokens: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    batch = len(tokens)
    values = torch.cat([model.cls_token.expand(batch, -1, -1), model.reduce_dim(tokens)], dim=1)
    position = torch.cat([model.cls_pos.expand(batch, -1, -1), model.pos_embed(centers)], dim=1)
    for block in model.blocks.blocks:
        values = values + position
        values = values + straightforward_attention(block.attn, block.norm1(values))
        values = values + block.mlp(block.norm2(values))
    values = model.norm(values)
    return torch.cat([values[:, 0], values[:, 1:].max(dim=1).values], dim=-1)


def median_ms(functions: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median time of each function in milliseconds; they take turns, after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_number >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = PointBertConfig()
    model = PointBertModel(config).eval().to(device)
    points = torch.rand(options.batch, options.points, 6)
    points[..., :3] = torch.nn.functional.normalize(torch.randn(options.batch, options.points, 3), dim=-1)
    points[..., :3] *= torch.rand(options.batch, options.points, 1) ** 0.3
    points = points.to(device)

    groups, size, xyz = config.num_groups, config.group_size, points[..., :3].contiguous()
    neighborhood, centers, index, _ = sample_patches(points, groups, size)
    tokens = model.encoder(neighborhood)

    def our_grouping() -> torch.Tensor:
        rows = gather_points(points, nearest_neighbors(centers, xyz, size))
        return rows - torch.nn.functional.pad(centers, (0, 3)).unsqueeze(2)

    def our_transformer() -> torch.Tensor:
        return model.encode_tokens(tokens, centers).pooled

    def straightforward() -> torch.Tensor:
        chosen = gather_points(xyz, straightforward_sampling(xyz, groups))
        patches = straightforward_patches(model, straightforward_grouping(points, chosen, size))
        return straightforward_transformer(model, patches, chosen)

    assert torch.equal(index, straightforward_sampling(xyz, groups)), "the two do not sample the same points"
    deviation = (model(points).pooled - straightforward()).abs().max().item()

    stages: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "farthest point sampling": (
            lambda: farthest_point_sample(xyz, groups),
            lambda: straightforward_sampling(xyz, groups),
        ),
        "neighbors and grouping": (our_grouping, lambda: straightforward_grouping(points, centers, size)),
        "patch encoder": (lambda: model.encoder(neighborhood), lambda: straightforward_patches(model, neighborhood)),
        "transformer": (our_transformer, lambda: straightforward_transformer(model, tokens, centers)),
        "whole forward": (lambda: model(points), straightforward),
    }
    print(
        f"Point-BERT, {model.num_parameters():,} parameters, {options.batch} x {options.points} colored points, "
        f"{options.device}, {options.threads} thread(s), torch {torch.__version__}; ms per cloud, median of "
        f"{options.repeats}"
    )
    print(f"{'stage':<26}{'ours':>9}{'straightforward':>17}{'ratio':>8}")
    for name, (ours, plain) in stages.items():
        times = median_ms({"ours": ours, "plain": plain}, options.repeats, device)
        our_ms, plain_ms = times["ours"] / options.batch, times["plain"] / options.batch
        print(f"{name:<26}{our_ms:>9.1f}{plain_ms:>17.1f}{plain_ms / our_ms:>8.2f}")
    print(f"largest difference between the two outputs: {deviation:.1e}")


if __name__ == "__main__":
    main()
