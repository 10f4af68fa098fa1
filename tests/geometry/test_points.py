import io
import zipfile

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_points

XYZ = np.arange(15, dtype=np.float32).reshape(5, 3)
RGB = np.arange(15, dtype=np.uint8).reshape(5, 3) * 17


def error_of(path, **kwargs) -> str:
    with pytest.raises(MeshError) as error:
        read_points(path, **kwargs)
    assert error.value.path == path
    return error.value.reason


def check(path, color: bool = True) -> None:
    xyz, rgb = read_points(path)
    assert xyz.dtype == np.float64
    np.testing.assert_allclose(xyz, XYZ, atol=1e-3)
    if color:
        assert rgb.dtype == np.uint8
        np.testing.assert_array_equal(rgb, RGB)
    else:
        assert rgb is None


def ply(format: str, colors: bool = True) -> bytes:
    header = f"ply\nformat {format} 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\n" * colors + "end_header\n"
    if format == "ascii":
        rows = [" ".join(map(str, [*p, *c] if colors else p)) for p, c in zip(XYZ, RGB, strict=True)]
        return (header + "\n".join(rows)).encode()
    return header.encode() + b"".join(
        p.tobytes() + (c.tobytes() if colors else b"") for p, c in zip(XYZ, RGB, strict=True)
    )


@pytest.mark.parametrize("format", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("colors", [True, False])
def test_ply(tmp_path, format, colors):
    (tmp_path / "a.ply").write_bytes(ply(format, colors))
    check(tmp_path / "a.ply", colors)
    assert error_of(tmp_path / "a.ply", max_points=4) == "too_many_points"
    (tmp_path / "a.ply").write_bytes(ply(format, colors).replace(b"vertex 5", b"vertex 10000000"))
    assert error_of(tmp_path / "a.ply") == "truncated"


def test_arrays(tmp_path):
    np.save(tmp_path / "a.npy", XYZ.astype(np.float16))
    check(tmp_path / "a.npy", color=False)
    np.save(tmp_path / "a.npy", np.column_stack([XYZ, RGB / 255.0]))
    check(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.column_stack([XYZ, RGB.astype(np.float32)]))
    check(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", xyz=XYZ, rgb=RGB, name=np.array("chair"))
    check(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "a.npz", np.column_stack([XYZ, RGB]))
    check(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "head", "separator"),
    [("a.xyz", "", " "), ("a.txt", "# x y z r g b\n", "\t"), ("a.csv", "x,y,z,r,g,b\n", ","), ("a.pts", "5\n", " "),
     ("a.csv", "", "; ")],
)  # fmt: skip
def test_text(tmp_path, name, head, separator):
    rows = [separator.join(map(str, [*p, *c])) for p, c in zip(XYZ, RGB, strict=True)]
    (tmp_path / name).write_text(head + "\n".join(rows) + "\n\n")
    check(tmp_path / name)
    (tmp_path / name).write_text(head + "\n".join(separator.join(map(str, p)) for p in XYZ))
    check(tmp_path / name, color=False)


def test_bad_text(tmp_path):
    cases = {"": "empty", "\n\n": "empty", "x y z\n": "empty", "1 2\n3 4\n": "corrupt", "1 2 3\n4 5\n": "corrupt",
             "a b c\nd e f\n": "corrupt", "1 2 3\n4 five 6\n": "corrupt", "1 2 nan\n": "non_finite",
             "1 2 3 4 5\n": "unsupported", "1 2 3 4 5 inf\n": "non_finite"}  # fmt: skip
    for text, reason in cases.items():
        (tmp_path / "a.xyz").write_text(text)
        assert error_of(tmp_path / "a.xyz") == reason, text
    (tmp_path / "a.xyz").write_bytes(b"1 2 3\n\0\0")
    assert error_of(tmp_path / "a.xyz") == "unsupported"


def test_bad_arrays(tmp_path):
    path = tmp_path / "a.npy"
    for array, reason in (
        (np.zeros((0, 3)), "empty"), (np.zeros(3), "corrupt"), (np.zeros((2, 3, 3)), "corrupt"),
        (np.zeros((5, 2)), "corrupt"), (np.full((5, 3), np.inf), "non_finite"),
        (np.zeros((5, 9)), "unsupported"), (np.zeros((5, 3), "S4"), "unsupported"),
    ):  # fmt: skip
        np.save(path, array)
        assert error_of(path) == reason, array.shape
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert error_of(path) == "unsupported"
    np.save(path, XYZ)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert error_of(path) == "truncated"
    path.write_bytes(whole.replace(b"(5, 3)", b"(9999999999, 3)"[:6].ljust(6)))
    assert error_of(path) == "corrupt"
    path.write_bytes(b"PK\3\4")
    assert error_of(path) == "corrupt"


def test_archives_that_unpack_to_too_much_are_refused_unread(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        stream = io.BytesIO()
        np.save(stream, np.zeros((1_000_000, 3), np.float32))
        archive.writestr("xyz.npy", stream.getvalue())
    assert path.stat().st_size < 100_000
    assert error_of(path, max_bytes=10_000_000) == "too_large"
    assert error_of(path, max_points=999_999) == "too_many_points"
    assert len(read_points(path)[0]) == 1_000_000

    path.write_bytes(path.read_bytes()[:200])
    assert error_of(path) == "corrupt"
    np.savez(path, other=XYZ)
    assert error_of(path) == "empty"
    np.savez(path, xyz=XYZ, rgb=RGB[:3])
    assert error_of(path) == "corrupt"


def test_missing_and_unknown(tmp_path):
    assert error_of(tmp_path / "gone.npy") == "missing"
    (tmp_path / "a.las").write_bytes(b"LASF")
    assert error_of(tmp_path / "a.las") == "unsupported"
