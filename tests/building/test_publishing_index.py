"""A search index on the hub: it tells no folder of this machine, and others search it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import RepoCard

pytest.importorskip("faiss", reason="searching needs faiss-cpu")

from modeling_ulip2 import Ulip2Embedder, Ulip2Model  # noqa: E402
from modeling_ulip2.building.publishing import dataset as publishing  # noqa: E402
from modeling_ulip2.data.reading import read_triplets  # noqa: E402
from modeling_ulip2.search.build import build_index  # noqa: E402
from modeling_ulip2.search.index import ShapeIndex  # noqa: E402
from modeling_ulip2.search.schema import INFO_FILE  # noqa: E402
from modeling_ulip2.search.shape_sources import TripletSource  # noqa: E402
from tests.evaluation.world import World, build_world  # noqa: E402

MODEL, OTHER, REPOSITORY = "someone/model", "someone/other", "someone/index"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    """An index that names its model and its collection by their folders, with a license on its card."""
    folder = tmp_path / "index"
    source = TripletSource(read_triplets(str(world.dataset)), place=world.dataset)
    build_index(source, folder, Ulip2Embedder.from_pretrained(world.model), progress=False)
    card = RepoCard.load(folder / "README.md")
    card.data.license = "cc0-1.0"
    card.save(folder / "README.md")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_an_index_that_names_a_folder_is_refused(folder: Path, loopback_hub) -> None:
    with pytest.raises(SystemExit, match="(?s)folder of this machine.*--model ORG/NAME.*Nothing was uploaded"):
        publishing.main([str(folder), "--push-to-hub", REPOSITORY])
    with pytest.raises(SystemExit, match=r"--model ORG/NAME"):
        publishing.main([str(folder), "--check"])
    assert not loopback_hub.repositories


def test_the_model_is_fetched_and_compared(folder: Path, world: World, loopback_hub, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"--model {MODEL}: "):
        publishing.main([str(folder), "--check", "--model", MODEL])
    loopback_hub.add(MODEL, Path(world.model))
    publishing.main([str(folder), "--check", "--model", MODEL])
    other = Ulip2Model.from_pretrained(world.model)
    with torch.no_grad():
        other.point_projection.weight.normal_(generator=torch.Generator().manual_seed(5))
    stranger = shutil.copytree(world.model, tmp_path / "other")
    other.save_pretrained(stranger)
    loopback_hub.add(OTHER, stranger)
    with pytest.raises(SystemExit, match=f"--model {OTHER}: .*another"):
        publishing.main([str(folder), "--check", "--model", OTHER])


def test_others_search_what_was_published(folder: Path, world: World, loopback_hub) -> None:
    loopback_hub.add(MODEL, Path(world.model))
    before = (folder / INFO_FILE).read_text()
    publishing.main([str(folder), "--push-to-hub", REPOSITORY, "--model", MODEL])
    assert (folder / INFO_FILE).read_text() == before
    files = loopback_hub[REPOSITORY].files
    info = json.loads(files[INFO_FILE])
    assert info["model"] == MODEL and [entry["place"] for entry in info["collections"]] == [None]
    assert "notes.txt" not in files and ".lock" not in files
    for name in (INFO_FILE, "README.md"):
        assert b"../" not in files[name] and str(folder.parents[1]).encode() not in files[name], name
    card = files["README.md"].decode()
    assert f"by `{MODEL}`" in card and f'ShapeIndex.open("{REPOSITORY}")' in card
    index = ShapeIndex.open(REPOSITORY)
    embedder = index.load_embedder()
    assert index.search(embedder.embed_shapes([index.cloud(3)])[0], 1)[0].row == 3


def test_an_index_without_a_license_and_triplets_with_a_model_are_refused(folder: Path, world: World) -> None:
    card = RepoCard.load(folder / "README.md")
    card.data.license = None
    card.save(folder / "README.md")
    assert any("names no license" in problem for problem in publishing.problems_of(folder))
    assert any(
        "belongs to a search index" in problem for problem in publishing.problems_of(Path(world.dataset), MODEL)
    )
