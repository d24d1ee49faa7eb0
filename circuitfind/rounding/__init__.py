"""Bounds on how far what is computed is from its value in exact arithmetic."""
