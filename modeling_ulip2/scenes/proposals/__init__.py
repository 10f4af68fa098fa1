"""Objects of a scan before they have names: proposed by shape and color without training, or given."""

from .segmenter import GeometricSegmenter, GivenMasks, SceneSegmenter

__all__ = ["GeometricSegmenter", "GivenMasks", "SceneSegmenter"]
