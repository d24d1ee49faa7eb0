"""Comparison of circuits: edge by edge in one model, by the roles of components across models."""
