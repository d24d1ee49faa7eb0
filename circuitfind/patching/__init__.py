"""Activation patching and path patching: what a run becomes if parts of it come from another run.

`sites` says what can be patched and `places` at which positions; `recording` runs the model and
keeps what can be exchanged, `exchange` makes the patched streams and `continuation` takes them,
many at a time, from where they enter to the logits. `sweep` puts these together, `path` does the
same along chosen edges, and `circuits` turns what mattered into a circuit.
"""
