"""Files that a stranger might send: each is refused in words, without a path, and without taking memory."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import uploads
from rooms.uploads import MAX_FACES, MAX_POINTS, UploadError, read_photo, read_upload

from modeling_ulip2.geometry import MeshError
from tests.geometry.builders import TRIANGLE, TRIANGLE_UV, Gltf, png_header, triangle_gltf


def large_file(folder: Path) -> Path:
    path = folder / "large.npy"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    return path


def billion_faces(folder: Path) -> Path:
    path = folder / "billion.stl"
    path.write_bytes(b"\0" * 80 + struct.pack("<I", 10**9) + b"\0" * 500)
    return path


def too_many_faces(folder: Path) -> Path:
    path = folder / "faces.ply"
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {MAX_FACES + 1}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(header.encode() + TRIANGLE.tobytes() + struct.pack("<B3i", 3, 0, 1, 2) * 10)
    return path


def too_many_points(folder: Path) -> Path:
    path = folder / "points.npy"
    np.save(path, np.zeros((MAX_POINTS + 1, 3), dtype=np.uint8))
    return path


def zip_bomb(folder: Path) -> Path:
    path = folder / "bomb.npz"
    array = io.BytesIO()
    np.save(array, np.zeros((1, 3)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xyz.npy", array.getvalue() + b"\0" * 300 * 2**20)
    return path


def another_file(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(TRIANGLE.tobytes())
    gltf = triangle_gltf()
    gltf.header["buffers"] = [{"byteLength": 36, "uri": "../secret.bin"}]
    return gltf.write(folder / "spy.gltf")


def pickle(folder: Path) -> Path:
    path = folder / "pickle.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path


def words(folder: Path) -> Path:
    path = folder / "words.glb"
    path.write_text("I am no shape")
    return path


def program(folder: Path) -> Path:
    path = folder / "program.py"
    path.write_text("raise SystemExit")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (large_file, "would exceed the limit"),
        (billion_faces, "1000000000"),
        (too_many_faces, "500001"),
        (too_many_points, "1000001 points"),
        (zip_bomb, "unpacks to"),
        (another_file, "secret.bin"),
        (pickle, "it holds none of xyz"),
        (words, "words.glb cannot be used"),
        (program, "none of"),
    ],
)
def test_bad_shapes(make: Callable[[Path], Path], message: str, tmp_path: Path):
    folder = tmp_path / "inside"
    folder.mkdir()
    path = make(folder)
    tracemalloc.start()
    try:
        with pytest.raises(UploadError, match=message) as caught:
            read_upload(path, 64)
        with contextlib.suppress(MeshError):
            uploads._read_cloud(path, 64)  # here, where its memory can be measured
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert peak < 32 * 2**20


def test_time_and_memory_of_reading_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What passes every count, and still would not end, or not fit."""
    (tmp_path / "points.xyz").write_text("1 2 3\n" * 300_000)
    hurried = uploads.make_isolation(seconds=0.05)
    narrow = uploads.make_isolation(megabytes=8)
    for isolation, message in [(hurried, "longer than 0.05 seconds"), (narrow, "does not fit into memory")]:
        monkeypatch.setattr(uploads, "ISOLATION", isolation)
        try:
            with pytest.raises(UploadError, match=f"points.xyz cannot be used: .*{message}"):
                read_upload(tmp_path / "points.xyz", 64)
        finally:
            isolation.close()


def test_a_huge_texture_is_not_decoded(tmp_path: Path):
    gltf = Gltf()
    texture = gltf.texture(png_header(30_000, 30_000))
    material = gltf.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}})
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE, "TEXCOORD_0": TRIANGLE_UV}, material=material))
    path = gltf.write(tmp_path / "texture.glb")
    tracemalloc.start()
    try:
        with pytest.raises(UploadError, match="900000000 pixels"):
            read_upload(path, 64)
        with contextlib.suppress(MeshError):
            uploads._read_cloud(path, 64)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_photos(tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by a quarter
    Image.new("RGB", (3000, 1500), "red").save(tmp_path / "photo.jpg", exif=exif)
    photo = read_photo(tmp_path / "photo.jpg")
    assert photo.mode == "RGB" and photo.size == (512, 1024)
    for side in (8_000, 30_000):
        (tmp_path / "bomb.png").write_bytes(png_header(side, side))
        with pytest.raises(UploadError, match="too many pixels; at most 50 million"):
            read_photo(tmp_path / "bomb.png")
    (tmp_path / "words.png").write_text("I am no photo")
    with pytest.raises(UploadError, match="cannot be read") as caught:
        read_photo(tmp_path / "words.png")
    assert str(tmp_path) not in str(caught.value)
