"""What are the logits if only these edges carry the clean signal?

    input[r] = constants + sum over kept w of current[w] + sum over cut w of replacement[w]

`full_pass` answers for any mask, hard or soft, and is differentiable; it is the definition.
`incremental` answers for a graph with one more edge cut, re-running only what the cut can change.
`checks` holds both to the model itself.
"""
