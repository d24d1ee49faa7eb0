"""From a sweep to a minimal circuit: the components that matter, and the edges between them.

1. Take the components at which a patch was significant (`significant`).
2. Keep only the edges between them, and of these cut one after another, from the logits back, as
   ACDC does (Conmy et al. 2023, arXiv 2304.14997): for good, if that raises the loss by less than
   a share of the difference between the two runs.
3. Remove what no path from the embedding to the logits uses.
4. Measure the faithfulness. Below the wanted one, search again with half the share, a few times.

This is the classroom way from a sweep to a circuit. What the sweep missed the circuit lacks: a
denoising sweep finds single patches that suffice, a noising sweep what is needed, and the circuit's
origin tells how far they got.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.limits import require
from circuitfind.patching.pairs import posed
from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult
from circuitfind.patching.significant import significant_components
from circuitfind.problem import HasProblem, as_problem
from circuitfind.progress import Checkpoint, State

DEFAULT_FAITHFULNESS = 0.8

_EDGES_PER_COMPONENT = 5
_MOST_SEARCHES = 6
"""The last one keeps edges with a 32nd of the effect that the first one asks for."""


def circuit_of(
    asked: HasProblem,
    result: PatchResult,
    threshold: float = DEFAULT_THRESHOLD,
    *,
    edge_threshold: float | None = None,
    target_faithfulness: float = DEFAULT_FAITHFULNESS,
    memory: int | str | None = None,
) -> Circuit:
    """Return the edges that are needed between the components that a sweep found to matter.

    Args:
        asked: The problem that was swept, what a search found on it, or an engine of it. An
            engine must hold the prompts that the mode exchanges (`posed`), the metric of the
            result and the ablation `resample`.
        result: What the sweep measured.
        threshold: Smallest effect of a patch that matters, as a share of the difference between
            the two runs.
        edge_threshold: Smallest effect of an edge that is kept, likewise. By default a fifth of
            the threshold, because a component acts through several edges, and less where that
            is needed for the wanted faithfulness.
        target_faithfulness: The wanted faithfulness; only without an `edge_threshold`.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.

    Returns:
        The circuit; its effects are those of the cuts, in the metric's unit. Its origin holds the
        `edge_threshold` that was used and the `faithfulness` that was reached, which is smaller
        than the wanted one where the edges between these components do not suffice.

    Raises:
        MethodError: No component, or no path from the embedding to the logits, is left; or the
            engine measures another metric than the result.
    """
    search = EdgeSearch(
        asked,
        result,
        threshold,
        edge_threshold=edge_threshold,
        target_faithfulness=target_faithfulness,
        memory=memory,
    )
    *_, last = search.steps()
    assert last.state is not None
    return search.circuit(last.state)


class EdgeSearch:
    """The search for the edges that are needed; the arguments are those of `circuit_of`."""

    def __init__(
        self,
        asked: HasProblem,
        result: PatchResult,
        threshold: float = DEFAULT_THRESHOLD,
        *,
        edge_threshold: float | None = None,
        target_faithfulness: float = DEFAULT_FAITHFULNESS,
        memory: int | str | None = None,
    ) -> None:
        require(
            patch_threshold=threshold,
            edge_threshold=edge_threshold,
            target_faithfulness=target_faithfulness,
        )
        self.engine = _engine(asked, result, memory)
        self._result, self._threshold, self._wanted = result, threshold, target_faithfulness
        graph = self.engine.graph
        self._found = significant_components(result, graph, threshold)
        if not self._found.writers:
            raise MethodError(
                f"no component has an effect of {threshold:g} or more, so there is no circuit to "
                "draw; choose a smaller threshold, or other sites"
            )
        # No sweep is needed for what passes on what others write: where latents take the residual
        # stream apart, all paths lead through them.
        passing = [block for block in graph.blocks if block.kind in ("embedding", "stream")]
        ends = [*graph.logits, *(i for block in passing for i in block.readers)]
        names = {*self._found.readers, *(graph.readers[i].name for i in ends)}
        known = {*self._found.writers}
        known |= {graph.writers[i].name for block in passing for i in block.writers}
        rows = torch.tensor([writer.component in known for writer in graph.writers])
        columns = torch.tensor([reader.name in names for reader in graph.readers])
        self._among = Circuit(graph, graph.edge_mask & rows[:, None] & columns).connected()
        first = threshold / _EDGES_PER_COMPONENT
        self._shares = [first / 2**n for n in range(_MOST_SEARCHES)]
        if edge_threshold is not None:
            self._shares = [edge_threshold]

    def steps(self, state: State | None = None) -> Iterator[Checkpoint]:
        """Search with one edge threshold after another, until the circuit is faithful enough.

        Args:
            state: That of an earlier checkpoint of the same search, to go on from there.

        Yields:
            A checkpoint after each reader; the last one's state holds the circuit.
        """
        search = 0 if state is None else int(state["search"])
        while True:
            for checkpoint in self._searched(search, state):
                state = checkpoint.state
                yield checkpoint
            assert state is not None
            if search + 1 == len(self._shares) or self._suffices(state["kept"]):
                return
            search, state = search + 1, None

    def _suffices(self, kept: Tensor) -> bool:
        return kept.equal(self._among.kept) or self.engine.faithfulness(kept) >= self._wanted

    def _searched(self, search: int, state: State | None) -> Iterator[Checkpoint]:
        """Cut every edge whose absence raises the loss by less than a threshold, as ACDC does."""
        engine, graph, among = self.engine, self.engine.graph, self._among
        needed = self._shares[search] * abs(self._result.gap)
        total = among.n_edges
        nothing = torch.full(graph.edge_mask.shape, torch.nan, dtype=torch.float64)
        begun = state or {"kept": among.kept, "effects": nothing, "tested": torch.tensor(0)}
        begun = {**begun, "search": torch.tensor(search)}
        current, done = engine.start_from(among.kept), int(begun["tested"])
        effects = begun["effects"]
        if done == total:
            yield Checkpoint(done, total, "edges", begun)
        passed = 0
        # By stage, so that moves inside attention come before what their heads read.
        in_order = sorted(range(len(graph.readers)), key=lambda i: graph.readers[i].stage)
        for reader in reversed(in_order):
            writers = among.kept[:, reader].nonzero().flatten().tolist()
            passed += len(writers)
            if not writers:
                continue
            if passed <= done:
                gone = [writer for writer in writers if not begun["kept"][writer, reader]]
                current = self._settled(current, reader, gone)
                continue
            gone, effects = self._needless(current, effects.clone(), reader, writers, needed)
            current = self._settled(current, reader, gone)
            now = {"kept": current.mask, "effects": effects, "tested": torch.tensor(passed)}
            yield Checkpoint(passed, total, "edges", {**begun, **now})

    def _settled(self, state: EngineState, reader: int, gone: Sequence[int]) -> EngineState:
        """Cut what was decided to be cut into a reader, all at once.

        The search goes on from this state, so that rounding depends on the decisions alone: a
        resumed search repeats it to the last bit.
        """
        return self.engine.cut(state, [(writer, reader) for writer in gone]) if gone else state

    def _needless(
        self,
        state: EngineState,
        effects: Tensor,
        reader: int,
        writers: Sequence[int],
        needed: float,
    ) -> tuple[list[int], Tensor]:
        """Find a reader's needless edges, from the latest writer back, and note every effect."""
        if not state.live_readers[reader]:
            return list(writers), effects
        gone = []
        latest_first = writers[::-1]
        tests = self.engine.tests(state, reader, latest_first)
        for writer, test in zip(latest_first, tests, strict=True):
            effects[writer, reader] = test.effect
            test.kept = test.effect >= needed
            if not test.kept:
                gone.append(writer)
        return gone, effects

    def circuit(self, state: State) -> Circuit:
        """Return the circuit that the last state holds, without dead ends.

        Raises:
            MethodError: No path from the embedding to the logits is left.
        """
        circuit = Circuit(self.engine.graph, state["kept"], state["effects"]).connected()
        if not circuit.n_edges:
            advice = "" if self._result.mode == "noising" else ", or the mode noising"
            raise MethodError(
                f"between the {len(self._found.writers)} components with an effect of "
                f"{self._threshold:g} or more no path from the embedding to the logits is needed; "
                f"choose a smaller threshold{advice}"
            )
        origin = {
            **self._result.origin,
            "edge_threshold": self._shares[int(state["search"])],
            "faithfulness": self.engine.faithfulness(state["kept"]),
        }
        return replace(circuit, origin=origin)


def _engine(asked: HasProblem, result: PatchResult, memory: int | str | None) -> IncrementalEngine:
    if not isinstance(asked, IncrementalEngine):
        return IncrementalEngine(posed(as_problem(asked), result.mode), memory)
    if asked.problem.metric.name != result.metric:
        raise MethodError(
            f"the engine measures {asked.problem.metric.name!r} and the sweep measured "
            f"{result.metric!r}; give circuit_of the problem instead of an engine"
        )
    return asked
