"""What onnxruntime computes of the exported operators and encoders, against the numbers of the published code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_ulip2.exporting import export_onnx
from modeling_ulip2.exporting.onnx_file import quiet
from modeling_ulip2.exporting.onnx_runtime import make_session
from modeling_ulip2.models import point_ops
from modeling_ulip2.models.point_encoder import PointEncoderOutput, PointEncoderPreTrainedModel
from modeling_ulip2.models.point_ops import FPS_POINTBERT, FPS_POINTNEXT, FPS_PPAT, FPSRule
from tests.conftest import DEFAULT_VECTORS
from tests.parity import module_of, read_json

pytest.importorskip("onnxscript")
from modeling_ulip2.exporting.onnx_ops import OPSET, translations  # noqa: E402

# Encoders that start their samplings at point 0, as an exported one does, and the recorded name of what they pool.
POOLED = {"pointbert_xyz": "output", "pointbert_xyzrgb": "output", "pointnext_s": "output", "uni3d": "normed_cls"}


def cases() -> Iterator[Any]:
    for folder in POOLED:
        module = module_of(folder)
        assert module is not None
        for case in module.cases(DEFAULT_VECTORS / folder):
            if read_json(case.files[0]).get("mode") == "eval":
                yield pytest.param(case, id=f"{folder}/{case.name}")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Any], Any]:
    """The session of a recorded configuration's encoder; it is exported once for all its cases."""
    made: dict[Path, Any] = {}

    def session(weights: Path, encoder: Any) -> Any:
        if weights not in made:
            path = tmp_path_factory.mktemp("encoder") / "model.onnx"
            plain = type(encoder)(encoder.config).eval()  # without the hooks of the check
            plain.load_state_dict(encoder.state_dict())
            export_onnx(plain, path)
            made[weights] = make_session(path)
        return made[weights]

    return session


@pytest.mark.slow
@pytest.mark.parametrize("case", cases())
def test_encoders(case: Any, sessions: Callable[[Path, Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the torch model, followed by one of the same model in onnxruntime."""
    seen: list[tuple[Any, torch.Tensor, PointEncoderOutput]] = []
    module = module_of(case.folder)
    assert module is not None
    real = torch.nn.Module.__call__

    def remember(self: Any, *arguments: Any, **options: Any) -> Any:
        output = real(self, *arguments, **options)
        if isinstance(self, PointEncoderPreTrainedModel):
            seen.append((self, arguments[0], output))
        return output

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Module, "__call__", remember)
        module.check(case)
    encoder, points, output = seen[0]
    found = sessions(case.files[0].with_name("weights.safetensors"), encoder).run(
        ["pooled", "centers"], {"point_values": points.numpy()}
    )
    case.close("pooled, in onnxruntime", found[0], load_file(case.files[1])[POOLED[case.folder]])
    assert output.centers is not None
    case.equal("centers, in onnxruntime", found[1], output.centers)


class Sampling(torch.nn.Module):
    def __init__(self, rule: FPSRule, num_samples: int):
        super().__init__()
        self.rule, self.num_samples = rule, num_samples

    def forward(self, xyz: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return point_ops.farthest_point_sample(xyz, self.num_samples, self.rule, start=start)


class Neighbors(torch.nn.Module):
    def forward(self, xyz: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, ...]:
        balls = (point_ops.ball_query(query, xyz, 0.3, 9, boundary) for boundary in (False, True))
        return (*balls, point_ops.nearest_neighbors(query, xyz, 5), *point_ops.group_points(xyz, query, 5))


def run(module: torch.nn.Module, folder: Path, *arguments: torch.Tensor) -> Callable[..., list[np.ndarray]]:
    """The module in onnxruntime, for clouds of any number and size."""
    any_size = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    sizes = tuple(any_size if tensor.ndim > 1 else {0: torch.export.Dim.AUTO} for tensor in arguments)
    with quiet():
        program = torch.export.export(module, arguments, dynamic_shapes=sizes)
        written = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, custom_translation_table=translations(), optimize=True
        )
    assert written is not None
    written.save(folder / "operators.onnx")
    session = make_session(folder / "operators.onnx")
    names = [value.name for value in session.get_inputs()]
    return lambda *tensors: session.run(
        None, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    )


@pytest.mark.parametrize(
    ("rule", "kind"), [(FPS_POINTBERT, "fps_a"), (FPS_POINTNEXT, "fps_b"), (FPS_PPAT, None)], ids=str
)
def test_sampling(rule: FPSRule, kind: str | None, tmp_path: Path) -> None:
    """Every recorded cloud from point 0, and any start against the plain version."""
    tensors = load_file(DEFAULT_VECTORS / "point_ops" / "fps.safetensors")
    expected = {key.rpartition(".")[0]: value.long() for key, value in tensors.items() if key.endswith(f".{kind}")}
    most = max((len(chosen) for chosen in expected.values()), default=64)
    sample = run(Sampling(rule, most), tmp_path, torch.rand(2, 50, 3), torch.zeros(2, dtype=torch.int64))
    for name, chosen in expected.items():
        # of more samples, the first are the same
        found = sample(tensors[f"{name}.xyz"][None], torch.zeros(1, dtype=torch.int64))[0][0, : len(chosen)]
        assert found.tolist() == chosen.tolist(), name
    assert bool(expected) == (kind is not None)
    for points in (1, 33, 1024, 1500):
        xyz = torch.randn(3, points, 3, generator=torch.Generator().manual_seed(points)).round(decimals=1)  # many ties
        start = torch.tensor([0, points // 2, points - 1])
        plain = point_ops.farthest_point_sample(xyz, most, rule, "torch", start)
        assert np.array_equal(sample(xyz, start)[0], plain.numpy()), points


def test_neighbors_and_balls(tmp_path: Path) -> None:
    find = run(Neighbors(), tmp_path, torch.rand(2, 50, 3), torch.rand(2, 7, 3))
    for points in (5, 8, 600):
        xyz = torch.randn(3, points, 3, generator=torch.Generator().manual_seed(points)).round(decimals=1) * 0.3
        query = torch.cat([xyz[:, :4], xyz[:, :2] + 9], dim=1)  # and some whose balls are empty
        for found, expected in zip(find(xyz, query), Neighbors()(xyz, query), strict=True):
            assert np.array_equal(found, expected.numpy())
