from __future__ import annotations

import logging

import numpy as np
import pytest

from modeling_ulip2.data.images import open_depth, open_view
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.training import features as module
from modeling_ulip2.training.features import computed_features, published_features, tower_features
from tests.training.world import DIM, add_features, triplet_rows, write_dataset, write_manifest


class CountingTower:
    """A tower that counts what it embeds."""

    def __init__(self, tower):
        self._tower, self.images, self.texts = tower, 0, 0

    def __getattr__(self, name):
        return getattr(self._tower, name)

    def encode_images(self, images, **kwargs):
        self.images += len(images)
        return self._tower.encode_images(images, **kwargs)

    def encode_text(self, texts, **kwargs):
        self.texts += len(texts)
        return self._tower.encode_text(texts, **kwargs)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch, caplog):
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 6)
    caplog.set_level(logging.INFO)


def test_embeddings_are_the_towers_and_normalized(dataset, tower, tmp_path):
    embedded = TripletDataset(
        read_triplets(str(dataset)), computed_features(read_triplets(str(dataset)), tower, True, tmp_path)
    )
    for index in (0, 7, 15):
        row, written = embedded[index], triplet_rows(depth=True)[index]
        views = tower.encode_images([open_view(view) for view in written["views"]])
        depths = tower.encode_images([open_depth(view) for view in written["depths"]])
        np.testing.assert_allclose(row["image_embeds"], views, atol=1e-3)
        np.testing.assert_allclose(row["depth_embeds"], depths, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(row["image_embeds"].astype(np.float32), axis=1), 1, atol=1e-3)
        for own, captions in zip(row["text_embeds"], written["captions"], strict=True):
            np.testing.assert_allclose(own, tower.encode_text(captions), atol=1e-3)


def test_nothing_is_embedded_twice(dataset, tower, tmp_path, caplog):
    counting, triplets = CountingTower(tower), read_triplets(str(dataset))
    computed_features(triplets, counting, cache_dir=tmp_path)
    # 3 views per shape; of its 4 captions 3 are different
    assert (counting.images, counting.texts) == (16 * 3, 16 * 3)
    assert "3 shards" in caplog.text
    again = computed_features(triplets, counting, cache_dir=tmp_path)
    assert (counting.images, counting.texts) == (16 * 3, 16 * 3)
    assert f"using the features of {tower.name}" in caplog.text and len(again) == 16
    assert len(list(tmp_path.glob("*/features/*.parquet"))) == 3


def test_a_stopped_computation_loses_one_shard(dataset, tower, tmp_path, monkeypatch):
    counting, triplets = CountingTower(tower), read_triplets(str(dataset))
    real, calls = module._embed, []

    def stopped(row, *arguments):
        calls.append(row["id"])
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(row, *arguments)

    monkeypatch.setattr(module, "_embed", stopped)
    with pytest.raises(KeyboardInterrupt):
        computed_features(triplets, counting, cache_dir=tmp_path)
    monkeypatch.setattr(module, "_embed", real)
    # a file that was cut off counts as missing
    first = next(tmp_path.glob("*/features/*.parquet"))
    first.with_name("train-00001-of-00003.parquet").write_bytes(first.read_bytes()[:100])
    counting.images = 0
    assert list(computed_features(triplets, counting, cache_dir=tmp_path)["id"]) == list(triplets["id"])
    assert counting.images == 10 * 3


def test_other_rows_or_another_tower_have_their_own_cache(dataset, tower, tmp_path):
    counting, triplets = CountingTower(tower), read_triplets(str(dataset))
    computed_features(triplets.select(range(4)), counting, cache_dir=tmp_path)
    assert counting.images == 4 * 3
    computed_features(triplets.select(range(4, 8)), counting, cache_dir=tmp_path)
    assert counting.images == 8 * 3
    counting.fingerprint = "another"
    computed_features(triplets.select(range(4)), counting, cache_dir=tmp_path)
    assert counting.images == 12 * 3


def test_the_datasets_own_features_are_used_when_their_tower_matches(dataset_with_features, tower, tmp_path, caplog):
    counting, triplets = CountingTower(tower), read_triplets(str(dataset_with_features))
    published = tower_features(str(dataset_with_features), triplets, counting, cache_dir=tmp_path)
    assert counting.images == 0 and f"using the dataset's own features of {tower.name}" in caplog.text
    computed = computed_features(triplets, tower, cache_dir=tmp_path)
    for own, other in zip(TripletDataset(triplets, published), TripletDataset(triplets, computed), strict=True):
        assert own["id"] == other["id"]
        np.testing.assert_array_equal(own["image_embeds"], other["image_embeds"])
        for texts, others in zip(own["text_embeds"], other["text_embeds"], strict=True):
            np.testing.assert_array_equal(texts, others)


@pytest.mark.parametrize("reason", ["another tower", "older recipe", "no manifest", "no features", "depth"])
def test_features_that_do_not_fit_are_computed(reason, tower, tmp_path, caplog):
    folder = write_dataset(tmp_path / "data", shapes=6, depth=True)
    if reason != "no manifest":
        other = {"another tower": "conse-0", "older recipe": "conse-0123456789abcdef"}
        write_manifest(folder, other.get(reason, tower.fingerprint))
    if reason == "older recipe":
        (tmp_path / "cache" / "conse-0123456789abcdef-fedcba9876543210").mkdir(parents=True)
    triplets = read_triplets(str(folder))
    if reason == "depth":
        add_features(folder, tower, tmp_path / "first")
    else:
        assert published_features(str(folder), tower) is None
    features = tower_features(str(folder), triplets, tower, use_depth=reason == "depth", cache_dir=tmp_path / "cache")
    assert len(features) == 6 and len(features[0]["image_embeds"][0]) == DIM
    said = {
        "another tower": "come from conse-0, not from",
        "older recipe": "fingerprint of an earlier version (conse-0123456789abcdef)",
        "no manifest": "has no manifest.json",
        "no features": "cannot be read",
        "depth": "leave out depth views",
    }
    assert said[reason] in caplog.text
    if reason == "older recipe":
        assert "--replace` makes them anew" in caplog.text and "are no longer read: delete them" in caplog.text
        assert any(record.levelname == "WARNING" for record in caplog.records)


def test_depth_needs_depth_views(dataset_with_features, tower, tmp_path):
    with pytest.raises(ValueError, match="no column `depths`"):
        computed_features(read_triplets(str(dataset_with_features)), tower, True, tmp_path)
