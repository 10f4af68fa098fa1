"""The loopback hub as a fixture, in this process; `environment` is the same for processes that a test starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import TOKEN, LoopbackHub


@pytest.fixture
def loopback_hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    """A hub without repositories that huggingface_hub, transformers and datasets take for the Hugging Face Hub.

    Who asks is logged in; caches are of this test alone.
    """
    import datasets.config
    import huggingface_hub.hf_api
    import transformers.utils.hub
    from huggingface_hub import constants

    hub, home = LoopbackHub().start(), tmp_path_factory.mktemp("hf_home")
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_TOKEN_PATH": str(home / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setattr(transformers.utils.hub, "HF_MODULES_CACHE", str(home / "modules"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    for name, value in environment(hub, home).items():
        monkeypatch.setenv(name, value)
    try:
        yield hub
    finally:
        hub.stop()


class Uploads:
    """The one repository that a test uploads to."""

    def __init__(self, hub: LoopbackHub, name: str) -> None:
        self.hub, self.name = hub, name

    @property
    def files(self) -> dict[str, bytes]:
        """What it holds; {} where nothing made it."""
        found = self.hub.repositories.get(("model", self.name))
        return {} if found is None else {path: own for path, own in found.files.items() if path != ".gitattributes"}

    @property
    def text(self) -> str:
        """The card."""
        return self.files["README.md"].decode()

    def start_with(self, card: str | None = None) -> None:
        """Makes it anew, with a card of a person or without."""
        self.hub.repositories.pop(("model", self.name), None)
        if card is not None:
            self.hub.add(self.name, {"README.md": card.encode()})


@pytest.fixture
def uploads(loopback_hub: LoopbackHub) -> Uploads:
    return Uploads(loopback_hub, "someone/shapes")


def environment(hub: LoopbackHub, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Variables with which a new process takes the loopback for the hub."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": token or "",
        "NO_PROXY": ",".join(filter(None, ("127.0.0.1", "localhost", os.environ.get("NO_PROXY")))),
    }
