"""Scans of whole rooms: the objects in them, found, named by any words, and searched.

A scan is a `Scene`; `ObjectMasks` are the objects in it, annotated or proposed; `SceneObject` is one that was named.
"""

from .schema import ObjectMasks, Scene, SceneObject

__all__ = ["ObjectMasks", "Scene", "SceneObject"]
