"""The catalog of published checkpoints: complete, true of the models, and recognized by what their files hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_ulip2.cli import main
from modeling_ulip2.conversion import PublishedCheckpoint, convert
from modeling_ulip2.conversion.catalog import (
    CATALOG,
    UnknownReleaseError,
    facts,
    find_by_checksum,
    find_named,
    is_release,
    table_rows,
)
from modeling_ulip2.conversion.encoders import expected_shapes
from modeling_ulip2.conversion.folder import is_release_of, release_of
from modeling_ulip2.conversion.layouts import LAYOUTS
from modeling_ulip2.models.configuration_slip import SlipConfig
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS, UNI3D_SIZES
from modeling_ulip2.models.modeling_slip import SlipModel

NAMES = [entry.name for entry in CATALOG]


def config_of(name: str) -> Any:
    """Configuration of a checkpoint's encoder, at its real size."""
    release = find_named(name).release
    assert release.model_type is not None
    fields: dict[str, Any] = dict(release.fields)
    if release.model_type == "ulip2_uni3d":
        fields = next(size for size in UNI3D_SIZES.values() if size["hidden_size"] == fields["hidden_size"])
    elif release.model_type == "ulip2_ppat":
        abstraction = 256 if fields["intermediate_size"] == 1536 else 128
        fields |= {"hidden_size": 512, "num_attention_heads": 8, "set_abstraction_dim": abstraction}
    return POINT_ENCODERS[release.model_type].config_class(**fields)


def file_of(name: str) -> PublishedCheckpoint:
    """What a checkpoint's file holds, without the memory: names and shapes of the published layout."""
    release = find_named(name).release
    layout = next(own for own in LAYOUTS if own.name == release.layout)
    if release.model_type is None:
        with torch.device("meta"):
            return PublishedCheckpoint(SlipModel(SlipConfig()).state_dict())
    config = config_of(name)
    shapes = {f"{layout.encoder}{tensor}": shape for tensor, shape in expected_shapes(config).items()}
    if layout.projection is not None:
        matrix = (release.projection_dim, config.output_dim)
        if layout.projection.endswith(".*"):
            shapes |= {layout.projection[:-1] + "weight": matrix, layout.projection[:-1] + "bias": matrix[:1]}
        else:
            shapes[layout.projection] = matrix[::-1]
    if layout.scale:
        shapes["logit_scale"] = ()
    tensors = {layout.prefix + tensor: torch.empty(shape, device="meta") for tensor, shape in shapes.items()}
    file = find_named(name).file
    return PublishedCheckpoint(tensors, name=Path(file.path).name if file else "checkpoint.pt")


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_recognized_and_counted(name: str) -> None:
    entry = find_named(name)
    conversion = convert(file_of(name))
    assert is_release_of(entry.release, conversion)
    found = release_of(conversion, file_of(name))
    assert found is not None and (found.layout, found.paper) == (entry.release.layout, entry.release.paper)
    encoder = getattr(conversion.model, "point_model", conversion.model)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == entry.parameters


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_says_what_a_person_must_know(name: str) -> None:
    told = dict(facts(find_named(name)))
    assert told["license"] and told["paper"].startswith("arXiv ") and told["source"].startswith("https://")
    file = find_named(name).file
    if file is None:
        assert "in no repository" in told["where"]
        return
    assert told["where"] == file.address and file.repo_type in ("model", "dataset") and "/" in file.repo_id
    # a size or checksum without its source would be a rumor
    assert (file.size is None and file.sha256 is None) or file.stated_by
    if file.sha256 is not None:
        assert len(file.sha256) == 64 and find_by_checksum(file.sha256) is find_named(name)


def test_names_are_unique_and_files_too() -> None:
    assert len(set(NAMES)) == len(NAMES)
    places = [(entry.file.repo_id, entry.file.path) for entry in CATALOG if entry.file]
    assert len(set(places)) == len(places)
    assert {"uni3d-ti", "uni3d-s", "uni3d-b", "uni3d-l", "uni3d-g", "pointllm-pointbert"} <= set(NAMES)


def test_stated_sizes_are_possible() -> None:
    """Uni3D's files hold half precision and little else."""
    for entry in CATALOG:
        if entry.name.startswith("uni3d"):
            assert entry.file is not None and entry.file.size is not None
            assert 2 * entry.parameters < entry.file.size < 2 * entry.parameters * 1.1


def test_names_that_are_near() -> None:
    with pytest.raises(UnknownReleaseError, match="did you mean uni3d-g"):
        find_named("uni3d-gg")
    with pytest.raises(UnknownReleaseError, match="ulip2 releases"):
        find_named("resnet50")
    assert not is_release("resnet50") and is_release("uni3d-g")


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["releases"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CATALOG) + 1 and all(
        line.startswith(name) for line, name in zip(lines[1:], NAMES, strict=True)
    )
    assert main(["releases", "--markdown"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == len(CATALOG) + 2 and {line.count(" | ") for line in table} == {6}
    assert main(["releases", "ulip2-pointbert-10k-colored"]) == 0
    told = capsys.readouterr().out
    assert "84.7 / 97.1" in told and "32,499,072" in told and "SFXX/ulip" in told
    assert len(table_rows()) == len(CATALOG)


def test_the_catalog_is_light() -> None:
    code = (
        "import sys; from modeling_ulip2.conversion.catalog import table_rows; table_rows(); "
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
