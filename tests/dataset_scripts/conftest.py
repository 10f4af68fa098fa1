"""A folder of boxes and what is built from it, for every test that needs triplets made by the script. Read only."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeling_ulip2.building.meshes import main
from tests.training.world import write_tower

from .shapes import build_arguments, write_bad_meshes, write_box

COLORS = [(1, 0, 0), (0, 0, 1), (0.8, 0.8, 0.8), (0, 0.6, 0), (0.4, 0.2, 0.1), (0.9, 0.9, 0)]


@pytest.fixture(scope="session")
def tower(tmp_path_factory) -> Path:
    return write_tower(tmp_path_factory.mktemp("tower") / "tiny")


@pytest.fixture(scope="session")
def meshes(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Six boxes and some files that are no meshes, with the reasons that these should get."""
    folder = tmp_path_factory.mktemp("meshes")
    for number, color in enumerate(COLORS):
        write_box(folder / "boxes" / f"Box{'ABCDEF'[number]}.obj", size=(1, 1 + number / 4, 0.5), color=color)
    reasons = write_bad_meshes(folder / "broken")
    (folder / "SOURCE.md").write_text("Boxes, made for tests.")
    return folder, {f"broken/{name}": reason for name, reason in reasons.items()}


@pytest.fixture(scope="session")
def built(tmp_path_factory, meshes, tower) -> Path:
    output = tmp_path_factory.mktemp("built") / "boxes"
    main(build_arguments(meshes[0], output, tower))
    return output
