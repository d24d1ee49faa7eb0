"""Runs: a configuration, a directory that holds what it produced, and the loop between them."""
