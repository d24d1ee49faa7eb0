"""Subnetwork probing: learned gates on heads, their inputs and MLPs.

Cao et al. 2021, arXiv 2104.03514; see `learned.py` for the training. The circuit is made of the
edges between what stays open. In the comparison of Conmy et al. 2023 (arXiv 2304.14997) each of a
head's query, key and value has a gate; here what the head writes has one, too.
"""

from circuitfind.graph import Graph
from circuitfind.methods.gates import ComponentGates, GateLayout
from circuitfind.methods.learned import Learned


class SubnetworkProbing(Learned):
    """Learned component masks as an entry of the table of methods."""

    name = "subnetwork-probing"
    summary = "train gates on heads, their inputs and MLPs, keep the edges between open ones"
    paper = "Cao et al. 2021, arXiv 2104.03514"

    def layout(self, graph: Graph) -> GateLayout:
        """Return a gate per head, head input and MLP."""
        return ComponentGates(graph)
