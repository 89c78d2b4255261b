"""The bricks of an encoder: embedding, attention, MLP, norm, position, heads."""
