"""Paths of a machine in texts that others will read: they tell how its folders and its people are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_ROOT = r"(?:file:/*)?(?:[A-Za-z]:[\\/]+|\\\\|~?/)"
# In quotes a path may hold blanks, elsewhere it ends at one. What follows a letter, a colon or a dot is not absolute.
_QUOTED = re.compile(rf"(?P<quote>['\"`]){_ROOT}(?:[^'\"`\n]*[\\/])?(?P<name>[^'\"`\\/\n]+)[\\/]?(?P=quote)")
_BARE = re.compile(rf"(?<![\w.:/\\~…-]){_ROOT}(?:[^\s'\"`<>|:,;()\\/]+[\\/]+)+(?P<name>[^\s'\"`<>|:,;()\\/]*)")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\\w")


def without_paths(text: str) -> str:
    """The text with `…/name` in the place of each absolute path; addresses and relative paths stay.

    >>> without_paths("[Errno 2] No such file: '/home/ada/my meshes/chair.obj'")
    "[Errno 2] No such file: '…/chair.obj'"
    """
    text = _QUOTED.sub(lambda found: f"{found['quote']}…/{found['name']}{found['quote']}", text)
    return _BARE.sub(lambda found: f"…/{found['name']}", text)


def paths_in(text: str) -> Iterator[str]:
    """The absolute paths that a text tells."""
    for pattern in (_QUOTED, _BARE):
        for found in pattern.finditer(text):
            yield found[0].strip("'\"`").rstrip(".")  # the end of a sentence


def is_machine_path(text: str) -> bool:
    """Is the whole text an absolute path: one of this machine, whether it is still there or not, or of Windows?"""
    if "\n" in text:
        return False
    if not os.path.isabs(text):
        return _WINDOWS.match(text) is not None
    top = next((part for part in text.split(os.sep) if part), "")
    return bool(top) and os.path.exists(os.path.join(os.path.splitdrive(text)[0] + os.sep, top))
