"""Models that are built once for all tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models import captioning_world as world


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a point encoder and of a Llama with a chat template."""
    return world.save_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def captioner(parts: tuple[str, str]) -> tuple[Any, Any]:
    """Model and processor with an instruction-aware Q-Former; tests leave both as they are."""
    return world.captioner(*parts)
