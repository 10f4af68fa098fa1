"""`contrastive_loss/world<n>...`: the loss of one process, and of several gloo processes that this check spawns."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from modeling_ulip2 import contrastive_loss
from tests.parity import Case, TensorFile, read_json

EMBEDS = ("pc_embed", "text_embed", "image_embed")
INPUTS = (*EMBEDS, "log_logit_scale")

Tensors = dict[str, torch.Tensor]


def cases(folder: Path) -> Iterator[Case]:
    """One case per world size; the files of all its ranks belong together."""
    worlds: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.json")):
        if match := re.fullmatch(r"world(\d+)(?:_rank(\d+))?", path.stem):
            worlds.setdefault(int(match[1]), []).append(path)
    for world, paths in worlds.items():
        files = [file for path in paths for file in (path, path.with_suffix(".safetensors"))]
        yield Case(folder.name, f"world{world}", files, data=(world, paths))


def check(case: Case) -> None:
    world, paths = case.data
    declared = [read_json(path) for path in paths]
    assert [d.get("rank", 0) for d in declared] == list(range(world)), f"{case.name}: not every rank is recorded"
    assert {d.get("world_size", 1) for d in declared} == {world}
    names = list(declared[0]["cases"])
    tensors = [case.open(path.with_suffix(".safetensors")) for path in paths]
    stored = {key.split(".")[0] for file in tensors for key in file}
    assert stored == set(names), f"{case.name}: JSON and tensors hold different cases"

    inputs = [[{key: file[f"{name}.{key}"] for key in INPUTS} for name in names] for file in tensors]  # [rank][case]
    published, with_gradient = run_world(inputs)
    for i, name in enumerate(names):
        everywhere = {key: torch.cat([rank[i][key] for rank in inputs]) for key in EMBEDS}
        for rank in range(world):
            compare_rank(case, f"{name} rank {rank}", published[rank][i], tensors[rank], declared[rank]["cases"][name])
            compare_accuracies(
                case, f"{name} rank {rank}", rank, inputs[rank][i], everywhere, declared[rank]["cases"][name]
            )
        whole = everywhere | {"log_logit_scale": inputs[0][i]["log_logit_scale"]}
        compare_gathered(case, name, [rank[i] for rank in with_gradient], loss_and_gradients(whole, True))


def compare_rank(case: Case, what: str, found: Tensors, tensors: TensorFile, declared: dict[str, Any]) -> None:
    name = what.split()[0]
    case.close(f"{what}: loss", found["loss"], tensors[f"{name}.loss"])
    case.close(f"{what}: loss (JSON)", found["loss"], torch.tensor(declared["loss"]))
    for key in INPUTS:
        case.close(f"{what}: grad_{key}", found[f"grad_{key}"], tensors[f"{name}.grad_{key}"])
    for key, norm in declared["grad_norms"].items():
        case.close(f"{what}: norm of grad_{key}", found[f"grad_{key}"].norm(), torch.tensor(norm))


def compare_accuracies(
    case: Case, what: str, rank: int, local: Tensors, everywhere: Tensors, declared: dict[str, Any]
) -> None:
    """In-batch accuracies are no part of our loss; they show that rows and targets mean what we think."""
    target = torch.arange(len(local["pc_embed"])) + rank * len(local["pc_embed"])
    for partner in ("text", "image"):
        cosines = F.normalize(local["pc_embed"]) @ F.normalize(everywhere[f"{partner}_embed"]).T
        accuracy = (cosines.argmax(dim=1) == target).float().mean() * 100
        case.close(f"{what}: pc_{partner}_acc", accuracy, torch.tensor(declared[f"pc_{partner}_acc"]))


def compare_gathered(case: Case, name: str, found: list[Tensors], expected: Tensors) -> None:
    """With gradients through the gathered rows, the mean over processes is what one process computes on all rows."""
    case.close(f"{name} with gradient: loss", torch.stack([rank["loss"] for rank in found]).mean(), expected["loss"])
    for key in EMBEDS:
        # distributed training averages the gradients of all processes
        gradient = torch.cat([rank[f"grad_{key}"] for rank in found]) / len(found)
        case.close(f"{name} with gradient: grad_{key}", gradient, expected[f"grad_{key}"])
    scale = torch.stack([rank["grad_log_logit_scale"] for rank in found]).mean()
    case.close(f"{name} with gradient: grad_log_logit_scale", scale, expected["grad_log_logit_scale"])


def run_world(inputs: list[list[Tensors]]) -> tuple[list[list[Tensors]], list[list[Tensors]]]:
    """Losses and gradients [rank][case], without and with gradients through the gathered rows."""
    if len(inputs) == 1:
        runs = [
            [loss_and_gradients(each, gather_with_grad) for each in inputs[0]] for gather_with_grad in (False, True)
        ]
        return [runs[0]], [runs[1]]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run_rank, (inputs, port, folder), nprocs=len(inputs), join=True)
        results = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(len(inputs))]
    return [published for published, _ in results], [with_gradient for _, with_gradient in results]


def run_rank(rank: int, inputs: list[list[Tensors]], port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=len(inputs))
    runs = [
        [loss_and_gradients(each, gather_with_grad) for each in inputs[rank]] for gather_with_grad in (False, True)
    ]
    torch.save(runs, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def loss_and_gradients(inputs: Tensors, gather_with_grad: bool) -> Tensors:
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    points, texts, images = (leaves[name] for name in EMBEDS)
    loss = contrastive_loss(points, texts, images, leaves["log_logit_scale"].exp(), gather_with_grad)
    loss.backward()
    return {"loss": loss.detach(), **{f"grad_{name}": leaf.grad for name, leaf in leaves.items()}}
