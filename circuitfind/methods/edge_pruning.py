"""Edge pruning: a learned gate on every edge (Bhaskar et al. 2024, arXiv 2406.16778).

See `learned.py` for the training. As in the authors' work edges and writers have gates; an edge is
kept if its own and its writer's are open.
"""

from circuitfind.graph import Graph
from circuitfind.methods.gates import EdgeGates, GateLayout
from circuitfind.methods.learned import EdgeOptions, Learned


class EdgePruning(Learned):
    """Learned edge masks as an entry of the table of methods."""

    name = "edge-pruning"
    summary = "train a gate on every edge to keep the loss low with few edges"
    paper = "Bhaskar et al. 2024, arXiv 2406.16778"
    options = EdgeOptions

    def layout(self, graph: Graph) -> GateLayout:
        """Return a gate per edge and per writer."""
        return EdgeGates(graph)
