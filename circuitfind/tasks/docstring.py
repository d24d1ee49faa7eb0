'''Docstrings: the next `:param` is the function's next argument.

    def port(self, load, size, files, last):
        """oil column piece

        :param load: crime population
        :param size: unit dark
        :param                              -> files

By default the corrupted prompt has other arguments in the definition and yet others in the
docstring, so it says neither which argument comes next nor that the two lists are the same.
`random-def` changes the definition's arguments alone, `random-doc` the docstring's.

Heimersheim and Janiak, 2023, "A circuit for Python docstrings in a 4-layer attention-only
transformer", Alignment Forum; searched with ACDC by Conmy et al., 2023,
https://arxiv.org/abs/2304.14997.
'''

import math
import random
from collections.abc import Callable, Sequence

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.known.docstring import KNOWN_CIRCUIT
from circuitfind.tasks.words import PLAIN
from circuitfind.tasks.writing import draw_pairs, require_whole, templated_pair

TEMPLATE = (
    "def {function}(self, {A_def}, {B_def}, {C_def}, {D_def}):\n"
    '    """{w0} {w1} {w2}\n\n'
    "    :param {A_doc}: {w3} {w4}\n"
    "    :param {B_doc}: {w5} {w6}\n"
    "    :param"
)
ARGUMENTS = (
    "load", "size", "files", "last", "first", "name", "value", "key", "index", "list", "text",
    "data", "path", "line", "time", "date", "user", "host", "port", "mode", "type", "code",
    "node", "item", "count", "image", "color", "width", "height", "start", "stop", "point",
    "model", "table", "group", "state", "event", "message", "order", "word", "page", "field",
    "score", "length", "test", "title", "label", "source", "target", "level", "limit",
    "result", "version", "status", "option",
)  # fmt: skip
DEFINED = ("A_def", "B_def", "C_def", "D_def")
DOCUMENTED = ("A_doc", "B_doc")
FILLERS = tuple(f"w{i}" for i in range(7))

_FEWEST_ARGUMENTS = 12
"""Four for the clean prompt, six for the corrupted one, one for the function, and one to spare."""

_FEWEST_FILLERS = len(FILLERS)


def _writer(changed: Sequence[str]) -> Callable[[Vocabulary, int, int], list[Pair]]:
    def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
        """Write n pairs.

        Raises:
            TaskError: The tokenizer keeps too few words whole.
        """
        names = require_whole("docstring", vocabulary, "names", ARGUMENTS, _FEWEST_ARGUMENTS)
        words = require_whole("docstring", vocabulary, "words", PLAIN, _FEWEST_FILLERS)

        def draw(rng: random.Random, row: int) -> Pair | None:
            function, *drawn = rng.sample(list(names), 11)
            arguments, others = drawn[:4], drawn[4:]
            clean = {
                "function": function,
                **dict(zip(FILLERS, rng.sample(list(words), len(FILLERS)), strict=True)),
                **dict(zip(DEFINED, arguments, strict=True)),
                **dict(zip(DOCUMENTED, arguments[:2], strict=True)),
            }
            replaced = dict(zip((*DEFINED, *DOCUMENTED), others, strict=True))
            corrupted = {**clean, **{slot: replaced[slot] for slot in changed}}
            wrong = {*arguments, *(corrupted[slot] for slot in changed)} - {arguments[2]}
            return templated_pair(
                vocabulary,
                TEMPLATE,
                clean,
                corrupted,
                answers=(
                    [names[arguments[2]]],
                    [names[word] for word in sorted(wrong)],
                ),
                number=0,
                named=(*DEFINED, *DOCUMENTED),
            )

        capacity = math.perm(len(names), 11) * math.perm(len(words), len(FILLERS))
        return draw_pairs("docstring", n, seed, draw, capacity=capacity)

    return write


DOCSTRING = Task(
    name="docstring",
    summary="documents the arguments in order: def f(self, load, size, files ...): -> :param files",
    source="Heimersheim & Janiak 2023; Conmy et al. 2023, arXiv 2304.14997",
    metric="kl",
    write=_writer((*DEFINED, *DOCUMENTED)),
    corruptions={
        "random-def": _writer(DEFINED),
        "random-doc": _writer(DOCUMENTED),
    },
    known_circuit=KNOWN_CIRCUIT,
)
