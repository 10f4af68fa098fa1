"""From shapes to vectors, one record per shape: what `Ulip2Embedder` is made of."""
