import pytest

from modeling_ulip2.data.objects import OBJECT_COLUMNS, FolderError, list_objects, name_from_path
from tests.dataset_scripts.shapes import write_box


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("props/OfficeChair_02.glb", "office chair"),
        ("HTTPServer3.obj", "http server"),
        ("B52.ply", "b52"),
        ("stuhl-größe.obj", "stuhl größe"),
        ("facade.obj", "facade"),
        ("office-chair/meshes/model.obj", "office chair"),
        ("ab/000074a334c541878360457c672b6c2e.glb", ""),
        ("x/f47ac10b-58cc-4372-a567-0e02b2c3d479.glb", ""),
        ("model.obj", ""),
    ],
)
def test_names_from_paths(path, name):
    assert name_from_path(path) == name


def test_without_a_table_every_mesh_is_an_object(tmp_path):
    for path in ("b/Red Chair.obj", "a.OBJ", ".hidden/c.obj", "b/.d.obj"):
        write_box(tmp_path / path)
    (tmp_path / "notes.txt").write_text("")
    objects = list_objects(tmp_path)
    assert [row["id"] for row in objects] == ["a.OBJ", "b/Red Chair.obj"]
    assert objects[1] == dict.fromkeys(OBJECT_COLUMNS, "") | {
        "path": "b/Red Chair.obj",
        "id": "b/Red Chair.obj",
        "name": "red chair",
    }


def test_a_table_decides_where_there_is_one(tmp_path):
    write_box(tmp_path / "unlisted.obj")
    table = 'name,path,id,tags,price\nStool,a\\b.obj,,"seat, bar",3\n,Lamp.glb,l1,,\n'
    (tmp_path / "objects.csv").write_text("\ufeff" + table, encoding="utf-8")
    first, second = list_objects(tmp_path)
    assert (first["id"], first["name"], first["tags"]) == ("a/b.obj", "Stool", "seat, bar")
    assert (second["id"], second["name"], second["license"]) == ("l1", "lamp", "")
    assert list(first) == OBJECT_COLUMNS


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\nStool\n", "no column 'path'"),
        ("path,name\n", "has no rows"),
        ("path,name\n,Stool\n", "line 2: the path is empty"),
        ("path\na.obj\nb.obj\na.obj\n", "line 4: 'a.obj' is in line 2 already"),
        (b"path\n\xff\xfe.obj\n", "not a UTF-8 table"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, table, message):
    (tmp_path / "objects.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(FolderError, match=message):
        list_objects(tmp_path)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(FolderError, match="there is no folder"):
        list_objects(tmp_path / "absent")
    with pytest.raises(FolderError, match="has no mesh"):
        list_objects(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="is not a folder"):
        list_objects(tmp_path / "file")
