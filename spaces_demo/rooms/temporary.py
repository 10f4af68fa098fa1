"""The server's temporary files: a folder of its own, gone when the process ends, however it ends."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

VARIABLE = "GRADIO_TEMP_DIR"
# Each person's own: another one's files could not be deleted.
_PREFIX = f"ulip2-demo-{os.getuid() if hasattr(os, 'getuid') else 'all'}-"
_LOCK = ".lock"


def own_folder() -> Path:
    """Makes this process's folder and tells Gradio of it; folders that a killed server left are deleted.

    It lies in `GRADIO_TEMP_DIR`, or where the system keeps temporary files. At the end of the process it is deleted,
    after SIGTERM and Ctrl-C, too; after SIGKILL the next server does it, which knows by the lock that nobody needs it.
    """
    base = Path(os.environ.get(VARIABLE) or tempfile.gettempdir()).expanduser().resolve()
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / f".{_PREFIX}start.lock"):  # or another server could delete the folder before it is locked
        _delete_stale(base)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = FileLock(folder / _LOCK)
        lock.acquire()
    os.environ[VARIABLE] = str(folder)
    owner = os.getpid()

    def delete() -> None:
        if os.getpid() == owner:  # a fork is not the server
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(delete)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    return folder


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM as an ordinary end, so that what was registered for the end runs."""
    raise SystemExit(128 + number)


def _delete_stale(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        if folder.is_symlink() or not (folder / _LOCK).is_file():
            continue
        with contextlib.suppress(Timeout, OSError), FileLock(folder / _LOCK).acquire(timeout=0):  # Timeout: in use
            shutil.rmtree(folder, ignore_errors=True)
            logger.info("deleted %s, which a server left behind", folder)
