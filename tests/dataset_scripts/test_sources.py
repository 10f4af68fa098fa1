"""Fabricated copies of the layouts in which Objaverse, ShapeNetCore and Google Scanned Objects come."""

import gzip
import json
import shutil

import google_scanned_objects
import numpy as np
import objaverse_v1
import pytest
import shapenet
from PIL import Image

from modeling_ulip2.building.stages.base import to_batch, to_rows
from modeling_ulip2.building.stages.read import ReadMesh
from modeling_ulip2.data.objects import FolderError, add_labels, list_objects
from tests.building.stages.test_stages import make_row

from .shapes import write_box

UIDS = ["a1" * 16, "b2" * 16, "c3" * 16]


def write_gz(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(content, file)


@pytest.fixture
def objaverse_cache(tmp_path):
    """Three downloaded objects, one of them without metadata, and a folder whose metadata was never fetched."""
    cache = tmp_path / "hf-objaverse-v1"
    paths = {uid: f"glbs/000-{i // 2:03d}/{uid}.glb" for i, uid in enumerate(UIDS)}
    for path in paths.values():
        (cache / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / path).write_bytes(b"glTF")
    (cache / "glbs" / "000-000" / f"{'d' * 32}.glb.tmp").write_bytes(b"")
    write_gz(cache / "object-paths.json.gz", paths | {"e" * 32: "glbs/000-002/e.glb"})
    write_gz(cache / "lvis-annotations.json.gz", {"armchair": [UIDS[0]], "chair": [UIDS[0], "e" * 32], "boot": []})
    user = {"username": "ada", "displayName": "Ada L."}
    first = {
        "uid": UIDS[0],
        "name": " Comfy\n Chair ",
        "license": "by-nc",
        "tags": [{"name": "seat", "slug": "seat"}, {"name": "wood, old"}],
        "categories": [{"name": "furniture-home"}],
        "user": user,
    }
    nameless = {"uid": UIDS[1], "name": None, "license": "cc0", "tags": [], "user": {"username": "bob"}}
    write_gz(cache / "metadata" / "000-000.json.gz", {UIDS[0]: first, UIDS[1]: nameless, "e" * 32: first})
    return cache


def test_objaverse_objects_have_names_categories_creators_and_licenses(objaverse_cache, tmp_path):
    objaverse_v1.main(["--cache", str(objaverse_cache), "--output", str(tmp_path / "out")])
    rows = list_objects(objaverse_cache, tmp_path / "out" / "objects.csv")
    assert [row["id"] for row in rows] == UIDS
    assert all((objaverse_cache / row["path"]).is_file() and row["source"] == "objaverse" for row in rows)
    first = {"name": "Comfy Chair", "category": "armchair", "creator": "Ada L.", "license": "cc-by-nc-4.0"}
    first |= {"tags": "seat, wood  old, furniture-home", "group": "armchair, chair"}
    assert {key: rows[0][key] for key in first} == first
    assert (rows[1]["name"], rows[1]["creator"], rows[1]["license"]) == ("", "bob", "cc0-1.0")
    assert (rows[2]["name"], rows[2]["license"]) == ("", "")  # its metadata was never fetched
    source = (tmp_path / "out" / "SOURCE.md").read_text()
    assert "3 objects were found (cc-by-nc-4.0: 1, cc0-1.0: 1, unknown: 1), of 1 categories" in source


def test_objaverse_can_be_narrowed_to_lvis_and_to_licenses(objaverse_cache):
    objaverse_v1.main(["--cache", str(objaverse_cache), "--lvis"])
    assert [row["id"] for row in list_objects(objaverse_cache)] == [UIDS[0]]
    objaverse_v1.main(["--cache", str(objaverse_cache), "--licenses", "cc0", "by"])
    assert [row["id"] for row in list_objects(objaverse_cache)] == [UIDS[1]]
    with pytest.raises(SystemExit, match="not one object"):
        objaverse_v1.main(["--cache", str(objaverse_cache), "--licenses", "by-sa"])


def test_a_cache_that_is_none_or_damaged_is_a_sentence(objaverse_cache, tmp_path):
    with pytest.raises(SystemExit, match=r"glbs/000-000/.*package objaverse"):
        objaverse_v1.main(["--cache", str(tmp_path)])
    path = objaverse_cache / "metadata" / "000-000.json.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SystemExit, match="000-000.json.gz cannot be read"):
        objaverse_v1.main(["--cache", str(objaverse_cache)])


@pytest.fixture
def shapenet_root(tmp_path):
    root = tmp_path / "ShapeNetCore.v2"
    for synset, model in (("02691156", "1a04e3eab45ca15dd86060f189eb133"), ("03001627", "b"), ("03001627", "a")):
        write_box(root / synset / model / "models" / "model_normalized.obj")
    (root / "03001627" / "without").mkdir()
    taxonomy = [{"synsetId": "02691156", "name": "airplane,aeroplane,plane", "children": [], "numInstances": 4045}]
    (root / "taxonomy.json").write_text(json.dumps(taxonomy))
    return root


def test_shapenet_has_the_names_of_its_taxonomy(shapenet_root):
    shapenet.main(["--shapenet", str(shapenet_root)])
    rows = list_objects(shapenet_root)
    assert [row["id"] for row in rows] == ["02691156-1a04e3eab45ca15dd86060f189eb133", "03001627-a", "03001627-b"]
    assert (rows[0]["name"], rows[0]["tags"], rows[0]["category"]) == ("airplane", "aeroplane, plane", "airplane")
    assert (rows[1]["name"], rows[1]["category"]) == ("chair", "chair")  # not in the taxonomy: of the 55 names
    assert ReadMesh(str(shapenet_root))(to_batch([make_row() | rows[0]]))["error"] == [None]
    assert "3 objects were found (other: 3), of 2 categories" in (shapenet_root / "SOURCE.md").read_text()


def test_a_folder_that_is_no_shapenet_is_a_sentence(shapenet_root, tmp_path):
    with pytest.raises(SystemExit, match="no folder of a synset"):
        shapenet.main(["--shapenet", str(tmp_path)])
    (shapenet_root / "taxonomy.json").write_text('["airplane"]')
    with pytest.raises(SystemExit, match="taxonomy.json is not ShapeNet's list"):
        shapenet.main(["--shapenet", str(shapenet_root)])


PBTXT = """\
name: "11pro SL TRX FG"
version: 1
legal { copyright: "Copyright 2020 Google LLC" license: "Creative Commons Attribution 4.0 International" }
description: "a \\"fast\\" shoe\\nname: \\"wrong\\""
categories { first: "Shoe" }
"""


@pytest.fixture
def scans(tmp_path):
    """A tall shoe, z up, and a scan without metadata."""
    for name in ("11pro_SL_TRX_FG", "Weisshai_Great_White_Shark"):
        folder = tmp_path / "scans" / name
        write_box(folder / "meshes" / "model.obj", size=(0.1, 0.2, 0.5))
        text = (folder / "meshes" / "model.obj").read_text().replace("f 1 2 4 3", "vt 0.5 0.5\nf 1/1 2/1 4/1 3/1")
        (folder / "meshes" / "model.obj").write_text(text)
        (folder / "meshes" / "model.mtl").write_text("newmtl paint\nKd 1 1 1\nmap_Kd texture.png\n")
        (folder / "materials" / "textures").mkdir(parents=True)
        Image.new("RGB", (4, 4), (0, 255, 0)).save(folder / "materials" / "textures" / "texture.png")
    (tmp_path / "scans" / "11pro_SL_TRX_FG" / "metadata.pbtxt").write_text(PBTXT)
    (tmp_path / "scans" / "notes").mkdir()
    return tmp_path / "scans"


def test_scans_stand_upright_with_their_texture(scans, tmp_path):
    google_scanned_objects.main(["--scans", str(scans), "--output", str(tmp_path / "out")])
    rows = list_objects(tmp_path / "out")
    assert [row["name"] for row in rows] == ["11pro sl trx fg", "weisshai great white shark"]
    assert (rows[0]["category"], rows[0]["license"], rows[0]["creator"]) == ("shoe", "cc-by-4.0", "Google LLC")
    (first, _) = to_rows(ReadMesh(str(tmp_path / "out"), strict=True)(to_batch([make_row() | row for row in rows])))
    assert first["error"] is None and first["warnings"] == []
    np.testing.assert_allclose(first["mesh"].bounds, [[-0.1, -0.5, -0.2], [0.1, 0.5, 0.2]])  # y up
    assert (first["mesh"].materials[0].texture[..., :3] == [0, 255, 0]).all()


def test_scans_are_gathered_once_and_completed(scans, tmp_path, monkeypatch):
    def no_links(source, place):
        raise OSError("not on this file system")

    monkeypatch.setattr(google_scanned_objects.os, "link", no_links)
    output = tmp_path / "out"
    google_scanned_objects.main(["--scans", str(scans), "--output", str(output)])
    texture = output / "11pro_SL_TRX_FG" / "texture.png"
    before, content = texture.stat().st_mtime_ns, (output / "11pro_SL_TRX_FG" / "model.obj").read_bytes()
    (output / "11pro_SL_TRX_FG" / "model.obj").write_bytes(b"cut")
    google_scanned_objects.main(["--scans", str(scans), "--output", str(output)])
    assert texture.stat().st_mtime_ns == before
    assert (output / "11pro_SL_TRX_FG" / "model.obj").read_bytes() == content
    with pytest.raises(SystemExit, match="another folder"):
        google_scanned_objects.main(["--scans", str(scans), "--output", str(scans)])
    shutil.rmtree(scans / "11pro_SL_TRX_FG" / "meshes")
    shutil.rmtree(scans / "Weisshai_Great_White_Shark")
    with pytest.raises(SystemExit, match="holds no <Name>/meshes/model.obj"):
        google_scanned_objects.main(["--scans", str(scans), "--output", str(output)])


def test_labels_go_over_what_a_folder_says(tmp_path):
    for path in ("a/Chair_01.obj", "b.obj", "c.obj"):
        write_box(tmp_path / "meshes" / path)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "source,path,name,category,tags,creator\n"
        "mine,a/Chair_01.obj,armchair,chair,,Ada\n"
        "other,b.obj,wrong collection only for those that say so,,,\n"
        "mine,elsewhere.obj,lamp,,,\n"
    )
    rows = list_objects(tmp_path / "meshes")
    assert add_labels(rows, labels) == 2
    assert (rows[0]["name"], rows[0]["category"], rows[0]["creator"]) == ("armchair", "chair", "Ada")
    (tmp_path / "meshes" / "objects.csv").write_text("path,source,creator\nb.obj,mine,Bob\na/Chair_01.obj,mine,Bob\n")
    rows = list_objects(tmp_path / "meshes")
    assert add_labels(rows, labels) == 1
    assert [(row["name"], row["creator"]) for row in rows] == [("b", "Bob"), ("armchair", "Ada")]
    labels.write_text("path,name\nd.obj,lamp\n")
    with pytest.raises(FolderError, match="names none of the objects"):
        add_labels(rows, labels)
    with pytest.raises(FolderError, match="there is no table"):
        list_objects(tmp_path / "meshes", tmp_path / "absent.csv")
