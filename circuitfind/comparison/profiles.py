"""Profiles of all components of a model on a problem, in terms that every model shares.

looks     what a head attends to, from where (`looks.py`)
effects   the share of the answer's lead (`effects.py`) that goes into each of its ports, from
          the embedding, from heads and from MLPs; that it sends into queries, keys, values,
          MLPs and the logits; and that depends on what it writes at each kind of position
depth     when it runs, from 0 (the embedding) to 1 (the logits)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.comparison.effects import Effects, effects
from circuitfind.comparison.looks import Looks, looks
from circuitfind.errors import PromptError
from circuitfind.graph import Graph, Kind, Reader, Writer
from circuitfind.problem import Problem

Features = Float[Tensor, "writer feature"]

_PORTS = ("q", "k", "v", "qkv", "mlp")
_SOURCES: tuple[Kind, ...] = ("embedding", "head", "mlp")


@dataclass(frozen=True)
class Profiles:
    """Profiles of the components of a model.

    Attributes:
        graph: The model's graph.
        looks: What its heads look at.
        effects: What edges and components contribute.
    """

    graph: Graph
    looks: Looks
    effects: Effects

    @property
    def parts(self) -> Features:
        """Return each writer's contributions, as shares of the lead, in a fixed order of kinds."""
        edges = self.effects.edges.masked_fill(~self.graph.edge_mask, 0)
        return torch.cat(
            [
                _received(self.graph, edges),
                _sent(self.graph, edges),
                self.effects.by_place.T,
            ],
            dim=1,
        )

    @property
    def depth(self) -> Float[Tensor, " writer"]:
        last = self.graph.readers[-1].stage
        return torch.tensor([writer.stage / last for writer in self.graph.writers]).double()


def profiles(problem: Problem) -> Profiles:
    """Measure all components.

    Raises:
        MetricError: The metric is the same on clean and corrupted prompts.
    """
    # What components do does not depend on which moves a search could cut.
    problem = replace(problem, graph=problem.graph.outer)
    return Profiles(problem.graph, looks(problem), effects(problem))


def require_comparable(left: Profiles, right: Profiles) -> None:
    """Refuse profiles on prompts that name other positions.

    Raises:
        PromptError: They do; the message lists both.
    """
    ours, theirs = (set(each.looks.places) for each in (left, right))
    if ours != theirs:
        raise PromptError(
            "heads cannot be matched by what they look at: the prompts name "
            f"{_listed(ours)} here and {_listed(theirs)} there; compare circuits of one task"
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(name for name in names if not name.startswith("("))) or "no positions"


def _received(graph: Graph, edges: Float[Tensor, "writer reader"]) -> Features:
    """Return what goes into each writer: by port, from embeddings, from heads, from MLPs."""
    by_source = torch.stack([edges[_of_kind(graph.writers, kind)].sum(0) for kind in _SOURCES], 1)
    found = torch.zeros(len(graph.writers), len(_PORTS), len(_SOURCES)).double()
    for number, fed in enumerate(graph.feeds):
        if fed:
            port = _port(graph, graph.readers[number])
            found[list(fed), _PORTS.index(port)] += by_source[number]
    return found.flatten(1)


def _port(graph: Graph, reader: Reader) -> str:
    return reader.port or graph.block_of[reader.component].kind


def _sent(graph: Graph, edges: Float[Tensor, "writer reader"]) -> Features:
    """Return what each writer sends: into queries, keys, values, MLPs, the logits."""
    ports = [_port(graph, reader) for reader in graph.readers]
    columns = [torch.tensor([port == wanted for port in ports]) for wanted in (*_PORTS, "logits")]
    return torch.stack([edges[:, column].sum(1) for column in columns], dim=1)


def _of_kind(writers: Sequence[Writer], kind: Kind) -> Bool[Tensor, " writer"]:
    return torch.tensor([writer.kind == kind for writer in writers])
