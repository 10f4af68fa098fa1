"""The `ulip2` command, through its `main`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from modeling_ulip2.cli import main
from tests.conversion import published


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.ulip().save(tmp_path_factory.mktemp("published") / "ulip.pt")


SETTINGS = ["--point_config", "num_attention_heads=2", "num_groups=8", "group_size=6"]


def test_from_file_to_verified_folder(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "ULIP" in printed and "ulip2_pointbert" in printed and "48 -> 20" in printed

    folder = tmp_path / "model"
    assert main(["convert", str(file), str(folder), "--tower", "some/tower", *SETTINGS]) == 0
    assert "Ulip2Model" in (printed := capsys.readouterr().out) and "ASSUMED" not in printed
    model = AutoModel.from_pretrained(folder)
    assert model.config.clip_name_or_path == "some/tower" and model.config.point_config.num_groups == 8

    assert main(["info", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "some/tower" in printed and "num_points 300" in printed and "modeling_ulip2.py" in printed

    assert main(["verify", str(folder)]) == 0
    assert "as recorded" in (printed := capsys.readouterr().out) and "this model" in printed
    with torch.no_grad():
        model.point_projection.weight += 1
    model.save_pretrained(folder)
    assert main(["verify", str(folder)]) == 1
    assert "NOT as recorded" in capsys.readouterr().out


def test_assumptions_are_printed(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--point_config", "num_attention_heads=2"]
    assert main(["convert", str(file), str(tmp_path / "model"), *arguments]) == 0
    assert "num_groups=512 group_size=32" in capsys.readouterr().out


def test_every_built_in_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify"]) == 0
    printed = capsys.readouterr().out
    assert "uni3d_swiglu_norm" in printed and "largest deviation" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "missing.pt"], "no checkpoint file"),
        (["info", "{empty}"], "no config.json"),
        (["verify", "{empty}"], "no config.json"),
        (["convert", "{file}", "{full}"], "not empty"),
        (["convert", "{file}", "{new}", "--point_config", "num_groups"], "FIELD=VALUE"),
        (["convert", "{file}", "{new}", "--point_config", "groups=3"], "no field groups"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    arguments: list[str], words: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"file": file, "full": file.parent, "new": tmp_path / "new", "empty": tmp_path / "empty"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_as_a_process() -> None:
    """`python -m modeling_ulip2.conversion` is the same command."""
    command = [sys.executable, "-m", "modeling_ulip2.conversion", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "usage: ulip2 convert" in done.stdout and "OUTPUT_DIR" in done.stdout
