"""Which layers of an embedded model refuse harmful requests, and what is the minimal circuit?"""

import circuitfind as cf

model = cf.load_model("gpt-4l")
problem = cf.make_problem(model, "refusal", n_prompts=16)

# 1. Which layers refuse? Take each block's attention and MLP from the run on the harmless request.
layers = cf.patch(problem, "attn,mlp", mode="noising", positions="all")
for row in layers.significant(0.05):
    print(f"{row.site} of layer {row.place['layer']}: {row.effect:.0%} of the refusal goes with it")

# 2. Which heads and MLPs, and where?
swept = cf.patch(problem, "head,mlp", mode="noising")
cf.draw_heatmap(swept, "head").save("refusal-heads.png")
cf.draw_heatmap(swept, "mlp_out").save("refusal-mlps.png")

# 3. The minimal circuit between what is significant, and how much of the refusal it keeps.
circuit = cf.circuit_of(problem, swept)
print(f"{circuit.n_edges} of {problem.graph.n_edges} edges")
for measured in cf.scorecard(cf.IncrementalEngine(problem), circuit).measurements:
    print(f"{measured.metric}: faithfulness {measured.faithfulness:.2f}")
cf.draw_circuit(circuit, unit="logits").save("refusal.svg")
