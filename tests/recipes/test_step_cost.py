from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from modeling_ulip2.recipes import step_cost
from tests.training.world import ENCODER

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


@pytest.mark.parametrize("encoder", [ENCODER, {"point_encoder": "ulip2_pointnext"}])
def test_a_step_is_measured_in_parts(tmp_path, capsys, encoder):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(encoder | {"num_points": 128, "num_train_epochs": 3, "rotate_y": False}))
    words = ["--config", str(path), "--dim", "24", "--batch_size", "4", "--repeats", "1", "--device", "cpu"]
    cost = step_cost.main([*words, "--rows", "1000", "--devices", "2", "--price", "3"])
    expected = [name for name in step_cost.PARTS if name != "grouping" or "hidden_size" in encoder]
    assert list(cost.parts) == expected and all(seconds >= 0 for seconds in cost.parts.values())
    assert cost.parts["encoder"] > 0 and cost.memory > 2**20
    assert cost.seconds == pytest.approx(sum(cost.parts[name] for name in expected if name != "data"))
    hours = 1000 * 3 / cost.samples_per_second / 2 / 3600
    told = capsys.readouterr().out
    assert f"1,000 shapes x 3 epochs on 2 device(s): {hours:,.1f} hours" in told and "at 3 an hour" in told
    assert "samples per second and device" in told and "GiB" in told


@pytest.mark.parametrize("name", ["ulip2_objaverse_shapenet", "ulip2_shapenet", "ulip1_shapenet"])
def test_recipes_are_estimated_from_a_figure_of_other_machines(name, capsys):
    words = [
        "--config",
        str(CONFIGS / f"{name}.yaml"),
        "--rows",
        "52460",
        "--devices",
        "8",
        "--samples_per_second",
        "500",
    ]
    assert step_cost.main(words).samples_per_second == pytest.approx(500)
    assert (
        f"52,460 shapes x 250 epochs on 8 device(s): {52460 * 250 / 4000 / 3600:.1f} hours" in capsys.readouterr().out
    )
    with torch.device("meta"):
        model, points = step_cost.configured_model(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()), 1280)
    assert model.config.point_config.num_hidden_layers == (12 if name == "ulip1_shapenet" else 18)
    assert points == (8192 if name == "ulip1_shapenet" else 10_000)
