"""What pre-training needs beyond `transformers.Trainer`."""
