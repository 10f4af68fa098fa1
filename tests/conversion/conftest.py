"""Captioning models, as the tests of the models have them."""

from tests.models.conftest import captioner as captioner
from tests.models.conftest import parts as parts
