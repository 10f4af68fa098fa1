"""Nothing in a directory of vectors passes unseen: what is not understood fails by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import DEFAULT_VECTORS
from tests.parity import Case, NotUnderstood, discover, point_ops


@pytest.fixture()
def vectors(tmp_path: Path) -> Path:
    """A directory with one small folder of vectors, whose files may be changed."""
    (tmp_path / "point_ops").mkdir()
    tensors = load_file(DEFAULT_VECTORS / "point_ops" / "fps.safetensors")
    declared = json.loads((DEFAULT_VECTORS / "point_ops" / "fps.json").read_text())
    name = "object_n31_m16"
    declared["cases"] = {name: declared["cases"][name]}
    (tmp_path / "point_ops" / "fps.json").write_text(json.dumps(declared))
    kept = {key: value for key, value in tensors.items() if key.startswith(f"{name}.")}
    save_file(kept, tmp_path / "point_ops" / "fps.safetensors")
    return tmp_path


def the_case(vectors: Path) -> Case:
    ((_, case),) = discover(vectors)
    assert isinstance(case, Case)
    return case


def test_understood_vectors_pass(vectors: Path) -> None:
    case = the_case(vectors)
    point_ops.check(case)
    case.assert_everything_was_read()
    assert case.name == "fps/object_n31_m16" and len(case.deviations) == 4


def test_unknown_folders_and_files_fail_by_name(vectors: Path) -> None:
    (vectors / "voxelnet").mkdir()
    (vectors / "point_ops" / "notes.txt").write_text("?")
    what = {name: what for name, what in discover(vectors) if isinstance(what, NotUnderstood)}
    assert set(what) == {"voxelnet", "point_ops/notes.txt"}
    assert "tests/parity/voxelnet.py" in what["voxelnet"].what


@pytest.mark.parametrize("directory", ["missing", "empty"])
def test_nothing_to_check_is_a_failure(tmp_path: Path, directory: str) -> None:
    (tmp_path / "empty").mkdir()
    ((_, what),) = discover(tmp_path / directory)
    assert isinstance(what, NotUnderstood)


def test_a_wrong_number_fails(vectors: Path) -> None:
    path = vectors / "point_ops" / "fps.safetensors"
    tensors = load_file(path)
    tensors["object_n31_m16.fps_a"][5] += 1
    save_file(tensors, path)
    with pytest.raises(AssertionError, match="fps_a .* differs in 1 of 16 places"):
        point_ops.check(the_case(vectors))


def test_a_tensor_that_is_not_understood_fails(vectors: Path) -> None:
    path = vectors / "point_ops" / "fps.safetensors"
    save_file(load_file(path) | {"object_n31_m16.fps_c": torch.zeros(3)}, path)
    with pytest.raises(AssertionError, match="JSON and tensors disagree"):
        point_ops.check(the_case(vectors))
    case = the_case(vectors)
    case.open(path)["object_n31_m16.xyz"]
    with pytest.raises(AssertionError, match="does not understand the tensors .*fps_c"):
        case.assert_everything_was_read()


@pytest.mark.parametrize("actual", [[1.0, 2.1], [1.0, float("nan")], [1.0]])
def test_close_refuses_differences_nan_and_other_shapes(actual: list[float]) -> None:
    case = Case("folder", "case", [])
    case.close("tensor", [1.0, 2.0 + 1.9e-4], [1.0, 2.0])
    with pytest.raises(AssertionError, match="folder/case: tensor"):
        case.close("tensor", actual, [1.0, 2.0])
