"""Fetch a Debian package with apt and read files from it: no root, no installation, nothing outside one folder.

A `.deb` is an `ar` archive whose member `data.tar.*` holds the files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

AR_MAGIC = b"!<arch>\n"
AR_HEADER_SIZE = 60


class PackageError(RuntimeError):
    """A package could not be fetched, verified or read; the message says what to do."""


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/modeling-ulip2`, by default `~/.cache/modeling-ulip2`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modeling-ulip2"


def find_package(package: str, given: Path | None, size: str) -> Path:
    """The file given, else the cached one, else a fresh download.

    Args:
        package: its name.
        given: what `--package` says.
        size: told before a download, such as "120 MB".

    Raises:
        PackageError: the file given does not exist; see also `download_package`.
    """
    if given is not None:
        if not given.is_file():
            raise PackageError(f"there is no file {given} (--package)")
        return given
    if cached := sorted(cache_folder().glob(f"{package}_*.deb")):
        return cached[-1]
    print(f"Downloading {package} with apt-get ({size}).", flush=True)
    return download_package(package, cache_folder())


def add_package_arguments(parser: argparse.ArgumentParser, package: str, version: str) -> None:
    """The options `--package` and `--any-version` of a script that reads a package."""
    parser.add_argument("--package", type=Path, help="a downloaded .deb, instead of fetching one with apt-get")
    parser.add_argument("--any-version", action="store_true", help=f"accept another build than {package} {version}")


def download_package(package: str, folder: Path) -> Path:
    """Download the newest `package` that the machine's own archives offer into `folder`, with `apt-get download`.

    apt checks the file against the archive's signed index. Where the machine has no package lists (a container, a
    fresh installation), they are fetched into a private directory, which needs no root either.

    Raises:
        PackageError: there is no apt, or no archive that it can reach has the package.
    """
    if shutil.which("apt-get") is None:
        raise PackageError(
            f"this machine has no apt-get to fetch {package} with. Download the package by hand from "
            f"https://packages.debian.org/{package} and pass it with --package FILE."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="apt-", dir=folder) as private:
        found = _apt_download(package, Path(private), [])
        if not found:
            print(f"No package list names {package}: fetching the lists into a private directory.", flush=True)
            options = _private_lists(Path(private))
            update = _apt(["update"], options, Path(private))
            found = _apt_download(package, Path(private), options)
        if not found:
            raise PackageError(
                f"apt-get could not download {package}: the machine is offline or none of its archives has the "
                "package (on Ubuntu it is in 'universe'). Download it elsewhere, for instance from "
                f"https://packages.debian.org/{package}, and pass it with --package FILE. apt-get said:\n"
                + _last_lines(update)
            )
        target = folder / found.name
        found.replace(target)  # whole or not at all: the private directory is on the same file system
    return target


def _apt_download(package: str, folder: Path, options: list[str]) -> Path | None:
    result = _apt(["download", package], options, folder)
    packages = sorted(folder.glob(f"{package}_*.deb"))
    return packages[0] if result.returncode == 0 and packages else None


def _private_lists(folder: Path) -> list[str]:
    state, cache = folder / "state", folder / "cache"
    (state / "lists" / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    return [f"-oDir::State={state}", f"-oDir::State::Lists={state / 'lists'}", f"-oDir::Cache={cache}"]


def _apt(command: list[str], options: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    # As root, apt would hand the download to the user _apt, who may not write into `folder`.
    common = ["-qq", "-oAPT::Sandbox::User=root", "-oAcquire::Retries=2", "-oAcquire::http::Timeout=60"]
    return subprocess.run(
        ["apt-get", *common, *options, *command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _last_lines(result: subprocess.CompletedProcess[str], count: int = 5) -> str:
    return "\n".join(f"  {line}" for line in result.stdout.strip().splitlines()[-count:]) or "  nothing"


@contextmanager
def open_package(path: Path) -> Iterator[tarfile.TarFile]:
    """The files of a `.deb` as an open tar stream, to be read once from front to back.

    `dpkg-deb` opens it where there is one; elsewhere Python does, which reads xz, gz and bz2 but, before 3.14, no zst.

    Raises:
        PackageError: the file is no Debian package, or its compression needs `dpkg-deb`.
    """
    with path.open("rb") as file:
        if file.read(len(AR_MAGIC)) != AR_MAGIC:
            raise PackageError(f"{path} is not a Debian package (no ar archive)")
        name, size = _find_member(file, "data.tar")
        try:
            if shutil.which("dpkg-deb"):
                with _dpkg_stream(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                    yield archive
                return
            compression = name.removeprefix("data.tar").removeprefix(".")
            if compression == "zst" and sys.version_info < (3, 14):
                raise PackageError(f"{path} is compressed with zstd: only dpkg-deb, missing here, can read it")
            # typeshed asks of every file object for more than reading a stream takes
            member, mode = cast(Any, _Member(file, size)), cast(Any, f"r|{compression}")
            with tarfile.open(fileobj=member, mode=mode) as archive:
                yield archive
        except (tarfile.TarError, EOFError) as error:
            raise PackageError(f"{path} is damaged or cut short: {error}") from error


def _find_member(file: IO[bytes], prefix: str) -> tuple[str, int]:
    """Move `file` to the data of the first ar member whose name begins with `prefix`; its name and size."""
    while len(header := file.read(AR_HEADER_SIZE)) == AR_HEADER_SIZE:
        name, size_field = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if header[58:60] != b"`\n" or not size_field.isdigit():
            break
        size = int(size_field)
        if name.startswith(prefix):
            return name, size
        file.seek(size + size % 2, os.SEEK_CUR)
    raise PackageError(f"{file.name} is not a Debian package, or is cut short: it has no {prefix}")


class _Member:
    """The next `size` bytes of a file, as the stream that tarfile wants."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def read(self, count: int) -> bytes:
        data = self.file.read(min(count, self.left))
        self.left -= len(data)
        return data


@contextmanager
def _dpkg_stream(path: Path) -> Iterator[IO[bytes]]:
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        yield process.stdout
        # tarfile stops at the end-of-archive mark; dpkg-deb still has padding to write
        while process.stdout.read(1 << 20):
            pass
        error = process.stderr.read().decode("utf-8", "replace").strip()
        if process.wait() != 0:
            raise PackageError(f"dpkg-deb could not read {path}: {error}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def copy_member(archive: tarfile.TarFile, member: tarfile.TarInfo, copy: Path) -> None:
    """Writes a file of an open package to `copy`: a zip file among them cannot be read as a stream."""
    content = archive.extractfile(member)
    assert content is not None, "the member is no file"
    with copy.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def safe_member_path(name: str) -> PurePosixPath:
    """A path inside an archive, refused where it would lead out of the folder it is unpacked into.

    Raises:
        PackageError: the path is empty or absolute, or has a `..`, a backslash or a colon.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise PackageError(f"refused the archive member {name!r}: its path could lead out of the folder")
    return path
