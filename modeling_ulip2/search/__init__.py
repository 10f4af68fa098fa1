"""Finding shapes by text, picture or shape: a datasets folder with a FAISS index over point embeddings."""
