"""Scans of whole rooms: the objects in them, found, named by any words, and searched.

A scan is a `Scene`; `ObjectMasks` are the objects in it, annotated or proposed; `SceneObject` is one that was named.
`SceneUnderstanding` makes one of the other. Nothing heavy is imported before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .schema import ObjectMasks, Scene, SceneObject

if TYPE_CHECKING:
    from .naming import EmbeddedScene, SceneMatches
    from .understanding import SceneUnderstanding

_HOMES = {"EmbeddedScene": "naming", "SceneMatches": "naming", "SceneUnderstanding": "understanding"}

__all__ = ["EmbeddedScene", "ObjectMasks", "Scene", "SceneMatches", "SceneObject", "SceneUnderstanding"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
