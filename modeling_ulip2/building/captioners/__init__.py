"""What words a view: a catalog's metadata, the names that a tower finds, image-to-text models."""
