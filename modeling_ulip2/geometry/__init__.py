"""Mesh and point files: read safely, sample, render."""

from .cameras import Camera, camera_ring, camera_rings
from .errors import MeshError
from .mesh import Material, Mesh
from .npy import read_npy
from .pickles import read_pickle
from .points import read_points
from .reading import MESH_SUFFIXES, read_mesh
from .rendering import Renderer, RenderOutput
from .sampling import sample_points
from .shapes import SHAPE_SUFFIXES, Shape, read_shape

__all__ = [
    "MESH_SUFFIXES",
    "SHAPE_SUFFIXES",
    "Camera",
    "Material",
    "Mesh",
    "MeshError",
    "RenderOutput",
    "Renderer",
    "Shape",
    "camera_ring",
    "camera_rings",
    "read_mesh",
    "read_npy",
    "read_pickle",
    "read_points",
    "read_shape",
    "sample_points",
]
