"""Five programs of attention alone that are wired by hand, among heads that have no part in them.

The bystanders copy symbols to a part of the stream that nothing but other bystanders reads, so what
they write is large and the output does not depend on it. A method that goes by what components
write counts them in.
"""

import torch

from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of


def two_back(length: int = 5) -> Wiring:
    """Say the symbol two positions before: two heads in a row that each look one position back."""
    wiring = _wiring(("a", "b", "c"), length, {"before": 3}, "the symbol two positions before")
    positions = wiring.sizes["n_ctx"]
    here, symbol = SHARP * torch.eye(positions), _symbols(wiring)
    last = torch.eye(positions).roll(1, dims=1).tril(1).triu(1)
    wiring.head(
        0, 0, query={"position": here}, key={"position": last}, value={"token": symbol},
        output={"before": torch.eye(3)},
    )  # fmt: skip
    wiring.head(
        1, 0, query={"position": here}, key={"position": last}, value={"before": torch.eye(3)},
        output={"output": torch.eye(3)},
    )  # fmt: skip
    found = ["embed->a0.h0.v", "a0.h0->a1.h0.v", "a1.h0->logits"]
    return _stated(
        wiring, found, ["embed->a0.h0.q", "embed->a0.h0.k", "embed->a1.h0.q", "embed->a1.h0.k"]
    )


def maximum(length: int = 4) -> Wiring:
    """Say the largest symbol: one head, whose keys are the larger the larger the symbol."""
    symbols = ("1", "2", "3", "4")
    wiring = _wiring(symbols, length, {}, "the largest symbol")
    sizes = torch.arange(len(symbols) + 1.0)[:, None]
    wiring.head(
        1, 0, query={}, query_bias=[SHARP], key={"token": sizes},
        value={"token": _symbols(wiring)}, output={"output": torch.eye(len(symbols))},
    )  # fmt: skip
    return _stated(wiring, ["embed->a1.h0.k", "embed->a1.h0.v", "a1.h0->logits"], [])


def pointer() -> Wiring:
    """Say the symbol at the position that the first symbol names.

    a0.h0 looks up which position that is; a1.h0 goes there.
    """
    symbols = ("1", "2", "3", "4")
    wiring = _wiring(symbols, 4, {"target": 5}, "the symbol at the place that the first one names")
    wiring.head(
        0, 0, query={}, query_bias=[SHARP], key={"position": column(one(5, 1))},
        value={"token": torch.eye(5)}, output={"target": torch.eye(5)},
    )  # fmt: skip
    wiring.head(
        1, 0, query={"target": SHARP * torch.eye(5)}, key={"position": torch.eye(5)},
        value={"token": _symbols(wiring)}, output={"output": torch.eye(4)},
    )  # fmt: skip
    found = ["embed->a0.h0.v", "a0.h0->a1.h0.q", "embed->a1.h0.v", "a1.h0->logits"]
    return _stated(wiring, found, ["embed->a0.h0.k", "embed->a1.h0.k"])


def other_name(length: int = 4) -> Wiring:
    """Say which of the first two symbols is not that at the current position, as in IOI.

    a0.h0 finds where the current symbol stands among the first two; a1.h0 attends to both of these
    but for what a0.h0 has found.
    """
    wiring = _wiring(("a", "b", "c"), length, {"seen": length + 1}, "the other of two names")
    positions, symbol = wiring.sizes["n_ctx"], _symbols(wiring)
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
    return _stated(wiring, found, ["embed->a0.h0.v", "embed->a1.h0.k"])


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
    return _stated(wiring, found, blind)


def _wiring(symbols: tuple[str, ...], length: int, spaces: dict[str, int], program: str) -> Wiring:
    """Return two layers of three heads, two of which are bystanders; it says one symbol."""
    n = max(len(symbols), length) + 1
    sizes = sizes_of(
        symbols, symbols, length=length, n_layers=2, n_heads=3, d_head=n, d_mlp=0,
        attention="causal" if "before" in spaces else "bidirectional",
    )  # fmt: skip
    parts = {"token": len(symbols) + 1, "position": length + 1, **spaces}
    wiring = Wiring(sizes, {**parts, "aside": len(symbols), "output": len(symbols)})
    for layer, source in ((0, "token"), (1, "aside")):
        copied = _symbols(wiring) if source == "token" else torch.eye(len(symbols))
        for head in (1, 2):
            wiring.head(
                layer, head, query={}, key={}, value={source: copied},
                output={"aside": torch.eye(len(symbols))},
            )  # fmt: skip
    wiring.sizes["program"] = program
    return wiring


def _stated(wiring: Wiring, found: list[str], blind: list[str]) -> Wiring:
    """State the true circuit, and the edges that count where what all inputs share is cut too."""
    more = [*found, *blind]
    truth = {"resample": found, "mean": found, "zero": more, "mean-over-positions": more}
    wiring.sizes |= {"thresholds": [1e-6, 0.001], "truth": truth}
    return wiring


def _symbols(wiring: Wiring) -> torch.Tensor:
    """Return the map from tokens to symbols: BOS to none."""
    return torch.eye(wiring.sizes["d_vocab"])[:, 1:].clone()


def _beside(n: int, row: list[float]) -> torch.Tensor:
    """Return the map of a space to a single dimension that follows n others."""
    return torch.cat([torch.zeros(len(row), n), column(row)], dim=1)
