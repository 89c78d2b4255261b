"""Finding texts: chunks, vectors, BM25, and the index that holds them together."""
