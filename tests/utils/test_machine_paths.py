"""What others read tells no path of a machine, and keeps all the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeling_ulip2.utils.machine_paths import is_machine_path, paths_in, without_paths


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[Errno 2] No such file: '/home/ada/my meshes/a.obj'", "[Errno 2] No such file: '…/a.obj'"),
        ("refers to 'C:/Documents and Settings/bo/w.jpg', outside", "refers to '…/w.jpg', outside"),
        (r"refers to 'C:\\Users\\bo\\w.jpg'", "refers to '…/w.jpg'"),
        (r"see \\server\share\w.jpg now", "see …/w.jpg now"),
        ("cannot read /home/ada/a.obj (/opt/x/y.py, line 3)", "cannot read …/a.obj (…/y.py, line 3)"),
        ("~/meshes/a.obj and file:///home/ada/b.obj", "…/a.obj and …/b.obj"),
        ("'/home/ada/meshes/' is a folder", "'…/meshes' is a folder"),
    ],
)
def test_paths_are_taken_out(text: str, told: str) -> None:
    assert without_paths(text) == told
    assert list(paths_in(text)) and not list(paths_in(told))


@pytest.mark.parametrize(
    "text",
    [
        "BlendSwap-CC-0/chair/chair.obj refers to 'front.png'",
        "https://example.org/a/b.glb and/or 1/2, see ../textures/a.png and ./b/c.png",
        "at '/' or / it says 12:30, a ratio of 3/4/5",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert without_paths(text) == text and not list(paths_in(text))


def test_a_whole_path(tmp_path: Path) -> None:
    assert is_machine_path(str(tmp_path)) and is_machine_path(str(tmp_path / "gone" / "long ago"))
    assert is_machine_path("C:\\models\\tower") and is_machine_path("D:/tower")
    for text in ("owner/name", "./tower", "/m/0abc", "/", "", "a\n/tmp/x", "c: a label"):
        assert not is_machine_path(text), text
