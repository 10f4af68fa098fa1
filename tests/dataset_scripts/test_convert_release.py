"""Fabricated copies of the releases of ULIP-2 and OpenShape."""

import codecs
import io
import json
import pickle
import sqlite3

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from modeling_ulip2.building.releases import caption_index
from modeling_ulip2.building.releases.caption_index import CaptionIndex, index_captions, read_entries
from modeling_ulip2.building.releases.convert import main
from modeling_ulip2.building.sources.table import CollectionError
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.images import read_depth
from modeling_ulip2.data.schema import triplet_features
from tests.building.stages.cameras import row_cameras
from tests.training.world import tiny_processor

N = 64
UIDS = ["a" * 32, "b" * 32, "c" * 32, "d" * 32]
KEY = "/export/einstein-vision/3d_vision/objaverse/render_images_split_100"


def picture(seed: int, kind: str = "RGB") -> bytes:
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    if kind == "depth":
        values = np.full((16, 16), 255, np.uint8)
        values[4:12, 4:12] = rng.integers(0, 200, (8, 8))
        Image.fromarray(values).convert("RGB").save(buffer, "PNG")
    else:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def objaverse(tmp_path):
    """Four shapes: a whole one, one with too few points, one that lacks views and words, one without captions."""
    root, captions = tmp_path / "ULIP-Objaverse_triplets", {}
    for number, uid in enumerate(UIDS):
        cloud = np.random.default_rng(number).normal(size=(N, 6 if number == 0 else 3)).astype(np.float32)
        if number == 0:
            cloud[:, 3:] = np.clip(np.abs(cloud[:, 3:]), 0, 1)
        path = root / "objaverse_pc_parallel" / uid / f"{uid}_{N}.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, cloud[: N // 2 if number == 1 else N])
        for view in range(12 if number != 2 else 5):
            write(root / "rendered_images_split_100" / uid / f"{view:03d}.png", picture(view))
            if number != 3 and (number, view) != (2, 0):
                captions[f"{KEY}/{uid}/{view:03d}.png"] = [f"a shape {uid[0]}{view}", " a  thing\n", "a thing", ""]
    write(root / "rendered_images_split_100" / UIDS[2] / "001.png", b"no picture")
    write(root / "merged_data.json", json.dumps(captions).encode())
    return root


def convert(layout: str, root, output, *more: str) -> None:
    arguments = [layout, "--release", str(root), "--output", str(output), "--num-proc", "0"]
    main([*arguments, "--num-points", str(N), "--shard-size", "2", *more])


def test_ulip_objaverse_becomes_triplets(objaverse, tmp_path):
    output = tmp_path / "out"
    convert("ulip-objaverse", objaverse, output)
    rows = load_dataset(str(output), "triplets", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features == triplet_features(N) and rows["id"] == [UIDS[0], UIDS[2]]
    row = rows[0]
    assert row["azimuths"] == [30.0 * view for view in range(12)] and row["elevations"] == [None] * 12
    assert row["captions"][3] == ["a shape a3", "a thing"] and row["caption_scores"][3] == [None, None]
    assert (row["license"], row["source"], row["fov"], row["target"]) == ("odc-by", "ulip_objaverse", None, None)
    with np.load(objaverse / "objaverse_pc_parallel" / UIDS[0] / f"{UIDS[0]}_{N}.npz") as file:
        cloud = file["arr_0"]
    np.testing.assert_array_equal(np.array(row["xyz"], np.float16), cloud[:, :3].astype(np.float16))
    np.testing.assert_allclose(np.array(row["rgb"]), cloud[:, 3:] * 255, atol=0.5)
    assert (np.array(rows[1]["rgb"]) == 102).all()
    assert [len(own) for own in rows[1]["captions"]] == [0, 2, 2, 2]  # view 1 is no picture, 5 to 11 are missing
    np.testing.assert_array_equal(np.asarray(row["views"][4]), np.asarray(Image.open(io.BytesIO(picture(4)))))
    with pytest.raises(ValueError, match="does not tell its cameras"):
        row_cameras(row)
    errors = {row["id"]: row["reason"] for row in pq.read_table(output / "errors.parquet").to_pylist()}
    assert errors == {UIDS[1]: "other_count", UIDS[3]: "no_captions"}
    warnings = [row["message"] for row in pq.read_table(output / "warnings.parquet").to_pylist()]
    assert sum("001.png: it is no picture" in message for message in warnings) == 1
    assert sum("1 of 4 views have no captions" in message for message in warnings) == 1
    card = (output / "README.md").read_text()
    assert "license: odc-by" in card and "their scores were not published" in card and str(tmp_path) not in card
    assert not list(output.glob(".captions*"))


def test_what_was_converted_trains(objaverse, tmp_path):
    convert("ulip-objaverse", objaverse, tmp_path / "out")
    rows = load_dataset(str(tmp_path / "out"), "triplets", split="train", cache_dir=str(tmp_path / "cache"))
    batch = TripletCollator(tiny_processor(num_points=32))([dict(row) for row in rows])
    assert batch["point_values"].shape[:2] == (2, 32) and len(batch["pixel_values"]) == 2


def test_a_stopped_conversion_goes_on(objaverse, tmp_path):
    output = tmp_path / "out"
    convert("ulip-objaverse", objaverse, output)
    shards = sorted((output / "triplets").iterdir())
    before = [shard.read_bytes() for shard in shards]
    shards[1].unlink()
    convert("ulip-objaverse", objaverse, output)
    assert [shard.read_bytes() for shard in shards] == before
    with pytest.raises(SystemExit, match="num_points was 64 and is now 32"):
        convert("ulip-objaverse", objaverse, output, "--num-points", "32")


def test_captions_are_ranked_anew_by_a_tower(objaverse, tower, tmp_path):
    convert("ulip-objaverse", objaverse, tmp_path / "out", "--tower", str(tower), "--device", "cpu", "--limit", "1")
    (row,) = pq.read_table(tmp_path / "out" / "triplets").to_pylist()
    assert all(scores == sorted(scores, reverse=True) and None not in scores for scores in row["caption_scores"])
    (features,) = pq.read_table(tmp_path / "out" / "features").to_pylist()
    assert len(features["image_embeds"]) == 12 and len(features["text_embeds"][0]) == 2


@pytest.mark.parametrize("folder_per_shape", [False, True])
def test_ulip_shapenet_becomes_triplets_with_depth(tmp_path, folder_per_shape):
    root, name = tmp_path / "shapenet-55", "02691156-1a04e3eab45ca15dd86060f189eb133"
    (root / "shapenet_pc").mkdir(parents=True)
    np.save(root / "shapenet_pc" / f"{name}.npy", np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32))
    np.save(root / "shapenet_pc" / "03001627-mute.npy", np.zeros((N, 3), np.float32))
    np.save(root / "shapenet_pc" / "03001627-evil.npy", np.array(["x", None], dtype=object), allow_pickle=True)
    pictures, captions = root / "only_rgb_depth_images" / (name if folder_per_shape else ""), {}
    for degrees in range(0, 360, 12):
        write(pictures / f"{name}_r_{degrees:03d}.png", picture(degrees))
        write(pictures / f"{name}_r_{degrees:03d}_depth0001.png", picture(degrees, "depth"))
        captions[f"{name}_r_{degrees:03d}.png"] = [f"a plane at {degrees}"] * 10
    write(root / "captions" / f"{name}.json", json.dumps(captions).encode())
    taxonomy = [{"synsetId": "02691156", "name": "airplane,aeroplane", "children": [], "numInstances": 1}]
    write(root / "taxonomy.json", json.dumps(taxonomy).encode())
    convert("ulip-shapenet", root, tmp_path / "out", "--depth")
    rows = load_dataset(str(tmp_path / "out"), "triplets", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features == triplet_features(N, depth=True) and rows["id"] == [name] and rows["name"] == ["airplane"]
    row = rows[0]
    assert row["azimuths"] == [12.0 * view for view in range(30)] and row["captions"][2] == ["a plane at 24"]
    depth, original = read_depth(row["depths"][5]), np.asarray(Image.open(io.BytesIO(picture(60, "depth"))))[..., 0]
    assert row["depth_scale"] is None and ((depth == 0) == (original == 255)).all()
    assert (depth[original < 255] == original[original < 255] + 1.0).all()
    errors = {row["id"]: row["reason"] for row in pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()}
    assert errors == {"03001627-mute": "no_captions", "03001627-evil": "unsupported"}


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_dictionaries_of_openshape_are_read_and_never_executed(tmp_path, capsys):
    root, rng = tmp_path / "lvis", np.random.default_rng(0)
    good = {
        "xyz": rng.normal(size=(N, 3)).astype(np.float16),
        "rgb": rng.uniform(size=(N, 3)).astype(np.float16),
        "image_feat": rng.normal(size=(12, 8)),
        "text": ["armchair"],
        "blip_caption": "a red chair",
        "msft_caption": "a  chair",
        "retrieval_text": [["cosy chair"], "a red chair"],
    }
    (root / "objaverse" / "000-000").mkdir(parents=True)
    np.save(root / "objaverse" / "000-000" / "a.npy", good, allow_pickle=True)
    np.save(root / "objaverse" / "000-000" / "b.npy", Evil(), allow_pickle=True)
    (root / "objaverse" / "000-000" / "c.npy").write_bytes(pickle.dumps(good))
    entries = [
        {"uid": uid, "category": "alarm_clock", "data_path": f"/mnt/data/objaverse/000-000/{uid}.npy"}
        for uid in "abcd"
    ]
    write(root / "lvis.json", json.dumps(entries).encode())
    convert("openshape-lvis", root, tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "triplets").to_pylist()
    assert row["captions"] == [["a red chair", "a chair", "armchair", "cosy chair"]]
    assert (row["id"], row["name"], row["views"], row["azimuths"]) == ("a", "alarm clock", [], [])
    np.testing.assert_allclose(np.array(row["rgb"]), good["rgb"].astype(float) * 255, atol=0.6)
    errors = {row["id"] for row in pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()}
    assert errors == {"b", "c", "d"} and "executed" not in capsys.readouterr().out
    write(root / "lvis.json", json.dumps({"a": "objaverse/000-000/a.npy"}).encode())
    convert("openshape-lvis", root, tmp_path / "again")
    assert pq.read_table(tmp_path / "again" / "triplets")["id"].to_pylist() == ["a"]


@pytest.mark.parametrize("layout", ["ulip-objaverse", "ulip-shapenet", "openshape-lvis"])
def test_another_folder_is_a_sentence(layout, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="convert_release: .*empty"):
        convert(layout, tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_entries_are_read_one_by_one_whatever_the_pieces(chunk):
    content = {"a": ["x", 'quo"te', "größe \U0001f600"], "b\\": [], "c": 12.5, "d": {"e": None}, "": "last"}
    for text in (json.dumps(content), json.dumps(content, indent=2, ensure_ascii=False)):
        for mark in (b"", codecs.BOM_UTF8, b" \n\t"):
            assert dict(read_entries(io.BytesIO(mark + text.encode()), chunk)) == content
    assert list(read_entries(io.BytesIO(b" {} "), chunk)) == []
    bad = (b"", b"[1]", b'{"a": [1, 2', b'{"a" 1}', b'{"a": 1', b"{a: 1}", b'{"a": }', b'{"a": "\xff"}', b'{"a": 1} 2')
    for text in bad:
        with pytest.raises(ValueError, match="JSON object|cut short"):
            list(read_entries(io.BytesIO(text), chunk))


def test_an_entry_without_end_is_not_read_into_memory(monkeypatch):
    monkeypatch.setattr(caption_index, "MAX_ENTRY", 1000)
    whole = json.dumps({str(number): "x" * 900 for number in range(9)}).encode()
    assert len(list(read_entries(io.BytesIO(whole), 64))) == 9
    with pytest.raises(ValueError, match="one entry takes more"):
        list(read_entries(io.BytesIO(b'{"a": "' + b"x" * 5000), 64))


def test_a_damaged_file_of_captions_is_a_sentence_and_leaves_no_index(tmp_path):
    (tmp_path / "captions.json").write_text('{"/x/a/000.png": ["one"], "/x/a/001')
    with pytest.raises(CollectionError, match="captions.json is not a JSON object"):
        index_captions(tmp_path / "captions.json", tmp_path / "index")
    assert not (tmp_path / "index").exists()
    (tmp_path / "captions.json").write_text('{"/x/a/000.png": ["one"], "/x/a/001.png": "two"}')
    index_captions(tmp_path / "captions.json", tmp_path / "index")
    ask = CaptionIndex(tmp_path / "index")
    assert (ask("pictures/a/000.png"), ask("a/001.png"), ask("a/002.png")) == (["one"], ["two"], [])
    with pytest.raises(sqlite3.OperationalError):
        ask._database.execute("DELETE FROM captions")
