"""The field's protocols: recognition of given instances, instance AP, semantic IoU, recall of proposals."""

from .instances import MIN_REGION_SIZE, OVERLAPS, InstanceEvaluation, InstanceResult, SceneOverlaps
from .proposals import RecallEvaluation, RecallResult
from .recognition import RecognitionEvaluation, given_objects
from .semantics import SemanticEvaluation, SemanticResult, point_labels

__all__ = [
    "MIN_REGION_SIZE",
    "OVERLAPS",
    "InstanceEvaluation",
    "InstanceResult",
    "RecallEvaluation",
    "RecallResult",
    "RecognitionEvaluation",
    "SceneOverlaps",
    "SemanticEvaluation",
    "SemanticResult",
    "given_objects",
    "point_labels",
]
