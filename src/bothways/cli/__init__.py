"""The command line: the verbs."""
