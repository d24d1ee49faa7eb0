"""Published circuits, as data."""
