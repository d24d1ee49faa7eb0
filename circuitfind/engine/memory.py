"""How much memory a search takes beside the model, known before it starts, and how to take less."""

from dataclasses import dataclass
from math import ceil

from circuitfind.budget import allowed_bytes, shown_bytes
from circuitfind.engine.candidates import candidates_at_once
from circuitfind.engine.kl_bounds import bounds_pay, numbers_of_bounds
from circuitfind.engine.written import parts_of
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

_BATCH_FLOATS = 1 << 23
"""How many numbers the streams that enter all blocks may have together in attribution; 32 MiB in
float32."""

GRADIENTS_TOGETHER = 5
"""The gradients of how many runs attribution sums before it multiplies them with what writers
write. That costs a third of a walk back; of each run the streams that enter all blocks are kept."""

_INSIDE = 3
"""How many times as wide as pre-activations, queries, keys and values all is that a traced run
keeps of the inside of a block: these, the activations, and what comes between."""

_ROW_FLOATS = 1 << 22
"""How many numbers a stream of all rows of patching may have by default; 16 MiB in float32."""

_FEWEST_ROWS = 8

_HIDDEN_WIDTH = 8
"""How many times as wide as the stream an MLP's hidden layer is taken to be, gates included."""


def remembered_numbers(graph: Graph) -> int:
    """Return how many numbers a search remembers for each position of each pair of prompts.

    The clean run: what every writer writes (heads: what they mix, unless they share a norm), what
    enters every block, and every head's query, key and value. The corrupted run: what every writer
    writes; where moves inside attention are edges, also every head's query, key and value. And at
    most as much as the clean run again, for the circuit as it stands, with what its readers make of
    what they receive.
    """
    shape = graph.shape
    mixed = shape.total("n_heads") * shape.d_head + sum(len(each.numbers) for each in graph.units)
    streams = sum(len(part.writers) * shape.d_model for part in parts_of(graph) if not part.is_z)
    entering = (len(graph.stages) + 1) * shape.d_model
    clean = mixed + streams + entering + _projected(graph)
    moved = 3 * shape.total("n_heads") * shape.d_head if graph.moves else 0
    return 2 * clean + mixed + streams + moved + _products(graph)


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


def attribution_batch(graph: Graph, n_positions: int) -> int:
    """Return how many prompts attribution takes at a time unless it is told."""
    per_prompt = graph.shape.n_layers * n_positions * graph.shape.d_model
    return max(1, _BATCH_FLOATS // per_prompt)


def attribution_bytes(
    graph: Graph, n_prompts: int, n_positions: int, bytes_per_number: int = 4
) -> int:
    """Return about how many bytes `eap-ig` takes beside the loaded model, at most.

    Both runs of all prompts are remembered, as for a search. Of a batch of prompts: the changes of
    all writers; of each run that is walked back the streams that enter blocks, with which a norm
    takes part in every input; and the inside of the blocks of one run.
    """
    shape, batch = graph.shape, min(n_prompts, attribution_batch(graph, n_positions))
    streams = (2 + len(graph.stages)) * shape.d_model
    insides = _projected(graph) + shape.total("has_mlp") * _HIDDEN_WIDTH * shape.d_model
    walked = GRADIENTS_TOGETHER * 3 * streams + 2 * _projected(graph) + _INSIDE * insides
    writers = graph.n_components * shape.d_model
    numbers = remembered_numbers(graph) * n_prompts + (walked + 2 * writers) * batch
    return bytes_per_number * n_positions * numbers


def patching_bytes(
    graph: Graph, n_prompts: int, n_positions: int, bytes_per_number: int = 4
) -> int:
    """Return about how many bytes `patch` takes beside the loaded model, at most."""
    rows = max(n_prompts, _rows(graph, n_positions))
    return rows * _row_bytes(graph, n_positions, bytes_per_number)


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
        n_prompts: Pairs of prompts at a time, in one chunk.
        n_in_share: How many chunks a share of the prompts has at most.
        most_formed: How many numbers of formed gaps a share may remember.
        most_virtual_weights: How many numbers of virtual weights.
    """

    n_prompts: int
    n_in_share: int
    most_formed: int
    most_virtual_weights: int

    @property
    def in_files(self) -> bool:
        """Whether what is remembered is kept in files."""
        return self.n_in_share > 1


def plan(problem: Problem, memory: int | str | None, n_shares: int = 1) -> Plan:
    """Plan a search that takes at most so many bytes beside the model.

    Args:
        problem: What is searched.
        memory: The bytes, also as text (`2GB`); None for what it takes.
        n_shares: Into how many shares the prompts are split, each of which may take a part of the
            memory; at most one for each prompt.

    Raises:
        MethodError: A single pair of prompts takes more; or all of them do, on an accelerator.
        LimitError: It is not a number of bytes.
    """
    memory = allowed_bytes(memory)
    n_prompts, n_positions = problem.prompts.clean.shape
    n_shares = min(n_shares, n_prompts)
    share = ceil(n_prompts / n_shares)
    if memory is None:
        return _plan(share, 1, FORMED_NUMBERS)
    memory //= n_shares
    width = problem.model.dtype.itemsize
    whole = search_bytes(problem.graph, share, n_positions, width)
    if whole > memory and problem.model.device.type != "cpu":
        # What chunks remember would have to go through the bus again and again.
        raise MethodError(
            f"this takes {shown_bytes(whole)} and {shown_bytes(memory)} are allowed for it; on "
            f"{problem.model.device.type} prompts cannot come in chunks: give fewer prompts, or "
            "--device cpu"
        )
    most_formed = min(FORMED_NUMBERS, int(memory * _FORMED_SHARE) // width)
    bounds = width * _numbers_of_bounds(problem)
    left = memory - most_formed * width - bounds

    def fits(n: int) -> bool:
        return chunk_bytes(problem.graph, n, n_positions, width) <= left

    if not fits(1):
        least = (chunk_bytes(problem.graph, 1, n_positions, width) + bounds) / (1 - _FORMED_SHARE)
        raise MethodError(
            f"this takes at least {shown_bytes(least)} beside the model, one pair of prompts at a "
            f"time, and {shown_bytes(memory)} are allowed for it; allow more, or shorten the "
            "prompts"
        )
    # As few chunks as possible, of about one size.
    most = max(n for n in range(1, share + 1) if fits(n))
    n_in_share = ceil(share / most)
    return _plan(ceil(share / n_in_share), n_in_share, most_formed)


def _numbers_of_bounds(problem: Problem) -> int:
    """Return how many numbers bounds on the loss hold, if a search may ask for them."""
    shape = problem.model.shape
    if problem.metric.of_shift is None or not bounds_pay(shape.d_vocab, shape.d_model):
        return 0
    return numbers_of_bounds(shape.d_vocab, shape.d_model, problem.prompts.steps.numel())


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
    memory = allowed_bytes(memory)
    n_prompts, n_positions = problem.prompts.clean.shape
    most = _rows(problem.graph, n_positions)
    if memory is None:
        return most
    each = _row_bytes(problem.graph, n_positions, problem.model.dtype.itemsize)
    fewest = n_prompts if problem.metric.per == "batch" else 1
    if memory < fewest * each:
        raise MethodError(
            f"patching takes at least {shown_bytes(fewest * each)} beside the model, "
            f"{'all prompts' if fewest > 1 else 'one prompt'} at a time, and "
            f"{shown_bytes(memory)} are allowed; allow more, or shorten the prompts"
        )
    return min(most, memory // each)


def _rows(graph: Graph, n_positions: int) -> int:
    """Return how many prompts patching runs at once unless its memory is limited."""
    return max(_FEWEST_ROWS, _ROW_FLOATS // (n_positions * graph.shape.d_model))


def _row_bytes(graph: Graph, n_positions: int, bytes_per_number: int) -> int:
    """Return how many bytes patching takes for each prompt that it runs at once."""
    shape, blocks = graph.shape, graph.blocks
    mixed = shape.total("n_heads") * shape.d_head
    recorded = 2 * ((len(blocks) + 1) * 2 * shape.d_model + mixed + _projected(graph))
    patterns = max(len(block.writers) for block in blocks) * n_positions
    in_work = (_STREAMS_IN_WORK + _HIDDEN_WIDTH) * shape.d_model + patterns
    return bytes_per_number * n_positions * (recorded + in_work)


def _plan(n_prompts: int, n_in_share: int, formed: int) -> Plan:
    weights = int(formed * _WEIGHTS_SHARE)
    return Plan(n_prompts, n_in_share, formed - weights, weights)
