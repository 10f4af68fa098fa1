"""Scans of furnished buildings that exist as meshes: complete, or as a depth camera sees them on a walk."""

from .complete import scan_complete
from .scene_mesh import Floor, SceneMesh
from .walk import Walk, scan_walk

__all__ = ["Floor", "SceneMesh", "Walk", "scan_complete", "scan_walk"]
