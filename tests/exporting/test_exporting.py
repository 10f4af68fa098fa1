"""Exported encoders compute what the models compute, in a folder laid out as Optimum does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling_ulip2 import Ulip2Config, Ulip2Embedder, Ulip2FeatureExtractor, Ulip2Model, Ulip2PointModelWithProjection
from modeling_ulip2.cli import main
from modeling_ulip2.exporting import export_folder, export_onnx, load_onnx_encoder
from modeling_ulip2.exporting.onnx_runtime import make_session
from modeling_ulip2.models.point_ops import farthest_point_sample
from tests.models import tiny

SIZES = [(1, 70), (3, 96), (2, 133)]


def make_model(model_type: str = "ulip2_pointbert") -> Any:
    torch.manual_seed(0)
    point_config = {"model_type": model_type, **tiny.ENCODERS[model_type]}
    return Ulip2PointModelWithProjection(Ulip2Config(point_config=point_config, projection_dim=16)).eval()


def clouds(model: Any, batch: int, points: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(points)
    values = torch.rand(batch, points, model.config.point_config.in_channels, generator=generator) - 0.5
    values[:, : points // 2] = values[:, points // 2 : 2 * (points // 2)]  # copies: every choice is a tie
    values[0, : points // 5, :3] *= 0.01  # near the origin
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    point_config = {"model_type": "ulip2_pointbert", **tiny.POINT_CONFIG}
    Ulip2Model(Ulip2Config(point_config=point_config, projection_dim=16)).save_pretrained(path)
    Ulip2FeatureExtractor(num_points=64).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "model_type",
    [name if name == "ulip2_pointbert" else pytest.param(name, marks=pytest.mark.slow) for name in tiny.ENCODERS],
)
def test_onnx_chooses_the_same_points(model_type: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = make_model(model_type)
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-5
    assert str(Path.cwd()).encode() not in (tmp_path / "model.onnx").read_bytes()
    session = make_session(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape[:2] == ["batch", "points"]
    for size in SIZES:
        values = clouds(model, *size)
        with torch.no_grad():
            expected = model(values)
        centers, embeds, pooled = session.run(["centers", "point_embeds", "pooled"], {"point_values": values.numpy()})
        assert np.array_equal(centers, expected.centers.numpy())
        np.testing.assert_allclose(embeds, expected.point_embeds.numpy(), rtol=1e-4, atol=1e-5)
        encoded = load_onnx_encoder(tmp_path / "model.onnx", model.config)(values)
        assert np.array_equal(encoded.pooled.numpy(), pooled)


def test_the_embedder_runs_an_exported_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(FileNotFoundError, match="ulip2 export .* --format onnx"):
        Ulip2Embedder.from_pretrained(folder, backend="onnx")
    assert main(["export", str(folder), "--format", "onnx", "--quantize"]) == 0
    told = capsys.readouterr().out
    assert "model_quantized.onnx" in told and "of int8" in told
    assert {file.name for file in (folder / "onnx").iterdir()} == {"model.onnx", "model_quantized.onnx"}
    shapes = [np.random.default_rng(seed).normal(size=(200, 6)).clip(0, 1) for seed in range(3)]
    expected = Ulip2Embedder.from_pretrained(folder).embed_shapes(shapes)
    found = Ulip2Embedder.from_pretrained(folder, backend="onnx").embed_shapes(shapes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    int8 = Ulip2Embedder.from_pretrained(folder, backend="onnx", file_name="model_quantized.onnx").embed_shapes(shapes)
    assert not torch.equal(int8, found)
    assert float((int8 * expected).sum(-1).min()) > 0.98
    for options in ({"device": "cuda"}, {"dtype": "bfloat16"}, {"file_name": "../config.json"}):
        with pytest.raises((ValueError, FileNotFoundError)):
            Ulip2Embedder.from_pretrained(folder, backend="onnx", **options)
    with pytest.raises(ValueError, match="backend must be"):
        Ulip2Embedder.from_pretrained(folder, backend="tensorrt")  # type: ignore[arg-type]


def test_a_torch_program_is_written_and_read(folder: Path) -> None:
    export = export_folder(folder, "torch")
    assert export.files == (folder / "torch" / "model.pt2",)
    model = Ulip2PointModelWithProjection.from_pretrained(folder).eval()
    program = torch.export.load(export.files[0]).module()
    for size in SIZES:
        values = clouds(model, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(values)[-1], model(values).point_embeds)


def test_a_failed_export_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the folder nor in the process: the model runs as before, on the sizes that were traced, too."""
    before = sorted(folder.rglob("*"))
    model = make_model()
    expected = model(clouds(model, 2, 1024)).point_embeds
    monkeypatch.setattr("modeling_ulip2.exporting.torch_file.largest_deviation", lambda *_: float("nan"))
    with pytest.raises(ValueError, match="nothing was written"):
        export_folder(folder, "torch", model)
    monkeypatch.setattr(torch.export, "save", lambda *_: 1 / 0)
    monkeypatch.setattr("modeling_ulip2.exporting.torch_file.largest_deviation", lambda *_: 0.0)
    with pytest.raises(ZeroDivisionError):
        export_folder(folder, "torch", model)
    assert sorted(folder.rglob("*")) == before
    values = clouds(model, 2, 1024)
    assert torch.equal(model(values).point_embeds, expected)
    assert type(farthest_point_sample(values[..., :3], 4)) is torch.Tensor


@pytest.mark.slow
def test_the_model_of_the_repository_runs_in_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    root = Path(__file__).parents[2]
    folder, shapes = tmp_path / "ulip2-small", sorted((root / "examples" / "data" / "shapes").glob("*.glb"))
    shutil.copytree(root / "checkpoints" / "ulip2-small", folder)
    assert main(["export", str(folder), "--format", "onnx", "--quantize"]) == 0
    expected = Ulip2Embedder.from_pretrained(folder, device="cpu").embed_shapes(shapes)
    found = Ulip2Embedder.from_pretrained(folder, backend="onnx").embed_shapes(shapes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    int8 = Ulip2Embedder.from_pretrained(folder, backend="onnx", file_name="model_quantized.onnx").embed_shapes(shapes)
    assert float((int8 * expected).sum(-1).min()) > 0.999
    sizes = {file.name: file.stat().st_size for file in (folder / "onnx").iterdir()}
    assert sizes["model_quantized.onnx"] < 0.4 * sizes["model.onnx"]


@pytest.mark.parametrize("format", ["tflite", ""])
def test_unknown_formats_are_refused(format: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="format must be one of onnx, torch"):
        export_folder(folder, format)


def test_models_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be exported"):
        export_onnx(torch.nn.Linear(3, 3), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(make_model().train(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
