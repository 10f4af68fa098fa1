"""transformers pipelines for 3D shapes."""
