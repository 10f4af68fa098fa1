"""What the tests of the data share with those of the training that reads it."""

from __future__ import annotations

from tests.training.conftest import dataset as dataset
from tests.training.conftest import dataset_with_features as dataset_with_features
from tests.training.conftest import settings_of_datasets as settings_of_datasets
from tests.training.conftest import tower as tower
from tests.training.conftest import tower_folder as tower_folder
