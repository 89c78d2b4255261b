"""Curation: from a pile of documents to those worth learning from, with an account of every one that was dropped."""
