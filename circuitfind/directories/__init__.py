"""Directories of results: their settings, decisions, checkpoints and names on disk."""
