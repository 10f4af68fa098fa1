import shutil

import pytest

from modeling_ulip2.building.sources import debian
from modeling_ulip2.building.sources.debian import PackageError, download_package, open_package, safe_member_path
from tests.dataset_scripts.packages import write_package

FILES = {"./usr/share/made/a.txt": b"hello", "./usr/share/made/b.bin": bytes(range(256)) * 50}


def read_all(path) -> dict[str, bytes]:
    with open_package(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


@pytest.fixture(params=["python", "dpkg-deb"])
def reader(request, monkeypatch):
    """Each way of reading a package, with and without dpkg-deb."""
    if request.param == "python":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("dpkg-deb") is None:
        pytest.skip("this machine has no dpkg-deb")
    return request.param


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_the_files_of_a_package_are_read(tmp_path, reader, compression):
    found = read_all(write_package(tmp_path / "made.deb", FILES, compression))
    assert {name.removeprefix("./"): data for name, data in found.items()} == {
        name.removeprefix("./"): data for name, data in FILES.items()
    }


@pytest.mark.parametrize("keep", [0, 4, 30, 200, -100])
def test_what_is_no_whole_package_is_refused(tmp_path, reader, keep):
    path = write_package(tmp_path / "made.deb", {"./a": bytes(range(256)) * 400})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PackageError, match=r"made\.deb"):
        read_all(path)


def test_zstd_without_dpkg_deb_is_a_sentence(tmp_path, monkeypatch):
    path = write_package(tmp_path / "made.deb", FILES)
    path.write_bytes(path.read_bytes().replace(b"data.tar.xz ", b"data.tar.zst"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(debian.sys, "version_info", (3, 11))
    with pytest.raises(PackageError, match="only dpkg-deb"):
        read_all(path)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "C:/a", "a\\..\\b", "", "."])
def test_paths_that_lead_out_are_refused(name):
    with pytest.raises(PackageError, match="refused"):
        safe_member_path(name)


def test_a_machine_without_apt_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PackageError, match=r"no apt-get .*--package FILE"):
        download_package("made", tmp_path)


FAKE_APT = """#!/bin/sh
# downloads only with private lists that were updated before
for word in "$@"; do case "$word" in
    -oDir::State::Lists=*) lists="${word#*=}" ;;
    update) echo made > "$lists/Packages" ;;
    download) download=yes ;;
esac; done
[ "$download" = yes ] || exit 0
if [ -f "$lists/Packages" ] && [ "$ARCHIVE" = online ]; then cp "$PACKAGE" made_1_all.deb; exit 0; fi
echo "E: Unable to locate package made"; exit 100
"""


@pytest.fixture
def fake_apt(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(FAKE_APT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("PACKAGE", str(write_package(tmp_path / "archive.deb", FILES)))


def test_package_lists_are_fetched_privately_where_there_are_none(tmp_path, fake_apt, monkeypatch, capsys):
    monkeypatch.setenv("ARCHIVE", "online")
    path = download_package("made", tmp_path / "cache")
    assert path.name == "made_1_all.deb" and path.read_bytes() == (tmp_path / "archive.deb").read_bytes()
    assert "private directory" in capsys.readouterr().out
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["made_1_all.deb"]


def test_an_archive_without_the_package_is_told(tmp_path, fake_apt):
    with pytest.raises(PackageError, match="could not download made"):
        download_package("made", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
