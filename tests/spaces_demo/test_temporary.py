"""However a server ends, nothing of a visitor stays on its disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SPACE = Path(__file__).resolve().parents[2] / "spaces_demo"
SERVER = f"""
import signal, sys, time, pathlib
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children
sys.path.insert(0, {str(SPACE)!r})
from rooms.temporary import own_folder
folder = own_folder()
(folder / "upload").mkdir()
(folder / "upload" / "private.glb").write_bytes(b"private")
print(folder, flush=True)
if sys.argv[1:]:
    sys.exit()
time.sleep(60)
"""


def serve(base: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        env=os.environ | {"GRADIO_TEMP_DIR": str(base)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, None])
def test_the_folder_goes_with_the_process(ending: signal.Signals | None, tmp_path: Path):
    process, folder = serve(tmp_path, *([] if ending else ["end"]))
    assert folder.parent == tmp_path.resolve() and folder != tmp_path
    if ending is not None:
        assert (folder / "upload" / "private.glb").is_file()
        process.send_signal(ending)
    process.wait(30)
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_a_killed_server_left_goes_at_the_next_start(tmp_path: Path):
    (tmp_path / "of another program").mkdir()
    killed, left = serve(tmp_path)
    alive, used = serve(tmp_path)
    try:
        killed.kill()
        killed.wait(30)
        assert (left / "upload" / "private.glb").is_file()
        serve(tmp_path, "end")[0].wait(30)
        assert not left.exists()
        assert (used / "upload" / "private.glb").is_file() and (tmp_path / "of another program").is_dir()
    finally:
        alive.terminate()
        alive.wait(30)
