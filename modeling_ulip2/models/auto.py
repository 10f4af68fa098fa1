"""The Auto class of point-cloud classification, a task that transformers has none for."""

from __future__ import annotations

from .private_apis import AutoModelBase, empty_auto_mapping


class AutoModelForPointCloudClassification(AutoModelBase):
    """Loads the classification model of a configuration: a fine-tuned folder with its head, any other with a new one.

    `AutoModelForPointCloudClassification.from_pretrained(FOLDER, num_labels=15)`. Where this package is not installed,
    `AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` loads a fine-tuned folder.
    """

    _model_mapping = empty_auto_mapping()
