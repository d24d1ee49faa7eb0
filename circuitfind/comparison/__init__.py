"""What circuits share: edge by edge in one model, by what components do across models."""
