"""Files around the file: roots, paths of other machines, and what failed downloads leave."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.conversion.checkpoint import read_checkpoint
from modeling_ulip2.geometry import MESH_SUFFIXES, MeshError, read_mesh, read_points, sample_points

from .builders import TRIANGLE, TRIANGLE_UV, Gltf, png

CASES = Path(__file__).parent / "cases"
OBJ = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"
RED = png([[[220, 20, 20]]])


def error_of(path, *args, **kwargs) -> MeshError:
    with pytest.raises(MeshError) as error:
        read_mesh(path, *args, **kwargs)
    return error.value


def obj(folder: Path, image: str, mtl: str = "a.mtl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.mtl").write_text(f"newmtl m\nmap_Kd {image}\n")
    (folder / "a.obj").write_text(OBJ.replace("a.mtl", mtl))
    return folder / "a.obj"


def gltf(folder: Path, image: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document = Gltf()
    texture = {"baseColorTexture": {"index": document.texture(image)}}
    attributes = {"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE_UV}
    document.node(mesh=document.mesh(attributes, material=document.material(pbrMetallicRoughness=texture)))
    return document.write(folder / "a.gltf")


def ply(folder: Path, image: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.ply").write_text(
        f"ply\nformat ascii 1.0\ncomment TextureFile {image}\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nproperty float u\nproperty float v\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n"
    )
    return folder / "a.ply"


def is_red(mesh) -> bool:
    return (sample_points(mesh, 50)[1] == [220, 20, 20]).all()


FORMATS = pytest.mark.parametrize("make", [obj, gltf, ply])


@FORMATS
def test_the_root_is_a_collections_folder(tmp_path, make):
    collection = tmp_path / "collection"
    path = make(collection / "1" / "models", "../images/t.png")
    (collection / "1" / "images").mkdir()
    (collection / "1" / "images" / "t.png").write_bytes(RED)
    assert is_red(read_mesh(path, root=collection)) and is_red(read_mesh(path, collection / "1"))
    assert not read_mesh(path, str(collection)).warnings
    assert error_of(path).reason == "external_uri"
    assert error_of(path, collection / "1" / "models").reason == "external_uri"
    mesh = read_mesh(path, strict=False)
    assert mesh.materials[0].texture is None and "../images/t.png" in mesh.warnings[0]

    (tmp_path / "t.png").write_bytes(RED)
    for climb in ("../../../t.png", "../../../collection/../t.png", "../../../collection2/t.png"):
        assert error_of(make(collection / "1" / "models", climb), collection).reason == "external_uri"
    assert is_red(read_mesh(make(collection / "1" / "models", "gone/../../images/./T.PNG"), collection))
    assert is_red(read_mesh(make(collection / "1" / "models", "..\\images\\t.png"), collection))


def test_shapenets_layout():
    collection = CASES / "c03_shapenet"
    (path,) = collection.rglob("*.obj")
    mesh = read_mesh(path, collection)
    assert mesh.warnings == []
    np.testing.assert_array_equal(mesh.materials[0].texture[0, 0], [220, 20, 20, 255])


@FORMATS
def test_links_lead_nowhere_outside_the_root(tmp_path, make):
    collection, secret = tmp_path / "collection", tmp_path / "secret"
    secret.mkdir()
    (secret / "t.png").write_bytes(RED)
    path = make(collection / "models", "../images/t.png")
    (collection / "images").symlink_to(secret)
    assert error_of(path, collection).reason == "external_uri"
    assert is_red(read_mesh(path, tmp_path))
    (collection / "images").unlink()
    (collection / "images").mkdir()
    (collection / "images" / "t.png").symlink_to(secret / "t.png")
    assert error_of(path, collection).reason == "external_uri"
    (collection / "images" / "t.png").unlink()
    (collection / "images" / "t.png").symlink_to(collection / "real.png")
    (collection / "real.png").write_bytes(RED)
    assert is_red(read_mesh(path, collection))
    # Names in other case are looked for inside the root only.
    (collection / "images").rename(collection / "pictures")
    (collection / "images").symlink_to(secret)
    reason = error_of(make(collection / "models", "../images/T.png"), collection).reason
    assert reason in ("external_uri", "missing", "texture_missing")


def test_the_mesh_itself_lies_below_the_root(tmp_path):
    path = obj(tmp_path / "inside", "t.png")
    (tmp_path / "inside" / "t.png").write_bytes(RED)
    (tmp_path / "other").mkdir()
    assert error_of(path, tmp_path / "other").reason == "external_uri"
    (tmp_path / "other" / "a.obj").symlink_to(path)
    assert error_of(tmp_path / "other" / "a.obj", tmp_path / "other").reason == "external_uri"
    assert str(tmp_path) not in error_of(tmp_path / "other" / "a.obj", tmp_path / "other").args[0]


@FORMATS
@pytest.mark.parametrize(
    "image",
    ["C:\\tex\\t.png", "/home/x/t.png", "c:/T.png", "\\\\server\\share\\t.png", "file:///home/x/t.png", "C:t.png"],
)
def test_an_absolute_path_stands_for_the_file_beside_the_mesh(tmp_path, make, image):
    path = make(tmp_path / "a", image)
    assert error_of(path).reason == "external_uri"
    (tmp_path / "a" / "t.png").write_bytes(RED)
    mesh = read_mesh(path)
    assert is_red(mesh) and len(mesh.warnings) == 1 and "t.png" in mesh.warnings[0]
    (tmp_path / "a" / "t.png").unlink()
    (tmp_path / "secret.png").write_bytes(RED)
    (tmp_path / "a" / "t.png").symlink_to(tmp_path / "secret.png")
    assert error_of(path).reason == "external_uri"


def test_a_material_file_of_another_machine(tmp_path):
    path = obj(tmp_path / "a", "t.png", mtl="D:\\work\\A.mtl")
    (tmp_path / "a" / "t.png").write_bytes(RED)
    assert is_red(read_mesh(path)) and "A.mtl" in read_mesh(path).warnings[0]


LFS = (CASES / "c09_lfs.glb").read_bytes()
FOREIGN = {
    "Git LFS": LFS,
    "git lfs pull": LFS.replace(b"\n", b"\r\n"),
    "HTML": (CASES / "c09_html.glb").read_bytes(),
    "an HTML page": b"\xef\xbb\xbf\n<html lang='en'><head></head>gone</html>",
    "HTML page": b"<!-- proxy -->\n<html><body>busy</body></html>",
    "an XML": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
    "error message in JSON": b'{"error": "Repository not found"}',
    "in JSON": b'{"message": "Bad credentials", "documentation_url": "https://x"}',
    "an error message": b"404: Not Found",
    "error message": b"Entry not found",
    "Access to model": b"Access to model a/b is restricted. You must be authenticated.",
    "empty": b"\n",
    "an empty file": b"\0" * 4096,
    "download it again": b"",
}


@pytest.mark.parametrize("said", FOREIGN)
@pytest.mark.parametrize("suffix", [*MESH_SUFFIXES, ".xyz", ".npy", ".npz", ".csv", ".pt", ".safetensors", ".bin"])
def test_failed_downloads_are_called_what_they_are(tmp_path, suffix, said):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(FOREIGN[said])
    if suffix in (".pt", ".safetensors", ".bin"):
        with pytest.raises(ValueError) as error:
            read_checkpoint(path)
    else:
        with pytest.raises(MeshError) as error:
            (read_mesh if suffix in MESH_SUFFIXES else read_points)(path)
        assert error.value.reason in ("not_downloaded", "empty")
    assert said in str(error.value) and "download it again" in str(error.value)


@pytest.mark.parametrize("content", [LFS, FOREIGN["HTML"], b""])
@FORMATS
def test_failed_downloads_of_images_and_material_files(tmp_path, make, content):
    path = make(tmp_path / "a", "t.png")
    (tmp_path / "a" / "t.png").write_bytes(content)
    assert "download it again" in str(error_of(path))
    mesh = read_mesh(path, strict=False)
    assert any("download it again" in warning for warning in mesh.warnings)
    if make is obj:
        (tmp_path / "a" / "a.mtl").write_bytes(content)
        assert "download it again" in str(error_of(path)) and read_mesh(path, strict=False).warnings


def test_real_files_are_not_taken_for_failed_downloads(tmp_path):
    for name, text in {
        "a.obj": "# error: none\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "b.obj": "\n\n# not found\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "a.off": "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert read_mesh(tmp_path / name).num_faces == 1
    (tmp_path / "a.pts").write_text("404\n" + "1 2 3\n" * 404)
    assert len(read_points(tmp_path / "a.pts")[0]) == 404


def test_building_triplets_reads_below_the_folder_of_meshes(tmp_path):
    from modeling_ulip2.building.stages.read import ReadMesh

    shutil.copytree(CASES / "c03_shapenet", tmp_path / "c")
    row = {"id": "1", "path": "02691156/abc/models/model_normalized.obj", "rotation": ""}
    result = ReadMesh(str(tmp_path / "c"), strict=True).process(row)
    assert result["warnings"] == [] and result["mesh"].materials[0].texture is not None
