"""Measuring models: retrieval, similarity, classification, and whether a difference is one."""
