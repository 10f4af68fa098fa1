from __future__ import annotations

import base64
import io
import sys
import types
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms import groups, map  # noqa: E402
from rooms.engine import Engine  # noqa: E402


def circles(svg: str) -> dict[int, dict[str, str]]:
    """The attributes of each, by row."""
    found = [element.attrib for element in ElementTree.fromstring(svg)]
    return {int(attributes["data-row"]): attributes for attributes in found}


def test_every_shape_along_the_main_directions(engine: Engine):
    svg, text = map.Collection(engine).draw(map.PCA)
    found = circles(svg)
    assert set(found) == set(range(len(engine.index)))
    embeds = engine.index.embeds[range(len(engine.index))]
    centered = embeds - embeds.mean(axis=0)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    for attribute, axis in (("cx", 0), ("cy", 1)):
        places = np.array([float(found[row][attribute].rstrip("%")) for row in range(len(found))])
        assert abs(np.corrcoef(places, left[:, axis])[0, 1]) == pytest.approx(1, abs=1e-3)
        assert places.min() == pytest.approx(map.MARGIN) and places.max() == pytest.approx(100 - map.MARGIN)
    assert f"{(singular[:2] ** 2).sum() / (singular**2).sum():.0%} of the differences" in text


def test_colors_are_categories(engine: Engine):
    collection = map.Collection(engine)
    assert collection.by == "category" and [*collection.colors] == ["chair", "lamp", "table", "other"]
    found = circles(collection.draw(map.PCA)[0])
    for row, category in enumerate(engine.index.shapes["category"]):
        assert found[row]["fill"] == collection.colors[category or "other"]
        assert found[row]["data-kind"] == (category or "unknown")
        assert found[row]["data-title"] == engine.index.shapes["name"][row]


def test_without_categories_colors_are_clusters(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """All ids are in one folder, which tells nothing apart."""
    monkeypatch.setattr(engine, "categories", [])
    collection = map.Collection(engine)
    assert collection.by == "cluster" and 1 < len(collection.colors) <= groups.MAX_GROUPS
    assert all(name.startswith("near “") for name in collection.colors)
    fills = {circle["fill"] for circle in circles(collection.draw(map.PCA)[0]).values()}
    assert fills == set(collection.colors.values())


def test_each_shape_has_its_own_picture(engine: Engine):
    collection = map.Collection(engine)
    head, _, data = collection.picture(3).partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    expected = engine.picture(3).convert("RGB")
    assert head == "data:image/webp;base64" and picture.size == expected.size
    pixels = np.asarray(picture).astype(int)
    others = [engine.picture(row).convert("RGB") for row in range(len(engine.index)) if row != 3]
    difference = np.abs(pixels - np.asarray(expected)).mean()
    assert difference < min(np.abs(pixels - np.asarray(other)).mean() for other in others)
    for row in (-1, len(engine.index), "3", None, [1]):
        with pytest.raises(ValueError, match="not on the map"):
            collection.picture(row)


def test_a_large_collection_is_drawn_from(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "MAX_ROWS", 5)
    rows = groups.sample_rows(12)
    assert len(set(rows)) == 5 and rows == sorted(rows) == groups.sample_rows(12) and max(rows) < 12
    assert groups.sample_rows(4) == [0, 1, 2, 3]


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
    svg, text = map.Collection(engine).draw(map.UMAP)
    settings = {"n_neighbors": 11, "min_dist": 0.1, "metric": "cosine", "random_state": 0, "init": "spectral"}
    assert asked == [settings] and "UMAP" in text
    places = engine.index.embeds[range(12)][:, 0]
    found = circles(svg)
    order = sorted(found, key=lambda row: float(found[row]["cx"].rstrip("%")))
    assert order == np.argsort(places).tolist()
