"""Five programs wired by hand that count: a head measures how many, an MLP looks the number up.

As in `programs`, a number of positions is the share of attention that is left to BOS.
"""

from collections.abc import Sequence

import torch

from circuitfind.models.wiring import (
    SHARP,
    STEEP,
    Map,
    Wiring,
    column,
    count_step,
    one,
    sizes_of,
    stated,
    step,
    symbols_of,
)

_BY_NUMBER = [
    "embed->a0.h0.q", "embed->a0.h0.k", "a0.h0->m0", "m0->a1.h0.k", "embed->a1.h0.v",
    "a1.h0->logits",
]  # fmt: skip
"""The edges of a program whose last head goes by a number that m0 looks up."""


def sort(length: int = 4, symbols: Sequence[str] = ("1", "2", "3")) -> Wiring:
    """Say the input in order of size.

    a0.h0 measures how many symbols are smaller than each; m0 looks that number up, its rank; at the
    n-th position a1.h0 attends to the largest rank below n.
    """
    wiring = _wiring(symbols, symbols, length, {"rank": length}, "the input, the smallest first")
    tokens, positions = wiring.sizes["d_vocab"], wiring.sizes["n_ctx"]
    smaller = torch.ones(tokens, tokens).tril(-1)
    smaller[0] = torch.tensor([0.0, *[1.0] * (tokens - 1)])
    _count(wiring, query={"token": SHARP * smaller}, key={"token": torch.eye(tokens)})
    _look_up(wiring, "rank", torch.eye(length))
    ranks = torch.zeros(positions, length)
    for position in range(1, positions):
        ranks[position, :position] = SHARP * torch.arange(1.0, position + 1)
    wiring.head(
        1, 0, query={"position": ranks}, key={"rank": torch.eye(length)},
        value={"token": symbols_of(wiring)}, output={"output": torch.eye(len(symbols))},
    )  # fmt: skip
    return stated(wiring, _BY_NUMBER, ["embed->a0.h0.v", "embed->a1.h0.q"])


def first_unique(length: int = 4, symbols: Sequence[str] = ("a", "b", "c")) -> Wiring:
    """Say the first symbol that occurs once, and nothing if there is none.

    a0.h0 measures how often each symbol occurs; m0 marks those that occur once; a1.h0 attends to
    the first mark, or to BOS.
    """
    wiring = _wiring(symbols, symbols, length, {"once": 1}, "the first symbol that occurs once")
    _count_same(wiring)
    count_step(wiring, 0, 1, {"once": [1.0]})
    order = [length + 1.0, *(-float(position) for position in range(1, length + 1))]
    wiring.head(
        1, 0, query={}, query_bias=[SHARP],
        key={"once": torch.full((1, 1), 2.0 * length + 2), "position": column(order)},
        value={"token": symbols_of(wiring)}, output={"output": torch.eye(len(symbols))},
    )  # fmt: skip
    return stated(wiring, _BY_NUMBER, ["embed->a0.h0.v", "embed->a1.h0.k"])


def first_seen(length: int = 5, symbols: Sequence[str] = ("a", "b", "c")) -> Wiring:
    """Say 1 where a symbol stands for the first time: hist, so far, is 1."""
    wiring = _wiring(
        symbols, ("new",), length, {}, "1 where a symbol stands for the first time", n_layers=1,
        attention="causal",
    )  # fmt: skip
    _count_same(wiring)
    count_step(wiring, 0, 1, {"output": [1.0]})
    found = ["embed->a0.h0.q", "embed->a0.h0.k", "a0.h0->m0", "m0->logits"]
    return stated(wiring, found, ["embed->a0.h0.v"], output="numerical")


def parity(length: int = 4) -> Wiring:
    """Say 1 if the number of symbols 1 is odd."""
    wiring = _wiring(("0", "1"), ("odd",), length, {}, "1 if the number of ones is odd", n_layers=1)
    _count(wiring, query={}, query_bias=[SHARP], key={"token": column(one(3, 0, 2))})
    _look_up(wiring, "output", torch.arange(length + 1.0)[:, None] % 2)
    found = ["embed->a0.h0.k", "a0.h0->m0", "m0->logits"]
    return stated(wiring, found, ["embed->a0.h0.v"], output="numerical")


def balance(length: int = 4) -> Wiring:
    """Say at every position whether the brackets so far are balanced, open, or cannot be mended.

    a0.h0 measures how many more are opened than closed; m0 marks where that is below 0; a1.h0
    looks for a mark so far; m1 joins both.
    """
    wiring = _wiring(
        ("(", ")"), ("balanced", "open", "wrong"), length, {"more": 1, "below": 1, "marked": 1},
        "whether brackets are balanced so far", attention="causal",
    )  # fmt: skip
    for layer, token, signs, written in (
        (0, "token", [[0.0], [1.0], [-1.0]], "more"),
        (1, "below", [[1.0]], "marked"),
    ):
        wiring.head(
            layer, 0, query={}, key={}, value={token: torch.tensor(signs)},
            output={written: torch.ones(1, 1)},
        )  # fmt: skip
    step(wiring, 0, 0, {"more": [-STEEP]}, {"below": [1.0]})
    # A mark is at least 1 of length + 1 and what is open less than 1, so this is below 0 if marked.
    step(wiring, 1, 0, {"more": [STEEP], "marked": [-STEEP * (length + 1)]},
          {"output": [-1.0, 1.0, 0.0]})  # fmt: skip
    step(wiring, 1, 2, {"marked": [STEEP]}, {"output": [-1.0, 0.0, 1.0]})
    wiring.unit(1, 4, {}, 1.0, {"output": [1.0, 0.0, 0.0]})
    found = [
        "embed->a0.h0.v", "a0.h0->m0", "m0->a1.h0.v", "a1.h0->m1", "a0.h0->m1", "m1->logits",
    ]  # fmt: skip
    return stated(wiring, found, [])


def _wiring(
    symbols: Sequence[str],
    outputs: Sequence[str],
    length: int,
    spaces: dict[str, int],
    program: str,
    **sizes: int | str,
) -> Wiring:
    """Return layers of one head and one MLP, by default two."""
    width = max(len(symbols) + 1, length)
    given: dict[str, int | str] = {
        "n_layers": 2, "n_heads": 1, "d_head": width, "d_mlp": 2 * length + 2, **sizes
    }  # fmt: skip
    wiring = Wiring(
        sizes_of(symbols, outputs, length=length, **given),
        {"token": len(symbols) + 1, "position": length + 1, "share": 1, **spaces,
         "output": len(outputs)},
    )  # fmt: skip
    wiring.sizes["program"] = program
    return wiring


def _count(
    wiring: Wiring,
    *,
    query: dict[str, Map],
    key: dict[str, Map],
    query_bias: Sequence[float] = (),
) -> None:
    """Have a0.h0 measure what it attends to, BOS included: 1 / (number + 1)."""
    wiring.head(
        0, 0, query=query, query_bias=query_bias, key=key,
        value={"token": column(one(wiring.sizes["d_vocab"], 0))},
        output={"share": torch.ones(1, 1)},
    )  # fmt: skip


def _count_same(wiring: Wiring) -> None:
    """Have a0.h0 measure how often the symbol of each position occurs."""
    same_or_first = symbols_of(wiring)
    same_or_first[0] = 1.0
    _count(wiring, query={"token": SHARP * symbols_of(wiring)}, key={"token": same_or_first})


def _look_up(wiring: Wiring, space: str, table: Map) -> None:
    """Have m0 write the row of a table whose number was counted."""
    changes = table - torch.cat([table[1:], torch.zeros_like(table[:1])])
    for count, change in enumerate(changes):
        count_step(wiring, 2 * count, count, {space: change.tolist()})
