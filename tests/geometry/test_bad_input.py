"""Bad input of every kind and format: a clear error with a reason, and no file read outside the mesh's folder."""

import os
import tracemalloc

import numpy as np
import pytest

from modeling_ulip2.geometry import MESH_SUFFIXES, MeshError, read_mesh, sample_points, textures
from modeling_ulip2.geometry.colors import SRGB_TO_LINEAR
from modeling_ulip2.geometry.errors import REASONS

from .builders import TRIANGLE, TRIANGLE_UV, Gltf, binary_stl, png, png_header, triangle_gltf


def error_of(path, **kwargs) -> MeshError:
    with pytest.raises(MeshError) as error:
        read_mesh(path, **kwargs)
    assert error.value.reason in REASONS and error.value.path is not None
    assert str(path) in str(error.value)
    return error.value


def test_missing_folders_pipes_and_unknown_formats(tmp_path):
    assert error_of(tmp_path / "gone.glb").reason == "missing"
    (tmp_path / "folder.obj").mkdir()
    assert error_of(tmp_path / "folder.obj").reason == "unsupported"
    os.mkfifo(tmp_path / "pipe.stl")
    assert error_of(tmp_path / "pipe.stl").reason == "unsupported"
    (tmp_path / "a.glb.gz").write_bytes(b"\x1f\x8b" + b"\0" * 100)
    assert error_of(tmp_path / "a.glb.gz").reason == "unsupported"
    (tmp_path / "README").write_text("text")
    assert ".glb" in str(error_of(tmp_path / "README"))


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_empty_and_foreign_content(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    assert error_of(path).reason == "empty"
    rng = np.random.default_rng(0)
    for content in (
        b"\0" * 500,
        b"<html>not found</html>\n" * 9,
        b"{}",
        b"\n\n\n",
        b"PK\3\4" + rng.bytes(999),
        png([[[1, 2, 3]]]),
    ):
        path.write_bytes(content)
        error_of(path)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_random_damage_never_gets_past_the_reader(tmp_path, suffix):
    """Any prefix of a file, and any flipped bytes, give a mesh or a MeshError: nothing else, and no warning."""
    square = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
    whole = {
        ".glb": lambda path: triangle_gltf(indices=np.array([0, 1, 2], np.uint16)).write(path).read_bytes(),
        ".gltf": lambda path: triangle_gltf().write(path).read_bytes(),
        ".obj": lambda path: ("v " + "v ".join(square.splitlines(True)) + "vt 0 0\nf 1/1 2/1 3/1 4/1\n").encode(),
        ".off": lambda path: f"COFF\n4 1 0\n{square.replace(chr(10), ' 1 2 3 4' + chr(10))}4 0 1 2 3\n".encode(),
        ".ply": lambda path: (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
            b"property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
            + np.array(square.split(), "<f4").tobytes() + b"\4" + np.arange(4, dtype="<i4").tobytes()
        ),
        ".stl": lambda path: binary_stl(np.stack([TRIANGLE, TRIANGLE + 1])),
    }[suffix](tmp_path / f"whole{suffix}")  # fmt: skip
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole)
    assert read_mesh(path).num_faces in (1, 2)
    rng = np.random.default_rng(1)
    outcomes = set()
    for trial in range(150):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            damaged = damaged[: rng.integers(1, len(whole))]
        for _ in range(rng.integers(0, 4) if trial % 3 == 0 else rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            mesh = read_mesh(path, max_faces=1000)
            assert np.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)
            outcomes.add("read")
        except MeshError as error:
            outcomes.add(error.reason)
    assert len(outcomes) > 2


def test_max_bytes_counts_the_file_and_all_that_it_names(tmp_path):
    gltf = triangle_gltf()
    (tmp_path / "data.bin").write_bytes(gltf.binary + b"\0" * 5000)
    gltf.header["buffers"] = [{"byteLength": len(gltf.binary), "uri": "data.bin"}]
    path = gltf.write(tmp_path / "a.gltf")
    size = path.stat().st_size
    assert error_of(path, max_bytes=size - 1).reason == "too_large"
    assert error_of(path, max_bytes=size + 5000).reason == "too_large"
    assert read_mesh(path, max_bytes=size + 6000).num_faces == 1


OUTSIDE = ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "file:///etc/passwd", "http://host/a.bin",
           "https://host/a.bin", "..\\secret.bin", "C:\\secret.bin", "//host/share", "%2e%2e/secret.bin", "link.bin",
           "linked/secret.bin", "ftp:x"]  # fmt: skip


@pytest.mark.parametrize("uri", OUTSIDE)
def test_gltf_reads_nothing_outside_its_folder(tmp_path, uri):
    folder = tmp_path / "mesh"
    folder.mkdir()
    gltf = Gltf()
    texture = {"baseColorTexture": {"index": gltf.texture("inside.png")}}
    attributes = {"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE_UV}
    gltf.node(mesh=gltf.mesh(attributes, material=gltf.material(pbrMetallicRoughness=texture)))
    (tmp_path / "secret.bin").write_bytes(gltf.binary)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "inside.png").write_bytes(png([[[1, 2, 3]]]))
    (folder / "in side.bin").write_bytes(gltf.binary)

    gltf.header["buffers"] = [{"byteLength": len(gltf.binary), "uri": "in%20side.bin"}]
    assert read_mesh(gltf.write(folder / "a.gltf")).num_faces == 1
    gltf.header["buffers"][0]["uri"] = uri
    assert error_of(gltf.write(folder / "a.gltf")).reason == "external_uri"
    del gltf.header["buffers"]
    gltf.header["images"][0]["uri"] = uri
    assert error_of(gltf.write(folder / "a.gltf")).reason == "external_uri"
    assert error_of(gltf.write(folder / "a.glb")).reason == "external_uri"


def test_the_links_of_the_hugging_face_cache_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "abc" / "meshes", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    gltf = triangle_gltf()
    gltf.header["buffers"] = [{"byteLength": len(gltf.binary), "uri": "data.bin"}]
    (blobs / "1").write_bytes(gltf.binary)
    gltf.write(tmp_path / "a.gltf").rename(blobs / "2")
    (snapshot / "data.bin").symlink_to(blobs / "1")
    (snapshot / "a.gltf").symlink_to(blobs / "2")
    assert read_mesh(snapshot / "a.gltf").num_faces == 1
    (snapshot / "data.bin").unlink()
    (tmp_path / "secret.bin").write_bytes(gltf.binary)
    (snapshot / "data.bin").symlink_to(tmp_path / "secret.bin")
    assert error_of(snapshot / "a.gltf").reason == "external_uri"


@pytest.mark.parametrize("uri", ["", "gone.bin", "x" * 5000, "a\0b", "inside.png/a"])
def test_references_to_nothing_are_missing(tmp_path, uri):
    gltf = triangle_gltf()
    (tmp_path / "inside.png").write_bytes(b"")
    gltf.header["buffers"] = [{"byteLength": 36, "uri": uri}]
    assert error_of(gltf.write(tmp_path / "a.gltf")).reason == "missing"


def test_data_uris(tmp_path):
    gltf = triangle_gltf()
    gltf.header["buffers"] = [{"byteLength": 36, "uri": "data:application/octet-stream;base64,!!!"}]
    assert error_of(gltf.write(tmp_path / "a.gltf")).reason == "corrupt"
    gltf.header["buffers"] = [{"byteLength": 36, "uri": "data:text/plain,hello"}]
    assert error_of(gltf.write(tmp_path / "a.gltf")).reason == "unsupported"
    gltf.header["buffers"] = [{"byteLength": 36, "uri": "data:application/octet-stream;base64,AAAA"}]
    assert error_of(gltf.write(tmp_path / "a.gltf")).reason == "truncated"


def textured_gltf(tmp_path, image: bytes):
    gltf = Gltf()
    texture = {"baseColorTexture": {"index": gltf.texture(image)}}
    attributes = {"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE_UV}
    gltf.node(mesh=gltf.mesh(attributes, material=gltf.material(pbrMetallicRoughness=texture)))
    return gltf.write(tmp_path / "a.glb")


def test_a_decompression_bomb_is_refused_by_its_declared_size(tmp_path):
    for side in (8193, 50_000, 2**31 - 1):
        path = textured_gltf(tmp_path, png_header(side, side))
        tracemalloc.start()
        assert error_of(path).reason == "texture_too_large"
        assert error_of(path, strict=False).reason == "texture_too_large"
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


@pytest.mark.parametrize(
    "image",
    [b"\x89PNG\r\n\x1a\n", png([[[1, 2, 3]] * 40] * 40)[:60], b"%!PS-Adobe-3.0 EPSF-3.0\n", b"", png_header(64, 64)],
)
def test_corrupt_textures(tmp_path, image):
    path = textured_gltf(tmp_path, image)
    assert error_of(path).reason == "texture_corrupt"
    mesh = read_mesh(path, strict=False)
    assert mesh.materials[0].texture is None and len(mesh.warnings) == 1


def test_large_textures_are_halved_until_they_fit(monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 100, 3), dtype=np.uint8)
    monkeypatch.setattr(textures, "MAX_TEXTURE_SIDE", 32)
    small = textures.decode_texture(png(image), max_side=32)
    assert small.shape == (10, 25, 4)
    light = [SRGB_TO_LINEAR[pixels[..., :3]].mean(axis=(0, 1)) for pixels in (small, image)]
    np.testing.assert_allclose(*light, atol=0.004)

    # Many images share one budget.
    monkeypatch.setattr(textures, "MAX_MESH_PIXELS", 4 * 16 * 16)
    loader = textures.TextureLoader(lambda key: png(image))
    assert loader.load("a", expected=1).shape == (10, 25, 4)
    assert max(loader.load("b", expected=4).shape[:2]) <= 16
    assert loader.load("a", expected=4) is loader.load("a", expected=4)


def test_halving_averages_light_and_leaves_out_what_is_transparent():
    black_white = np.array([[[0, 0, 0, 255], [255, 255, 255, 255]]] * 2, np.uint8)
    assert textures.halve(black_white).tolist() == [[[188, 188, 188, 255]]]
    cut_out = np.array([[[0, 0, 0, 0], [200, 100, 50, 255]]] * 3, np.uint8)  # the odd third row is left out
    assert textures.halve(cut_out).tolist() == [[[200, 100, 50, 128]]]
    assert textures.halve(np.full((1, 5, 4), 7, np.uint8)).shape == (1, 2, 4)
    gray = np.repeat(np.arange(256, dtype=np.uint8), 2)[None, :, None].repeat(4, axis=2)
    gray[..., 3] = 255
    assert np.abs(textures.halve(gray)[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("size", [(16, 16), (13, 7), (1, 9)])
def test_texels_that_are_not_seen_take_the_color_beside_them(size):
    texture = np.zeros((*size, 4), np.uint8)
    assert (textures.bleed(texture, 0.1) == texture).all()  # nothing is seen
    texture[-1, -1] = 30, 200, 60, 255
    texture[0, 0] = 255, 255, 255, 20
    bled = textures.bleed(texture, 0.1)
    assert (np.abs(bled[..., :3].astype(int) - [30, 200, 60]) <= 1).all()
    np.testing.assert_array_equal(bled[..., 3], texture[..., 3])
    texture[-1, 0] = 200, 30, 60, 255
    bled = textures.bleed(texture, 0.1)
    np.testing.assert_array_equal(bled[-1, [0, -1]], texture[-1, [0, -1]])


@pytest.mark.parametrize("mode", ["OPAQUE", "MASK", "BLEND"])
def test_the_paper_around_a_leaf_is_not_in_its_points(tmp_path, mode):
    """In OPAQUE the alpha counts for nothing, and white is white."""
    leaf = np.full((8, 8, 4), 255, np.uint8)
    leaf[2:6, 2:6, :3] = 0, 120, 0
    leaf[..., 3] = 0
    leaf[2:6, 2:6, 3] = 255
    gltf = Gltf()
    pbr = {"baseColorTexture": {"index": gltf.texture(png(leaf))}}
    material = gltf.material(pbrMetallicRoughness=pbr, alphaMode=mode)
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE_UV}, material=material))
    _, rgb = sample_points(read_mesh(gltf.write(tmp_path / "a.glb")), 2000, 0)
    assert rgb[:, 0].max() == (255 if mode == "OPAQUE" else 0)


def test_gray_palette_and_16_bit_images():
    import io

    from PIL import Image

    def decode(image: Image.Image) -> list[int]:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return textures.decode_texture(stream.getvalue())[0, 0].tolist()

    assert decode(Image.new("L", (2, 2), 77)) == [77, 77, 77, 255]
    assert decode(Image.new("RGB", (2, 2), (1, 2, 3)).convert("P", palette=Image.Palette.ADAPTIVE)) == [1, 2, 3, 255]
    assert decode(Image.fromarray(np.full((2, 2), 128 * 257, np.uint16))) == [128, 128, 128, 255]


def test_memory_stays_near_the_file_size_when_a_header_lies(tmp_path):
    """Ten thousand million faces, vertices or bytes are refused without being allocated."""
    lies = {
        "a.stl": binary_stl(TRIANGLE[None])[:80] + b"\xff\xff\xff\xff" + b"\0" * 50,
        "a.ply": b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nelement face 9999999999\n"
        b"property list uchar int vertex_indices\nend_header\n0\n",
        "a.off": b"OFF\n9999999999 9999999999 0\n",
        "a.obj": b"v 0 0 0\nf -1 -1 9999999999\n",
    }
    gltf = triangle_gltf()
    del gltf.header["accessors"][0]["bufferView"]
    gltf.header["accessors"][0]["count"] = 9_999_999_999
    lies["a.glb"] = gltf.write(tmp_path / "a.glb").read_bytes()
    for name, content in lies.items():
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        error_of(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 2**20, name
        tracemalloc.stop()
