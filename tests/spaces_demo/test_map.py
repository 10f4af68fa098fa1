from __future__ import annotations

import base64
import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms import map  # noqa: E402
from rooms.engine import Engine  # noqa: E402


def test_every_shape_along_the_main_directions(engine: Engine):
    points, text = map.Collection(engine).project(map.PCA)
    assert len(points) == len(engine.index)
    embeds = engine.index.embeds[range(len(engine.index))]
    variances = np.linalg.eigvalsh(np.cov(embeds.T))[::-1] * (len(embeds) - 1)
    for axis, variance in zip(["first axis", "second axis"], variances[:2], strict=True):
        assert points[axis].var(ddof=0) * len(points) == pytest.approx(variance, rel=1e-3)
    share = variances[:2].sum() / ((embeds - embeds.mean(axis=0)) ** 2).sum()
    assert f"{share:.0%} of the differences" in text
    assert list(dict.fromkeys(points["group"])) == ["chair", "lamp", "table", "other"]
    assert list(points["kind"]).count("unknown") == 3


def test_each_point_carries_its_own_picture(engine: Engine):
    points, _ = map.Collection(engine).project(map.PCA)
    assert points["image"].nunique() == len(points)
    row = engine.index.shapes["name"][:].index(points["title"][0])
    head, _, data = points["image"][0].partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    expected = engine.picture(row).convert("RGB")
    assert head == "data:image/webp;base64" and picture.size == expected.size
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(expected).astype(int)).mean()
    others = [engine.picture(other).convert("RGB") for other in range(len(points)) if other != row]
    assert difference < min(np.abs(np.asarray(picture).astype(int) - np.asarray(other)).mean() for other in others)


def test_a_large_collection_is_drawn_from(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(map, "MAX_POINTS", 5)
    collection = map.Collection(engine)
    assert len(collection.project(map.PCA)[0]) == 5 and collection.rows == map.Collection(engine).rows


def test_umap_is_offered_where_it_is_installed(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(map.importlib.util, "find_spec", lambda name: None)
    assert map.methods() == [map.PCA]
    monkeypatch.setattr(map.importlib.util, "find_spec", lambda name: name)
    assert map.methods() == [map.PCA, map.UMAP]
    asked = []

    class Recorder:
        """In the place of umap.UMAP: it takes twenty seconds to compile."""

        def __init__(self, **settings: object) -> None:
            asked.append(settings)

        def fit_transform(self, embeds: np.ndarray) -> np.ndarray:
            return embeds[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Recorder))
    points, text = map.Collection(engine).project(map.UMAP)
    assert asked == [{"n_neighbors": 11, "min_dist": 0.1, "metric": "cosine", "random_state": 0}] and "UMAP" in text
    row = engine.index.shapes["name"][:].index(points["title"][0])
    assert points["first axis"][0] == pytest.approx(engine.index.embeds[[row]][0, 0])
