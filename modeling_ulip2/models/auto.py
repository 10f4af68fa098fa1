"""The Auto class of point-cloud classification, a task that transformers has none for."""

from __future__ import annotations

from collections import OrderedDict

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES


class AutoModelForPointCloudClassification(_BaseAutoModelClass):
    """Loads the classification model of a configuration: a fine-tuned folder with its head, any other with a new one.

    `AutoModelForPointCloudClassification.from_pretrained(FOLDER, num_labels=15)`. Where this package is not installed,
    `AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` loads a fine-tuned folder.
    """

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())  # type: ignore[assignment]
