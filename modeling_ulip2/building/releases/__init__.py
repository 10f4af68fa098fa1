"""Published triplets as they lie on disk: where each release has its clouds, views and captions."""
