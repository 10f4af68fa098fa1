import shutil
from pathlib import Path

import build_triplets
import pytest
from filelock import FileLock
from PIL import Image

from modeling_ulip2.building.publishing import dataset as publish_triplets
from tests.training.world import write_dataset

from .shapes import build_arguments

REPOSITORY = "someone/boxes"


class Hub:
    """Stands for `HfApi` and keeps what would be uploaded."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict]] = []

    def create_repo(self, repo_id: str, **options) -> str:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return f"https://example.org/datasets/{repo_id}"

    def upload_folder(self, **options) -> None:
        self.calls.append(("upload_folder", options))


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(publish_triplets, "HfApi", lambda: hub)
    return hub


@pytest.fixture
def folder(built, tmp_path) -> Path:
    """A build that is fit to be published: its card's license was unknown, as boxes come without one."""
    folder = shutil.copytree(built, tmp_path / "boxes")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: cc0-1.0"))
    assert "license: cc0-1.0" in card.read_text()
    return folder


def test_a_complete_dataset_is_uploaded_with_samples_on_its_card(folder, hub, capsys):
    publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY, "--private"])
    (create, options), (upload, what) = hub.calls
    assert (create, upload) == ("create_repo", "upload_folder")
    assert options == {"repo_id": REPOSITORY, "repo_type": "dataset", "private": True, "exist_ok": True}
    assert what["repo_id"] == REPOSITORY and what["folder_path"] == folder and what["repo_type"] == "dataset"
    assert ".lock" in what["ignore_patterns"]
    card = (folder / "README.md").read_text()
    assert card.index("## Samples") < card.index("(samples.jpg)") < card.index("## Source")
    assert f'load_dataset("{REPOSITORY}", "triplets"' in card and "…" not in card.split("```")[1]
    with Image.open(folder / "samples.jpg") as picture:
        assert picture.width > 1000
    assert "https://example.org/datasets/someone/boxes" in capsys.readouterr().out
    publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])  # and again after a stop
    assert (folder / "README.md").read_text() == card and len(hub.calls) == 4


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "README.md"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


DEFECTS = {
    "no card": (lambda folder: (folder / "README.md").unlink(), "it has no README.md"),
    "no license": (lambda folder: edit(folder, "license: cc0-1.0\n", ""), "names no license"),
    "unknown license": (
        lambda folder: edit(folder, "license: cc0-1.0", "license: [cc0-1.0, unknown]"),
        "has shapes whose license is 'unknown'",
    ),
    "marker": (lambda folder: edit(folder, "Boxes, made for", "TODO: made for"), r"is unfinished: 'TODO'"),
    "no source": (lambda folder: edit(folder, "## Source", "## Thanks"), "no section on where the shapes come from"),
    "no limits": (lambda folder: edit(folder, "## Limits", "## End"), "no section on what is known to be wrong"),
    "no config": (
        lambda folder: edit(folder, "- config_name: features", "- config_name: other"),
        "does not name the config 'features'",
    ),
    "wrong count": (
        lambda folder: edit(folder, "num_examples: 6", "num_examples: 7"),
        "counts 7 rows in 'triplets', the files hold 6",
    ),
    "broken YAML": (lambda folder: edit(folder, "language: en", "language: [en"), "YAML of README.md cannot be read"),
    "unfinished build": (
        lambda folder: (folder / "triplets" / "train-00001-of-00003.parquet").unlink(),
        "1 of the 3 shards of manifest.json are missing",
    ),
    "damaged file": (
        lambda folder: (folder / "features" / "train-00000-of-00003.parquet").write_bytes(b"PAR1"),
        "1 files cannot be read, e.g. features/train-00000",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_nothing_is_uploaded_while_something_is_missing(folder, hub, defect):
    spoil, message = DEFECTS[defect]
    spoil(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SystemExit, match=f"(?s){message}.*Nothing was uploaded"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])
    with pytest.raises(SystemExit, match=message):
        publish_triplets.main([str(folder), "--check"])
    assert hub.calls == [] and sorted(path.name for path in folder.iterdir() if path.name != ".lock") == before


def test_nothing_is_uploaded_during_a_build(folder, hub):
    with FileLock(folder / ".lock"), pytest.raises(SystemExit, match="a build is writing into it"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])
    assert hub.calls == []


def test_a_build_can_end_with_its_publication(built, meshes, tower, hub, tmp_path):
    """Here it may not: the boxes have no license."""
    output = shutil.copytree(built, tmp_path / "boxes")
    with pytest.raises(SystemExit, match=r"(?s)license is 'unknown'.*Nothing was uploaded"):
        build_triplets.main(build_arguments(meshes[0], output, tower, "--push-to-hub", REPOSITORY))
    assert hub.calls == []


def test_a_hub_that_cannot_be_reached_is_a_sentence(folder, monkeypatch):
    class Offline(Hub):
        def create_repo(self, repo_id: str, **options) -> str:
            raise ConnectionError("no route to the hub.")

    monkeypatch.setattr(publish_triplets, "HfApi", Offline)
    with pytest.raises(SystemExit, match="no route to the hub. The same command goes on"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])


def test_a_converted_folder_needs_a_card_of_its_own(tmp_path):
    """No manifest, and a card of a few lines: the files may be whole, but nobody is told what they are."""
    folder = write_dataset(tmp_path / "data", 4)
    problems = publish_triplets.card_problems(folder)
    assert publish_triplets.build_problems(folder) == [] and len(problems) == 5


@pytest.mark.parametrize("name", ["boxes", "a/b/c", "some one/boxes"])
def test_names_that_are_no_repository_are_refused(name, capsys):
    with pytest.raises(SystemExit):
        publish_triplets.main(["folder", "--push-to-hub", name])
    assert "--push-to-hub" in capsys.readouterr().err
