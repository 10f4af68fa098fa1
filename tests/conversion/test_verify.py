"""`verify` passes where the numbers are those recorded, and says so where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from modeling_ulip2.conversion import verify
from modeling_ulip2.conversion.folder import convert_to_folder
from modeling_ulip2.conversion.verify import BUILT_IN, CASES, record_built_in, verify_built_in, verify_folder
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from modeling_ulip2.models.modeling_point_ulip2 import POINT_MODELS
from tests.conversion import published


def test_recorded_numbers_come_out() -> None:
    found = verify_built_in()
    assert {row.case for row in found} == set(CASES)
    assert max(row.of_tolerance for row in found) <= 1


def test_every_encoder_of_the_package_has_a_case() -> None:
    kinds = {model.config_class.model_type for model in POINT_MODELS}
    assert kinds == {kind for kind, _ in CASES.values() if kind in POINT_ENCODERS}


def test_numbers_of_the_package_are_those_that_recording_gives(tmp_path: Path) -> None:
    record_built_in(tmp_path / "again.safetensors")
    stored, again = load_file(BUILT_IN), load_file(tmp_path / "again.safetensors")
    assert stored.keys() == again.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, stored[name], atol=1e-5, rtol=1e-4)
    assert BUILT_IN.stat().st_size < 1_000_000


def test_cases_of_one_kind() -> None:
    assert {row.case for row in verify_built_in(model_type="ulip2_ppat")} == {"ppat", "ppat_relative_position"}


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_deviation_is_seen(wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(BUILT_IN)
    tensors["ppat/pooled"][0, 0] += wrong
    with verify.safe_open(str(BUILT_IN), framework="pt") as file:
        save_file(tensors, tmp_path / "wrong.safetensors", metadata=file.metadata())
    monkeypatch.setattr(verify, "BUILT_IN", tmp_path / "wrong.safetensors")
    worst = max(verify_built_in(), key=lambda row: row.of_tolerance)
    assert (worst.case, worst.tensor) == ("ppat", "pooled") and worst.of_tolerance > 10


def test_folder_against_its_own_record(tmp_path: Path) -> None:
    file = published.openshape()
    convert_to_folder(file.save(tmp_path / "file.pt"), tmp_path / "model", file.point_config)
    found = verify_folder(tmp_path / "model")
    assert {row.case for row in found} == {"ppat", "ppat_relative_position", "this model"}
    assert max(row.of_tolerance for row in found) <= 1

    model = AutoModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.point_projection.bias += 0.01
    model.save_pretrained(tmp_path / "model")
    worst = max(verify_folder(tmp_path / "model"), key=lambda row: row.of_tolerance)
    assert worst.case == "this model" and worst.of_tolerance > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_numbers_come_out_on_a_gpu() -> None:
    assert max(row.of_tolerance for row in verify_built_in("cuda")) <= 1


def test_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config.json"):
        verify_folder(tmp_path)
