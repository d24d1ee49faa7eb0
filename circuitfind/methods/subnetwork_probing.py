"""Subnetwork probing: a learned gate on every head and MLP (Cao et al. 2021, arXiv 2104.03514).

See `learned.py` for the training. The circuit is made of the edges between the components that are
kept. In the comparison of Conmy et al. 2023 (arXiv 2304.14997) each of a head's query, key and
value has a gate; here the gate is on what the head writes.
"""

from circuitfind.graph import Graph
from circuitfind.methods.gates import ComponentGates, GateLayout
from circuitfind.methods.learned import Learned


class SubnetworkProbing(Learned):
    """Learned component masks as an entry of the table of methods."""

    name = "subnetwork-probing"
    summary = "train a gate on every head and MLP, keep the edges between those that stay open"
    paper = "Cao et al. 2021, arXiv 2104.03514"

    def layout(self, graph: Graph) -> GateLayout:
        """Return a gate per head and MLP."""
        return ComponentGates(graph)
