"""Measuring: zero-shot classification and retrieval, each figure beside its chance level and its control."""

from modeling_ulip2.data.class_names import load_class_names
from modeling_ulip2.evaluation.metrics.controls import Evaluation, Figure, evaluate_retrieval, evaluate_zero_shot
from modeling_ulip2.evaluation.metrics.retrieval import RetrievalResult, retrieval_metrics
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult, zero_shot_metrics
from modeling_ulip2.towers.prompts import class_embeddings, load_templates

__all__ = [
    "Evaluation",
    "Figure",
    "RetrievalResult",
    "ZeroShotResult",
    "class_embeddings",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "load_class_names",
    "load_templates",
    "retrieval_metrics",
    "zero_shot_metrics",
]
