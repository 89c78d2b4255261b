"""A smaller model learns from a larger one: of its predictions, its hidden states, what its tokens look at."""
