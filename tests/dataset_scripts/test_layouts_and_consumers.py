"""Every program that reads triplets, on every layout that `ulip2 convert-triplets` makes.

Releases have no scores of captions, no cameras but azimuths, and Objaverse-LVIS no pictures. Each consumer either
works, or says in one line what the dataset lacks.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import inspect_triplets
import merge_triplets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from modeling_ulip2.building import describing, embedding, splitting
from modeling_ulip2.building.publishing import dataset as publish_triplets
from modeling_ulip2.building.releases.convert import main as convert
from modeling_ulip2.data.captions import CaptionCollator, CaptionDataset, read_texts
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.reading import TripletDataset, config_files, read_triplets
from modeling_ulip2.data.stream import TripletStream
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views
from modeling_ulip2.evaluation.reports.split import evaluate_split, search_shapes, write_sheet
from modeling_ulip2.search.build import build_index
from modeling_ulip2.search.shape_sources import open_source
from modeling_ulip2.towers import load_tower
from modeling_ulip2.training.features import computed_features, published_features, streamed_features, tower_features
from tests.training.world import tiny_model, tiny_processor

N, SHAPES = 80, 5
LAYOUTS = ("ulip-objaverse", "ulip-shapenet", "openshape-lvis")
WITH_VIEWS = LAYOUTS[:2]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_release(root: Path, layout: str, first: int) -> None:
    """A release of `SHAPES` shapes; the second one of those with pictures has captions for its third view alone."""
    captions: dict[str, list[str]] = {}
    entries = []
    for number in range(first, first + SHAPES):
        rng = np.random.default_rng(number)
        xyz = (rng.uniform(-1, 1, size=(N, 3)) * np.roll([4.0, 1.0, 0.5], number % 3)).astype(np.float32)
        uid = f"{number:032x}"
        if layout == "ulip-objaverse":
            write(root / "objaverse_pc_parallel" / uid / f"{uid}_{N}.npz", b"")
            np.savez(root / "objaverse_pc_parallel" / uid / f"{uid}_{N}.npz", xyz)
            for view in range(12):
                write(root / "rendered_images_split_100" / uid / f"{view:03d}.png", picture(number))
                if number != first + 1 or view == 2:
                    captions[f"/x/render/{uid}/{view:03d}.png"] = [f"a thing {number}", f"some thing seen from {view}"]
        elif layout == "ulip-shapenet":
            name = f"{'02691156' if number % 2 else '03001627'}-{uid}"
            write(root / "shapenet_pc" / f"{name}.npy", b"")
            np.save(root / "shapenet_pc" / f"{name}.npy", xyz)
            own = {}
            for degrees in range(0, 360, 12):
                file = f"{name}_r_{degrees:03d}"
                write(root / "only_rgb_depth_images" / f"{file}.png", picture(number))
                write(root / "only_rgb_depth_images" / f"{file}_depth0001.png", picture(number))
                if number != first + 1 or degrees == 24:
                    own[f"{file}.png"] = [f"a plane {number} at {degrees}"] * 2
            write(root / "captions" / f"{name}.json", json.dumps(own).encode())
        else:
            content = {
                "xyz": xyz,
                "rgb": np.full((N, 3), 0.3),
                "text": ["armchair"],
                "blip_caption": f"chair {number}",
            }
            write(root / "objaverse" / f"{uid}.npy", b"")
            np.save(root / "objaverse" / f"{uid}.npy", content, allow_pickle=True)
            category = ("armchair", "alarm_clock")[number % 2]
            entries.append({"uid": uid, "category": category, "data_path": f"objaverse/{uid}.npy"})
    if layout == "ulip-objaverse":
        write(root / "merged_data.json", json.dumps(captions).encode())
    if layout == "openshape-lvis":
        write(root / "lvis.json", json.dumps(entries).encode())


class World:
    """The converted layouts, each twice with other shapes, and one copy of each to write into for every test."""

    def __init__(self, root: Path, tower: Path) -> None:
        self.root, self.tower_folder = root, tower
        self.tower = load_tower(tower)
        for layout in LAYOUTS:
            for part, first in (("one", 1), ("two", 101)):
                write_release(root / "releases" / part / layout, layout, first)
                more = ["--depth"] if layout == "ulip-shapenet" else []
                options = ["--num-points", str(N), "--shard-size", "3", "--num-proc", "0", *more]
                where = ["--release", str(root / "releases" / part / layout), "--output", str(root / part / layout)]
                convert([layout, *where, *options])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tower: Path) -> World:
    return World(tmp_path_factory.mktemp("releases"), tower)


def run(program: Callable[[list[str]], None], *arguments: object) -> None:
    program([str(argument) for argument in arguments])


def inspect(world: World, folder: Path, scratch: Path) -> None:
    run(inspect_triplets.main, folder, "--num-proc", 0, "--output", scratch / "report")
    report = json.loads((scratch / "report" / "report.json").read_text())
    assert report["counts"]["objects"] == report["counts"]["inspected"] == SHAPES
    assert report["captions"]["captions"] > SHAPES and "nan" not in (scratch / "report" / "report.md").read_text()
    assert report["captions"]["without_scores"] == report["captions"]["captions"]
    assert Image.open(scratch / "report" / "samples.png").width > 500


def embed(world: World, folder: Path, scratch: Path) -> None:
    run(embedding.main, folder, "--tower", world.tower_folder, "--num-proc", 0, "--dtype", "float32")
    rows = pq.read_table(folder / "features").to_pylist()
    stored = pq.read_table(folder / "triplets").to_pylist()
    assert [len(row["image_embeds"]) for row in rows] == [len(row["views"]) for row in stored]
    features = published_features(str(folder), world.tower)
    assert features is not None
    batch = TripletCollator(tiny_processor())(
        [TripletDataset(read_triplets(str(folder)), features)[i] for i in (0, 1)]
    )
    assert batch["text_embeds"].isfinite().all() and batch["image_embeds"].shape == (2, world.tower.dim)
    streamed = streamed_features(str(folder), world.tower)
    assert streamed is not None
    assert next(iter(TripletStream(streamed)))["text_embeds"][0].shape[-1] == world.tower.dim


def merge(world: World, folder: Path, scratch: Path) -> None:
    run(merge_triplets.main, folder, world.root / "two" / folder.name, "--output", scratch / "both")
    assert len(read_triplets(str(scratch / "both"))) == 2 * SHAPES
    inspect_rows = pq.read_table(scratch / "both" / "triplets")["id"].to_pylist()
    assert len(set(inspect_rows)) == 2 * SHAPES


def split(world: World, folder: Path, scratch: Path) -> None:
    run(splitting.main, folder, scratch / "split.json", "--share", 0.4)
    parts = json.loads((scratch / "split.json").read_text())
    assert sorted(parts["train"] + parts["test"]) == sorted(read_triplets(str(folder))["id"])


def publish(world: World, folder: Path, scratch: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: cc0-1.0"))
    run(publish_triplets.main, folder, "--check")
    publish_triplets.complete_card(folder, "someone/shapes")
    assert Image.open(folder / publish_triplets.SHEET).width > 500


def describe(world: World, folder: Path, scratch: Path) -> None:
    run(describing.main, "--triplets", folder, "--output", scratch / "texts")
    shapes = read_triplets(str(folder))
    texts = read_texts(str(scratch / "texts"), shapes)
    assert len(texts) == SHAPES and "id" in CaptionDataset(shapes, texts)[0]


def train(world: World, folder: Path, scratch: Path) -> None:
    """On raw views, from disk."""
    rows = TripletDataset(read_triplets(str(folder)))
    batch = TripletCollator(tiny_processor())([rows[index] for index in range(SHAPES)])
    model = tiny_model().train()
    model.set_clip_model(world.tower.model)
    assert model(**batch).loss.isfinite()


def stream(world: World, folder: Path, scratch: Path) -> None:
    """On raw views, as they arrive."""
    rows = iter(TripletStream(read_triplets(str(folder), streaming=True)))
    batch = TripletCollator(tiny_processor())([next(rows) for _ in range(SHAPES)])
    assert batch["pixel_values"].shape[0] == SHAPES and batch["point_values"].isfinite().all()


def cache(world: World, folder: Path, scratch: Path) -> None:
    """With the tower's embeddings, computed before."""
    triplets = read_triplets(str(folder))
    features = tower_features(str(folder), triplets, world.tower, cache_dir=scratch / "cache")
    rows = TripletDataset(triplets, features)
    assert TripletCollator(tiny_processor())([rows[index] for index in range(SHAPES)])["image_embeds"].isfinite().all()


def depth(world: World, folder: Path, scratch: Path) -> None:
    rows = TripletDataset(read_triplets(str(folder)))
    TripletCollator(tiny_processor(), use_depth=True)([rows[index] for index in range(SHAPES)])
    computed_features(read_triplets(str(folder)), world.tower, use_depth=True, cache_dir=scratch / "cache")


def caption(world: World, folder: Path, scratch: Path) -> None:
    """Captions of the triplets themselves, which have no scores."""
    shapes = read_triplets(str(folder))
    for top_k in (None, 1):
        texts = read_texts(None, shapes, top_k)
        stored = {row["id"]: row["captions"] for row in pq.read_table(folder / "triplets").to_pylist()}
        for text in texts:
            assert text["captions"][0] == next(own[0] for own in stored[text["id"]] if own)
            assert len(set(text["captions"])) == len(text["captions"]) > 0
    rows = CaptionDataset(shapes, read_texts(None, shapes))
    assert len(rows) == SHAPES
    collator = CaptionCollator(SimpleNamespace(feature_extractor=None)).for_evaluation()
    assert collator.conversation(rows[0], None)[-1]["content"][0]["text"] == rows[0]["captions"][0]


def search(world: World, folder: Path, scratch: Path) -> None:
    processor = tiny_processor()
    embedder = Ulip2Embedder(tiny_model().eval(), processor.feature_extractor, world.tower, name="model")
    index = build_index(open_source(str(folder), 64), scratch / "index", embedder, progress=False)
    assert len(index) == SHAPES and set(index.shapes["id"]) == set(read_triplets(str(folder))["id"])
    for image in index.shapes["image"]:  # the demo shows one of every shape
        assert np.ptp(np.asarray(image)) > 50


def evaluate(world: World, folder: Path, scratch: Path) -> None:
    """Retrieval and zero-shot classification beside the image tower's own."""
    triplets = read_triplets(str(folder))
    embeds = embed_points(tiny_model().eval(), tiny_processor().feature_extractor, triplets, progress=False)
    views = embed_views(world.tower, triplets, progress=False)
    labels = {name: ("chair", "lamp")[index % 2] for index, name in enumerate(triplets["id"])}
    section = evaluate_split(
        triplets,
        embeds,
        world.tower.encode_text,
        scratch,
        "Release",
        templates=["a {}"],
        labels=labels,
        view_embeds=views,
    )
    assert section.retrieval["image to shape"] and section.zero_shot["point encoder"]


def picture_of_results(world: World, folder: Path, scratch: Path) -> None:
    triplets = read_triplets(str(folder))
    embeds = torch.nn.functional.normalize(torch.randn(SHAPES, world.tower.dim), dim=-1)
    found = search_shapes(triplets, embeds, world.tower.encode_text, {"a chair": None}, ["a {}"])
    assert write_sheet(scratch / "sheet.png", triplets, found).is_file()


CONSUMERS = [
    inspect,
    embed,
    merge,
    split,
    publish,
    describe,
    train,
    stream,
    cache,
    depth,
    caption,
    search,
    evaluate,
    picture_of_results,
]
# What a layout lacks, as the consumer says it.
LACKS = {
    ("openshape-lvis", embed): r"holds no views, only clouds and captions: there is nothing to embed",
    ("openshape-lvis", train): "5 of 5 triplets have no views, e.g. '0+1': this needs pictures beside clouds",
    ("openshape-lvis", stream): "the triplet '0+1' has no view: training needs views with captions",
    ("openshape-lvis", cache): "5 of 5 triplets have no views, e.g. '0+1': this needs pictures",
    ("openshape-lvis", evaluate): "5 of 5 triplets have no views, e.g. '0+1': this needs pictures",
    ("openshape-lvis", depth): "5 of 5 triplets have no views",
    ("ulip-objaverse", depth): "has no depth views",
    ("ulip-objaverse", describe): "not one shape of .* has a name",
}


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.__name__)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_consumer_on_every_layout(world: World, tmp_path: Path, layout: str, consumer: Callable):
    folder = Path(shutil.copytree(world.root / "one" / layout, tmp_path / layout))
    assert config_files(str(folder), "triplets")
    lack = LACKS.get((layout, consumer))
    if lack is None:
        consumer(world, folder, tmp_path)
        return
    with pytest.raises((ValueError, SystemExit), match=lack) as caught:
        consumer(world, folder, tmp_path)
    assert len(str(caught.value).splitlines()) == 1
