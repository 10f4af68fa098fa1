import numpy as np
import pytest
import yaml
from datasets import load_dataset

from modeling_ulip2.data.card import dataset_card
from modeling_ulip2.data.schema import features_features, triplet_features
from modeling_ulip2.data.shards import shard_path
from modeling_ulip2.utils.parquet import write_parquet

from .test_shards import DIM, NUM_POINTS, make_row

SETTINGS = {
    "num_points": NUM_POINTS,
    "views": 3,
    "size": 16,
    "elevation": [15.0],
    "fov": 40.0,
    "image_format": "webp",
    "quality": 90,
    "depth": False,
    "features": True,
    "captioners": ["metadata"],
    "seed": 0,
}
RANK = {"tower": "tiny", "model_type": "clip", "fingerprint": "clip-123", "dim": DIM}
TOTALS = {
    "triplets": 2,
    "captions": 6,
    "errors": {"empty": 3},
    "licenses": {"cc0-1.0": 1, "cc-by-3.0": 1},
    "sources": {"made": 2},
    "warned": 1,
    "bytes": {"triplets": 10, "features": 10},
    "data_bytes": {"triplets": 10, "features": 10},
}


def make_card(model_type: str = "clip", **settings) -> str:
    stages = {"RankCaptions": RANK | {"model_type": model_type}, "MetadataCaptioner": {"captions_per_view": 2}}
    return dataset_card("Chairs", {"settings": SETTINGS | settings, "stages": stages}, TOTALS, source="From *here*.")


def test_the_card_lets_load_dataset_read_both_configs(tmp_path):
    rows = [make_row(0), make_row(1)]
    write_parquet(shard_path(tmp_path, "triplets", 0, 1), rows, triplet_features(NUM_POINTS))
    write_parquet(shard_path(tmp_path, "features", 0, 1), rows, features_features(DIM))
    write_parquet(tmp_path / "errors.parquet", [], features_features(DIM))  # must not become part of a config
    (tmp_path / "README.md").write_text(make_card(), encoding="utf-8")
    cache = str(tmp_path / "cache")
    for streaming in (False, True):
        triplets = load_dataset(str(tmp_path), "triplets", split="train", streaming=streaming, cache_dir=cache)
        assert triplets.features == triplet_features(NUM_POINTS)
        assert [row["id"] for row in triplets] == ["0.obj", "1.obj"]
        features = load_dataset(str(tmp_path), "features", split="train", streaming=streaming, cache_dir=cache)
        found = next(iter(features))["image_embeds"]
        np.testing.assert_array_equal(np.array(found, dtype=np.float16), rows[0]["image_embeds"])
    assert load_dataset(str(tmp_path), split="train", cache_dir=cache).features == triplets.features  # the default


def test_the_card_says_what_a_reader_must_know():
    card = make_card()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == ["cc-by-3.0", "cc0-1.0"] and metadata["size_categories"] == "n<1K"
    assert {entry["config_name"] for entry in metadata["dataset_info"]} == {"triplets", "features"}
    for fact in ("2 shapes", "6 captions", "`tiny`", "clip-123", "From *here*.", "empty (3)", "captions_per_view: 2"):
        assert fact in card


def test_conse_is_never_passed_off_as_clip():
    assert "is no CLIP" in make_card("conse")
    assert "ConSE" not in make_card("clip")


@pytest.mark.parametrize("features", [True, False])
def test_the_card_names_only_what_is_there(features):
    card = make_card(features=features)
    configs = [entry["config_name"] for entry in yaml.safe_load(card.split("---")[1])["configs"]]
    assert configs == (["triplets", "features"] if features else ["triplets"])
    assert ("text_embeds" in card) == features
