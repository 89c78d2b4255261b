"""Source code as something to learn from: Python's tokens as text, and tasks built from real functions (arXiv 2001.00059)."""
