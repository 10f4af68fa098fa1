import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_points
from modeling_ulip2.geometry.points import read_cloud

CASES = Path(__file__).parent / "cases"
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
             "1 2 3 4 5\n": "unsupported"}  # fmt: skip
    for text, reason in cases.items():
        (tmp_path / "a.xyz").write_text(text)
        assert error_of(tmp_path / "a.xyz") == reason, text
    (tmp_path / "a.xyz").write_bytes(b"1 2 3\n\0\0 4")
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
    assert error_of(path) == "empty"
    np.save(path, np.array([{"xyz": XYZ}, {"xyz": XYZ}], dtype=object), allow_pickle=True)
    assert error_of(path) == "unsupported"
    np.save(path, np.array({"xyz": [[1, 2], [3]]}, dtype=object), allow_pickle=True)
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
    (tmp_path / "a.e57").write_bytes(b"ASTM-E57")
    assert error_of(tmp_path / "a.e57") == "unsupported"


def test_dictionaries_records_and_columns(tmp_path):
    for content in (
        {"xyz": XYZ, "rgb": RGB, "text": ["a chair"], "image_feat": np.ones((2, 4), np.float32)},
        {"xyz": XYZ.astype(np.float16), "rgb": (RGB / 255).astype(np.float32)},
        {"Points": XYZ.tolist(), "colors": RGB.tolist()},
        [{"xyz": np.column_stack([XYZ, RGB])}],
    ):
        np.save(tmp_path / "a.npy", np.array(content, dtype=object), allow_pickle=True)
        check(tmp_path / "a.npy")
    types = [("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("x", "f8"), ("y", "f8"), ("label", "i4")]
    records = np.zeros(5, dtype=types)
    for name, column in zip(("x", "y", "z", "red", "green", "blue"), [*XYZ.T, *RGB.T], strict=True):
        records[name] = column
    np.save(tmp_path / "a.npy", records)
    check(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", **dict(zip(("red", "x", "green", "y", "blue", "z"),
                                            [RGB[:, 0], XYZ[:, 0], RGB[:, 1], XYZ[:, 1], RGB[:, 2], XYZ[:, 2]],
                                            strict=True)))  # fmt: skip
    check(tmp_path / "a.npz")


def test_what_is_pickled_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    np.save(tmp_path / "a.npy", np.array({"xyz": Evil()}, dtype=object), allow_pickle=True)
    assert error_of(tmp_path / "a.npy") == "unsupported"
    assert not (tmp_path / "ran").exists()


def test_arrays_of_an_archive_share_one_limit(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", xyz=np.zeros((1000, 3)), rgb=np.zeros((1000, 3)))
    assert len(read_points(tmp_path / "a.npz", max_bytes=50_000)[0]) == 1000
    assert error_of(tmp_path / "a.npz", max_bytes=47_000) == "too_large"


def test_bad_points_are_counted(tmp_path):
    points = np.random.default_rng(0).normal(size=(9, 3))
    points[[2, 5], [0, 2]] = np.nan, np.inf
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(MeshError, match="2 of its 9 points .* leave them out of the file .the first is point 3"):
        read_points(tmp_path / "a.npy")


def test_digits_that_the_file_has_lost_already(tmp_path):
    far = np.random.default_rng(0).random((50, 3)) + [6.9e5, 5.3e6, 500]
    np.save(tmp_path / "a.npy", far)
    assert read_cloud(tmp_path / "a.npy").warnings == []
    np.save(tmp_path / "a.npy", far.astype(np.float32))
    (warning,) = read_cloud(tmp_path / "a.npy").warnings
    assert "float32" in warning and "steps of 0.5" in warning
    with pytest.warns(UserWarning, match="store them as float64"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["c07_utm.npy", "c07_utm.xyz"])
def test_far_from_the_origin(name):
    local, utm = read_points(CASES / "c07_local.xyz")[0], read_points(CASES / name)[0]
    np.testing.assert_allclose(utm - utm.mean(axis=0), local - local.mean(axis=0), atol=1e-3)


def test_cases():
    normals = read_cloud(CASES / "c06_sphere_normals.txt")
    assert normals.xyz.shape == (500, 3) and normals.rgb is None
    assert len(normals.warnings) == 1 and "normals" in normals.warnings[0]
    for name in ("c06_sphere_red.pts", "c06_header_order.csv"):
        red = read_cloud(CASES / name)
        assert len(red.xyz) == 500 and (red.rgb == [255, 0, 0]).all() and red.warnings == []
        np.testing.assert_allclose(np.linalg.norm(red.xyz, axis=1), 1, atol=1e-5)
        assert np.ptp(red.xyz, axis=0) == pytest.approx(np.full(3, 2), abs=0.05)
    openshape = read_cloud(CASES / "c21_openshape_dict.npy")
    assert openshape.xyz.shape == openshape.rgb.shape == (1000, 3) and openshape.rgb.std() > 10
