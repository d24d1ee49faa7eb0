"""Dictionaries: transcoders and sparse autoencoders (SAEs), whose latents stand for activations.

`dictionary` is the value, `sites` says what it reads and writes, `loading` finds out which format
a directory has. Each format is a file of its own (`saelens`, ...), and `tensors` checks what it
reads. Nothing is ever unpickled. `fit` measures how well one reconstructs what a model computes,
`training` makes new ones.
"""
