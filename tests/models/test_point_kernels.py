"""The compiled kernels choose the very points that the plain operators choose, and torch knows them as operators.

Triton's kernels run on the GPU where there is one, else in its interpreter.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_ulip2.models import point_ops, point_ops_triton
from modeling_ulip2.models.point_ops import (
    FPS_LOWEST_INDEX,
    FPS_POINTBERT,
    FPS_POINTNEXT,
    FPS_PPAT,
    FPSRule,
    ball_query,
    farthest_point_sample,
    gather_points,
    group_points,
    nearest_neighbors,
)
from modeling_ulip2.models.point_ops_torch import PLAIN
from tests.conftest import DEFAULT_VECTORS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COMPILED = [
    pytest.param("numba", marks=pytest.mark.skipif(DEVICE.type != "cpu", reason="numba is for the CPU")),
    pytest.param("triton", marks=pytest.mark.skipif(not point_ops_triton.runs_on(DEVICE), reason="needs Triton")),
]
KERNELS = ("_sample_in_registers", "_sample_in_memory", "_nearest_kernel", "_ball_kernel")
RULES = (FPS_POINTBERT, FPS_POINTNEXT, FPS_PPAT, FPS_LOWEST_INDEX)


def cloud(seed: int, batch: int, points: int) -> torch.Tensor:
    return torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(seed)).to(DEVICE) * 0.4


def lattice(points: int) -> torch.Tensor:
    """Shuffled integer lattice: nearly every choice is a tie."""
    grid = torch.cartesian_prod(*(torch.arange(9.0) for _ in range(3)))
    return grid[torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))[:points]][None].to(DEVICE)


def near_origin(batch: int) -> torch.Tensor:
    """Some points on either side of the squared norm below which Point-BERT's sampling never chooses one."""
    directions = torch.nn.functional.normalize(cloud(1, batch, 300), dim=-1)
    radii = 1e-3**0.5 * (1 + torch.linspace(-3e-7, 3e-7, 300, device=DEVICE))
    return torch.cat([directions * radii[:, None], cloud(2, batch, 60)], dim=1)


CLOUDS = {
    "one point": cloud(0, 1, 1),
    "fewer points than samples": cloud(1, 7, 5),
    "odd number": cloud(2, 2, 97),
    "power of two": cloud(3, 1, 256),
    "above a power of two": cloud(4, 2, 1025),
    "duplicates": cloud(5, 2, 11).repeat(1, 13, 1),
    "one place": torch.ones(2, 70, 3, device=DEVICE),
    "lattice": lattice(700),
    "near the origin": near_origin(2),
    "all near the origin": cloud(6, 2, 50) * 0.02,
    "far from the origin": cloud(7, 1, 130) + 1e4,
    "huge": cloud(8, 1, 33) * 1e18,
}
on_clouds = pytest.mark.parametrize("xyz", CLOUDS.values(), ids=CLOUDS.keys())


@pytest.mark.parametrize("backend", COMPILED)
@on_clouds
def test_sampling(backend: str, xyz: torch.Tensor) -> None:
    last = torch.full((len(xyz),), xyz.shape[1] - 1, device=DEVICE)
    for rule, start in [(FPS_POINTBERT, None), (FPS_POINTNEXT, None), (FPS_PPAT, last), (FPS_LOWEST_INDEX, last)]:
        expected = farthest_point_sample(xyz, 9, rule, "torch", start)
        assert torch.equal(farthest_point_sample(xyz, 9, rule, backend, start), expected)


@pytest.mark.parametrize("backend", COMPILED)
@on_clouds
def test_neighbors_and_patches(backend: str, xyz: torch.Tensor) -> None:
    points = torch.cat([xyz, torch.rand(*xyz.shape[:2], 3, device=DEVICE)], dim=-1)
    centers = torch.cat([xyz[:, :3], cloud(9, len(xyz), 2)], dim=1)
    for k in {1, min(9, xyz.shape[1])}:
        expected = nearest_neighbors(centers, xyz, k, "torch")
        assert torch.equal(nearest_neighbors(centers, xyz, k, backend), expected)
        patches, index = group_points(points, centers, k, backend)
        assert torch.equal(index, expected)
        assert torch.equal(
            patches, gather_points(points, expected) - torch.nn.functional.pad(centers, (0, 3))[:, :, None]
        )


@pytest.mark.parametrize("backend", COMPILED)
@on_clouds
def test_balls(backend: str, xyz: torch.Tensor) -> None:
    centers = torch.cat([xyz[:, :9], cloud(9, len(xyz), 4)], dim=1)
    for radius, k, include_boundary in [(0.2, 7, False), (1.0, 32, True), (1.0, 32, False), (2e18, 40, True)]:
        expected = ball_query(centers, xyz, radius, k, include_boundary, "torch")
        assert torch.equal(ball_query(centers, xyz, radius, k, include_boundary, backend), expected)


def test_neighbors_come_by_distance_and_then_by_index() -> None:
    xyz = lattice(200)
    distance = (xyz[:, :30, None] - xyz[:, None]).square().sum(-1)  # whole numbers: exact, with many ties
    expected = distance.sort(dim=-1, stable=True).indices[..., :19]
    assert torch.equal(nearest_neighbors(xyz[:, :30], xyz, 19, "torch"), expected)


@pytest.mark.parametrize(
    "backend", [COMPILED[0], pytest.param("triton", marks=[*COMPILED[1].marks, pytest.mark.slow])]
)
def test_sampling_on_the_reference_vectors(backend: str) -> None:
    tensors = load_file(DEFAULT_VECTORS / "point_ops" / "fps.safetensors")
    checked = 0
    for key, expected in tensors.items():
        name, _, kind = key.rpartition(".")
        if kind in ("fps_a", "fps_b"):
            rule = FPS_POINTBERT if kind == "fps_a" else FPS_POINTNEXT
            found = farthest_point_sample(tensors[f"{name}.xyz"][None].to(DEVICE), len(expected), rule, backend)
            assert torch.equal(found[0].cpu(), expected.long()), key
            checked += 1
    assert checked >= 20


@pytest.mark.skipif(not point_ops_triton.runs_on(DEVICE), reason="needs Triton")
def test_clouds_too_large_for_the_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_ops_triton, "MAX_IN_REGISTERS", 1000)
    for xyz in (CLOUDS["above a power of two"], cloud(0, 1, 9001), cloud(3, 1, 1001) * 0.01):
        expected = farthest_point_sample(xyz, 9, FPS_POINTBERT, "torch")
        assert torch.equal(farthest_point_sample(xyz, 9, FPS_POINTBERT, "triton"), expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # the interpreter takes minutes
@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(("batch", "points"), [(1, 10_000), (7, 10_000), (1, 12_289), (2, 16_384)])
def test_clouds_of_full_size(backend: str, batch: int, points: int) -> None:
    xyz = cloud(points, batch, points)
    xyz[0, : points // 2] = xyz[0, points // 2 : 2 * (points // 2)]
    for rule in RULES:
        assert torch.equal(*(farthest_point_sample(xyz, 512, rule, name) for name in (backend, "torch")))
    centers = xyz[:, :64]
    assert torch.equal(*(nearest_neighbors(centers, xyz, 32, name) for name in (backend, "torch")))
    assert torch.equal(*(ball_query(centers, xyz, 0.2, 64, backend=name) for name in (backend, "torch")))


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
def test_gradients_of_patches_are_those_of_gathering(backend: str) -> None:
    points = torch.cat([cloud(0, 3, 60), cloud(1, 3, 60)], dim=-1).requires_grad_()
    centers = cloud(2, 3, 5).requires_grad_()
    patches, index = group_points(points, centers, 8, backend)
    weight = torch.randn(patches.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    found = torch.autograd.grad((patches * weight).sum(), (points, centers))
    plain = gather_points(points, index) - torch.nn.functional.pad(centers, (0, 3)).unsqueeze(2)
    expected = torch.autograd.grad((plain * weight).sum(), (points, centers))
    torch.testing.assert_close(found, expected)
    assert not index.requires_grad


def test_torch_accepts_the_operators() -> None:
    xyz, centers, start = cloud(0, 2, 40), cloud(1, 2, 6), torch.tensor([3, 39], device=DEVICE)
    points = torch.rand(2, 40, 6, device=DEVICE).requires_grad_()
    ops = torch.ops.ulip2
    torch.library.opcheck(ops.farthest_point_sample.default, (xyz, 9, start, 1e-3, 512, True, "auto"))
    torch.library.opcheck(ops.nearest_neighbors.default, (centers, xyz, 5, "auto"))
    torch.library.opcheck(ops.ball_query.default, (centers, xyz, 0.4, 5, True, "auto"))
    torch.library.opcheck(ops.group_points.default, (points, centers.requires_grad_(), 5, "auto"))


def test_a_second_copy_of_the_file_shares_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a checkpoint is loaded with `trust_remote_code` beside the installed package."""
    xyz = cloud(0, 2, 50)
    before = torch.ops.ulip2.farthest_point_sample.default
    path = Path(point_ops.__file__)
    spec = importlib.util.spec_from_file_location("modeling_ulip2.models.copy_of_point_ops", path)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, copy)
    spec.loader.exec_module(copy)
    assert torch.ops.ulip2.farthest_point_sample.default is before
    assert torch.equal(copy.farthest_point_sample(xyz, 9), farthest_point_sample(xyz, 9))
    assert torch.equal(copy.group_points(xyz, xyz[:, :3], 5)[1], nearest_neighbors(xyz[:, :3], xyz, 5))


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "cuda"])
def test_plain_torch_where_there_is_nothing_else(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_ops_triton, "triton", None)
    assert point_ops._kernels(torch.device(device), "auto") is PLAIN
    for backend in ("numba", "triton"):
        with pytest.raises(ValueError, match=f"backend='{backend}' needs"):
            point_ops._kernels(torch.device(device), backend)


def test_cuda_takes_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    if point_ops_triton.triton is None:
        pytest.skip("needs Triton")
    monkeypatch.setattr(point_ops_triton, "_compiles", lambda device: True)
    assert point_ops._kernels(torch.device("cuda"), "auto") is point_ops_triton.TRITON


def test_a_triton_that_does_not_work_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a C compiler, or with a GPU that Triton is too new for."""

    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler")

    device = torch.device("cuda", 7)
    monkeypatch.setattr(point_ops_triton, "triton", object())
    monkeypatch.setattr(point_ops_triton, "inside_ball", fail)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    point_ops_triton._compiles.cache_clear()
    with pytest.warns(UserWarning, match="plain torch samples and groups points on cuda:7, .* C compiler"):
        assert point_ops._kernels(device, "auto") is PLAIN
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert point_ops._kernels(device, "auto") is PLAIN
    with pytest.raises(ValueError, match="backend='triton' needs"):
        point_ops._kernels(device, "triton")
    point_ops_triton._compiles.cache_clear()


@pytest.mark.parametrize(
    "targets",
    [["cuda:90"], pytest.param(["cuda:80", "cuda:89", "cuda:100", "cuda:120", "hip:gfx942"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_the_kernels_compile_for_gpus_that_are_not_here(targets: list[str], tmp_path: Path) -> None:
    """What the interpreter does not see: types, and steps that an assembler fuses, which would choose other points."""
    triton = point_ops_triton.triton
    if triton is None or not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm").exists():
        pytest.skip("needs Triton with its assembler")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.models.compile_kernels", *targets],
        cwd=Path(__file__).parents[2],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert {(row["kernel"], row["target"]) for row in told} == set(itertools.product(KERNELS, targets))
    for row in told:
        assert row["fused"] == 0, row
        if row["constants"].get("BLOCK", 0) < 16_384:
            assert row.get("spilled", 0) <= 64, row


@pytest.mark.parametrize("number", [1e-3, 0.1, 0.25, 1 / 3, 1e-12])
def test_a_float32_exceeds_a_double_where_it_exceeds_thefloat32_below(number: float) -> None:
    below = np.float32(point_ops.float32_below(number))
    assert float(below) <= number < float(np.nextafter(below, np.float32(1)))


@pytest.mark.parametrize("backend", ["torch", *COMPILED])
def test_points_at_the_limit_are_not_chosen(backend: str) -> None:
    xyz = torch.tensor([[[9.0, 0, 0], [0, -0.5, 0], [0, 0.5000001, 0]]], device=DEVICE)
    assert farthest_point_sample(xyz, 3, FPSRule(0.25, 1), backend).tolist() == [[0, 2, 0]]
