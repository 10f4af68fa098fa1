"""The former place of `modeling_ulip2.geometry.shapes`."""

from modeling_ulip2.geometry.shapes import SHAPE_SUFFIXES, Shape, read_shape

__all__ = ["SHAPE_SUFFIXES", "Shape", "read_shape"]
