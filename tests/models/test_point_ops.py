"""Sampling, neighbors and gather: the torch path, the compiled path and the published rules agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_ulip2.models.point_ops import (
    FPS_LOWEST_INDEX,
    FPS_POINTBERT,
    FPS_POINTNEXT,
    FPS_PPAT,
    FPSRule,
    ball_query,
    farthest_point_sample,
    gather_points,
    nearest_neighbors,
)


def cloud(seed: int, batch: int, points: int) -> torch.Tensor:
    return torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(seed)) * 0.4


def lattice(points: int, seed: int = 0) -> torch.Tensor:
    """Shuffled integer lattice: nearly every step of the sampling is a tie."""
    side = int(np.ceil(points ** (1 / 3)))
    grid = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float32) for _ in range(3)))
    return grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed))[:points]][None]


def sample_like_a_kernel(xyz: np.ndarray, num_samples: int, rule: FPSRule) -> list[int]:
    """The published kernel, thread by thread: strided scans, then a tree reduction whose left side wins ties."""
    threads = min(rule.tie_cap, 1 << (len(xyz).bit_length() - 1))
    distance = np.full(len(xyz), 1e10, dtype=np.float32)
    chosen = [0]
    while len(chosen) < num_samples:
        best, index = np.full(threads, -1, dtype=np.float32), np.zeros(threads, dtype=np.int64)
        for k, point in enumerate(xyz):
            x, y, z = point
            if rule.min_squared_norm is not None and float(x * x + y * y + z * z) <= rule.min_squared_norm:
                continue
            dx, dy, dz = point - xyz[chosen[-1]]
            distance[k] = min(distance[k], dx * dx + dy * dy + dz * dz)
            if distance[k] > best[k % threads]:
                best[k % threads], index[k % threads] = distance[k], k
        half = threads // 2
        while half:
            for t in range(half):
                if best[t + half] > best[t]:
                    best[t], index[t] = best[t + half], index[t + half]
            half //= 2
        chosen.append(int(index[0]))
    return chosen


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("rule", [FPS_POINTBERT, FPS_POINTNEXT, FPSRule(1e-3, 16), FPSRule()])
@pytest.mark.parametrize(
    "xyz", [lattice(100), lattice(600), cloud(0, 1, 97), cloud(1, 1, 40) * 0.05, torch.zeros(1, 9, 3)]
)
def test_sampling_follows_the_published_kernel(backend: str, rule: FPSRule, xyz: torch.Tensor) -> None:
    found = farthest_point_sample(xyz, 24, rule, backend=backend)
    assert found[0].tolist() == sample_like_a_kernel(xyz[0].numpy(), 24, rule)


def test_compiled_and_torch_sampling_agree_on_large_batches() -> None:
    xyz = torch.cat([cloud(2, 3, 3000), lattice(3000), cloud(3, 1, 1000).repeat(1, 3, 1)])
    xyz[1, :500] *= 0.01  # a cluster near the origin
    found = [farthest_point_sample(xyz, 256, FPS_POINTBERT, backend=backend) for backend in ("torch", "numba")]
    assert torch.equal(*found)


def test_number_of_threads_changes_nothing() -> None:
    xyz, threads = cloud(4, 5, 500), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = farthest_point_sample(xyz, 64), nearest_neighbors(xyz[:, :16], xyz, 8)
        torch.set_num_threads(3)
        three = farthest_point_sample(xyz, 64), nearest_neighbors(xyz[:, :16], xyz, 8)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one[0], three[0]) and torch.equal(one[1].sort().values, three[1].sort().values)


def test_sampling_starts_at_point_0_even_near_the_origin_and_then_leaves_the_origin_alone() -> None:
    xyz = torch.cat([cloud(5, 1, 50) * 0.01, cloud(6, 1, 50)], dim=1)
    found = farthest_point_sample(xyz, 40)[0].tolist()
    assert found[0] == 0
    assert all(xyz[0, i].norm() ** 2 > 1e-3 for i in found[1:])


def test_more_samples_than_points_repeats_indices() -> None:
    found = farthest_point_sample(cloud(7, 1, 5), 9)[0]
    assert sorted(set(found.tolist())) == [0, 1, 2, 3, 4]


def test_sampling_is_the_same_under_bf16_autocast_and_carries_no_gradient() -> None:
    xyz = cloud(8, 2, 400).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = farthest_point_sample(xyz, 50), nearest_neighbors(xyz[:, :9], xyz, 7).sort().values
    outside = farthest_point_sample(xyz, 50), nearest_neighbors(xyz[:, :9], xyz, 7).sort().values
    assert torch.equal(inside[0], outside[0]) and torch.equal(inside[1], outside[1])


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize(
    ("rule", "rank"),
    [
        (FPS_LOWEST_INDEX, lambda i: i),
        (FPS_PPAT, lambda i: (i % 1024, i)),
        (FPSRule(None, 16, False), lambda i: (i % 16, i)),
    ],
)
@pytest.mark.parametrize("xyz", [lattice(125), lattice(1500), cloud(0, 1, 97)])
def test_sampling_from_any_start(backend: str, rule: FPSRule, rank, xyz: torch.Tensor) -> None:
    """Rules that can be said in a line: the farthest point, and among equals the one of lowest rank."""
    xyz = torch.cat([xyz, xyz.flip(1)])
    start = torch.tensor([7, xyz.shape[1] - 1])
    found = farthest_point_sample(xyz, 20, rule, backend=backend, start=start)
    for points, chosen in zip(xyz, found.tolist(), strict=True):
        distance = torch.full((len(points),), 1e10)
        for last, following in zip(chosen[:-1], chosen[1:], strict=True):
            distance = torch.minimum(distance, (points - points[last]).square() @ torch.ones(3))
            equals = (distance == distance.max()).nonzero().flatten().tolist()
            assert following == min(equals, key=rank)
    assert torch.equal(found[:, 0], start)
    assert torch.equal(
        farthest_point_sample(xyz, 20, rule, start=torch.zeros(2, dtype=torch.int64)),
        farthest_point_sample(xyz, 20, rule),
    )


@pytest.mark.parametrize("start", [torch.tensor([0]), torch.tensor([0, 50]), torch.tensor([-1, 0]), torch.zeros(2)])
def test_starts_that_are_no_index_are_refused(start: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"start must hold one index in \[0, 50\) for each of the 2 clouds"):
        farthest_point_sample(cloud(0, 2, 50), 3, start=start)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("include_boundary", [False, True])
@pytest.mark.parametrize("k", [1, 5, 40, 300])
def test_ball_holds_the_first_points_inside(backend: str, include_boundary: bool, k: int) -> None:
    """On an integer lattice many points lie exactly at the radius."""
    xyz = torch.cat([lattice(216), lattice(216, seed=1)])
    query = xyz[:, :50]
    found = ball_query(query, xyz, 2.0, k, include_boundary=include_boundary, backend=backend)
    assert found.shape == (2, 50, k) and found.dtype == torch.int64
    boundary = 0
    for points, centers, rows in zip(xyz.tolist(), query.tolist(), found.tolist(), strict=True):
        for center, row in zip(centers, rows, strict=True):
            squared = [sum((a - b) ** 2 for a, b in zip(center, point, strict=True)) for point in points]
            inside = [i for i, d in enumerate(squared) if d < 4 or (include_boundary and d == 4)]
            boundary += 4 in squared
            assert row == (inside + [inside[0]] * k)[:k]
    assert boundary == 100


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_empty_ball_gives_point_0(backend: str) -> None:
    xyz = cloud(0, 1, 20)
    assert (ball_query(xyz[:, :3] + 50, xyz, 0.1, 4, backend=backend) == 0).all()


def test_ball_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    xyz = cloud(1, 2, 300)
    whole = ball_query(xyz, xyz, 0.3, 16, backend="torch")
    monkeypatch.setattr("modeling_ulip2.models.point_ops_torch._MAX_DISTANCES", 2 * 300 * 7)
    assert torch.equal(ball_query(xyz, xyz, 0.3, 16, backend="torch"), whole)
    assert torch.equal(ball_query(xyz, xyz, 0.3, 16, backend="numba"), whole)


@pytest.mark.parametrize("arguments", [(0.0, 4), (-1.0, 4), (float("nan"), 4), (0.5, 0)])
def test_balls_that_cannot_be_are_refused(arguments: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="k >= 1 and radius > 0"):
        ball_query(cloud(0, 1, 5), cloud(0, 1, 5), *arguments)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_neighbors_are_the_nearest(backend: str) -> None:
    xyz = cloud(9, 3, 333)
    query = torch.cat([xyz[:, :20], cloud(10, 3, 20)], dim=1)
    found = nearest_neighbors(query, xyz, 11, backend=backend)
    exact = (query.double()[:, :, None] - xyz.double()[:, None]).norm(dim=-1).argsort(dim=-1)[..., :11]
    assert torch.equal(found.sort().values, exact.sort().values)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_neighbors_among_copies_may_be_any_copy(backend: str) -> None:
    xyz = cloud(11, 1, 10).repeat(1, 6, 1)
    found = nearest_neighbors(xyz[:, :10], xyz, 6, backend=backend)
    assert all(len(set(row)) == 6 for row in found[0].tolist())
    assert torch.equal(found[0] % 10, torch.arange(10)[:, None].expand(10, 6))


def test_all_points_may_be_neighbors() -> None:
    xyz = cloud(12, 1, 8)
    assert torch.equal(nearest_neighbors(xyz, xyz, 8).sort().values, torch.arange(8).expand(1, 8, 8))


def test_gather_keeps_the_shape_of_the_indices() -> None:
    values = torch.arange(24.0).view(2, 4, 3)
    index = torch.tensor([[[0, 1], [2, 3]], [[3, 3], [0, 0]]])
    rows = gather_points(values, index)
    assert rows.shape == (2, 2, 2, 3)
    assert torch.equal(rows[1, 0, 1], values[1, 3])


@pytest.mark.parametrize(
    ("xyz", "message"),
    [
        (torch.zeros(5, 3), "shape"),
        (torch.zeros(1, 5, 4), "shape"),
        (torch.zeros(1, 0, 3), "at least one point"),
        (torch.zeros(1, 5, 3, dtype=torch.long), "int64"),
    ],
)
def test_wrong_clouds_are_refused(xyz: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        farthest_point_sample(xyz, 2)
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(torch.zeros(1, 1, 3), xyz, 1)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_samples"):
        farthest_point_sample(cloud(0, 1, 4), 0)
    with pytest.raises(ValueError, match="5 nearest neighbors in a cloud of 4"):
        nearest_neighbors(cloud(0, 1, 4), cloud(0, 1, 4), 5)
    with pytest.raises(ValueError, match="backend"):
        farthest_point_sample(cloud(0, 1, 4), 2, backend="cuda")
