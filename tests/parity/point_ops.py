"""`point_ops/<file>`: farthest point sampling under both rules; indices must be the very same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modeling_ulip2.models.point_ops import FPS_POINTBERT, FPS_POINTNEXT, farthest_point_sample
from tests.parity import Case, TensorFile, read_json

RULES = {"fps_a": FPS_POINTBERT, "fps_b": FPS_POINTNEXT}


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.safetensors")):
        declared = set(read_json(path.with_suffix(".json"))["cases"])
        stored = {name.rsplit(".", 1)[0] for name in TensorFile(path)}
        for name in sorted(declared | stored):
            yield Case(folder.name, f"{path.stem}/{name}", [path, path.with_suffix(".json")], data=(path, name))


def check(case: Case) -> None:
    path, name = case.data
    tensors = case.open(path, prefix=f"{name}.")
    declared = read_json(path.with_suffix(".json"))["cases"][name]
    assert {f"fps_{rule}" for rule in declared} == set(tensors) - {"xyz"}, f"{case.name}: JSON and tensors disagree"
    for key in sorted(set(tensors) & set(RULES)):
        expected = tensors[key]  # (m,)
        assert len(expected) == declared[key.removeprefix("fps_")]["m"]
        for backend in ("torch", "auto"):
            indices = farthest_point_sample(tensors["xyz"][None], len(expected), rule=RULES[key], backend=backend)
            case.equal(f"{key} ({backend})", indices[0], expected)
