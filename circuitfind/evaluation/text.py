"""Unrelated text as a problem: how well does the model predict the next token?

Each line of the text is read by itself, and a long one in pieces. The metric is the loss at every
token but the first, in nats, averaged over the tokens of a piece. There are no corrupted prompts,
so a cut edge carries the mean of what its writer writes, over all pieces and positions of the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from circuitfind.ablations import MEAN_OF_CLEAN
from circuitfind.errors import PromptError, quoted
from circuitfind.graph import Graph
from circuitfind.metrics import LOSS
from circuitfind.models.base import ResidualModel
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.problem import Problem, assemble
from circuitfind.prompts import Pair, collate

LONGEST = 32
"""Tokens of a piece."""

MOST = 64
"""Pieces that are read; of a longer text as many, at equal distances."""


def text_problem(model: ResidualModel, graph: Graph, text: str) -> Problem:
    """Return the prediction of a text's tokens as a problem.

    Raises:
        CircuitfindError: The model has no tokenizer or does not predict the next token, the text
            has no two tokens in a line, or the graph tells places apart, which a text has not.
    """
    vocabulary, name = model.vocabulary, quoted(model.name)
    if not isinstance(vocabulary, Vocabulary) or vocabulary.tokenizer is None:
        raise PromptError(f"{name} has no tokenizer to read a text with; leave the text out")
    if not model.causal:
        raise PromptError(
            f"{name} lets a position see what follows it, so that it has no loss of the next "
            "token; leave the text out"
        )
    if model.n_positions < 2:
        raise PromptError(
            f"{name} reads a single token, so that it has no loss of the next; leave the text out"
        )
    if graph.places:
        raise PromptError(
            "the circuits tell places apart, which a text does not have; leave the text out, or "
            "give runs without --places"
        )
    pieces = list(_pieces(vocabulary, text, min(LONGEST, model.n_positions)))
    if not pieces:
        raise PromptError("no line of the text has two tokens; give a longer text")
    n = min(MOST, len(pieces))
    chosen = [pieces[number * len(pieces) // n] for number in range(n)]
    prompts = collate([_pair(piece) for piece in chosen])
    prompts = replace(prompts, corrupted=prompts.clean)
    return assemble(model, prompts, LOSS, MEAN_OF_CLEAN, graph=graph)


def _pieces(vocabulary: Vocabulary, text: str, longest: int) -> Iterator[Sequence[int]]:
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    for line in text.splitlines():
        tokens = vocabulary.encode(line)[len(start) :]
        for at in range(0, len(tokens), longest - len(start)):
            piece = [*start, *tokens[at : at + longest - len(start)]]
            if len(piece) > 1:
                yield piece


def _pair(piece: Sequence[int]) -> Pair:
    """Read a piece at each token but the last; what stands for the corrupted prompt is not used."""
    other = [token + 1 for token in piece]
    return Pair(piece, other, [[token] for token in piece[1:]], steps=range(len(piece) - 1))
