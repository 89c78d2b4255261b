"""Functions on tensors: each has a plain definition, and fast backends that must equal it."""
