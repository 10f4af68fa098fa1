"""Reading published checkpoints: what they hold is read, what they could run is refused."""

from __future__ import annotations

import argparse
import fractions
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.conversion import convert_checkpoint, read_checkpoint
from tests.models.tiny import POINT_CONFIG, clouds

NOT_IN_WEIGHTS = {name: POINT_CONFIG[name] for name in ("num_attention_heads", "num_groups", "group_size")}


def published(tmp_path: Path, **changes: Any) -> Path:
    """A small checkpoint in the published layout."""
    torch.manual_seed(0)
    encoder = PointBertModel(PointBertConfig(**POINT_CONFIG)).state_dict()
    state_dict = {f"module.point_encoder.{name}": value for name, value in encoder.items()}
    state_dict |= {"module.pc_projection": torch.randn(48, 20), "module.logit_scale": torch.tensor(3.0)}
    state_dict |= {name: value for name, value in changes.pop("tensors", {}).items() if value is not None}
    for name in changes.pop("without", ()):
        del state_dict[name]
    args = argparse.Namespace(model="ULIP2_PointBERT_Colored", npoints=10000)
    content = {"epoch": "last", "state_dict": state_dict, "args": args, "best_acc1": 12.5, "optimizer": {"state": {}}}
    path = tmp_path / "checkpoint.pt"
    torch.save(content | changes, path)
    return path


def test_what_a_checkpoint_holds(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(published(tmp_path))
    assert checkpoint.epoch == "last" and checkpoint.args["npoints"] == 10000
    assert checkpoint.state_dict["logit_scale"].item() == 3
    assert not any(name.startswith("module.") for name in checkpoint.state_dict)


def test_conversion_keeps_every_tensor(tmp_path: Path) -> None:
    path = published(tmp_path)
    model = convert_checkpoint(path, point_config=NOT_IN_WEIGHTS)
    stored = read_checkpoint(path).state_dict
    assert len(model.state_dict()) == len(stored)
    assert torch.equal(model.point_projection.weight, stored["pc_projection"].T)
    with torch.no_grad():
        output = model.get_point_features(clouds(2)).pooler_output
        expected = model.point_model(clouds(2)).pooled @ stored["pc_projection"]
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"without": ["module.point_encoder.norm.weight"]}, "point_encoder.norm.weight"),
        ({"tensors": {"module.point_encoder.blocks.blocks.0.attn.qkv.bias": torch.zeros(72)}}, "attn.qkv.bias"),
        ({"tensors": {"module.point_encoder.norm.bias": torch.zeros(25)}}, "norm.bias"),
        ({"tensors": {"module.something_else": torch.zeros(1)}}, "something_else"),
        ({"without": ["module.pc_projection"]}, "encoder alone: a PointBertModel alone"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        convert_checkpoint(published(tmp_path, **changes), point_config=NOT_IN_WEIGHTS)


class Malicious:
    """Unpickled without restriction, it would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for place in ("args", "epoch", "scaler"):
        path = published(tmp_path, **{place: Malicious(trace)})
        with pytest.raises(ValueError, match="could run code"):
            read_checkpoint(path)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"state_dict": Malicious(trace)}))
    with pytest.raises(ValueError, match="plain.pt"):
        read_checkpoint(plain)
    assert not trace.exists()


def test_classes_beyond_the_allowed_ones_are_refused(tmp_path: Path) -> None:
    path = published(tmp_path, args=fractions.Fraction(1, 2))
    with pytest.raises(ValueError, match="fractions.Fraction"):
        read_checkpoint(path)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    whole = published(tmp_path).read_bytes()
    files = {"truncated.pt": whole[: len(whole) // 2], "empty.pt": b"", "text.pt": b"hello there", "zip.pt": whole[:4]}
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_checkpoint(path)
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match="holds no state_dict"):
        read_checkpoint(tmp_path / "numbers.pt")
    with pytest.raises(FileNotFoundError, match="missing.pt"):
        read_checkpoint(tmp_path / "missing.pt")
