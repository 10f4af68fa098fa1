"""A folder of boxes and what is built from it, as the tests of the scripts have them."""

from tests.dataset_scripts.conftest import built as built
from tests.dataset_scripts.conftest import meshes as meshes
from tests.dataset_scripts.conftest import tower as tower
