"""Uniform gradient sampling: a gate on every edge that is seldom between 0 and 1.

Li & Janson 2024, arXiv 2409.09951. See `learned.py` for the training and `gates.py` for the draws.
There the number of edges follows from a price; with `penalty` it does here too. By default it is
held to what is wanted, as for the other learned masks.
"""

from circuitfind.graph import Graph
from circuitfind.methods.gates import UNIFORM, EveryEdge, GateLayout
from circuitfind.methods.learned import EdgeOptions, Learned


class Ugs(Learned):
    """Uniform gradient sampling as an entry of the table of methods."""

    name = "ugs"
    summary = "train a gate on every edge, drawn uniformly, to keep the loss low with few edges"
    paper = "Li & Janson 2024, arXiv 2409.09951"
    options = EdgeOptions
    distribution = UNIFORM

    def layout(self, graph: Graph) -> GateLayout:
        """Return a gate per edge."""
        return EveryEdge(graph)
