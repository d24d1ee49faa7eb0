"""Circuits wired by hand, each with something that a search must see, or is known to miss.

`induction-pair`: a previous-token head feeds the key of an induction head. `and-gate`: both inputs
count. `or-gate`: either input suffices, so one can be cut without loss if both are on.
`backup-head`: a second head takes over only where the first one has not written. `xor-gate`: one
input takes back what the other says. `majority`: any two of three inputs suffice. `and-or`: one MLP
after the other. `exactly-one`: three units of nine count. `modular-addition`: each pair of digits
has a unit. `two-circuits`: two heads do the same, and share no edge.
"""

from collections.abc import Sequence
from itertools import product

import torch

from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of, stated, symbols_of


def induction_pair(length: int = 7, symbols: Sequence[str] = ("a", "b", "c", "d")) -> Wiring:
    """Say what followed the current symbol before, and nothing if it is new.

    a0.h0 copies the symbol before each position; a1.h0 looks for its own symbol among those
    copies, finds the position after it, and says what stands there. BOS is attended where nothing
    else is found.
    """
    n = len(symbols)
    sizes = sizes_of(
        symbols, symbols, length=length, n_layers=2, n_heads=1, d_head=length + 1, d_mlp=0,
        attention="causal",
    )  # fmt: skip
    tokens, positions = sizes["d_vocab"], sizes["n_ctx"]
    wiring = Wiring(sizes, {"token": tokens, "position": positions, "previous": n, "output": n})
    symbol = torch.eye(tokens)[:, 1:]
    wiring.head(
        0, 0, query={"position": SHARP * torch.eye(positions)},
        key={"position": torch.eye(positions).roll(1, dims=1).tril(1).triu(1)},
        value={"token": symbol}, output={"previous": torch.eye(n)},
    )  # fmt: skip
    first = torch.zeros(tokens, n + 1)
    first[0, n] = 1.0
    wiring.head(
        1, 0, query={"token": SHARP * symbol}, query_bias=[*[0.0] * n, SHARP / 2],
        key={"previous": torch.eye(n), "token": first},
        value={"token": symbol}, output={"output": torch.eye(n)},
    )  # fmt: skip
    found = [
        "embed->a0.h0.v", "a0.h0->a1.h0.k", "embed->a1.h0.q", "embed->a1.h0.v", "a1.h0->logits",
    ]  # fmt: skip
    blind = [*found, "embed->a0.h0.q", "embed->a0.h0.k", "embed->a1.h0.k"]
    # On the prompts of `induction-pair:once`.
    placed = [
        "embed->a0.h0.v@first", "a0.h0->a1.h0.k@next", "embed->a1.h0.q@end", "embed->a1.h0.v@next",
        "a1.h0->logits@end",
    ]  # fmt: skip
    moves = [
        "a0.h0.v@first->a0.h0@next", "a1.h0.q@next->a1.h0@end", "a1.h0.k@next->a1.h0@end",
        "a1.h0.v@next->a1.h0@end",
    ]  # fmt: skip
    moved = [*placed, *moves]
    wiring.sizes |= {
        "program": "what followed the current symbol before",
        "thresholds": [1e-6, 0.01],
        "truth": {"resample": found, "mean": found, "zero": blind, "mean-over-positions": blind},
        "placed": {"resample": placed, "mean": placed},
        "crossing": {"resample": moved, "mean": moved},
    }
    return wiring


def and_gate() -> Wiring:
    """Say 1 iff both symbols are 1: relu(a + b - 1)."""
    wiring = _gate("1 if both inputs are 1")
    wiring.unit(0, 0, {"a": [1.0], "b": [1.0]}, -1.0, {"output": [1.0]})
    return wiring


def or_gate() -> Wiring:
    """Say 1 iff a symbol is 1: relu(a + b) - relu(a + b - 1)."""
    wiring = _gate("1 if an input is 1")
    wiring.unit(0, 0, {"a": [1.0], "b": [1.0]}, 0.0, {"output": [1.0]})
    wiring.unit(0, 1, {"a": [1.0], "b": [1.0]}, -1.0, {"output": [-1.0]})
    return wiring


def xor_gate() -> Wiring:
    """Say 1 iff one symbol is 1: relu(a + b) - 2 relu(a + b - 1)."""
    wiring = _gate("1 if one input is 1 and the other is not")
    wiring.unit(0, 0, {"a": [1.0], "b": [1.0]}, 0.0, {"output": [1.0]})
    wiring.unit(0, 1, {"a": [1.0], "b": [1.0]}, -1.0, {"output": [-2.0]})
    return wiring


def majority() -> Wiring:
    """Say 1 iff at least two of three symbols are 1: relu(a + b + c - 1) - relu(a + b + c - 2)."""
    wiring = _gate("1 if two of three inputs are 1", "abc")
    every = {"a": [1.0], "b": [1.0], "c": [1.0]}
    wiring.unit(0, 0, every, -1.0, {"output": [1.0]})
    wiring.unit(0, 1, every, -2.0, {"output": [-1.0]})
    return wiring


def exactly_one() -> Wiring:
    """Say 1 iff one of three symbols is 1: relu(s) - 2 relu(s - 1) + relu(s - 2), with their sum s.

    Other units are as active: they write where nothing reads, or nothing, or the same always.
    """
    wiring = _gate("1 if one of three inputs is 1", "abc", n_units=9, idle=2)
    every = {"a": [1.0], "b": [1.0], "c": [1.0]}
    for number, fewer, weight in ((1, 0.0, 1.0), (4, 1.0, -2.0), (6, 2.0, 1.0)):
        wiring.unit(0, number, every, -fewer, {"output": [weight]})
    wiring.unit(0, 0, {"a": [1.0]}, 0.5, {"idle": [1.0, 0.0]})
    wiring.unit(0, 2, {"b": [1.0], "c": [-1.0]}, 0.0, {"idle": [1.0, 1.0]})
    wiring.unit(0, 3, every, -1.0, {})
    wiring.unit(0, 5, {}, 0.25, {"output": [1.0]})
    wiring.unit(0, 7, every, 0.0, {"idle": [0.0, 1.0]})
    edges = [edge for edge in wiring.sizes["truth"]["resample"] if edge != "m0->logits"]
    edges += [f"m0.n{number}->logits" for number in (1, 4, 6)]
    wiring.sizes["units"] = {"resample": edges, "mean": edges}
    return wiring


def and_or() -> Wiring:
    """Say 1 iff the first two symbols are 1, or the third is.

    m0 joins the first two, and m1 what m0 says and the third: relu(m + c) - relu(m + c - 1).
    """
    wiring = _gate("1 if the first two inputs are 1, or the third is", "abc", n_layers=2, both=1)
    wiring.unit(0, 0, {"a": [1.0], "b": [1.0]}, -1.0, {"both": [1.0]})
    wiring.unit(1, 0, {"both": [1.0], "c": [1.0]}, 0.0, {"output": [1.0]})
    wiring.unit(1, 1, {"both": [1.0], "c": [1.0]}, -1.0, {"output": [-1.0]})
    joined = ["a0.h0->m0", "a0.h1->m0", "m0->m1", "a0.h2->m1", "m1->logits"]
    for edges in wiring.sizes["truth"].values():
        edges[:] = [edge for edge in edges if "m0" not in edge] + joined
    return wiring


def modular_addition(n: int = 4) -> Wiring:
    """Say the sum of two digits modulo n: a unit for each pair of digits."""
    digits = [str(digit) for digit in range(n)]
    sizes = sizes_of(digits, digits, length=2, n_layers=1, n_heads=2, d_head=n, d_mlp=n * n)
    wiring = Wiring(sizes, {"token": n + 1, "position": 3, "a": n, "b": n, "output": n})
    for head, space in enumerate("ab"):
        wiring.head(
            0, head, query={}, query_bias=[SHARP], key={"position": column(one(3, head + 1))},
            value={"token": symbols_of(wiring)}, output={space: torch.eye(n)},
        )  # fmt: skip
    for unit, (left, right) in enumerate(product(range(n), repeat=2)):
        reads = {"a": one(n, left), "b": one(n, right)}
        wiring.unit(0, unit, reads, -1.0, {"output": one(n, (left + right) % n)})
    wiring.sizes["program"] = f"the sum of two digits modulo {n}"
    found = ["embed->a0.h0.v", "embed->a0.h1.v", "a0.h0->m0", "a0.h1->m0", "m0->logits"]
    return stated(wiring, found, ["embed->a0.h0.k", "embed->a0.h1.k"])


def _gate(
    program: str, inputs: str = "ab", n_layers: int = 1, n_units: int = 2, **more: int
) -> Wiring:
    """Bring each input to every position, by a head of its own; m0 joins them."""
    n = len(inputs)
    heads = ("a0.h0", "a0.h1", "a0.h2")[:n]
    sizes = sizes_of(
        ("0", "1"), ("1",), length=n, n_layers=n_layers, n_heads=n, d_head=1, d_mlp=n_units
    )
    spaces = {**dict.fromkeys(inputs, 1), **more}
    wiring = Wiring(sizes, {"token": 3, "position": n + 1, **spaces, "output": 1})
    for head, space in enumerate(inputs):
        wiring.head(
            0, head, query={}, query_bias=[SHARP], key={"position": column(one(n + 1, head + 1))},
            value={"token": column(one(3, 2))}, output={space: torch.ones(1, 1)},
        )  # fmt: skip
    found = [
        *(f"embed->{head}.v" for head in heads),
        *(f"{head}->m0" for head in heads),
        "m0->logits",
    ]
    blind = [*found, *(f"embed->{head}.k" for head in heads)]
    wiring.sizes |= {
        "program": program,
        "output": "numerical",
        "thresholds": [1e-6, 0.01],
        "truth": {
            "resample": [*found],
            "mean": [*found],
            "zero": [*blind],
            "mean-over-positions": [*blind],
        },
    }
    return wiring


def backup_head(length: int = 3, symbols: Sequence[str] = ("a", "b", "c")) -> Wiring:
    """Say the first symbol at every position.

    a0.h0 copies it and leaves a flag. a1.h0 would copy it too, but where it reads the flag its
    query turns away, to BOS, of which it says nothing: it is a backup, silent while a0.h0 works.
    """
    n = len(symbols)
    sizes = sizes_of(
        symbols, symbols, length=length, n_layers=2, n_heads=1, d_head=n + 1, d_mlp=0
    )  # fmt: skip
    tokens, positions = sizes["d_vocab"], sizes["n_ctx"]
    wiring = Wiring(sizes, {"token": tokens, "position": positions, "flag": 1, "output": n})
    symbol = torch.eye(tokens)[:, 1:]
    flagged = torch.cat([symbol, symbol.sum(1, keepdim=True)], dim=1)
    wiring.head(
        0, 0, query={}, query_bias=[SHARP], key={"position": column(one(positions, 1))},
        value={"token": flagged},
        output={"output": torch.eye(n + 1)[:, :n], "flag": column(one(n + 1, n))},
    )  # fmt: skip
    first_not_bos = column(one(positions, 1)) - column(one(positions, 0))
    wiring.head(
        1, 0, query={"flag": torch.tensor([[-2 * SHARP]])}, query_bias=[SHARP],
        key={"position": first_not_bos}, value={"token": symbol}, output={"output": torch.eye(n)},
    )  # fmt: skip
    found = ["embed->a0.h0.v", "a0.h0->logits"]
    blind = [*found, "embed->a0.h0.k"]
    wiring.sizes |= {
        "program": "the first symbol, with a backup",
        "thresholds": [1e-6, 0.01],
        "truth": {"resample": found, "mean": found, "zero": blind, "mean-over-positions": blind},
        # What cutting each edge alone shows where that differs: some cuts wake the backup, and
        # under zero ablation it then makes up for the loss of a0.h0's value.
        "alone": {
            "zero": ["a0.h0->logits", "embed->a0.h0.k", "a0.h0->a1.h0.q", "embed->a1.h0.k"],
            "mean-over-positions": [*blind, "embed->a1.h0.k", "embed->a1.h0.v"],
        },
        "rivals": {"zero": [["embed->a1.h0.k", "embed->a1.h0.v", "a1.h0->logits"]]},
    }
    return wiring


def two_circuits(symbols: Sequence[str] = ("a", "b", "c")) -> Wiring:
    """Say the first symbol with certainty, twice: a0.h0 and a1.h0 copy it, each for itself.

    The probabilities of one head alone are those of both, up to 1e-17. After - they say the second
    symbol, by 3e-16 together. Under `resample` either is enough where corrupted inputs begin with
    -, as those of its task do: another symbol there would be said by what carries it.
    """
    n = len(symbols)
    sizes = sizes_of([*symbols, "-"], symbols, length=2, n_layers=2, n_heads=1, d_head=n, d_mlp=0)
    wiring = Wiring(sizes, {"token": n + 2, "position": 3, "output": n})
    for layer in (0, 1):
        wiring.head(
            layer, 0, query={}, query_bias=[SHARP], key={"position": column(one(3, 1))},
            value={"token": symbols_of(wiring)[:, :n]}, output={"output": SHARP * torch.eye(n)},
        )  # fmt: skip
    wiring.sizes["program"] = "the first symbol, by two heads that share no edge"
    stated(wiring, ["embed->a0.h0.v", "a0.h0->logits"], ["embed->a0.h0.k"])
    truth = wiring.sizes["truth"]
    # Cut alone, no edge has an effect: the other head does the work.
    wiring.sizes["alone"] = {ablation: [] for ablation in truth}
    wiring.sizes["rivals"] = {
        ablation: [[edge.replace("a0", "a1") for edge in edges]]
        for ablation, edges in truth.items()
    }
    return wiring
