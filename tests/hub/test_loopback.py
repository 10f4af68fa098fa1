"""The loopback hub is what huggingface_hub takes for a hub: each request that tests rely on, by its own client."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.server import TOKEN, LoopbackHub

FILES = {"config.json": b"{}", "weights/model.bin": bytes(range(256)) * 40, "README.md": b"---\nlicense: mit\n---\n"}


def test_downloads(loopback_hub: LoopbackHub) -> None:
    loopback_hub.add("org/model", FILES)
    for name, content in FILES.items():
        path = Path(hf_hub_download("org/model", name))
        assert path.read_bytes() == content
    count = len(loopback_hub.asked("GET", "storage"))
    hf_hub_download("org/model", "weights/model.bin")
    assert len(loopback_hub.asked("GET", "storage")) == count == 1  # it lies in the cache
    folder = Path(snapshot_download("org/model"))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} >= FILES.keys()
    assert not loopback_hub.unserved


def test_what_is_not_there(loopback_hub: LoopbackHub) -> None:
    loopback_hub.add("org/model", FILES)
    loopback_hub.add("org/gated", FILES, gated=True)
    for repo, file, revision, error in (
        ("org/other", "config.json", None, RepositoryNotFoundError),
        ("org/model", "other.json", None, EntryNotFoundError),
        ("org/model", "config.json", "v9", RevisionNotFoundError),
        ("org/gated", "config.json", None, GatedRepoError),
    ):
        with pytest.raises(error):
            hf_hub_download(repo, file, revision=revision)


def test_private(loopback_hub: LoopbackHub) -> None:
    loopback_hub.add("org/private", FILES, private=True)
    for token in (False, "hf_another"):
        with pytest.raises(HfHubHTTPError):
            hf_hub_download("org/private", "config.json", token=token)
    assert hf_hub_download("org/private", "config.json", token=TOKEN)


def test_a_transfer_that_breaks_off_goes_on_where_it_was(
    loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    content = bytes(range(256)) * 4000
    loopback_hub.add("org/model", {"model.bin": content})
    loopback_hub.breaks["model.bin"] = 300_000
    assert Path(hf_hub_download("org/model", "model.bin")).read_bytes() == content
    first, second = loopback_hub.asked("GET", "storage")
    assert first.range is None and second.range is not None and second.range.startswith("bytes=")
    assert int(second.range.removeprefix("bytes=").rstrip("-")) > 0


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_uploads(kind: str, loopback_hub: LoopbackHub, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    api = HfApi()
    api.create_repo("org/new", repo_type=kind, private=True)
    api.create_repo("org/new", repo_type=kind, exist_ok=True)
    api.upload_folder(repo_id="org/new", folder_path=tmp_path, repo_type=kind, commit_message="first")
    repository = loopback_hub["org/new"]
    assert repository.kind == kind and repository.private and FILES.items() <= repository.files.items()
    assert repository.titles == ["initial commit", "first"]
    api.create_branch("org/new", branch="v2", repo_type=kind)
    api.upload_file(path_or_fileobj=b"2", path_in_repo="config.json", repo_id="org/new", revision="v2", repo_type=kind)
    assert repository.files["config.json"] == b"{}"
    downloaded = hf_hub_download("org/new", "config.json", revision="v2", repo_type=kind)
    assert Path(downloaded).read_bytes() == b"2"
    assert {branch.name for branch in api.list_repo_refs("org/new", repo_type=kind).branches} == {"main", "v2"}
    assert [commit.title for commit in api.list_repo_commits("org/new", repo_type=kind)] == ["first", "initial commit"]
    assert not loopback_hub.unserved


def test_metadata_that_is_no_yaml_is_refused(loopback_hub: LoopbackHub, tmp_path: Path) -> None:
    HfApi().create_repo("org/new")
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ValueError, match="Invalid metadata"):
        HfApi().upload_folder(repo_id="org/new", folder_path=tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HfApi().upload_folder(repo_id="org/new", folder_path=tmp_path)
