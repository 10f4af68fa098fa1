"""Text files as programs on all systems write them."""

from __future__ import annotations

import codecs

import pytest

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.geometry.text import plain_text

LINES = "v 1 2 3\nv 4 5 6\n"


@pytest.mark.parametrize(
    "data",
    [
        LINES.encode(),
        codecs.BOM_UTF8 + LINES.encode(),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r").encode(),
        LINES.encode("utf-16"),
        codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"),
        LINES.encode("utf-16-le"),
        LINES.encode("utf-16-be"),
        LINES.encode("utf-32"),
        LINES.replace("\n", "\r\n").encode("utf-16"),
        LINES.encode() + b"\0",
        LINES.encode() + b"\x1a" + b"\0" * 5000,
    ],
)
def test_one_form(data: bytes) -> None:
    assert plain_text(data) == LINES.encode()


def test_letters_outside_ascii_stay() -> None:
    for encoding in ("utf-8", "latin-1"):
        text = "usemtl Grün\n".encode(encoding)
        assert plain_text(text) == text
    assert plain_text("usemtl Grün\n".encode("utf-16")) == "usemtl Grün\n".encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"v 1 2\0 3\n", "unsupported"), (bytes(range(256)) * 9, "unsupported"), (b"\xff\xfev\0\0\xd8", "corrupt")],
)
def test_what_is_no_text(data: bytes, reason: str) -> None:
    with pytest.raises(MeshError) as caught:
        plain_text(data)
    assert caught.value.reason == reason
