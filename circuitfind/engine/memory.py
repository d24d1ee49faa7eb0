"""How much memory a search takes beside the model, known before it starts."""

from circuitfind.engine.cuts import candidates_at_once
from circuitfind.engine.differences import groups
from circuitfind.engine.gradients import segments
from circuitfind.graph import Graph

_STREAMS_IN_WORK = 16
"""How many streams of all candidates are held together at most, as measured by a whole search at
the shape of GPT-2 small (`benchmarks/versus.py`)."""


def remembered_numbers(graph: Graph) -> int:
    """Return how many numbers a search remembers for each position of each pair of prompts.

    The clean run: what every writer writes (heads: what they mix, unless they share a norm), what
    enters every block, and every head's query, key and value. The corrupted run: what every writer
    writes. And at most as much as the clean run again, for the circuit as it stands.
    """
    shape = graph.shape
    mixed = shape.n_layers * shape.n_heads * shape.d_head
    streams = sum(
        len(group.writers) * shape.d_model
        for group in groups(graph)
        if group.kind != "attention" or shape.heads_share_norm
    )
    entering = (len(segments(graph)) + 1) * shape.d_model
    projected = shape.n_layers * (shape.n_heads + 2 * shape.n_kv_heads) * shape.d_head
    clean = mixed + streams + entering + projected
    return 2 * clean + mixed + streams


def search_bytes(graph: Graph, n_prompts: int, n_positions: int, bytes_per_number: int = 4) -> int:
    """Return about how many bytes a search takes beside the loaded model, at most.

    Args:
        graph: The model's graph.
        n_prompts: Pairs of prompts.
        n_positions: Tokens of the longest prompt.
        bytes_per_number: Of the streams: 4, or 8 for float64.
    """
    remembered = remembered_numbers(graph) * n_prompts * n_positions
    stream = n_prompts * n_positions * graph.shape.d_model
    return bytes_per_number * (remembered + _STREAMS_IN_WORK * candidates_at_once(stream) * stream)
