"""Three programs wired by hand: `reverse`, `hist` and `xproportion`.

They compute what the Tracr examples of these names do (Lindner et al., 2023, "Tracr: Compiled
Transformers as a Laboratory for Interpretability", https://arxiv.org/abs/2301.05062): the input
backwards, how often each symbol occurs, the share of `x` so far. A number of positions is counted
as Tracr does, by the share of attention that BOS gets, and looked up by the steps of an MLP.
"""

from collections.abc import Sequence

import torch

from circuitfind.models.wiring import SHARP, Wiring, column, count_step, one, sizes_of, symbols_of


def reverse(length: int = 4, symbols: Sequence[str] = ("0", "1", "2")) -> Wiring:
    """Say the input backwards, for any length up to `length`.

    a0.h0 attends to everything and so measures 1/(length+1); m0 looks up which position is
    opposite; a1.h0 goes there and copies the symbol.
    """
    n_units = length * (length + 1)
    sizes = sizes_of(
        symbols, symbols, length=length, n_layers=2, n_heads=1, d_head=length + 1, d_mlp=n_units
    )
    tokens, positions = sizes["d_vocab"], sizes["n_ctx"]
    wiring = Wiring(
        sizes,
        {"token": tokens, "position": positions, "share": 1, "target": positions,
         "output": len(symbols)},
    )  # fmt: skip
    wiring.head(
        0, 0, query={}, key={}, value={"token": column(one(tokens, 0))},
        output={"share": torch.ones(1, 1)},
    )  # fmt: skip
    unit = 0
    for position in range(1, positions):
        for n in range(position, length + 1):
            target = torch.tensor(one(positions, n + 1 - position))
            if n < length:
                target = target - torch.tensor(one(positions, n + 2 - position))
            count_step(wiring, unit, n, {"target": target.tolist()}, position=position)
            unit += 2
    wiring.head(
        1, 0, query={"target": SHARP * torch.eye(positions)},
        key={"position": torch.eye(positions)}, value={"token": symbols_of(wiring)},
        output={"output": torch.eye(len(symbols))},
    )  # fmt: skip
    found = ["embed->a1.h0.v", "a1.h0->logits"]
    blind = ["embed->m0", "m0->a1.h0.q", "embed->a1.h0.k", *found]
    wiring.sizes |= {
        "program": "the input backwards",
        "thresholds": [1e-6, 0.05],
        "truth": {
            "resample": found,
            "mean": found,
            "zero": ["embed->a0.h0.v", "a0.h0->m0", *blind],
            "mean-over-positions": blind,
        },
    }
    return wiring


def hist(length: int = 5, symbols: Sequence[str] = ("a", "b", "c")) -> Wiring:
    """Say how often each position's symbol occurs.

    a0.h0 attends to all positions with the same symbol and to BOS, and so measures 1/(count+1); m0
    looks up the count.
    """
    counts = [str(count) for count in range(1, length + 1)]
    sizes = sizes_of(
        symbols, counts, length=length, n_layers=1, n_heads=1, d_head=len(symbols), d_mlp=2 * length
    )
    tokens = sizes["d_vocab"]
    wiring = Wiring(
        sizes, {"token": tokens, "position": length + 1, "share": 1, "output": length}
    )  # fmt: skip
    same_or_first = symbols_of(wiring)
    same_or_first[0] = 1.0
    wiring.head(
        0, 0, query={"token": SHARP * symbols_of(wiring)}, key={"token": same_or_first},
        value={"token": column(one(tokens, 0))}, output={"share": torch.ones(1, 1)},
    )  # fmt: skip
    for count in range(1, length + 1):
        written = torch.tensor(one(length, count - 1))
        if count < length:
            written = written - torch.tensor(one(length, count))
        count_step(wiring, 2 * (count - 1), count, {"output": written.tolist()})
    found = ["embed->a0.h0.q", "embed->a0.h0.k", "a0.h0->m0", "m0->logits"]
    blind = [*found, "embed->a0.h0.v"]
    wiring.sizes |= {
        "program": "how often each position's symbol occurs",
        "thresholds": [1e-6, 0.05],
        "truth": {"resample": found, "mean": found, "zero": blind, "mean-over-positions": blind},
    }
    return wiring


def xproportion(length: int = 5, symbols: Sequence[str] = ("w", "x", "y")) -> Wiring:
    """Say which share of the symbols so far is `x`.

    m0 marks each x; a1.h0 attends evenly to all symbols so far, though not to BOS, and so averages
    the marks.
    """
    sizes = sizes_of(
        symbols, ("share",), length=length, n_layers=2, n_heads=1, d_head=1, d_mlp=1,
        attention="causal",
    )  # fmt: skip
    tokens = sizes["d_vocab"]
    wiring = Wiring(sizes, {"token": tokens, "position": length + 1, "mark": 1, "output": 1})
    is_x = one(tokens, 1 + list(symbols).index("x"))
    wiring.unit(0, 0, {"token": is_x}, 0.0, {"mark": [1.0]})
    wiring.head(
        1, 0, query={}, query_bias=[SHARP], key={"token": -column(one(tokens, 0))},
        value={"mark": torch.ones(1, 1)}, output={"output": torch.ones(1, 1)},
    )  # fmt: skip
    found = ["embed->m0", "m0->a1.h0.v", "a1.h0->logits"]
    blind = [*found, "embed->a1.h0.k"]
    wiring.sizes |= {
        "program": "the share of x among the symbols so far",
        "output": "numerical",
        "thresholds": [1e-6, 0.005],
        "truth": {"resample": found, "mean": found, "zero": blind, "mean-over-positions": blind},
    }
    return wiring
