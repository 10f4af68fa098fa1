"""Debian packages made by the tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def ar_member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def write_package(path: Path, files: dict[str, bytes], compression: str = "xz") -> Path:
    """A `.deb` with the given files; keys are the members' names as they stand in the archive."""
    data, control = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(fileobj=control, mode="w:gz") as archive:
        text = b"Package: made\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@example.org>\nDescription: made\n"
        info = tarfile.TarInfo("./control")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    members = ar_member("debian-binary", b"2.0\n") + ar_member("control.tar.gz", control.getvalue())
    path.write_bytes(b"!<arch>\n" + members + ar_member(f"data.tar.{compression}", data.getvalue()))
    return path
