"""What the catalog says of places, sizes and checksums, asked of the Hugging Face Hub itself."""

from __future__ import annotations

import pytest
from huggingface_hub import get_hf_file_metadata, hf_hub_url

from modeling_ulip2.conversion.catalog import CATALOG

pytestmark = pytest.mark.hub


@pytest.mark.parametrize("entry", [own for own in CATALOG if own.file], ids=lambda entry: entry.name)
def test_every_file_lies_where_the_catalog_says(entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    file = entry.file
    found = get_hf_file_metadata(hf_hub_url(file.repo_id, file.path, repo_type=file.repo_type, revision=file.revision))
    assert found.size is not None and found.size > 1e6
    if file.size is not None:
        assert found.size == file.size
    if file.sha256 is not None:
        assert found.etag == file.sha256
