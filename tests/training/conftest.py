from __future__ import annotations

from pathlib import Path

import datasets.config
import pytest

from modeling_ulip2.towers import Tower, load_tower
from tests.training import world


@pytest.fixture(scope="session", autouse=True)
def settings_of_datasets(tmp_path_factory):
    """Arrow files that `datasets` makes of the tests' parquet go with the tests, and streams end without its pause."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        # five seconds at the end of each shuffled pass, for readers of remote files
        patch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
        yield


@pytest.fixture(scope="session")
def tower_folder(tmp_path_factory) -> Path:
    return world.write_tower(tmp_path_factory.mktemp("tower"))


@pytest.fixture(scope="session")
def tower(tower_folder) -> Tower:
    return load_tower(tower_folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """16 triplets with depth views in two files, without features."""
    return world.write_dataset(tmp_path_factory.mktemp("triplets"), depth=True)


@pytest.fixture(scope="session")
def dataset_with_features(tmp_path_factory, tower) -> Path:
    folder = world.write_dataset(tmp_path_factory.mktemp("with_features"))
    world.add_features(folder, tower, tmp_path_factory.mktemp("cache"))
    return folder
