"""Methods: one file each, one table of them, one way to call them."""

from circuitfind.errors import MethodError
from circuitfind.methods.acdc import Acdc
from circuitfind.methods.base import Method
from circuitfind.methods.eap import Eap
from circuitfind.methods.eap_ig import EapIg
from circuitfind.methods.edge_pruning import EdgePruning
from circuitfind.methods.exact import Exact
from circuitfind.methods.hisp import Hisp
from circuitfind.methods.hybrid import Hybrid
from circuitfind.methods.information_flow import InformationFlow
from circuitfind.methods.mattr import Mattr
from circuitfind.methods.random_scores import Random
from circuitfind.methods.subnetwork_probing import SubnetworkProbing
from circuitfind.methods.ugs import Ugs
from circuitfind.registry import Table

METHODS: Table[Method] = Table(
    "method",
    Method,
    MethodError,
    (
        Acdc(),
        Exact(),
        Eap(),
        EapIg(),
        Hisp(),
        InformationFlow(),
        SubnetworkProbing(),
        EdgePruning(),
        Ugs(),
        Mattr(),
        Hybrid(),
        Random(),
    ),
)
"""Every method. A new one is a file of this package and a line here."""
