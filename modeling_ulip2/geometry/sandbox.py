"""Files that a mesh file names: read only from its own folder, and only up to a number of bytes."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from .errors import MeshError

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*:")  # http:, file:, data:, and C: of Windows


class Sandbox:
    """Reads what a mesh file refers to.

    A reference must be relative, without `..`, and must end, symbolic links followed, below `folder`. The Hugging Face
    cache is made of links from `snapshots` to the `blobs` beside it: those are followed, too. All reads together may
    not exceed `max_bytes`.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder.resolve()
        self.bytes_left = max_bytes
        self._roots = [self.folder]
        self._roots += [p.parent / "blobs" for p in self.folder.parents if p.name == "snapshots"]

    def find(self, reference: str) -> Path:
        """The file that `reference` names.

        Raises:
            MeshError: "external_uri" if it points outside the folder, "missing" if there is no such file.
        """
        plain = reference.strip().strip('"').replace("\\", "/")
        if not plain or "\0" in plain:
            raise MeshError("missing", f"refers to a file by an empty or invalid name ({reference[:80]!r})")
        parts = PurePosixPath(plain).parts
        if _SCHEME.match(plain) or plain.startswith("/") or ".." in parts:
            raise MeshError(
                "external_uri",
                f"refers to {reference[:120]!r}; only files in the mesh's own folder are read, by a relative path",
            )
        path = self._existing(parts)
        if path is None:
            raise MeshError("missing", f"refers to {reference[:120]!r}, which is not in its folder")
        if not any(path.is_relative_to(root) for root in self._roots):
            raise MeshError("external_uri", f"refers to {reference[:120]!r}, a link to a file outside its folder")
        return path

    def _existing(self, parts: tuple[str, ...]) -> Path | None:
        try:
            exact = self.folder.joinpath(*parts).resolve()
            if exact.is_file():
                return exact
            # Files made on Windows often differ in case from the names they use.
            path = self.folder
            for part in parts:
                matches = [entry for entry in path.iterdir() if entry.name.lower() == part.lower()]
                if not matches:
                    return None
                path = matches[0]
            path = path.resolve()
            return path if path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # a name too long, not a folder, a loop of links
            return None

    def read(self, reference: str) -> bytes:
        """The content of the file that `reference` names."""
        path = self.find(reference)
        size = path.stat().st_size
        self.spend(size, reference)
        return path.read_bytes()

    def read_uri(self, uri: str) -> bytes:
        """The content of a glTF URI: embedded base64 data, or a percent-encoded relative path."""
        if not uri.startswith("data:"):
            return self.read(unquote(uri))
        head, comma, payload = uri.partition(",")
        if not comma or not head.endswith(";base64"):
            raise MeshError("unsupported", "holds a data URI that is not base64")
        self.spend(len(payload) * 3 // 4, "a data URI")
        try:
            return base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            raise MeshError("corrupt", "holds a data URI with invalid base64") from None

    def spend(self, size: int, what: str) -> None:
        """Count `size` bytes against the limit."""
        if size > self.bytes_left:
            raise MeshError("too_large", f"{what} would exceed the limit of max_bytes ({size} bytes more)")
        self.bytes_left -= size
