"""Nine programs of attention alone that are wired by hand, among heads that have no part in them.

The bystanders copy symbols to a part of the stream that nothing but other bystanders reads, so what
they write is large and the output does not depend on it. A method that goes by what components
write counts them in.
"""

from itertools import pairwise

import torch

from circuitfind.granularity import head_name
from circuitfind.models.wiring import (
    SHARP,
    Wiring,
    column,
    one,
    sizes_of,
    stated,
    symbols_of,
)


def two_back(length: int = 5) -> Wiring:
    """Say the symbol two positions before: two heads in a row that each look one position back."""
    return _back(2, length, "the symbol two positions before")


def three_back(length: int = 5) -> Wiring:
    """Say the symbol three positions before: three heads in a row."""
    return _back(3, length, "the symbol three positions before")


def _back(n: int, length: int, program: str) -> Wiring:
    """Wire n heads in a row, the first of each layer, that each look one position back."""
    between = {f"before{n - layer}": 3 for layer in range(1, n)}
    wiring = _wiring(("a", "b", "c"), length, between, program, n_layers=n, attention="causal")
    positions = wiring.sizes["n_ctx"]
    here, last = SHARP * torch.eye(positions), torch.eye(positions).roll(1, dims=1).tril(1).triu(1)
    for layer, (read, written) in enumerate(pairwise(["token", *between, "output"])):
        wiring.head(
            layer, 0, query={"position": here}, key={"position": last},
            value={read: symbols_of(wiring) if layer == 0 else torch.eye(3)},
            output={written: torch.eye(3)},
        )  # fmt: skip
    heads = [head_name(layer, 0) for layer in range(n)]
    ends = zip(["embed", *heads], [*(f"{head}.v" for head in heads), "logits"], strict=True)
    found = [f"{writer}->{reader}" for writer, reader in ends]
    # A symbol goes one position on in each layer.
    placed = [
        f"{edge}@{first + layer}"
        for first in range(1, length - n + 1)
        for layer, edge in enumerate(found)
    ]
    wiring.sizes["placed"] = {"resample": placed, "mean": placed}
    return stated(wiring, found, [f"embed->{head}.{port}" for head in heads for port in "qk"])


def maximum(length: int = 4) -> Wiring:
    """Say the largest symbol: one head, whose keys are the larger the larger the symbol."""
    symbols = ("1", "2", "3", "4")
    wiring = _wiring(symbols, length, {}, "the largest symbol")
    sizes = torch.arange(len(symbols) + 1.0)[:, None]
    wiring.head(
        1, 0, query={}, query_bias=[SHARP], key={"token": sizes},
        value={"token": symbols_of(wiring)}, output={"output": torch.eye(len(symbols))},
    )  # fmt: skip
    return stated(wiring, ["embed->a1.h0.k", "embed->a1.h0.v", "a1.h0->logits"], [])


def where_largest(length: int = 4) -> Wiring:
    """Say where the largest symbol stands: the keys of `maximum`, and positions for values."""
    symbols = ("1", "2", "3", "4")
    wiring = _wiring(symbols, length, {}, "the position of the largest symbol")
    wiring.head(
        1, 0, query={}, query_bias=[SHARP],
        key={"token": torch.arange(len(symbols) + 1.0)[:, None]},
        value={"position": torch.eye(length + 1)[:, 1:].clone()},
        output={"output": torch.eye(len(symbols))},
    )  # fmt: skip
    return stated(wiring, ["embed->a1.h0.k", "a1.h0->logits"], ["embed->a1.h0.v"])


def skip_trigram(length: int = 5) -> Wiring:
    """Say a at each b that an a stands before, and nothing elsewhere.

    One head: at b it looks for a, and elsewhere, or where there is none, at BOS.
    """
    wiring = _wiring(("a", "b", "c"), length, {}, "a at each b that an a stands before",
                     attention="causal")  # fmt: skip
    looked_for = torch.zeros(4, 2)
    looked_for[1, 0] = looked_for[0, 1] = 1.0
    wiring.head(
        1, 0, query={"token": column(one(4, 2)) * SHARP}, query_bias=[0.0, SHARP / 2],
        key={"token": looked_for}, value={"token": symbols_of(wiring)},
        output={"output": torch.eye(3)},
    )  # fmt: skip
    found = ["embed->a1.h0.q", "embed->a1.h0.k", "embed->a1.h0.v", "a1.h0->logits"]
    return stated(wiring, found, [])


def pointer() -> Wiring:
    """Say the symbol at the position that the first symbol names.

    a0.h0 looks up which position that is; a1.h0 goes there.
    """
    return _pointer(1, "the symbol at the place that the first one names")


def pointer_twice() -> Wiring:
    """Say the symbol at the position named by the symbol at the position that the first one names.

    a0.h0 looks up the first symbol; a1.h0 goes where it points to, and a2.h0 where that points to.
    """
    return _pointer(2, "the symbol at the end of two pointers, the first of which comes first")


def _pointer(n: int, program: str) -> Wiring:
    """Wire a head that looks up the first symbol, and n that each go where the last one says."""
    symbols, targets = ("1", "2", "3", "4"), [f"target{number}" for number in range(1, n + 1)]
    wiring = _wiring(symbols, 4, dict.fromkeys(targets, 5), program, n_layers=n + 1)
    wiring.head(
        0, 0, query={}, query_bias=[SHARP], key={"position": column(one(5, 1))},
        value={"token": torch.eye(5)}, output={"target1": torch.eye(5)},
    )  # fmt: skip
    heads = [head_name(layer, 0) for layer in range(n + 1)]
    found = [f"embed->{heads[0]}.v"]
    for layer, (read, written) in enumerate(pairwise([*targets, "output"]), 1):
        last = written == "output"
        wiring.head(
            layer, 0, query={read: SHARP * torch.eye(5)}, key={"position": torch.eye(5)},
            value={"token": symbols_of(wiring) if last else torch.eye(5)},
            output={written: torch.eye(4 if last else 5)},
        )  # fmt: skip
        found += [f"{heads[layer - 1]}->{heads[layer]}.q", f"embed->{heads[layer]}.v"]
    found += [f"{heads[n]}->logits"]
    return stated(wiring, found, [f"embed->{head}.k" for head in heads])


def other_name(length: int = 4) -> Wiring:
    """Say which of the first two symbols is not that at the current position, as in IOI.

    a0.h0 finds where the current symbol stands among the first two; a1.h0 attends to both of these
    but for what a0.h0 has found.
    """
    wiring = _wiring(("a", "b", "c"), length, {"seen": length + 1}, "the other of two names")
    positions, symbol = wiring.sizes["n_ctx"], symbols_of(wiring)
    pair = torch.diag(torch.tensor(one(positions, 1, 2)))
    wiring.head(
        0, 0, query={"token": SHARP * symbol}, query_bias=[0.0, 0.0, 0.0, SHARP],
        key={"token": symbol, "position": _beside(3, one(positions, 1, 2))},
        value={"position": pair}, output={"seen": torch.eye(positions)},
    )  # fmt: skip
    wiring.head(
        1, 0, query={"seen": -SHARP * pair}, query_bias=[SHARP * each for each in
                                                            one(positions, 1, 2)],
        key={"position": torch.eye(positions)}, value={"token": symbol},
        output={"output": torch.eye(3)},
    )  # fmt: skip
    found = [
        "embed->a0.h0.q", "embed->a0.h0.k", "a0.h0->a1.h0.q", "embed->a1.h0.v", "a1.h0->logits",
    ]  # fmt: skip
    return stated(wiring, found, ["embed->a0.h0.v", "embed->a1.h0.k"])


def negative_copy() -> Wiring:
    """Say half of the first symbol where an x stands, and half of the second one elsewhere.

    a0.h0 marks each x. By that a1.h0 looks at the first symbol or the second and copies it; a1.h1
    looks where a1.h0 looks and takes half of it back.
    """
    symbols = ("a", "b", "c", "x", "y")
    n = len(symbols) + 1
    sizes = sizes_of(
        symbols, ("BOS", *symbols), length=3, n_layers=2, n_heads=2, d_head=n, d_mlp=0,
        attention="causal",
    )  # fmt: skip
    wiring = Wiring(sizes, {"token": n, "position": 4, "flag": 1, "output": n})
    wiring.head(
        0, 0, query={"position": SHARP * torch.eye(4)}, key={"position": torch.eye(4)},
        value={"token": column(one(n, 4))}, output={"flag": torch.ones(1, 1)},
    )  # fmt: skip
    places = torch.zeros(4, 2)
    places[1, 0] = places[2, 1] = 1.0
    for head, share in ((0, 1.0), (1, -0.5)):
        wiring.head(
            1, head, query={"flag": torch.tensor([[2 * SHARP, 0.0]])}, query_bias=[0.0, SHARP],
            key={"position": places}, value={"token": torch.eye(n)},
            output={"output": share * torch.eye(n)},
        )  # fmt: skip
    wiring.sizes["program"] = "half of the first symbol at an x, half of the second elsewhere"
    found = ["embed->a0.h0.v"]
    for name in ("a1.h0", "a1.h1"):
        found += [f"a0.h0->{name}.q", f"embed->{name}.v", f"{name}->logits"]
    blind = ["embed->a0.h0.q", "embed->a0.h0.k", "embed->a1.h0.k", "embed->a1.h1.k"]
    return stated(wiring, found, blind)


def _wiring(
    symbols: tuple[str, ...], length: int, spaces: dict[str, int], program: str, **sizes: int | str
) -> Wiring:
    """Return layers of three heads, two of which are bystanders; it says one symbol.

    There are two layers, of bidirectional attention, unless `sizes` say something else.
    """
    n = max(len(symbols), length) + 1
    given: dict[str, int | str] = {"n_layers": 2, "n_heads": 3, "d_head": n, "d_mlp": 0, **sizes}
    found = sizes_of(symbols, symbols, length=length, **given)
    parts = {"token": len(symbols) + 1, "position": length + 1, **spaces}
    wiring = Wiring(found, {**parts, "aside": len(symbols), "output": len(symbols)})
    for layer in range(found["n_layers"]):
        source = "aside" if layer else "token"
        copied = torch.eye(len(symbols)) if layer else symbols_of(wiring)
        for head in (1, 2):
            wiring.head(
                layer, head, query={}, key={}, value={source: copied},
                output={"aside": torch.eye(len(symbols))},
            )  # fmt: skip
    wiring.sizes["program"] = program
    return wiring


def _beside(n: int, row: list[float]) -> torch.Tensor:
    """Return the map of a space to a single dimension that follows n others."""
    return torch.cat([torch.zeros(len(row), n), column(row)], dim=1)
