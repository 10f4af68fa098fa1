import csv
import hashlib
import io
import zipfile
from dataclasses import replace

import javaproperties
import pytest
import sweet_home_3d
from sweet_home_3d import LIBRARIES, main, read_catalog

from modeling_ulip2.building.sources import debian
from modeling_ulip2.data.objects import list_objects

from .packages import write_package

OBJ = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
CATALOG = r"""# made
id=made
name=Made catalog
license=Creative Commons © nobody

id#1=Made#toaster
name#1=Toaster  10\u20ac
tags#1=Blend Swap, Kitchen tool, \
    Bread
category#1=Kitchen
icon#1=/%(folder)s/toaster.png
model#1=/%(folder)s/toaster/toaster.obj
modelRotation#1=1 0 0 0 0 1 0 -1 0
creator#1=Nobody
""".encode("latin-1")


def make_library(folder: str, extra: dict[str, bytes] | None = None, catalog: bytes = CATALOG) -> bytes:
    files = {
        "PluginFurnitureCatalog.properties": catalog.replace(b"%(folder)s", folder.encode()),
        "PluginFurnitureCatalog_fr.properties": b"name#1=Grille-pain",
        "LICENSE.TXT": b"do as you like",
        f"{folder}/toaster.png": b"icon",
        f"{folder}/toaster/toaster.obj": OBJ,
        f"{folder}/toaster/textures/steel.png": b"texture",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (files | (extra or {})).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_package(path, **libraries: bytes):
    made = {name: make_library(name.lower()) for name in LIBRARIES} | libraries
    files = {f"./usr/share/sweethome3d/furniture/{name}.sh3f": data for name, data in made.items()}
    return write_package(path, {"./usr/share/doc/copyright": b"CC"} | files)


@pytest.fixture
def package(tmp_path, monkeypatch):
    path = make_package(tmp_path / "made.deb")
    monkeypatch.setattr(sweet_home_3d, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def run(package, output, *more: str) -> None:
    main(["--output", str(output), "--package", str(package), *more])


def test_objects_come_with_name_tags_category_creator_and_license(package, tmp_path):
    run(package, tmp_path / "out")
    with open(tmp_path / "out" / "objects.csv", encoding="utf-8", newline="") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    assert len(rows) == 5
    assert rows["sh3d_scopia_ccby"] == {
        "path": "Scopia/scopia/toaster/toaster.obj",
        "id": "Scopia/scopia/toaster/toaster.obj",
        "name": "Toaster 10€",
        "tags": "Kitchen tool, Bread",
        "category": "Kitchen",
        "group": "Kitchen",
        "creator": "Nobody",
        "license": "cc-by-3.0",
        "source": "sh3d_scopia_ccby",
        "rotation": "1 0 0 0 0 1 0 -1 0",
    }
    assert {row["license"] for row in rows.values()} == {"cc-by-3.0", "cc0-1.0"}
    assert rows["sh3d_blendswap_cc0"]["license"] == "cc0-1.0"
    assert len(list_objects(tmp_path / "out")) == 5


def test_models_and_textures_are_unpacked_icons_and_translations_are_not(package, tmp_path):
    run(package, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "Scopia").rglob("*.*")}
    assert found == {
        "Scopia/LICENSE.TXT",
        "Scopia/scopia/toaster/toaster.obj",
        "Scopia/scopia/toaster/textures/steel.png",
    }
    assert (tmp_path / "out" / "Scopia/scopia/toaster/toaster.obj").read_bytes() == OBJ


def test_a_second_run_completes_what_is_missing_and_touches_nothing_else(package, tmp_path):
    run(package, tmp_path / "out")
    kept = tmp_path / "out" / "KatorLegaz/katorlegaz/toaster/toaster.obj"
    lost, cut = (tmp_path / "out" / f"Scopia/scopia/toaster/{name}" for name in ("toaster.obj", "textures/steel.png"))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    cut.write_bytes(b"tex")
    run(package, tmp_path / "out")
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == OBJ and cut.read_bytes() == b"texture"


def test_another_package_is_refused_unless_asked_for(package, tmp_path, monkeypatch):
    other = make_package(tmp_path / "other.deb", Scopia=make_library("scopia", {"scopia/toaster/new.png": b""}))
    with pytest.raises(SystemExit, match=r"other.deb is not sweethome3d-furniture .*--any-version"):
        run(other, tmp_path / "out")
    assert not (tmp_path / "out" / "objects.csv").exists()
    run(other, tmp_path / "out", "--any-version")
    assert (tmp_path / "out" / "Scopia/scopia/toaster/new.png").exists()


def test_another_build_of_the_same_furniture_is_accepted(package, tmp_path, monkeypatch):
    rebuilt = write_package(tmp_path / "rebuilt.deb", {"./changed": b""}, "gz")
    assert rebuilt.read_bytes() != package.read_bytes()
    made = {name: make_library(name.lower()) for name in LIBRARIES}
    files = {f"./usr/share/sweethome3d/furniture/{name}.sh3f": data for name, data in made.items()}
    write_package(rebuilt, files, "gz")
    checked = {k: replace(v, sha256=hashlib.sha256(made[k]).hexdigest()) for k, v in LIBRARIES.items()}
    monkeypatch.setattr(sweet_home_3d, "LIBRARIES", checked)
    run(rebuilt, tmp_path / "out")
    assert len(list_objects(tmp_path / "out")) == 5


def test_a_package_is_fetched_once_and_kept(package, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetched = []

    def download(name, folder):
        fetched.append(name)
        folder.mkdir(parents=True)
        return package.rename(folder / "sweethome3d-furniture_1.8-1_all.deb")

    monkeypatch.setattr(debian, "download_package", download)
    for _ in range(2):
        main(["--output", str(tmp_path / "out")])
    assert fetched == ["sweethome3d-furniture"]


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (make_library("scopia", {"../../evil.txt": b"boo"}), "refused the archive member"),
        (
            make_library("scopia", catalog=CATALOG.replace(b"toaster.obj", b"absent.obj")),
            "absent.obj, which",
        ),
        (b"no zip file", "zip"),
    ],
)
def test_libraries_that_cannot_be_trusted(tmp_path, library, message):
    package = make_package(tmp_path / "bad.deb", Scopia=library)
    with pytest.raises(SystemExit, match=message):
        run(package, tmp_path / "out", "--any-version")
    assert not (tmp_path / "evil.txt").exists() and not (tmp_path / "out" / "objects.csv").exists()


def test_a_package_without_a_library_is_refused(tmp_path):
    files = {"./usr/share/sweethome3d/furniture/Scopia.sh3f": make_library("scopia")}
    with pytest.raises(SystemExit, match="lacks the libraries BlendSwap-CC-0"):
        run(write_package(tmp_path / "a.deb", files), tmp_path / "out", "--any-version")


def test_a_missing_package_and_an_unwritable_output_are_sentences(package, tmp_path):
    with pytest.raises(SystemExit, match="there is no file"):
        run(tmp_path / "absent.deb", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file"):
        run(package, tmp_path / "file")


def test_a_model_path_cannot_leave_the_folder():
    properties = javaproperties.loads(CATALOG.replace(b"/%(folder)s/toaster/", b"../../"))
    with pytest.raises(sweet_home_3d.PackageError, match="refused"):
        read_catalog("Scopia", properties)


@pytest.mark.slow
def test_the_real_package_has_820_objects(tmp_path):
    """Fetches 120 MB with apt-get on the first run."""
    try:
        main(["--output", str(tmp_path)])
    except SystemExit as error:
        if "apt-get" in str(error):
            pytest.skip(f"the package cannot be fetched here: {error}")
        raise
    objects = list_objects(tmp_path)
    assert len(objects) == 820 and all((tmp_path / row["path"]).is_file() for row in objects)
    assert sum(row["license"] == "cc0-1.0" for row in objects) == 175
    assert sum(row["rotation"] != "" for row in objects) == 33
    assert all(row["name"] and row["creator"] and row["category"] for row in objects)
