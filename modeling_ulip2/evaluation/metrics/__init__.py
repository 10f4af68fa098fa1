"""Figures from embeddings: zero-shot, retrieval, classification, each beside its chance level and its control."""
