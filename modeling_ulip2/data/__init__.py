"""Triplets of point cloud, views and captions: columns, parquet shards, dataset card."""
