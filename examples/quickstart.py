"""Find the circuit of an embedded model, measure it, and draw it."""

import circuitfind as cf

model = cf.load_model("ioi-small")
problem = cf.make_problem(model, "ioi", n_prompts=32, seed=0)
found = cf.discover(problem, "acdc", threshold=0.02)

print(found.circuit.n_edges, "of", problem.graph.n_edges, "edges")
for measurement in cf.scorecard(found).measurements:
    print(measurement.metric, measurement.faithfulness)

cf.draw_circuit(found.circuit).save("ioi.svg")
found.circuit.save("ioi.json")
