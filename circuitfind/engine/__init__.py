"""What are the logits if only these edges carry the clean signal?

    input[r] = constants + sum over kept w of current[w] + sum over cut w of replacement[w]

`masked_pass` answers for any set of kept edges, from scratch, running only the components that
decide the answer. `full_pass` takes soft masks too and is differentiable. `incremental` answers for
a graph with one more edge cut, re-running only what the cut can change. `checks` holds them to the
model.
"""
