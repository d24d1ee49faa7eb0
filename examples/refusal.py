"""Which layers of an embedded model refuse harmful requests, and by which circuit?"""

from collections import Counter

import circuitfind as cf

model = cf.load_model("llama-4l")
problem = cf.make_problem(model, "refusal", n_prompts=32)

# Each edge cut alone: how much of the preference for refusing goes with it, in logits.
alone = cf.discover(problem, "exact", threshold=0.05)
harm: Counter[str] = Counter()
for decision in alone.decisions:
    writer = decision.edge.partition("->")[0]
    layer = "embedding" if writer == "embed" else f"layer {writer[1]}"
    harm[layer] += abs(decision.effect or 0)
for layer, total in sorted(harm.items()):
    print(f"{layer}: {total:.1f} logits over all edges that it writes")

# The smallest circuit that keeps nine tenths of it.
found = cf.discover(problem, threshold=0.2)
for measured in cf.scorecard(found.engine, found.circuit).measurements:
    print(measured.metric, measured.faithfulness)
print(found.circuit.n_edges, "of", problem.graph.n_edges, "edges")
cf.draw_circuit(found.circuit).save("refusal.svg")
