import shutil
from pathlib import Path

import build_triplets
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from datasets.exceptions import DatasetNotFoundError
from filelock import FileLock
from huggingface_hub import DatasetCard
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image

from modeling_ulip2.building.publishing import dataset as publish_triplets
from tests.hub.server import TOKEN
from tests.training.world import write_dataset

from .shapes import build_arguments

REPOSITORY = "someone/boxes"


@pytest.fixture
def folder(built, tmp_path) -> Path:
    """A build that is fit to be published: its card's license was unknown, as boxes come without one."""
    folder = shutil.copytree(built, tmp_path / "boxes")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: cc0-1.0"))
    assert "license: cc0-1.0" in card.read_text()
    return folder


def test_a_complete_dataset_is_uploaded_with_samples_on_its_card(folder, loopback_hub, capsys):
    publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY, "--private"])
    repository = loopback_hub[REPOSITORY]
    assert repository.kind == "dataset" and repository.private
    assert ".lock" not in repository.files and "samples.jpg" in repository.files
    for name, content in repository.files.items():
        assert str(folder.parent).encode() not in content, name
    card = (folder / "README.md").read_text()
    assert repository.files["README.md"].decode() == card
    assert card.index("## Samples") < card.index("(samples.jpg)") < card.index("## Source")
    assert f'load_dataset("{REPOSITORY}", "triplets"' in card and "…" not in card.split("```")[1]
    with Image.open(folder / "samples.jpg") as picture:
        assert picture.width > 1000
    assert f"{loopback_hub.endpoint}/datasets/{REPOSITORY}" in capsys.readouterr().out
    DatasetCard(card).validate(repo_type="dataset")  # by the hub
    before = len(repository.commits)
    publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])  # and again after a stop
    assert (folder / "README.md").read_text() == card and len(repository.commits) == before


def test_what_was_published_is_read_by_anybody(folder, loopback_hub, monkeypatch, tmp_path):
    """Whole and streamed, the default config without its name, at a revision, and with a token where it is private."""
    publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY, "--private"])
    here = load_dataset(str(folder), "triplets", split="train")
    whole = load_dataset(REPOSITORY, split="train")
    assert whole.column_names == here.column_names and whole["id"] == here["id"]
    assert whole[0]["views"][0].size == here[0]["views"][0].size
    loopback_hub.requests.clear()
    streamed = list(load_dataset(REPOSITORY, split="train", streaming=True).select_columns(["id", "xyz"]))
    assert [row["id"] for row in streamed] == here["id"]
    assert any(asked.range for asked in loopback_hub.asked("GET", "storage"))  # parts of files, not the files
    features = load_dataset(REPOSITORY, "features", split="train")
    assert sorted(features["id"]) == sorted(here["id"])
    repository = loopback_hub[REPOSITORY]
    repository.branches["v1"] = repository.branches["main"]
    repository.commit("emptied", {"README.md": repository.files["README.md"]})
    assert load_dataset(REPOSITORY, split="train", revision="v1")["id"] == here["id"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises((DatasetNotFoundError, RepositoryNotFoundError)):
        load_dataset(REPOSITORY, split="train", revision="v1", cache_dir=str(tmp_path / "of another person"))
    assert load_dataset(REPOSITORY, split="train", revision="v1", token=TOKEN)["id"] == here["id"]


def test_files_are_within_what_the_viewer_reads(folder):
    for path in folder.glob("*/*.parquet"):
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        assert all(group.num_rows <= 100 and group.total_byte_size <= 1e8 for group in groups)
        columns = {"views", "depths"} & set(file.schema_arrow.names)
        for row in file.read(columns=sorted(columns)).to_pylist() if columns else []:
            pictures = [picture for name in columns for picture in row[name] or ()]
            assert all(len(picture["bytes"]) < 1e6 for picture in pictures)  # shown as they are
        assert all(group.column(0).has_offset_index and group.column(0).has_column_index for group in groups)


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
def test_nothing_is_uploaded_while_something_is_missing(folder, loopback_hub, defect):
    spoil, message = DEFECTS[defect]
    spoil(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SystemExit, match=f"(?s){message}.*Nothing was uploaded"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])
    with pytest.raises(SystemExit, match=message):
        publish_triplets.main([str(folder), "--check"])
    assert (
        not loopback_hub.repositories
        and sorted(path.name for path in folder.iterdir() if path.name != ".lock") == before
    )


def test_nothing_is_uploaded_during_a_build(folder, loopback_hub):
    with FileLock(folder / ".lock"), pytest.raises(SystemExit, match="a build is writing into it"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])
    assert not loopback_hub.repositories


def test_a_build_can_end_with_its_publication(built, meshes, tower, loopback_hub, tmp_path):
    """Here it may not: the boxes have no license."""
    output = shutil.copytree(built, tmp_path / "boxes")
    with pytest.raises(SystemExit, match=r"(?s)license is 'unknown'.*Nothing was uploaded"):
        build_triplets.main(build_arguments(meshes[0], output, tower, "--push-to-hub", REPOSITORY))
    assert not loopback_hub.repositories


def test_a_hub_that_cannot_be_reached_is_a_sentence(folder, loopback_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(SystemExit, match="(?s)cannot upload .*401.*The same command goes on"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match="(?s)cannot upload .*offline.*The same command goes on"):
        publish_triplets.main([str(folder), "--push-to-hub", REPOSITORY])
    assert not loopback_hub.repositories


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
