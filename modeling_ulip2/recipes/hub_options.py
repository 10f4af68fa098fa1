"""Options of names on the hub, as the recipes share them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from modeling_ulip2.utils.command_line import HUB_HELP, HUB_OPTIONS


@dataclass
class HubArguments:
    """How what lies on the hub is found; `token` and `cache_dir` hold for models, datasets and towers alike."""

    _argument_group_name = "hub"

    revision: str | None = field(default=None, metadata={"help": HUB_HELP["revision"].format("model")})
    dataset_revision: str | None = field(default=None, metadata={"help": HUB_HELP["revision"].format("dataset")})
    token: str | None = field(default=None, metadata={"help": HUB_HELP["token"]})
    cache_dir: str | None = field(default=None, metadata={"help": HUB_HELP["cache_dir"]})

    @property
    def of_others(self) -> dict[str, Any]:
        """Arguments of `from_pretrained` for what has no revision of its own here, such as a tower."""
        given = {name: getattr(self, name) for name in HUB_OPTIONS if name != "revision"}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def of_model(self) -> dict[str, Any]:
        """Arguments of `from_pretrained` for the model."""
        return self.of_others | ({"revision": self.revision} if self.revision else {})

    @property
    def of_dataset(self) -> dict[str, Any]:
        """The same for the dataset, as `read_triplets` and `load_dataset` take them."""
        return self.of_others | ({"revision": self.dataset_revision} if self.dataset_revision else {})

    @property
    def decisive(self) -> dict[str, str]:
        """What a result depends on, for its record: the revisions that were asked for, never the token."""
        return {name: value for name, value in asdict(self).items() if name.endswith("revision") and value}
