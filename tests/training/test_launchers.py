"""Launchers and the configurations of accelerate in examples/configs/accelerate/; a model sharded over processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.tensor import DTensor

from modeling_ulip2.training.grad_cache import average_gradients, grad_cache_step, split_inputs
from modeling_ulip2.training.sharding import prepare_sharding
from modeling_ulip2.training.sync_batch_norm import synchronize_batch_norm
from tests.training.test_grad_cache import in_one_pass, inputs, make_model
from tests.training.test_killed import curve, options

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "examples" / "configs" / "accelerate"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda own: own.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == config.num_machines * (1 if path.stem == "one_gpu" else 8)
    assert config.mixed_precision == "bf16"
    if path.stem == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        blocks = {type(module).__name__ for module in make_model().modules()}
        assert config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] in blocks


def test_the_batch_script_starts_each_machine_with_its_number(tmp_path):
    """With stand-ins for Slurm and accelerate, which tell how they were called."""
    (tmp_path / "scontrol").write_text("#!/bin/bash\nprintf 'first\\nsecond\\n'\n")
    (tmp_path / "srun").write_text('#!/bin/bash\nshift\nfor SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done\n')
    (tmp_path / "accelerate").write_text('#!/bin/bash\nprintf "%q " "$@"; echo\n')
    for name in ("scontrol", "srun", "accelerate"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2"}
    words = ["bash", str(CONFIGS / "four_by_eight_gpus.slurm"), "--dataset", "a folder", "b"]
    run = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [shlex.split(line) for line in run.stdout.splitlines()]
    assert len(lines) == 2
    for number, line in enumerate(lines):
        assert line[-3:] == ["--dataset", "a folder", "b"] and line[line.index("--machine_rank") + 1] == str(number)
        assert line[line.index("--num_processes") + 1] == "16" and line[line.index("--main_process_ip") + 1] == "first"
        assert (ROOT / line[line.index("--config_file") + 1]).is_file()


def launch(words: list[str], launcher: list[str], **environment: str) -> None:
    environment |= {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.run(
        [*launcher, *words], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_launchers_give_one_curve(dataset_with_features, tower_folder, tmp_path):
    """`torchrun`, and `accelerate launch -m` with accumulation, against one process."""

    def own(name: str, **changes: object) -> list[str]:
        given = {"save_strategy": "no", "drop_path_rate": 0.0, "num_train_epochs": 2, **changes}
        return options(dataset_with_features, tower_folder, tmp_path / name, **given)

    script = str(ROOT / "examples" / "pretrain.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch([script, *own("python", per_device_train_batch_size=8, use_cpu=True)], [sys.executable])
    launch([script, *own("torchrun", per_device_train_batch_size=4)], torchrun)
    parts = own("accelerate", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    launch(["-m", "modeling_ulip2.cli", "pretrain", *parts], accelerate)
    expected = curve(tmp_path / "python")
    assert len(expected) == 4
    for name in ("torchrun", "accelerate"):
        assert curve(tmp_path / name) == pytest.approx(expected, abs=2e-3), name


def sharded(rank: int, folder: Path) -> None:
    """Accelerate shards over GPUs alone; its own function for it works on a CPU, too."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    own = {name: value[16 * rank :][:16] if name != "return_loss" else value for name, value in inputs().items()}
    found = {}
    for way in ("one pass", "parts"):
        model = synchronize_batch_norm(make_model())
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            reshard_after_forward=True,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["PointBertBlock"],
        )
        prepare_sharding(model, plugin)
        state = SimpleNamespace(fsdp_plugin=plugin)
        device = torch.device("cpu")
        model = fsdp2_prepare_model(
            SimpleNamespace(state=state, mixed_precision="no", device=device, is_main_process=rank == 0), model
        )
        if way == "parts":
            grad_cache_step(model, model.compare, split_inputs(own, 16), batch_norm="part")
        else:
            model(**own).loss.backward()
        average_gradients(model.parameters())
        assert sum(not isinstance(value.data, DTensor) for value in model.parameters()) == 1
        found[way] = {
            name: value.grad.full_tensor() if isinstance(value.grad, DTensor) else value.grad
            for name, value in model.named_parameters()
        }
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_a_sharded_model_has_the_gradients_of_a_whole_one(tmp_path):
    mp.start_processes(sharded, (tmp_path,), nprocs=2, start_method="spawn")
    expected = in_one_pass(make_model(), inputs())
    for rank in (0, 1):
        for way, gradients in torch.load(tmp_path / f"{rank}.pt").items():
            for name, value in gradients.items():
                torch.testing.assert_close(
                    value,
                    expected[f"grad of {name}"],
                    atol=2e-5,
                    rtol=2e-3,
                    msg=lambda m: f"{way}, {name}: {m}",  # noqa: B023
                )
