import hashlib
import io
import zipfile

import numpy as np
import pytest
import sweet_home_3d_homes
from sweet_home_3d_homes import EXAMPLES, main

from modeling_ulip2.building.sources import debian
from modeling_ulip2.data.schema import error_features
from modeling_ulip2.data.shards import OutputError
from modeling_ulip2.scenes.dataset import read_scenes
from modeling_ulip2.scenes.sources.sweet_home.assemble import EXAMPLES_LICENSE
from modeling_ulip2.utils.parquet import read_parquet

from ..scenes.homes import BOX, CHAIR, DOOR, ROOM, home_xml, write_home
from .packages import write_package

QUICK = ["--density", "50", "--spacing", "3", "--voxel", "0.1"]
MODELS = "com/eteks/sweethome3d/io/resources/"
LICENSE = f"<property name='License' value='{EXAMPLES_LICENSE}'/>"


@pytest.fixture
def package(tmp_path, monkeypatch):
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as archive:
        chair = CHAIR.format("").replace("0/chair.obj", f"{MODELS}chair.obj")
        archive.writestr(f"{EXAMPLES}Studio.xml", home_xml(LICENSE + ROOM + chair, name="Studio.sh3d"))
        archive.writestr(f"{EXAMPLES}House.xml", home_xml(LICENSE + ROOM))
        archive.writestr(f"{MODELS}chair.obj", BOX)
        archive.writestr(f"{MODELS}sofa.obj", BOX)
    path = write_package(tmp_path / "made.deb", {"./" + sweet_home_3d_homes.JAR: jar.getvalue()})
    monkeypatch.setattr(sweet_home_3d_homes, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def run(package, output, *options):
    return main(["--package", str(package), "--output", str(output), *QUICK, *options])


def test_homes_become_two_configs(package, tmp_path):
    out = tmp_path / "out"
    assert run(package, out) == 0
    complete, walk = read_scenes(str(out), "complete"), read_scenes(str(out), "walk")
    assert complete.ids == walk.ids == ["House", "Studio"]
    studio = complete.named("Studio")
    assert studio.categories == ["wall"] * 4 + ["floor", "ceiling", "chair"] and studio.license == "cc-by-3.0"
    assert set(np.unique(studio.instance)) == set(range(7))
    seen = walk.named("Studio")
    assert 6 in seen.instance and 0 < len(seen.xyz) and seen.normals is not None
    card = (out / "README.md").read_text()
    assert "license: cc-by-3.0" in card and "sweethome3d" in card and "50 per square meter" in card


def test_a_second_run_completes_what_is_missing(package, tmp_path, capsys):
    out = tmp_path / "out"
    run(package, out, "--scans", "complete")
    files = sorted((out / "complete").glob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in files]
    kept = files[0].read_bytes()
    files[0].unlink()
    assert run(package, out) == 0
    assert files[0].read_bytes() == kept and files[1].stat().st_mtime_ns == before[1]
    assert len(read_scenes(str(out), "walk")) == 2
    with pytest.raises(OutputError, match=r"other settings \(density\)"):
        run(package, out, "--density", "60")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(OutputError, match="choose an empty folder"):
        run(package, tmp_path / "full")


def test_own_homes_are_read_and_bad_ones_recorded(tmp_path, capsys):
    homes = tmp_path / "homes"
    (homes / "sub").mkdir(parents=True)
    write_home(homes / "sub" / "mine.sh3d", home_xml(ROOM + CHAIR.format("") + DOOR.format("")))
    (homes / "bad.sh3d").write_bytes(b"no zip")
    write_home(homes / "empty.sh3d", home_xml(""))
    out = tmp_path / "out"
    assert main(["--homes", str(homes), "--output", str(out), *QUICK]) == 3
    scenes = read_scenes(str(out), "complete")
    assert scenes.ids == ["sub/mine"] and scenes[0].categories[-2:] == ["chair", "door"] and scenes[0].license == ""
    errors = read_parquet(out / "errors.parquet", error_features())
    assert [row["id"] for row in errors] == ["bad", "empty"] and "shows nothing" in errors[1]["message"]
    assert "bad: it is no home" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no .sh3d file"):
        main(["--homes", str(out), "--output", str(tmp_path / "other")])


def test_a_home_without_free_floor_is_scanned_complete_and_said(tmp_path):
    homes = tmp_path / "homes"
    homes.mkdir()
    write_home(homes / "chair.sh3d", home_xml(CHAIR.format("")))
    out = tmp_path / "out"
    assert main(["--homes", str(homes), "--output", str(out), *QUICK]) == 2
    assert read_scenes(str(out), "complete").ids == ["chair"]
    assert [row["reason"] for row in read_parquet(out / "errors.parquet", error_features())] == ["no_walk_scan"]
    assert "1 could not be read" not in (out / "README.md").read_text()


def test_another_package_is_refused_unless_asked_for(package, tmp_path, monkeypatch):
    monkeypatch.setattr(sweet_home_3d_homes, "SHA256", "0" * 64)
    with pytest.raises(SystemExit, match=r"made.deb is not sweethome3d .*--any-version"):
        run(package, tmp_path / "out")
    assert run(package, tmp_path / "out", "--any-version") == 0
    with pytest.raises(SystemExit, match="lacks usr/share"):
        run(write_package(tmp_path / "b.deb", {"./usr/a": b""}), tmp_path / "other", "--any-version")


def test_the_package_is_fetched_once(package, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetched = []

    def download(name, folder):
        fetched.append(name)
        folder.mkdir(parents=True)
        return package.rename(folder / "sweethome3d_7_all.deb")

    monkeypatch.setattr(debian, "download_package", download)
    for _ in range(2):
        assert main(["--output", str(tmp_path / "out"), *QUICK]) == 0
    assert fetched == ["sweethome3d"]


@pytest.mark.slow
def test_the_real_package_has_nine_homes(tmp_path):
    """Fetches 17 MB with apt-get on the first run."""
    out = tmp_path / "out"
    assert main(["--output", str(out), "--scans", "complete", "--density", "20"]) == 0
    scenes = read_scenes(str(out), "complete")
    assert len(scenes) == 9 and "Studio" in scenes.ids
    counts = [scene.categories for scene in scenes]
    assert sum(words.count("chair") for words in counts) == 69
    assert sum(words.count("other") for words in counts) < 30
    assert all(scene.license == "cc-by-3.0" and scene.warnings == [] for scene in scenes)
