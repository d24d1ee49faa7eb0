"""Models: what is asked of one, where they come from, and whether to believe them.

Nothing outside this package knows TransformerLens.
"""
