"""`examples/zero_shot_classification.py` end to end, against the protocol written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from PIL import Image
from torch.nn import functional as F

from examples.zero_shot_classification import main
from modeling_ulip2 import Ulip2FeatureExtractor, Ulip2Model
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.towers import load_tower
from tests.evaluation.world import CATEGORIES, World, build_world


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
