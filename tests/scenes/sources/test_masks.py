import zipfile

import numpy as np
import pytest

from modeling_ulip2.scenes.sources import masks as masks_module
from modeling_ulip2.scenes.sources.layouts import LayoutError
from modeling_ulip2.scenes.sources.masks import read_masks

N = 12
MASKS = np.zeros((3, N), dtype=bool)
MASKS[0, 2:5], MASKS[2, [0, 4, 11]] = True, True  # the second is empty


def check(found, ids=(0, 2), scores=(1, 1)):
    assert [points.tolist() for points in found.points] == [[2, 3, 4], [0, 4, 11]]
    assert all(points.dtype == np.int32 for points in found.points)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores)


def mask3d(folder, lines=None):
    (folder / "pred_mask").mkdir(exist_ok=True)
    for number, mask in enumerate(MASKS):
        (folder / "pred_mask" / f"s_{number:03d}.txt").write_text("\n".join(str(int(value)) for value in mask) + "\n")
    told = lines or [f"pred_mask/s_{n:03d}.txt {n + 30} {1 - n / 4}" for n in range(3)]
    (folder / "s.txt").write_text("\n".join(told) + "\n")
    return folder / "s.txt"


def test_lines_of_mask3d(tmp_path):
    check(read_masks(mask3d(tmp_path), N), ids=(30, 32), scores=(1, 0.5))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("at_once", [5, 1 << 20])
def test_arrays_of_masks_either_way_round(tmp_path, monkeypatch, dtype, order, turned, at_once):
    monkeypatch.setattr(masks_module, "_AT_ONCE", at_once)
    values = np.asarray(MASKS.T if turned else MASKS, dtype=dtype, order=order)
    np.savez_compressed(tmp_path / "a.npz", pred_masks=values, pred_scores=np.array([0.9, 0.1, 0.3]))
    check(read_masks(tmp_path / "a.npz", N), scores=(0.9, 0.3))
    np.savez(tmp_path / "b.npz", masks=values, labels=np.array([4, 5, 6]))
    check(read_masks(tmp_path / "b.npz", N), ids=(4, 6))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["../other.txt 1 0.5"], "outside its folder"),
        (["/etc/hostname 1 0.5"], "outside its folder"),
        (["pred_mask/absent.txt 1 0.5"], "does not exist"),
        (["pred_mask/s_000.txt 0.5"], "line 1"),
        (["pred_mask/s_000.txt 1 0.5", "pred_mask/s_000.txt one 0.5"], "line 2"),
        (["pred_mask/s_000.txt 1 nan"], "NaN"),
    ],
)
def test_lines_that_cannot_be(tmp_path, lines, message):
    with pytest.raises(LayoutError, match=message):
        read_masks(mask3d(tmp_path, lines), N)


def test_masks_of_another_scene(tmp_path):
    with pytest.raises(LayoutError, match="a mask of 12 points, the scene has 11"):
        read_masks(mask3d(tmp_path), 11)
    (tmp_path / "pred_mask" / "s_000.txt").write_text("1 0 x")
    with pytest.raises(LayoutError, match="else than numbers"):
        read_masks(tmp_path / "s.txt", N)
    (tmp_path / "pred_mask" / "s_000.txt").write_text("1 " * 9000)
    with pytest.raises(LayoutError, match="larger than a mask"):
        read_masks(tmp_path / "s.txt", N)
    np.savez(tmp_path / "a.npz", masks=MASKS)
    with pytest.raises(LayoutError, match=r"shape \(3, 12\)"):
        read_masks(tmp_path / "a.npz", 100)
    with pytest.raises(LayoutError, match="neither"):
        read_masks(tmp_path / "a.pt", N)


def test_archives_that_cannot_be(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, message in [
        ({"points": MASKS}, "holds none of"),
        ({"masks": MASKS.astype(np.float32)}, "not masks"),
        ({"masks": np.array([{}], dtype=object)}, "not masks|shape"),
        ({"masks": MASKS, "scores": np.ones(2)}, "each of 3 masks"),
        ({"masks": MASKS, "scores": np.ones(9000)}, "more than a number"),
        ({"masks": np.zeros((N, N), bool)}, "not clear which is which"),
        ({"masks": MASKS, "scores": np.array([np.nan, 1, 1])}, "NaN"),
    ]:
        np.savez(path, **arrays)
        with pytest.raises(LayoutError, match=message):
            read_masks(path, N)
    path.write_bytes(b"no archive")
    with pytest.raises(LayoutError, match="no readable archive"):
        read_masks(path, N)
    with zipfile.ZipFile(path, "w") as archive:
        head = b"\x93NUMPY\x01\x00v\x00{'descr': '|b1', 'fortran_order': False, 'shape': (1000000, 12), }"
        archive.writestr("masks.npy", head.ljust(127) + b"\n" + b"\x01" * 24)
    with pytest.raises(LayoutError, match="more|announces"):
        read_masks(path, N)
