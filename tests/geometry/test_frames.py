from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.geometry import Material, Mesh, MeshError
from modeling_ulip2.geometry.frames import FrameError, pack, pack_error, receive, unpack_error
from modeling_ulip2.geometry.shapes import Shape

KINDS = [Shape, Mesh, Material]
MESH = Mesh(
    vertices=np.eye(3),
    faces=np.array([[0, 1, 2]]),
    materials=[Material(name="Größe", texture=np.zeros((2, 2, 4), np.uint8))],
    warnings=["one"],
)


def frame(value: object) -> bytes:
    head, arrays = pack(value, KINDS)
    return head + b"".join(arrays)


def back(data: bytes, max_bytes: int = 10**6) -> object:
    place = 0

    def read(size: int) -> bytearray:
        nonlocal place
        if place + size > len(data):
            raise EOFError
        place += size
        return bytearray(data[place - size : place])

    return receive(read, max_bytes, KINDS)


def test_values_come_back():
    values = [
        None,
        True,
        1,
        -2.5,
        "ö",
        b"\0bytes",
        Path("a/b"),
        (1, ["x", None]),
        {"array": 1, "b": {}},
        [],
        float("inf"),
    ]
    assert back(frame(values)) == values
    for dtype in ("bool", "u1", "i2", "f2", "f4", "f8", "i8", ">f4"):
        for shape in ((), (0, 3), (2, 3)):
            array = np.ones(shape, dtype)
            found = back(frame(array))
            assert found.shape == shape and found.dtype == array.dtype.newbyteorder("=") and (found == array).all()
    found = back(frame(np.arange(12).reshape(3, 4).T[::2]))
    np.testing.assert_array_equal(found, np.arange(12).reshape(3, 4).T[::2])
    for mode in ("L", "RGB", "RGBA"):
        picture = Image.effect_noise((5, 3), 9).convert(mode)
        assert back(frame(picture)).tobytes() == picture.tobytes()
    shape = back(frame(Shape(np.eye(3), None, MESH, ["two"], "y")))
    assert isinstance(shape, Shape) and shape.mesh.materials[0].name == "Größe" and shape.warnings == ["two"]
    np.testing.assert_array_equal(shape.mesh.vertices, MESH.vertices)


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array(["x"]), np.array([None]), {3}, lambda: 0])
def test_other_values_do_not_travel(value: object):
    with pytest.raises(TypeError, match="travel"):
        pack(value)


def test_errors_come_back():
    class OwnError(ValueError):
        pass

    for error in (MeshError("empty", "no triangle", Path("a.obj")), KeyError("x"), OSError("no"), OwnError("own")):
        found = unpack_error(back(frame(pack_error(error, [OwnError]))), [OwnError])
        assert type(found) is type(error) and str(found) == str(error)
    assert type(unpack_error(pack_error(UnicodeDecodeError("utf-8", b"", 0, 1, "bad")))) is ValueError
    assert str(unpack_error(pack_error(StopIteration("x")))) == "StopIteration: x"


def test_fields_of_another_kind_are_refused():
    good = Shape(np.eye(3), None)
    for name, value in [("xyz", "text"), ("rgb", 5), ("warnings", ["x", 1]), ("up_axis", None), ("mesh", good)]:
        bad = Shape(np.eye(3), None)
        setattr(bad, name, value)
        with pytest.raises(FrameError, match=f"{name} of its Shape is a"):
            back(frame(bad))


def test_damaged_frames_are_refused_and_take_no_memory():
    """Any change of bytes gives a value, a refusal, or an end, and nothing else."""
    rng = random.Random(0)
    whole = frame({"result": Shape(np.eye(3), np.zeros((3, 3), np.uint8), MESH, ["warning"])})
    refused = 0
    for _ in range(4000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(min(len(data), 900))] = rng.randrange(256)
        try:
            back(bytes(data))
        except (FrameError, MeshError, EOFError):
            refused += 1
    assert refused > 2000
