"""Checks for methods by gradients: the metric has one that says something, scores are finite."""

from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.metrics import Metric


def require_slope(
    metric: Metric, method: str, *, at_clean_only: bool, instead: str | None = None
) -> None:
    """Refuse a metric whose gradient says nothing where a method takes it.

    Args:
        metric: The metric.
        method: What takes it: a method, or a ranking.
        at_clean_only: Whether it does so at the clean point only.
        instead: What to do instead; by default choose another metric, or another method.

    Raises:
        MethodError: The message says why, and what to choose instead.
    """
    if metric.slope == "nowhere":
        raise MethodError(
            f"the metric {metric.name!r} changes in jumps and has no gradient, which the method "
            f"{method!r} needs; "
            f"{instead or 'choose another metric, such as logit-difference or kl'}"
        )
    if at_clean_only and metric.slope == "not at the full model":
        usual = (
            "choose another metric (logit-difference, probability-difference, loss), or a method "
            "that takes gradients elsewhere (eap-ig)"
        )
        raise MethodError(
            f"the gradient of {metric.name!r} is zero at the clean point, where it is smallest, so "
            f"{method!r} would score every edge 0; {instead or usual}"
        )


def require_finite_scores(graph: Graph, scores: Float[Tensor, "writer reader"]) -> None:
    """Refuse scores of edges that are NaN or infinite.

    Raises:
        MethodError: The message names the first edge.
    """
    bad = (graph.edge_mask & ~scores.isfinite()).nonzero()
    if len(bad):
        writer, reader = bad[0].tolist()
        name = f"{graph.writers[writer].name}->{graph.readers[reader].name}"
        raise MethodError(
            f"the score of {name} became {float(scores[writer, reader])}; choose a metric that "
            "stays finite on these prompts, or a wider number type"
        )
