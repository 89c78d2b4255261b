"""The encoder: its config, its loop over layers, and how its weights begin."""
