"""What a home's file holds: `Home.xml`, models and images, within limits and never outside of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .home import HomeError

HOME_ENTRY = "Home.xml"
# Of the homes that people share, the largest unpack to some 300 MB.
MAX_UNPACKED_BYTES = 1 << 30
MAX_MEMBERS = 100_000
# Models and images of the program's own catalog, which its example homes name instead of carrying them.
CATALOG_FOLDER = "com/eteks/sweethome3d/io/resources/"


class Contents:
    """Members of a home's file by name, and those of the program's catalog where there is one.

    Args:
        home: the open `.sh3d`, or None for a home that carries nothing itself.
        catalog: the open `sweethome3d.jar`, or None.
        max_bytes: what may be unpacked in all.
    """

    def __init__(
        self, home: zipfile.ZipFile | None, catalog: zipfile.ZipFile | None = None, max_bytes: int = MAX_UNPACKED_BYTES
    ) -> None:
        self._home, self._catalog = home, catalog
        self._left = self._max_bytes = max_bytes
        self._members: dict[int, dict[str, zipfile.ZipInfo]] = {}
        for archive in (home, catalog):
            if archive is not None:
                if len(archive.infolist()) > MAX_MEMBERS:
                    raise HomeError(f"it has {len(archive.infolist()):,} members; at most {MAX_MEMBERS:,}")
                self._members[id(archive)] = {info.filename: info for info in archive.infolist() if not info.is_dir()}

    def _find(self, name: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo] | None:
        name = name.lstrip("/")
        for archive in (self._home, self._catalog if name.startswith(CATALOG_FOLDER) else None):
            if archive is not None and name in self._members[id(archive)]:
                return archive, self._members[id(archive)][name]
        return None

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            HomeError: it is not there, damaged, encrypted or too large.
        """
        found = self._find(name)
        if found is None:
            raise HomeError(f"it lacks the content {name[:80]!r}")
        archive, info = found
        if info.file_size > self._left:
            raise HomeError(f"its contents unpack to more than {self._max_bytes >> 20} MiB")
        try:
            with archive.open(info) as member:
                data = member.read(info.file_size + 1)  # no further than announced
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise HomeError(f"its content {name[:80]!r} cannot be read ({error})") from None
        except Exception as error:  # zlib.error and its kin have no common base
            raise HomeError(f"its content {name[:80]!r} is damaged ({error})") from None
        self._left -= len(data)
        return data

    def beside(self, name: str) -> list[str]:
        """Names of the other members in a content's own folder: its materials and textures.

        Contents that lie in no folder, or directly in the catalog's, stand alone.
        """
        found = self._find(name)
        folder = name.lstrip("/").rpartition("/")[0] + "/"
        if found is None or folder in ("/", CATALOG_FOLDER):
            return []
        own = found[1].filename
        return [other for other in self._members[id(found[0])] if other.startswith(folder) and other != own]


@contextmanager
def open_home(path: Path) -> Iterator[zipfile.ZipFile]:
    """A home's file (`.sh3d`).

    Raises:
        HomeError: it is no zip file, or an old one without `Home.xml`.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, OSError) as error:
        raise HomeError(f"it is no home of Sweet Home 3D ({error})") from None
    with archive:
        names = set(archive.namelist())
        if HOME_ENTRY not in names and "Home" in names:
            raise HomeError("it was saved by a version before 5.3; open it in a newer one and save it again")
        if HOME_ENTRY not in names:
            raise HomeError(f"it is no home of Sweet Home 3D: it lacks {HOME_ENTRY}")
        yield archive
