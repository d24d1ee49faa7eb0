"""From a training loop in plain PyTorch to a circuit, for a transformer of your own.

It has no norms, sees both ways, and answers at position 0 with labels that are no input symbols:
does the first letter occur again?
"""

import json
from pathlib import Path

import torch
from torch import nn

import circuitfind as cf

LETTERS, LABELS = "abcdef", ["new", "again"]
LENGTH, WIDTH, HEADS, HIDDEN = 5, 24, 2, 32
D_HEAD = WIDTH // HEADS


class Block(nn.Module):
    """Attention and an MLP; nothing is normed."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Return the stream after the block."""
        q, k, v = (
            map_(stream).unflatten(-1, (HEADS, D_HEAD)).transpose(1, 2)
            for map_ in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        stream = stream + self.out(mixed.transpose(1, 2).flatten(2))
        return stream + self.down(torch.relu(self.up(stream)))


class Classifier(nn.Module):
    """A transformer of one block that reads letters and says a label at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block()])
        self.labels = nn.Linear(WIDTH, len(LABELS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits [batch pos label]."""
        stream = self.letters(tokens) + self.positions.weight
        for block in self.blocks:
            stream = block(stream)
        return self.labels(stream)


def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random inputs [batch pos], half of them with the first letter again, and labels."""
    tokens = torch.randint(1, len(LETTERS), (n, LENGTH))
    first = torch.randint(len(LETTERS), (n,))
    tokens = (tokens + first[:, None]) % len(LETTERS)  # none of them is the first letter ...
    tokens[:, 0] = first
    label, place = torch.randint(2, (n,)), torch.randint(1, LENGTH, (n,))
    rows = label.nonzero()[:, 0]
    tokens[rows, place[rows]] = first[rows]  # ... but this one
    return tokens, label


torch.manual_seed(1)
network = Classifier()
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(300):
    tokens, label = batch(256)
    loss = nn.functional.cross_entropy(network(tokens)[:, 0], label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
network.eval().requires_grad_(requires_grad=False)
tokens, label = batch(1000)
right = (network(tokens)[:, 0].argmax(-1) == label).double().mean()
print(f"right after training: {float(right):.1%}")


def by_head(linear: nn.Linear) -> torch.Tensor:
    """Return the weight of queries, keys or values, head by head [head, d_model, d_head]."""
    return linear.weight.T.unflatten(1, (HEADS, D_HEAD)).transpose(0, 1)


# nn.Linear keeps a row for each output; the names below, TransformerLens', a row for each input.
weights = {
    "embed.W_E": network.letters.weight,
    "pos_embed.W_pos": network.positions.weight,
    "unembed.W_U": network.labels.weight.T,
    "unembed.b_U": network.labels.bias,
}
for layer, block in enumerate(network.blocks):
    for name, linear in (("Q", block.query), ("K", block.key), ("V", block.value)):
        weights[f"blocks.{layer}.attn.W_{name}"] = by_head(linear)
        weights[f"blocks.{layer}.attn.b_{name}"] = linear.bias.view(HEADS, D_HEAD)
    weights[f"blocks.{layer}.attn.W_O"] = block.out.weight.T.view(HEADS, D_HEAD, WIDTH)
    weights[f"blocks.{layer}.attn.b_O"] = block.out.bias
    weights[f"blocks.{layer}.mlp.W_in"] = block.up.weight.T
    weights[f"blocks.{layer}.mlp.b_in"] = block.up.bias
    weights[f"blocks.{layer}.mlp.W_out"] = block.down.weight.T
    weights[f"blocks.{layer}.mlp.b_out"] = block.down.bias

cf.save_compiled(
    "again.json",
    weights,
    activation="relu",
    attention="bidirectional",
    tokens={letter: number for number, letter in enumerate(LETTERS)},
    output_labels=LABELS,
)
model = cf.load_model("again.json")
torch.testing.assert_close(model.own_logits(tokens), network(tokens), rtol=1e-4, atol=1e-4)

# Pairs of prompts: the first letter occurs again, and in the corrupted one another stands there.
# Only position 0 is read.
again = tokens[label == 1][:64]
occurs = again == again[:, :1]
occurs[:, 0] = False
other = torch.where(occurs, (again + 1) % len(LETTERS), again)
rows = [
    {
        "clean": " ".join(LETTERS[number] for number in clean),
        "corrupted": " ".join(LETTERS[number] for number in corrupted),
        "answer": "again",
        "wrong_answer": "new",
        "steps": [0],
    }
    for clean, corrupted in zip(again.tolist(), other.tolist(), strict=True)
]
Path("again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

# From here on the command line does the same:
# circuitfind discover again.jsonl --model again.json --metric logit-difference --threshold 0.2
problem = cf.make_problem(model, "again.jsonl", metric="logit-difference")
found = cf.discover(problem, "acdc", threshold=0.2)
found.circuit.save("again-circuit.json")
cf.draw_circuit(found.circuit).save("again.svg")
print(f"{found.circuit.n_edges} of {problem.graph.n_edges} edges:")
for edge in found.circuit.edges:
    print(f"  {edge.name}: {found.circuit.effect(edge):.2f}")
for row in cf.scorecard(found.engine, found.circuit).measurements:
    print(f"{row.metric}: full {row.full:.2f}, circuit {row.circuit:.2f}, empty {row.empty:.2f}")
