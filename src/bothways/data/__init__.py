"""Text to batches: readers, tokenizers, tokenised shards, packing, masking, the loader."""
