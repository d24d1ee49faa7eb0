"""The short way from Python: a search on a problem, a verdict on its circuit, or on several."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuitfind.ablations import Ablation
from circuitfind.budget import allowed_bytes, share_of
from circuitfind.circuit import EdgeScores, require_same_graph
from circuitfind.comparison.families import Families
from circuitfind.comparison.rivals import Rivals
from circuitfind.comparison.roles import Role, groups
from circuitfind.directories.families import FamiliesConfig
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.engine.incremental import IncrementalEngine, as_engine
from circuitfind.errors import MethodError, quoted, require_kind
from circuitfind.evaluation.assess import EFFORTS, Subject, assess
from circuitfind.evaluation.assessment import Assessment
from circuitfind.evaluation.cuts import removable
from circuitfind.evaluation.dissociate import N_RANDOM, Design, Member, dissociate
from circuitfind.evaluation.dissociation import Dissociation
from circuitfind.evaluation.size_curve import ranked_by_effect, ranked_by_score
from circuitfind.evaluation.text import text_problem
from circuitfind.evaluation.trust import foreword, own_of
from circuitfind.methods import METHODS
from circuitfind.methods.base import Progress
from circuitfind.methods.search import Found, search
from circuitfind.methods.selection import Selection
from circuitfind.methods.settings import (
    check_settings,
    divided,
    fields_of,
    settled,
    threshold_is_needed,
    threshold_name,
)
from circuitfind.notebook import observer
from circuitfind.problem import HasProblem, as_problem, circuit_of_question
from circuitfind.progress import Checkpoint
from circuitfind.verbs.automatic import automatic_search
from circuitfind.verbs.dissociate import read_unrelated
from circuitfind.verbs.families import families_of
from circuitfind.verbs.rivals import rivals_of
from circuitfind.workers.crew import Workers


def discover(
    asked: HasProblem,
    method: str = "acdc",
    *,
    selection: Selection | None = None,
    memory: int | str | None = None,
    workers: int = 1,
    ray: str | None = None,
    progress: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    tell: Callable[[str], None] = lambda message: None,
    **options: Any,
) -> Found:
    """Search for a problem's circuit, as `circuitfind discover` does.

    Args:
        asked: The problem, or what another search found on it.
        method: Name of the method.
        selection: How edges are chosen by their scores; its fields can be given as options instead.
        memory: How many bytes the search may take beside the model, also as text like `2GB`; by
            default what it takes. With less, it takes the prompts in chunks, to the same result.
        workers: How many processes share the prompts of the search, this one included; each has the
            model, and with `cuda` a GPU, of its own. In a script, call this below
            `if __name__ == "__main__":`.
        ray: Have that many workers on a Ray cluster instead: its address, `auto`, or `local`.
        progress: Show how far the search is, on one line of stderr; also in notebooks.
        on_progress: Called as the search proceeds, in place of that line.
        tell: Called with what a user should know: how well the model itself does the task, before
            the search; how the automatic threshold was found.
        options: The method's options, such as `threshold`: a number, or `auto`, which is the
            default of methods that search: the largest threshold tried, from the level of the
            metric's noise downwards, whose circuit keeps 90 % of the model's accuracy and of the
            faithfulness.

    Raises:
        CircuitfindError: An option is impossible, or the search failed.
    """
    advance = observer(progress=progress, on_progress=on_progress)
    entry = METHODS.find(method)
    name = threshold_name(entry) or "threshold"
    wanted, chosen = divided(entry, options, {})
    if selection is not None and chosen:
        raise MethodError(
            f"the selection and the option {quoted(next(iter(chosen)))} are given; give the "
            "options in the selection"
        )
    if selection is not None:
        chosen = fields_of(entry, selection)
    default = "auto" if threshold_is_needed(entry) else None
    is_automatic = {**wanted, **chosen}.get(name, default) == "auto"
    if is_automatic:
        for given in (wanted, chosen):
            given.pop(name, None)
    check_settings(method, wanted, chosen, any_threshold=is_automatic)
    engine = IncrementalEngine(as_problem(asked), memory, workers=Workers(workers, ray))
    for line in foreword(own_of(engine), engine.problem):
        tell(line)

    def run(**threshold: float) -> Found:
        settings = settled(entry, {**wanted, **threshold}, chosen)
        return search(engine, entry, *settings, on_progress=advance)

    if not is_automatic:
        return run()
    seed = wanted.get(entry.option_for("seed") or "", 0)
    return automatic_search(engine, lambda value: run(**{name: value}), seed=seed, tell=tell)


def evaluate(
    asked: HasProblem,
    circuit: object = None,
    effort: str = "usual",
    *,
    held_out: HasProblem | None = None,
    scores: EdgeScores | None = None,
    roles: Sequence[Role] = (),
    constants: Ablation | None = None,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Assessment:
    """Evaluate a circuit, as `circuitfind evaluate` does.

    Args:
        asked: What a search found, or its problem, with the prompts of the search.
        circuit: The circuit; by default what was found.
        effort: `quick`, `usual` or `full`.
        held_out: The same question with other prompts.
        scores: What ranks all edges for the size curve; by default the circuit's own effects.
        roles: What heads do (`find_roles`); those of one role are knocked out together.
        constants: Those of the circuit (`learned_constants`), to compare ablations.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.
        progress: Show how far the evaluation is, on one line of stderr; also in notebooks.
        on_progress: Called as passes are made, in place of that line.
        tell: Called with the cost, before it is paid.

    Raises:
        MethodError: There is no such effort, or no circuit.
        GraphError: The circuit belongs to another graph.
        MetricError: The metric does not tell the full from the empty graph.
    """
    problem, circuit = as_problem(asked), circuit_of_question(asked, circuit)
    require_same_graph(circuit.graph, problem.graph)
    known = {each.name: each for each in EFFORTS}
    if effort not in known:
        raise MethodError(f"no effort {quoted(effort)}; choose one of {', '.join(known)}")
    ranking = ranked_by_score(scores) if scores is not None else None
    if ranking is None and circuit.effects is not None:
        ranking = ranked_by_effect(circuit)
    shared = groups(roles, removable(circuit))
    others = None if held_out is None else as_problem(held_out)
    subject = Subject(
        circuit, problem, held_out=others, ranking=ranking, roles=shared, constants=constants
    )
    advance = observer(progress=progress, on_progress=on_progress)
    return assess(subject, known[effort], tell=tell, on_progress=advance, memory=memory)


def dissociation(
    asked: Mapping[str, HasProblem | tuple[HasProblem, object]],
    *,
    text: Path | str | None = None,
    own_edges: bool = False,
    draws: int = N_RANDOM,
    seed: int = 0,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
) -> Dissociation:
    """Knock circuits out of their model and measure every task, as `circuitfind dissociate` does.

    Args:
        asked: By name, what searches found, or pairs of a problem and a circuit. Tasks are measured
            on the prompts of these problems.
        text: A file of unrelated text, whose next tokens are predicted as one more task.
        own_edges: Knock out the edges of a circuit that no other one of these has.
        draws: How many random connected circuits of as many edges each is compared with.
        seed: Fixes these.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.
        progress: Show how far it is, on one line of stderr; also in notebooks.
        on_progress: Called as passes are made, in place of that line.

    Raises:
        CircuitfindError: There are fewer than two circuits, or they do not belong to one graph of
            one model.
    """
    require_kind(asked, Mapping, "circuits by name; give a mapping to what `discover` found")
    members = [_member(name, each) for name, each in asked.items()]
    other = None
    if text is not None and members:
        other = text_problem(
            members[0].problem.model, members[0].circuit.graph, read_unrelated(text)
        )
    design = Design(members, other, own_edges, draws, seed)
    advance = observer(progress=progress, on_progress=on_progress)
    return dissociate(design, memory=memory, on_progress=advance)


def _member(name: str, given: object) -> Member:
    problem, circuit = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if isinstance(problem, tuple):
        raise MethodError(
            f"{quoted(name)} has {len(problem)} values; give what `discover` found, or a pair of a "
            "problem and a circuit"
        )
    return Member(name, circuit_of_question(problem, circuit), as_problem(problem))


def rivals(
    asked: HasProblem,
    circuit: object = None,
    *,
    held_out: HasProblem | None = None,
    restarts: int = RivalsConfig.restarts,
    threshold: float | None = None,
    tolerance: float = RivalsConfig.tolerance,
    seed: int = 0,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Rivals:
    """Find circuits that do as well with other edges, as `circuitfind rivals` does.

    Args:
        asked: What a search found, or its problem, with the prompts of the search.
        circuit: The circuit; by default what was found.
        held_out: The same question with other prompts.
        restarts: How many searches are made where there are too many circuits to measure all.
        threshold: The threshold of these; by default that of a run by `acdc` or `hybrid`, or a
            tenth of the metric's gap divided by the number of the circuit's edges.
        tolerance: How much less faithful than the circuit a rival may be.
        seed: Fixes the orders of the searches.
        memory: Bytes that may be taken beside the model, also as text (`2GB`); by default no limit.
        progress: Show how far it is, on one line of stderr; also in notebooks.
        on_progress: Called as the work proceeds, in place of that line.
        tell: Called with the cost, before it is paid.

    Raises:
        MethodError: There is no circuit, or it is empty.
        GraphError: The circuit belongs to another graph.
        MetricError: The metric does not tell the full from the empty graph.
    """
    circuit = circuit_of_question(asked, circuit)
    settings = RivalsConfig(restarts, threshold, tolerance, seed)
    memory = share_of(memory, 1 if held_out is None else 2)
    engine = as_engine(asked, memory)
    others = None if held_out is None else as_engine(held_out, memory)
    advance = observer(progress=progress, on_progress=on_progress)
    return rivals_of(engine, circuit, others, settings, tell, advance)


def families(
    asked: HasProblem,
    circuit: object = None,
    *,
    held_out: HasProblem | None = None,
    ranked_by: str = FamiliesConfig.ranked_by,
    families: int | None = None,
    target_faithfulness: float = FamiliesConfig.target_faithfulness,
    seed: int = 0,
    memory: int | str | None = None,
    progress: bool = False,
    on_progress: Callable[[Checkpoint], None] | None = None,
) -> Families:
    """Find families of prompts that share a circuit, as `circuitfind families` does.

    Args:
        asked: What a search found, or its problem, with the prompts of the search.
        circuit: The circuit; by default what was found.
        held_out: The same question with other prompts, on which circuits are then measured.
        ranked_by: What scores the edges for each prompt: `eap`, `eap-ig`, either with rules for
            its gradients (`eap:gim`), or `exact`, the effect of cutting each edge alone.
        families: How many families there are; by default the test and the silhouette decide.
        target_faithfulness: How faithful the circuit of a family is on its prompts.
        seed: Fixes the halves of the test, and the orders that attributes are compared with.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.
        progress: Show how far it is, on one line of stderr; also in notebooks.
        on_progress: Called as the work proceeds, in place of that line.

    Raises:
        PromptError: There are too few different prompts.
        GraphError: The circuit belongs to another graph.
        MethodError: The metric has no gradient that says anything, which `exact` does without.
    """
    circuit = circuit_of_question(asked, circuit)
    most = allowed_bytes(memory)
    settings = FamiliesConfig(ranked_by, families, target_faithfulness, seed, memory=most)
    advance = observer(progress=progress, on_progress=on_progress)
    return families_of(asked, circuit, held_out, settings, advance)
