"""What the rooms use of Gradio beyond its documented interface, so that a new version is checked against one file.

Seen with gradio 6.31.
"""

from __future__ import annotations

from pathlib import Path

from gradio.components import Component
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder


def upload_folder() -> Path:
    """Where Gradio puts what people send; it serves files from there."""
    return Path(get_upload_folder())


def cached_file(component: Component, data: bytes, name: str) -> str:
    """Path of a file in the component's cache, which `delete_cache` of the Blocks empties."""
    return save_bytes_to_cache(data, name, component.GRADIO_CACHE)
