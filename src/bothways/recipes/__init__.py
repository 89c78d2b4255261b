"""Recipes: a function for each published run, which returns it whole."""
