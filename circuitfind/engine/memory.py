"""How much memory a search takes beside the model, known before it starts, and how to take less."""

from dataclasses import dataclass
from math import ceil

from circuitfind.budget import allowed_bytes
from circuitfind.engine.candidates import candidates_at_once
from circuitfind.engine.written import is_z, writing_blocks
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.problem import Problem

_STREAMS_IN_WORK = 16
"""How many streams of all candidates are held together at most.

About twice what a whole search at the shape of GPT-2 small was measured to hold
(`benchmarks/versus.py`); larger circuits hold more.
"""

FORMED_NUMBERS = 1 << 25
"""How many numbers of formed gaps and virtual weights are remembered; 128 MiB in float32."""

_FORMED_SHARE = 1 / 8
"""The share of a memory that is limited which these may take."""

_WEIGHTS_SHARE = 1 / 4
"""The share of these which virtual weights may take."""

_ROW_FLOATS = 1 << 22
"""How many numbers a stream of all rows of patching may have by default; 16 MiB in float32."""

_FEWEST_ROWS = 8

_HIDDEN_WIDTH = 8
"""How many times as wide as the stream an MLP's hidden layer is taken to be, gates included."""


def remembered_numbers(graph: Graph) -> int:
    """Return how many numbers a search remembers for each position of each pair of prompts.

    The clean run: what every writer writes (heads: what they mix, unless they share a norm), what
    enters every block, and every head's query, key and value. The corrupted run: what every writer
    writes. And at most as much as the clean run again, for the circuit as it stands, with what its
    readers make of what they receive.
    """
    shape = graph.shape
    mixed = shape.total("n_heads") * shape.d_head
    streams = sum(
        len(block.writers) * shape.d_model for block in writing_blocks(graph) if not is_z(block)
    )
    entering = (len(graph.stages) + 1) * shape.d_model
    clean = mixed + streams + entering + _projected(graph)
    return 2 * clean + mixed + streams + _products(graph)


def search_bytes(graph: Graph, n_prompts: int, n_positions: int, bytes_per_number: int = 4) -> int:
    """Return about how many bytes a search takes beside the loaded model, at most.

    Args:
        graph: The model's graph.
        n_prompts: Pairs of prompts.
        n_positions: Tokens of the longest prompt.
        bytes_per_number: Of the streams: 4, or 8 for float64.
    """
    shape = graph.shape
    stream = n_prompts * n_positions * shape.d_model
    gaps = shape.total("n_heads") * stream
    weights = shape.total("n_heads") * shape.d_head * _products(graph)
    formed = min(FORMED_NUMBERS, gaps + min(weights, int(FORMED_NUMBERS * _WEIGHTS_SHARE)))
    return formed * bytes_per_number + chunk_bytes(graph, n_prompts, n_positions, bytes_per_number)


def chunk_bytes(graph: Graph, n_prompts: int, n_positions: int, bytes_per_number: int) -> int:
    """Return about how many bytes that takes with nothing formed, as for a chunk of prompts."""
    remembered = remembered_numbers(graph) * n_prompts * n_positions
    stream = n_prompts * n_positions * graph.shape.d_model
    in_work = _STREAMS_IN_WORK * candidates_at_once(stream) * stream
    return bytes_per_number * (remembered + in_work)


def _products(graph: Graph) -> int:
    """Return how many numbers all readers make linearly of a position, where that is remembered."""
    shape = graph.shape
    if shape.heads_share_norm:
        return 0
    return _projected(graph) + shape.total("has_mlp") * _HIDDEN_WIDTH * shape.d_model


def _projected(graph: Graph) -> int:
    """Return how many numbers the queries, keys and values of a position are."""
    shape = graph.shape
    return (shape.total("n_heads") + 2 * shape.total("n_kv_heads")) * shape.d_head


@dataclass(frozen=True)
class Plan:
    """How a search keeps to a memory.

    Attributes:
        n_prompts: Pairs of prompts at a time.
        most_formed: How many numbers of formed gaps may be remembered in all.
        most_virtual_weights: How many numbers of virtual weights.
    """

    n_prompts: int
    most_formed: int
    most_virtual_weights: int


def plan(problem: Problem, memory: int | str | None) -> Plan:
    """Plan a search that takes at most so many bytes beside the model, given also as text (`2GB`).

    Raises:
        MethodError: A single pair of prompts takes more; or all of them do, on an accelerator.
        LimitError: It is not a number of bytes.
    """
    memory = allowed_bytes(memory)
    n_prompts, n_positions = problem.prompts.clean.shape
    if memory is None:
        return _plan(n_prompts, FORMED_NUMBERS)
    width = problem.model.dtype.itemsize
    whole = search_bytes(problem.graph, n_prompts, n_positions, width)
    if whole > memory and problem.model.device.type != "cpu":
        # What chunks remember would have to go through the bus again and again.
        raise MethodError(
            f"the search takes {whole / 1e6:.0f} MB and {memory / 1e6:.0f} MB are allowed; on "
            f"{problem.model.device.type} prompts cannot come in chunks: give fewer prompts, or "
            "--device cpu"
        )
    most_formed = min(FORMED_NUMBERS, int(memory * _FORMED_SHARE) // width)
    left = memory - most_formed * width

    def fits(n: int) -> bool:
        return chunk_bytes(problem.graph, n, n_positions, width) <= left

    if not fits(1):
        least = chunk_bytes(problem.graph, 1, n_positions, width) / (1 - _FORMED_SHARE)
        raise MethodError(
            f"a search takes at least {least / 1e6:.0f} MB beside the model, one pair of prompts "
            f"at a time, and {memory / 1e6:.0f} MB are allowed; allow more, or shorten the prompts"
        )
    # As few chunks as possible, of about one size.
    most = max(n for n in range(1, n_prompts + 1) if fits(n))
    return _plan(ceil(n_prompts / ceil(n_prompts / most)), most_formed)


def rows_at_once(problem: Problem, memory: int | str | None) -> int:
    """Return how many prompts, all candidates' together, patching runs through the model at once.

    Two runs are recorded: what enters every block, what it adds, and what every head projects and
    mixes. Of the streams in work, the widest are an MLP's hidden layer and the attention patterns.

    Args:
        problem: The problem, with the prompts to exchange as its pairs.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; None for
            what is fast.

    Raises:
        MethodError: Less than the fewest prompts take.
    """
    memory, shape = allowed_bytes(memory), problem.graph.shape
    n_prompts, n_positions = problem.prompts.clean.shape
    most = max(_FEWEST_ROWS, _ROW_FLOATS // (n_positions * shape.d_model))
    if memory is None:
        return most
    blocks, mixed = problem.graph.blocks, shape.total("n_heads") * shape.d_head
    recorded = 2 * ((len(blocks) + 1) * 2 * shape.d_model + mixed + _projected(problem.graph))
    patterns = max(len(block.writers) for block in blocks) * n_positions
    in_work = (_STREAMS_IN_WORK + _HIDDEN_WIDTH) * shape.d_model + patterns
    each = problem.model.dtype.itemsize * n_positions * (recorded + in_work)
    fewest = n_prompts if problem.metric.per == "batch" else 1
    if memory < fewest * each:
        raise MethodError(
            f"patching takes at least {fewest * each / 1e6:.1f} MB beside the model, "
            f"{'all prompts' if fewest > 1 else 'one prompt'} at a time, and {memory / 1e6:.1f} MB "
            "are allowed; allow more, or shorten the prompts"
        )
    return min(most, memory // each)


def _plan(n_prompts: int, formed: int) -> Plan:
    weights = int(formed * _WEIGHTS_SHARE)
    return Plan(n_prompts, formed - weights, weights)
