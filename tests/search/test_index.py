from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import trimesh
from datasets import Dataset, load_dataset

from modeling_ulip2.data.labels import read_labels
from modeling_ulip2.data.reading import read_triplets
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from tests.dataset_scripts.shapes import write_bad_meshes, write_box
from tests.evaluation.world import NUM_POINTS, World, build_world

pytest.importorskip("faiss", reason="searching needs faiss-cpu")

from modeling_ulip2.search import build, faiss_index, shape_sources  # noqa: E402
from modeling_ulip2.search.build import build_index, read_errors  # noqa: E402
from modeling_ulip2.search.faiss_index import choose_factory, open_faiss  # noqa: E402
from modeling_ulip2.search.index import Match, ShapeIndex, combine  # noqa: E402
from modeling_ulip2.search.schema import FAISS_FILE, INFO_FILE  # noqa: E402
from modeling_ulip2.search.shape_sources import FolderSource, TripletSource  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def loaded(world: World):
    return load_for_evaluation(world.model)


@pytest.fixture(scope="module")
def triplets(world: World) -> Dataset:
    return read_triplets(str(world.dataset))


def build_small(folder: Path, shapes: Dataset | FolderSource, loaded, labels=None, **options) -> ShapeIndex:
    model, feature_extractor, tower = loaded
    source = TripletSource(shapes, labels) if isinstance(shapes, Dataset) else shapes
    embedder = Ulip2Embedder(model, feature_extractor, tower, name="model")
    return build_index(source, folder, embedder, progress=False, **options)


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
    assert index.embeds.shape == (12, 24) and np.array_equal(index.embeds[[7]][0], index.embed(7))


def test_load_dataset_reads_the_folder(triplets: Dataset, loaded, tmp_path: Path):
    built = build_small(tmp_path / "index", triplets, loaded, shard_size=5)
    assert sorted(path.name for path in (tmp_path / "index" / "shapes").iterdir()) == [
        f"train-0000{shard}.arrow" for shard in range(3)
    ]
    shapes = load_dataset(str(tmp_path / "index"), split="train")
    shapes.load_faiss_index("point_embeds", tmp_path / "index" / FAISS_FILE)
    scores, rows = shapes.search("point_embeds", built.embed(7).numpy(), k=1)
    assert rows[0] == 7 and scores[0] == pytest.approx(1, abs=1e-5)
    card = (tmp_path / "index" / "README.md").read_text()
    assert "| CC0 | 12 |" in card and str(tmp_path) not in card


def test_the_kind_of_index_is_chosen_by_size():
    assert choose_factory(1) == choose_factory(50_000) == "Flat"
    assert choose_factory(50_001) == choose_factory(1_000_000) == "HNSW32,SQfp16"
    assert choose_factory(1_000_001) == "IVF4096,SQ8"


@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "IVF2,SQ8", "IVF2,Flat"])
def test_approximate_indexes_give_exact_scores(factory: str, triplets: Dataset, loaded, tmp_path: Path):
    built = build_small(tmp_path / "index", triplets, loaded, factory=factory)
    query = built.embed(5)
    assert built.search(query, k=1)[0].row == 5
    everything = built.embeds[range(12)] @ query.numpy()
    found = built.search(query, k=4)
    assert [match.score for match in found] == pytest.approx(everything[[match.row for match in found]], abs=1e-6)
    assert [match.row for match in found] == np.argsort(-everything)[:4].tolist()


def test_vectors_are_mapped_and_not_read(tmp_path: Path):
    import faiss
    import psutil

    stored = faiss.IndexFlatIP(256)
    stored.add(np.random.default_rng(0).normal(size=(100_000, 256)).astype(np.float32))  # 100 MB
    faiss.write_index(stored, str(tmp_path / FAISS_FILE))
    del stored
    process = psutil.Process()
    before = process.memory_info().rss
    opened = open_faiss(tmp_path / FAISS_FILE)
    assert process.memory_info().rss - before < 20 * 2**20
    assert opened.ntotal == 100_000 and opened.search(opened.reconstruct(9)[None], 1)[1][0, 0] == 9


def test_a_stopped_build_goes_on(triplets: Dataset, loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    read = TripletSource.__getitem__

    def stop_in_the_second_shard(self, position):
        calls.append(position)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return read(self, position)

    with monkeypatch.context() as patch:
        patch.setattr(TripletSource, "__getitem__", stop_in_the_second_shard)
        with pytest.raises(KeyboardInterrupt):
            build_small(tmp_path / "index", triplets, loaded, shard_size=5)
    with pytest.raises(FileNotFoundError, match="was stopped"):
        ShapeIndex.open(tmp_path / "index")
    first = tmp_path / "index" / "shapes" / "train-00000.arrow"
    written = first.stat().st_mtime_ns
    assert len(build_small(tmp_path / "index", triplets, loaded, shard_size=5)) == 12
    assert first.stat().st_mtime_ns == written


def test_a_build_is_not_continued_by_another_model(triplets: Dataset, loaded, world: World, tmp_path: Path):
    build_small(tmp_path / "index", triplets, loaded)
    model, feature_extractor, tower = load_for_evaluation(world.model)
    torch.nn.init.normal_(model.point_projection.weight)
    other = (model, feature_extractor, tower)
    for append in (False, True):
        with pytest.raises(ValueError, match="another model .*--overwrite"):
            build_small(tmp_path / "index", triplets, other, append=append)
    with pytest.raises(ValueError, match="factory was 'Flat', now 'HNSW8'"):
        build_small(tmp_path / "index", triplets, loaded, factory="HNSW8")
    rebuilt = build_small(tmp_path / "index", triplets, other, overwrite=True)
    rebuilt.require_model(model, feature_extractor)
    with pytest.raises(ValueError, match="made by another model"):
        rebuilt.require_model(loaded[0], loaded[1])


def test_a_build_is_not_continued_with_other_shapes(triplets: Dataset, loaded, tmp_path: Path):
    build_small(tmp_path / "index", triplets.select(range(8)), loaded)
    with pytest.raises(ValueError, match="8 of these 12 shapes; --append adds the other 4"):
        build_small(tmp_path / "index", triplets, loaded)
    with pytest.raises(ValueError, match="holds 4 other shapes, e.g. 'made/04.obj'"):
        build_small(tmp_path / "index", triplets.select(range(4)), loaded)
    renamed = triplets.select(range(8)).remove_columns("id").add_column("id", triplets["id"][:8][::-1])
    with pytest.raises(ValueError, match="other shapes of these names"):
        build_small(tmp_path / "index", renamed, loaded)
    with pytest.raises(ValueError, match="'made/00.obj' is there twice"):
        build_small(tmp_path / "twice", triplets.select([0, 1, 0]), loaded)


@pytest.mark.parametrize("factory", [None, "HNSW8,SQfp16", "IVF2,SQ8"])
def test_shapes_are_added(factory: str | None, triplets: Dataset, loaded, tmp_path: Path):
    folder = tmp_path / "index"
    opened = build_small(folder, triplets.select(range(7)), loaded, factory=factory, shard_size=3)
    written = {path: path.stat().st_mtime_ns for path in (folder / "shapes").iterdir()}
    grown = build_small(folder, triplets.select(range(4, 12)), loaded, append=True)
    assert grown.shapes["id"][:] == triplets["id"][:]
    assert {path: path.stat().st_mtime_ns for path in written} == written  # nothing was embedded again
    for row in range(12):
        found = grown.search(grown.embed(row), k=12)
        assert found[0].row == row and {match.row for match in found} == set(range(12))
    assert len(opened) == 7 and opened.search(grown.embed(3), k=1)[0].row == 3  # whoever searches meanwhile goes on
    assert "index of 12 shapes" in (folder / "README.md").read_text()
    assert len(build_small(folder, triplets, loaded, append=True)) == 12


def test_stopped_while_adding(triplets: Dataset, loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "index"
    build_small(folder, triplets.select(range(4)), loaded, shard_size=3)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "update_faiss", stop)
        with pytest.raises(KeyboardInterrupt):
            build_small(folder, triplets, loaded, append=True)
    between = ShapeIndex.open(folder)  # what is indexed can be found
    assert len(between) == 4 and len(between.search(between.embed(0), k=9)) == 4
    written = {path: path.stat().st_mtime_ns for path in (folder / "shapes").iterdir()}
    grown = build_small(folder, triplets, loaded, append=True)
    assert len(grown) == 12 and {path: path.stat().st_mtime_ns for path in written} == written
    assert [grown.search(grown.embed(row), k=1)[0].row for row in range(12)] == list(range(12))


def test_an_index_outgrows_its_kind(triplets: Dataset, loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faiss_index, "FACTORIES", ((8, "Flat"),))
    monkeypatch.setattr(faiss_index, "LARGEST_FACTORY", "IVF2,SQ8")
    for name, factory, expected in [("chosen", None, "IVF2,SQ8"), ("asked", "Flat", "Flat")]:
        small = build_small(tmp_path / name, triplets.select(range(8)), loaded, factory=factory)
        assert small.info["factory"] == "Flat"
        grown = build_small(tmp_path / name, triplets, loaded, append=True)
        assert grown.info["factory"] == expected
        assert [grown.search(grown.embed(row), k=1)[0].row for row in range(12)] == list(range(12))


def test_one_writer_at_a_time(triplets: Dataset, loaded, tmp_path: Path):
    with build._locked(tmp_path / "index"), pytest.raises(ValueError, match="another process is writing"):
        build_small(tmp_path / "index", triplets, loaded)


def test_a_folder_of_meshes(loaded, tmp_path: Path):
    meshes = tmp_path / "meshes"
    for number, size in enumerate([(1, 1, 1), (1, 3, 1), (2, 1, 0.2)]):
        write_box(meshes / "boxes" / f"red_box_{number}.obj", size, color=(1, 0, 0))
    bad = write_bad_meshes(meshes / "bad")
    del bad["no_faces.obj"]  # a cloud of two points
    (meshes / "bad" / "no_faces.obj").unlink()
    built = build_small(tmp_path / "index", FolderSource(meshes, NUM_POINTS), loaded, shard_size=2)
    assert built.shapes["id"][:] == [f"boxes/red_box_{number}.obj" for number in range(3)]
    assert built.shapes["name"][:] == ["red box"] * 3
    assert {row["id"]: row["reason"] for row in read_errors(tmp_path / "index")} == {
        f"bad/{name}": reason for name, reason in bad.items()
    }
    assert not any(str(tmp_path) in row["message"] for row in read_errors(tmp_path / "index"))
    cloud = built.cloud(1)
    assert np.ptp(cloud["xyz"], axis=0) == pytest.approx([2, 6, 2], rel=0.2) and (cloud["rgb"] == [255, 0, 0]).all()
    picture = np.asarray(built.shapes[1]["image"].convert("RGB")).astype(int)
    assert picture.shape == (224, 224, 3) and (picture[0, 0] > 250).all()
    assert (picture[112, 112, 0] > 100) and (picture[112, 112, 1:] < 40).all()  # something red on white
    assert built.search(built.embed(2), k=1)[0].row == 2

    mended = write_box(meshes / "bad" / "flat.obj", color=(0, 1, 0))
    (meshes / "objects.csv").write_text(
        "path,name,creator,license,category,rotation\n"
        "boxes/red_box_0.obj,,,,,\n"
        f"bad/{mended.name},a green box,Ada,CC0,box,1 0 0 0 0 -1 0 1 0\n"
        "../upload/box.obj,,,,,\n"
    )
    grown = build_small(tmp_path / "index", FolderSource(meshes, NUM_POINTS), loaded, append=True)
    row = grown.shapes[3]
    assert (row["name"], row["creator"], row["license"], row["category"]) == ("a green box", "Ada", "CC0", "box")
    reasons = {row["id"]: row["reason"] for row in read_errors(tmp_path / "index")}
    assert "bad/flat.obj" not in reasons and reasons["../upload/box.obj"] == "external_uri"


def test_a_folder_without_a_usable_mesh(loaded, tmp_path: Path):
    write_bad_meshes(tmp_path / "meshes")
    (tmp_path / "meshes" / "no_faces.obj").unlink()  # a cloud of two points
    with pytest.raises(ValueError, match="none of the 4 shapes can be used; .*errors.parquet"):
        build_small(tmp_path / "index", FolderSource(tmp_path / "meshes", NUM_POINTS), loaded)


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

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
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


def test_an_index_stands_y_up_whatever_its_model_expects(loaded, tmp_path: Path):
    model, feature_extractor, tower = loaded
    z_up = copy.copy(feature_extractor)
    z_up.up_axis = "z"
    meshes = tmp_path / "meshes"
    standing = trimesh.creation.cone(radius=1, height=4)  # along z
    (meshes / "deep").mkdir(parents=True)
    standing.export(meshes / "a.obj")  # z up, as the model expects of files that do not say
    turned = standing.copy()
    turned.apply_transform([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    turned.export(meshes / "b.glb")  # y up, as its format says
    source = FolderSource(meshes, NUM_POINTS, default_up_axis=z_up.up_axis)
    built = build_small(tmp_path / "index", source, (model, z_up, tower))
    for row in range(2):
        assert np.ptp(built.cloud(row)["xyz"], axis=0).argmax() == 1
    assert float(built.embed(0) @ built.embed(1)) > 0.99
    embedder = Ulip2Embedder(model, z_up, tower)
    for row, name in enumerate(("a.obj", "b.glb")):  # as a query is read
        assert float(built.embed(row) @ embedder.embed_shapes(meshes / name)[0]) > 0.99
        torch.testing.assert_close(embedder.embed_shapes([built.cloud(row)])[0], built.embed(row), atol=1e-4, rtol=0)
    (meshes / "objects.csv").write_text("path,rotation\na.obj,1 0 0 0 0 1 0 -1 0\n")
    told = FolderSource(meshes, NUM_POINTS, default_up_axis="z")[0]  # stood upright once, not twice
    assert np.ptp(np.float32(told["xyz"]), axis=0).argmax() == 1


def test_a_mesh_that_crashes_its_reader_is_an_error_of_its_own(loaded, tmp_path: Path, monkeypatch):
    for name in "abc":
        write_box(tmp_path / "meshes" / f"{name}.obj")
    read, here = shape_sources.read_shape, os.getpid()

    def crashing(path: Path, *arguments, **options):
        if path.name == "b.obj":
            assert os.getpid() != here
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, *arguments, **options)

    monkeypatch.setattr(shape_sources, "read_shape", crashing)
    built = build_small(tmp_path / "index", FolderSource(tmp_path / "meshes", NUM_POINTS), loaded)
    assert built.shapes["id"][:] == ["a.obj", "c.obj"]
    (error,) = read_errors(tmp_path / "index")
    assert error["id"] == "b.obj" and "process that read it was killed" in error["message"]
