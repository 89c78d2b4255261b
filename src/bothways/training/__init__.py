"""Training: a loop over any stream of inputs and any module that returns sums and their counts."""
