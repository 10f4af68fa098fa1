"""The recipe `zero_shot` end to end, against the protocol written out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from PIL import Image
from safetensors import safe_open
from torch.nn import functional as F

from modeling_ulip2 import Ulip2FeatureExtractor, Ulip2Model
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.recipes.zero_shot import main
from modeling_ulip2.towers import load_tower
from tests.evaluation.benchmark_folders import write_benchmark
from tests.evaluation.world import CATEGORIES, World, build_world

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def arguments(world: World, output: Path, *more: str) -> list[str]:
    paths = ["--model", world.model, "--dataset", world.dataset, "--labels_file", world.labels_file]
    return [str(value) for value in [*paths, "--output_dir", output, "--split_file", world.split_file, *more]]


def test_equals_the_protocol_written_out(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    evaluation = main(arguments(world, tmp_path))

    model, tower = Ulip2Model.from_pretrained(world.model).eval(), load_tower(world.tower)
    extractor = Ulip2FeatureExtractor.from_pretrained(world.model)
    classes = []
    for name in CATEGORIES:
        prompts = torch.cat([tower.encode_text([template.format(name)]) for template in load_templates()])
        classes.append(F.normalize(prompts.mean(dim=0), dim=0))
    hits, shapes = 0, 0
    for index, row in enumerate(load_dataset(str(world.dataset), "triplets", split="train").with_format("torch")):
        if index < 4 or index % 4 == 3:  # a training shape, or one without a label
            continue
        with torch.no_grad():
            values = extractor({"xyz": row["xyz"].numpy(), "rgb": row["rgb"].numpy().astype("uint8")})["point_values"]
            embed = F.normalize(model.get_point_features(values).pooler_output[0], dim=0)
        guess = max(range(3), key=lambda label: float(embed @ classes[label]))
        hits, shapes = hits + (guess == index % 3), shapes + 1

    assert len(evaluation.result.labels) == shapes == 6
    assert evaluation.result.micro["top1"] == pytest.approx(hits / shapes)
    assert evaluation["top1"].chance == pytest.approx(1 / 3)
    written = json.loads((tmp_path / "zero_shot.json").read_text())
    assert written["figures"]["top1"]["value"] == evaluation["top1"].value
    assert written["tower"] == tower.fingerprint
    assert f"**{100 * hits / shapes:.1f} %**" in capsys.readouterr().out
    assert Image.open(tmp_path / "confusion.png").format == "PNG"


def test_a_benchmarks_class_names_are_the_choice(world: World, tmp_path: Path):
    evaluation = main(arguments(world, tmp_path, "--class_names", "modelnet40", "--split", "train"))
    assert len(evaluation.result.class_names) == 40
    assert evaluation["top1"].chance == 1 / 40
    assert len(evaluation.result.labels) == 3  # four training shapes, one of them without a label


def test_says_what_is_wrong(world: World, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\na,chair\n")
    with pytest.raises(ValueError, match=r"labels.csv: missing the columns \['category', 'path'\]"):
        main(arguments(world, tmp_path, "--labels_file", str(labels)))
    with pytest.raises(ValueError, match="no_such_list"):
        main(arguments(world, tmp_path, "--class_names", "no_such_list"))


def benchmark_arguments(world: World, dataset: Path, output: Path, *more: str) -> list[str]:
    paths = ["--model", world.model, "--dataset", dataset, "--output_dir", output, "--num_workers", "0"]
    return [str(value) for value in ["--benchmark", "scanobjectnn", *paths, *more]]


def test_two_processes_find_what_one_finds(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_benchmark(tmp_path / "scan", "scanobjectnn", "PB_T50_RS", 300)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = str(ROOT / "examples" / "zero_shot_classification.py")
    words = benchmark_arguments(world, tmp_path / "scan", tmp_path / "two")
    run = subprocess.run([*launcher, script, *words], env=environment, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.count("# ScanObjectNN (PB_T50_RS, test): model") == 1
    processes = []
    for path in sorted((tmp_path / "two" / "embeds").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            processes.append(file.metadata()["process"])
    assert processes == ["0", "1", "0"]

    one = main(benchmark_arguments(world, tmp_path / "scan", tmp_path / "one"))
    two = json.loads((tmp_path / "two" / "zero_shot.json").read_text())
    assert isinstance(one, dict) and one["shapes"] == two["shapes"] == 300
    assert one["config"] == two["config"] == "PB_T50_RS" and one["stamp"] == two["stamp"]
    for name in ("top1", "top3", "top5", "top1_class_average"):
        assert two[name] == pytest.approx(one[name], abs=0.01)  # a tie may break otherwise
    assert "| top-1 |" in capsys.readouterr().out


def test_a_benchmark_is_what_its_folder_says(world: World, tmp_path: Path):
    write_benchmark(tmp_path / "modelnet40", "modelnet40", "off", 2)
    with pytest.raises(ValueError, match="holds modelnet40, not scanobjectnn"):
        main(benchmark_arguments(world, tmp_path / "modelnet40", tmp_path / "out"))
    with pytest.raises(ValueError, match="triplets need --labels_file"):
        main(["--model", str(world.model), "--dataset", str(world.dataset), "--output_dir", str(tmp_path)])
