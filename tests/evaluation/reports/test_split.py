from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from PIL import Image
from torch.nn import functional as F

from modeling_ulip2.data.images import portrait
from modeling_ulip2.data.labels import read_labels
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views, load_for_evaluation
from modeling_ulip2.evaluation.reports.split import default_queries, evaluate_split
from modeling_ulip2.towers import load_tower
from tests.evaluation.world import CATEGORIES, World, build_tower, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def triplets(world: World) -> Dataset:
    return load_dataset(str(world.dataset), "triplets", split="train")


def test_an_encoder_that_says_what_the_text_says_is_always_right(world: World, triplets: Dataset, tmp_path: Path):
    tower, labels = load_tower(world.tower), read_labels(world.labels_file)
    oracle = {"chair": 0, "lamp": 1, "table": 2}

    def encode_text(texts: list[str]) -> torch.Tensor:
        """The category in a text, with a little of the text itself."""
        rows = torch.zeros(len(texts), 3)
        for row, text in zip(rows, texts, strict=True):
            row[[oracle[category] for category in CATEGORIES if category in text]] = 1
        return torch.cat([rows, 0.1 * tower.encode_text(texts)], dim=1)

    points = encode_text([f"a {name}" for name in triplets["name"]])
    views = [row.expand(3, -1) for row in F.normalize(points, dim=-1)]
    section = evaluate_split(
        triplets,
        points,
        encode_text,
        tmp_path,
        "Split A/B",
        templates=load_templates(),
        labels=labels,
        view_embeds=views,
    )
    assert [evaluation["top1"].value for evaluation in section.zero_shot.values()] == [1, 1]
    assert set(section.zero_shot) == {"point encoder", "image tower, mean of 3 views"}
    assert len(section.zero_shot["point encoder"].result.labels) == 9  # of twelve shapes three have no label
    assert section.retrieval["image to shape"]["recall_at_5"].value == 1
    assert set(section.retrieval) == {"text to shape", "image to shape", "shape to text"}
    assert sorted(picture.path.name for picture in section.pictures) == [
        "confusion_split_a_b.png",
        "retrieval_split_a_b.png",
    ]
    assert all(picture.path.parent == tmp_path and picture.path.exists() for picture in section.pictures)


def test_without_labels_there_is_retrieval_alone(world: World, triplets: Dataset, tmp_path: Path):
    points = torch.randn(len(triplets), 24, generator=torch.Generator().manual_seed(0))
    tower = load_tower(world.tower)
    section = evaluate_split(triplets, points, tower.encode_text, tmp_path, "Own meshes", templates=load_templates())
    assert not section.zero_shot
    assert set(section.retrieval) == {"text to shape", "shape to text"}
    assert [picture.path.name for picture in section.pictures] == ["retrieval_own_meshes.png"]


def test_without_a_test_shape_of_the_classes_there_is_retrieval_alone(world: World, triplets: Dataset, tmp_path: Path):
    points = torch.randn(len(triplets), 24, generator=torch.Generator().manual_seed(0))
    section = evaluate_split(
        triplets,
        points,
        load_tower(world.tower).encode_text,
        tmp_path,
        "Elsewhere",
        templates=load_templates(),
        labels=read_labels(world.labels_file),
        class_names=["boat", "plane"],
    )
    assert not section.zero_shot and set(section.retrieval) == {"text to shape", "shape to text"}


def test_without_names_only_images_ask(world: World, triplets: Dataset, tmp_path: Path):
    nameless = triplets.remove_columns("name").add_column("name", [""] * len(triplets))
    tower = load_tower(world.tower)
    points = embed_points(*load_for_evaluation(world.model)[:2], nameless)
    views = embed_views(tower, nameless)
    section = evaluate_split(
        nameless, points, tower.encode_text, tmp_path, "Nameless", templates=load_templates(), view_embeds=views
    )
    assert set(section.retrieval) == {"image to shape"}


def test_embeddings_do_not_depend_on_the_batch(world: World, triplets: Dataset):
    model, extractor, _ = load_for_evaluation(world.model)
    whole, single = embed_points(model, extractor, triplets), embed_points(model, extractor, triplets, batch_size=5)
    assert whole.shape == (12, 24)
    assert torch.allclose(whole, single, atol=1e-5)
    assert torch.allclose(whole.norm(dim=1), torch.ones(12))
    # float16 coordinates and uint8 colors arrive as they were stored
    mappings = [{"xyz": row["xyz"], "rgb": row["rgb"]} for row in triplets.with_format("numpy", dtype=None)]
    for mapping in mappings:
        mapping["rgb"] = mapping["rgb"].astype("uint8")
    assert torch.allclose(embed_points(model, extractor, mappings), whole, atol=1e-5)


def test_a_model_in_training_mode_is_refused(world: World, triplets: Dataset):
    model, extractor, _ = load_for_evaluation(world.model)
    with pytest.raises(ValueError, match="call model.eval"):
        embed_points(model.train(), extractor, triplets)


def test_views_from_the_tower_and_from_stored_features(world: World, triplets: Dataset):
    tower = load_tower(world.tower)
    embeds = embed_views(tower, triplets)
    assert [tuple(own.shape) for own in embeds] == [(3, 24)] * 12
    stored = [
        {"id": name, "image_embeds": own.half().tolist()} for name, own in zip(triplets["id"], embeds, strict=True)
    ]
    features = Dataset.from_list(stored[::-1])
    for own, read in zip(embeds, embed_views(tower, triplets, features), strict=True):
        assert torch.allclose(own, read, atol=2e-3)
    drawn = embed_views(tower, triplets, draw=0)
    assert [tuple(own.shape) for own in drawn] == [(1, 24)] * 12
    for one, all_views in zip(drawn, embeds, strict=True):
        assert (one - all_views).abs().amax(dim=1).min() < 1e-5
    for one, read in zip(drawn, embed_views(tower, triplets, features, draw=0), strict=True):
        assert torch.allclose(one, read, atol=2e-3)
    with pytest.raises(ValueError, match=r"1 of 12 shapes have no features, e.g. 'made/11.obj'"):
        embed_views(tower, triplets, features.select(range(1, 12)))


def test_the_tower_may_have_moved_or_be_embedded(world: World, triplets: Dataset, tmp_path: Path):
    moved = tmp_path / "moved"
    world.tower.rename(moved)
    try:
        _, _, tower = load_for_evaluation(world.model, moved)
        expected = tower.encode_text(["a chair"])
        model, _, _ = load_for_evaluation(world.model, moved)
        model.set_clip_model(build_tower())
        model.config.clip_name_or_path = None
        model.save_pretrained(tmp_path / "whole", include_towers=True)
        for file in world.model.iterdir():
            if not (tmp_path / "whole" / file.name).exists():
                (tmp_path / "whole" / file.name).write_bytes(file.read_bytes())
        _, _, embedded = load_for_evaluation(tmp_path / "whole")
        assert torch.allclose(embedded.encode_text(["a chair"]), expected, atol=1e-5)
    finally:
        moved.rename(world.tower)


def test_labels(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text("source,path,category\nx,a.obj, chair \nx,b.obj,\n", encoding="utf-8-sig")
    assert read_labels(path) == {"a.obj": "chair"}
    path.write_text("path,category\na.obj,\n")
    with pytest.raises(ValueError, match="no row has a category"):
        read_labels(path)


def test_labels_of_another_dataset_are_told_in_one_line(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,category\na.obj,chair\nb.obj,lamp\n")
    assert read_labels(path, ["x.glb", "b.obj"]) == {"a.obj": "chair", "b.obj": "lamp"}
    with pytest.raises(
        ValueError, match="none of its 2 ids is in the dataset .'a.obj' there, 'x.glb' here."
    ) as caught:
        read_labels(path, ["x.glb", "y.glb"])
    assert "\n" not in str(caught.value)


def test_default_queries(triplets: Dataset):
    labels = {"made/00.obj": "b", "made/01.obj": "a", "made/02.obj": "a", "elsewhere.obj": "c"}
    assert default_queries(triplets, labels) == {"a": "a", "b": "b"}
    names = default_queries(triplets)
    assert len(names) == 6 and set(names.values()) == {None} and set(names) <= set(triplets["name"])


def test_the_portrait_is_the_view_nearest_to_30_degrees():
    views = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    assert portrait({"views": views, "azimuths": [180.0, 350.0, 75.0]}).getpixel((0, 0)) == (0, 255, 0)
    assert portrait({"views": views, "azimuths": [0.0, 20.0, 35.0]}).getpixel((0, 0)) == (0, 0, 255)
