"""The benchmarks of this folder run, on sizes that mean nothing; no time is judged."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model
from modeling_ulip2.models import point_ops_triton
from tests.models import tiny


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module(name)


def test_the_table_runs_in_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if point_ops_triton.triton is None or not point_ops_triton.INTERPRETED:
        pytest.skip("needs Triton's interpreter")
    benchmark("bench_table", monkeypatch).main(["--interpret"])
    told = capsys.readouterr().out
    rows = ["Triton, interpreted: sampling", "Triton, interpreted: grouping", "CPU, tiny model: patch encoder"]
    for row in [*rows, *(f"CPU, tiny model: {name}" for name in ("transformer", "whole forward", "forward and back"))]:
        assert row in told


def test_the_table_is_compared_with_the_last_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table, output = benchmark("bench_table", monkeypatch), tmp_path / "bench.json"
    arguments = ["--rows", "grouping", "--points", "600", "--repeats", "1", "--output", str(output)]
    table.main(arguments)
    assert "slower" not in capsys.readouterr().out
    saved = json.loads(output.read_text())
    (row,) = [row for row in saved["rows"] if row["row"] == "CPU: grouping"]
    assert row["ratio"] == pytest.approx(row["plain_ms"] / row["ms"]) and saved["machine"] and saved["points"] == 600
    row["ratio"] *= 1000
    output.write_text(json.dumps(saved))
    table.main(arguments)
    assert "slower than before" in capsys.readouterr().out
    table.main(["--rows", "sampling", *arguments[2:]])
    saved = json.loads(output.read_text())
    assert {row["row"] for row in saved["rows"]} == {"CPU: grouping", "CPU: sampling"}  # the other row is kept
    output.write_text(json.dumps(saved | {"machine": "another"}))
    table.main(arguments)
    told = capsys.readouterr().out
    assert "not compared, they are of 600 points on another" in told and "slower" not in told


@pytest.mark.slow
def test_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    memory = benchmark("bench_memory", monkeypatch)
    sizes = ["--hidden_size", "24", "--num_hidden_layers", "1", "--num_groups", "128", "--group_size", "32"]
    found = memory.main(["--batch", "8", "--points", "300", "--device", "cpu", *sizes, "--rows", "evaluation"])
    assert set(found) == {"evaluation, all at once", "evaluation, in parts"}
    # 8 x 128 patches of 32 points with 512 channels in float32 are 64 MiB
    assert found["evaluation, all at once"] > (64 << 20) > 2 * found["evaluation, in parts"]
    assert "GiB" in capsys.readouterr().out


def test_collator_and_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark("bench_collator", monkeypatch).main(["--batch", "2", "--points", "100", "--repeats", "1"])
    told = capsys.readouterr().out
    assert all(part in told for part in ("float16 to float32", "augmentation", "whole batch"))
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_groups": 8, "group_size": 4}
    options = [text for name, size in sizes.items() for text in (f"--{name}", str(size))]
    cost = benchmark("bench_step", monkeypatch).main(
        ["--device", "cpu", "--batch", "2", "--points", "100", "--dim", "8", "--repeats", "1", *options]
    )
    assert {"data", "grouping", "encoder", "loss", "backward", "optimizer"} <= set(cost.parts)


@pytest.mark.slow
def test_formats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    point_config = {"model_type": "ulip2_pointbert", **tiny.POINT_CONFIG}
    Ulip2Model(Ulip2Config(point_config=point_config, projection_dim=16)).save_pretrained(tmp_path)
    Ulip2FeatureExtractor(num_points=64).save_pretrained(tmp_path)
    before = sorted(tmp_path.iterdir())
    benchmark("bench_formats", monkeypatch).main([str(tmp_path), "--clouds", "3", "--batch", "2", "--repeats", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    cosines = {" ".join(row[:2]): float(row[5]) for row in rows if row[:1] in (["torch"], ["onnx"])}
    assert cosines["torch float32"] == 1 and cosines["onnx float32"] > 0.9999
    assert cosines["torch bf16"] > 0.99 and cosines["onnx int8"] > 0.9
    assert sorted(tmp_path.iterdir()) == before
