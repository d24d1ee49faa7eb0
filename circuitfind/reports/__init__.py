"""Show circuits to people: diagrams."""
