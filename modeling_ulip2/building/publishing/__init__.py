"""Datasets on their way to the hub."""
