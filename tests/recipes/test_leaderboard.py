"""The recipe `leaderboard`: everything that is there, nothing twice, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modeling_ulip2.evaluation.benchmarks import run as benchmark_run
from modeling_ulip2.recipes.leaderboard import main, short_names
from modeling_ulip2.utils.scripts import SOME_FAILED
from tests.evaluation.benchmark_folders import write_benchmark
from tests.evaluation.world import World, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def test_a_table_of_all_that_is_there(world: World, tmp_path: Path, monkeypatch, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    write_benchmark(data / "scan", "scanobjectnn", "OBJ_ONLY", 20)
    write_benchmark(data / "scan", "scanobjectnn", "PB_T50_RS", 20, seed=1)
    write_benchmark(data / "scan", "scanobjectnn", "PB_T50_RS", 20, seed=1, split="train")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    words = ["--benchmarks", str(data), "--output_dir", str(out), "--num_workers", "0", "--models"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, str(world.model), str(broken)])
    assert stopped.value.code == SOME_FAILED
    results = sorted(out.glob("*/*/zero_shot.json"))
    assert [path.parent.name for path in results] == ["scanobjectnn-OBJ_ONLY", "scanobjectnn-PB_T50_RS"]

    table = (out / "leaderboard.md").read_text()
    for path in results:
        record = json.loads(path.read_text())
        assert f"{100 * record['top1']:.1f} / {100 * record['top5']:.1f}" in table
    assert "ModelNet40 was not measured" in table and "Objaverse-LVIS was not measured" in table
    assert "broken on scanobjectnn OBJ_ONLY: failed" in table
    assert "measured on ScanObjectNN OBJ_ONLY; protocol ulip2" in table and "Uni3D-g" in table
    assert "\\textbf{model}" in (out / "leaderboard.tex").read_text()

    monkeypatch.setattr(benchmark_run, "load_point_model", lambda *_: pytest.fail("measured again"))
    assert len(main([*words, str(world.model)])) == 2
    assert "failed" not in (out / "leaderboard.md").read_text()
    assert "2 measured results" in capsys.readouterr().out


def test_nothing_to_measure_is_an_error(tmp_path: Path):
    words = ["--benchmarks", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--models", "model"]
    with pytest.raises(SystemExit, match=f"ModelNet40 was not measured: {tmp_path} holds no folder"):
        main(words)
    assert not (tmp_path / "out").exists()


def test_models_of_the_same_name_keep_apart():
    assert short_names(["a/model", "b/model", "hub/other one"]) == ["model-0", "model-1", "other-one"]
