"""Homes of Sweet Home 3D as meshes of rooms: walls, floors, ceilings and every piece of furniture that they place.

`read_home` gives what a home's `Home.xml` says, `build_home` the mesh. The program's own drawing is the reference:
a model is scaled so that its box, once turned by `modelRotation`, fills width x height x depth; angles run clockwise
in a plan whose y points down; walls are joined at their corners, and doors and windows cut them.
"""

from .assemble import build_home
from .home import Home, HomeError
from .home_xml import read_home

__all__ = ["Home", "HomeError", "build_home", "read_home"]
