from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset

from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.evaluation.split import read_labels
from modeling_ulip2.training.data import read_triplets
from tests.evaluation.world import NUM_POINTS, World, build_world

pytest.importorskip("faiss", reason="searching needs faiss-cpu")

from modeling_ulip2.search import build, index as index_module  # noqa: E402, I001
from modeling_ulip2.search.build import build_index  # noqa: E402
from modeling_ulip2.search.index import Match, ShapeIndex, combine  # noqa: E402
from modeling_ulip2.search.schema import FAISS_FILE, INFO_FILE  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def loaded(world: World):
    return load_for_evaluation(world.model)


@pytest.fixture(scope="module")
def triplets(world: World) -> Dataset:
    return read_triplets(str(world.dataset))


def build_small(folder: Path, triplets: Dataset, loaded, **options) -> ShapeIndex:
    model, feature_extractor, tower = loaded
    names = {"model_name": "model", "tower_name": tower.name}
    return build_index(triplets, folder, model, feature_extractor, **names, progress=False, **options)


@pytest.fixture(scope="module")
def index(world: World, triplets: Dataset, loaded, tmp_path_factory: pytest.TempPathFactory) -> ShapeIndex:
    folder = tmp_path_factory.mktemp("index") / "index"
    return build_small(folder, triplets, loaded, labels=read_labels(world.labels_file), shard_size=5)


def test_finds_the_largest_cosines(index: ShapeIndex, triplets: Dataset, loaded):
    model, feature_extractor, tower = loaded
    embeds = embed_points(model, feature_extractor, triplets, progress=False)  # (N, D)
    query = tower.encode_text(["a wooden chair"])[0]
    cosines = embeds @ query
    found = index.search(3 * query, k=4)
    assert [match.row for match in found] == cosines.argsort(descending=True)[:4].tolist()
    assert [match.score for match in found] == pytest.approx(
        cosines.sort(descending=True).values[:4].tolist(), abs=1e-5
    )
    assert len(index.search(query, k=100)) == len(triplets)


def test_a_shape_finds_itself(index: ShapeIndex):
    for row in range(len(index)):
        best = index.search(index.embed(row), k=1)[0]
        assert best == Match(row, pytest.approx(1, abs=1e-5))


def test_rows_are_those_of_the_triplets(index: ShapeIndex, triplets: Dataset, world: World):
    labels = read_labels(world.labels_file)
    assert len(index) == len(triplets) == 12
    for row in (0, 3, 11):
        shape, triplet = index.shapes[row], triplets[row]
        assert [shape[name] for name in ("id", "name", "source", "license")] == [
            triplet[name] for name in ("id", "name", "source", "license")
        ]
        assert shape["category"] == labels.get(shape["id"], "")
        # the views stand at 0, 120 and 240 degrees: the first is nearest to 30
        assert np.array_equal(
            np.asarray(shape["image"].convert("RGB")), np.asarray(triplet["views"][0].convert("RGB"))
        )
        assert np.array_equal(index.cloud(row)["xyz"], np.float32(triplet["xyz"]))
        assert np.array_equal(index.cloud(row)["rgb"], np.uint8(triplet["rgb"]))
    assert index.cloud(0)["xyz"].shape == (NUM_POINTS, 3)
    assert index.embeds.shape == (12, 24)


def test_load_dataset_reads_the_folder(triplets: Dataset, loaded, tmp_path: Path):
    built = build_small(tmp_path / "index", triplets, loaded, shard_size=5)
    assert sorted(path.name for path in (tmp_path / "index" / "shapes").iterdir()) == [
        f"train-0000{shard}-of-00003.arrow" for shard in range(3)
    ]
    shapes = load_dataset(str(tmp_path / "index"), split="train")
    shapes.load_faiss_index("point_embeds", tmp_path / "index" / FAISS_FILE)
    scores, rows = shapes.search("point_embeds", built.embed(7).numpy(), k=1)
    assert rows[0] == 7 and scores[0] == pytest.approx(1, abs=1e-5)
    card = (tmp_path / "index" / "README.md").read_text()
    assert "| CC0 | 12 |" in card and str(tmp_path) not in card


@pytest.mark.parametrize("factory", ["HNSW8", "IVF2,Flat"])
def test_approximate_indexes(factory: str, triplets: Dataset, loaded, tmp_path: Path):
    built = build_small(tmp_path / "index", triplets, loaded, factory=factory)
    assert built.search(built.embed(5), k=1)[0].row == 5


def test_a_stopped_build_goes_on(triplets: Dataset, loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def stop_in_the_second_shard(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed_points(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(build, "embed_points", stop_in_the_second_shard)
        with pytest.raises(KeyboardInterrupt):
            build_small(tmp_path / "index", triplets, loaded, shard_size=5)
    with pytest.raises(FileNotFoundError, match="was stopped"):
        ShapeIndex.open(tmp_path / "index")
    first = tmp_path / "index" / "shapes" / "train-00000-of-00003.arrow"
    written = first.stat().st_mtime_ns
    assert len(build_small(tmp_path / "index", triplets, loaded, shard_size=5)) == 12
    assert first.stat().st_mtime_ns == written


def test_a_stopped_build_is_not_continued_by_another_model(triplets: Dataset, loaded, world: World, tmp_path: Path):
    build_small(tmp_path / "index", triplets, loaded)
    model, feature_extractor, tower = load_for_evaluation(world.model)
    torch.nn.init.normal_(model.point_projection.weight)
    with pytest.raises(ValueError, match="another model; --overwrite"):
        build_small(tmp_path / "index", triplets, (model, feature_extractor, tower))
    with pytest.raises(ValueError, match="factory was 'Flat', now 'HNSW8'"):
        build_small(tmp_path / "index", triplets, loaded, factory="HNSW8")
    rebuilt = build_small(tmp_path / "index", triplets, (model, feature_extractor, tower), overwrite=True)
    rebuilt.require_model(model, feature_extractor)
    with pytest.raises(ValueError, match="made by another model"):
        rebuilt.require_model(loaded[0], loaded[1])


def test_bad_folders(index: ShapeIndex, triplets: Dataset, loaded, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="'notes.txt' and no index"):
        build_small(tmp_path, triplets, loaded, overwrite=True)
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(FileNotFoundError, match="ulip2 index DATASET"):
        ShapeIndex.open(tmp_path / "nothing")
    build_small(tmp_path / "index", triplets.select(range(4)), loaded)
    info = json.loads((tmp_path / "index" / INFO_FILE).read_text())
    (tmp_path / "index" / INFO_FILE).write_text(json.dumps(info | {"dim": 25}))
    with pytest.raises(ValueError, match="damaged: 4 rows of 25 numbers"):
        ShapeIndex.open(tmp_path / "index")
    (tmp_path / "index" / INFO_FILE).write_text(json.dumps(info | {"format": 0}))
    with pytest.raises(ValueError, match="format 0"):
        ShapeIndex.open(tmp_path / "index")


def test_bad_factory(triplets: Dataset, loaded, tmp_path: Path):
    with pytest.raises(ValueError, match="cannot build 'Nonsense' over 12 shapes"):
        build_small(tmp_path / "index", triplets, loaded, factory="Nonsense")


def test_an_index_of_the_hub(triplets: Dataset, loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build_small(tmp_path / "index", triplets.select(range(4)), loaded)
    asked = []

    def download(name: str, repo_type: str) -> str:
        asked.append((name, repo_type))
        return str(tmp_path / "index")

    monkeypatch.setattr(index_module, "snapshot_download", download)
    assert len(ShapeIndex.open("someone/furniture-index")) == 4
    assert asked == [("someone/furniture-index", "dataset")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (torch.ones(7), "7 numbers, the index 24"),
        (torch.zeros(24), "points nowhere"),
        (torch.full((24,), float("nan")), "NaN or inf"),
    ],
)
def test_bad_queries(index: ShapeIndex, query: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        index.search(query)


def test_combine_adds_directions():
    x, y, z = torch.eye(3)
    assert torch.allclose(combine([5 * x]), x)
    assert torch.allclose(combine([5 * x, 0.1 * y]), (x + y) / 2**0.5)
    assert torch.allclose(combine([x, y, z], [1, 0, -1]), (x - z) / 2**0.5)
    for embeds, weights, message in [
        ([], None, "nothing to search for"),
        ([x, -2 * x], None, "cancel"),
        ([x], [1, 2], "1 embeddings but 2 weights"),
        ([x, torch.ones(4)], None, "cannot be added"),
        ([x * float("inf")], None, "NaN or inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            combine(embeds, weights)
