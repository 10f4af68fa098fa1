"""Files that a mesh file names: read only below a root folder, and only up to a number of bytes."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from urllib.parse import unquote

from .errors import MeshError
from .foreign import foreign_content

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:")  # http:, file:, data:
_DRIVE = re.compile(r"^[A-Za-z]:")  # Windows


def path_within(folder: Path, name: str) -> Path:
    """The path called `name` below a folder, whether or not there is such a file; either slash parts it.

    Symbolic links are followed as `Sandbox` does.

    Raises:
        MeshError: "external_uri" if it leads out of the folder.
    """
    path = folder / name.replace("\\", "/")
    if "\0" in name or not Sandbox(folder, 0).allows(path.resolve()):
        raise MeshError("external_uri", f"{name[:120]!r} leads out of the folder {folder.name!r}")
    return path


class Sandbox:
    """Reads what a mesh file refers to.

    A reference is followed from `folder`, may climb by `..`, and must end, symbolic links followed, below `root`. The
    Hugging Face cache is made of links from `snapshots` to the `blobs` beside it: those are followed, too. An
    absolute path, which named a file on its author's machine, or one into a folder that is not there, gives the file
    of that name beside the mesh, if there is one; `warnings` says so. All reads together may not exceed `max_bytes`.

    Raises:
        MeshError: "external_uri" if `folder` is not below `root`.
    """

    def __init__(self, folder: Path, max_bytes: int, root: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.root = self.folder if root is None else Path(root).resolve()
        self.bytes_left = max_bytes
        self.warnings: list[str] = []
        if not self.folder.is_relative_to(self.root):
            raise MeshError("external_uri", f"it lies outside the folder {self.root.name!r}, which is the root")
        self._roots = [self.root]
        self._roots += [p.parent / "blobs" for p in (self.root, *self.root.parents) if p.name == "snapshots"]

    def find(self, reference: str) -> Path:
        """The file that `reference` names.

        Raises:
            MeshError: "external_uri" if it points outside the root, "missing" if there is no such file.
        """
        plain = reference.strip().strip('"').replace("\\", "/")
        if not plain or "\0" in plain:
            raise MeshError("missing", f"refers to a file by an empty or invalid name ({reference[:80]!r})")
        local = plain
        if plain.lower().startswith("file:"):
            local = unquote(plain[5:])
        elif _SCHEME.match(plain):
            raise MeshError("external_uri", f"refers to {reference[:120]!r}; only files are read, none from a network")
        absolute = local.startswith("/") or _DRIVE.match(local) is not None
        parts = None if absolute else self._inside(local)
        path = None if parts is None else self._existing(parts)
        if path is not None and self.allows(path):
            return path
        name = _DRIVE.sub("", local).rpartition("/")[2]
        if path is None and (absolute or parts) and name not in ("", ".", ".."):
            other = self._existing((*self.folder.relative_to(self.root).parts, name))
            if other is not None and self.allows(other):
                self.warnings.append(f"it refers to {reference[:120]!r}; {other.name!r} beside it is used instead")
                return other
        if path is not None:
            raise MeshError("external_uri", f"refers to {reference[:120]!r}, a link to a file outside its folder")
        if parts is None:
            raise MeshError(
                "external_uri",
                f"refers to {reference[:120]!r}, outside {self.root.name!r}; only files below the root are read, "
                "so name a higher folder as the root or put the file beside the mesh",
            )
        raise MeshError("missing", f"refers to {reference[:120]!r}, which is not in its folder")

    def allows(self, path: Path) -> bool:
        """Whether a path without links lies where files may be read."""
        return any(path.is_relative_to(root) for root in self._roots)

    def _inside(self, plain: str) -> tuple[str, ...] | None:
        """A relative reference as names below the root; None if it climbs out."""
        parts = list(self.folder.relative_to(self.root).parts)
        for part in plain.split("/"):
            if part == "..":
                if not parts:
                    return None
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return tuple(parts)

    def _existing(self, parts: tuple[str, ...]) -> Path | None:
        """The file of these names below the root, links followed."""
        try:
            exact = self.root.joinpath(*parts).resolve()
            if exact.is_file():
                return exact
            # Files made on Windows often differ in case from the names they use.
            path = self.root
            for part in parts:
                if not self.allows(path.resolve()):
                    return None
                if not (path / part).exists():
                    matches = [entry.name for entry in path.iterdir() if entry.name.lower() == part.lower()]
                    if not matches:
                        return None
                    part = min(matches)
                path /= part
            path = path.resolve()
            return path if path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # a name too long, not a folder, a loop of links
            return None

    def read(self, reference: str) -> bytes:
        """The content of the file that `reference` names.

        Raises:
            MeshError: as `find`; "too_large"; "not_downloaded" for a Git LFS pointer, an error page and the like.
        """
        path = self.find(reference)
        self.spend(path.stat().st_size, reference)
        data = path.read_bytes()
        foreign = foreign_content(data)
        if foreign is not None:
            raise MeshError("not_downloaded", f"refers to {reference[:120]!r}, which is {foreign}")
        return data

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
