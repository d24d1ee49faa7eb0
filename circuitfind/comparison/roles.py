"""Roles of heads, each with the number that earns it.

    role             number                                                              at least
    previous-token   attention from a position to the one before, above chance                0.5
    duplicate-token  attention to earlier positions with the same token, above chance         0.5
    induction        attention to what follows earlier copies of the token, above chance      0.5
    mover            share of the answer's lead that the head adds with what it reads at a
                     right answer, or else at a named position, that it attends to from where
                     the answer is read (above chance at least 0.2)                           0.05
    negative mover   the same, taken off the lead                                            0.05
    inhibition       attention that a head which copies right answers would pay to wrong
                     ones, more of it, if its query did not read this head                   0.05

Attention is that on the run's own clean prompts, from the kind of position (a named one, or where
the answer is read) from which it is strongest, among those at which the head's output makes a
difference (0.01 of the lead); chance is attention to all positions alike. The lead is how much
better the metric is on clean prompts than on corrupted ones. A head can have several roles, and
most have none. The names are those of Elhage et al. 2021
(https://transformer-circuits.pub/2021/framework), Olsson et al. 2022 (arXiv 2209.11895) and Wang
et al. 2022 (arXiv 2211.00593); what earns them is defined here.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from circuitfind.comparison.answers import Written, turned_attention, written_answers
from circuitfind.comparison.effects import Effects, about_answers, answer_metric, effects
from circuitfind.comparison.looks import READ, RIGHT, Looks, looks
from circuitfind.graph import Writer
from circuitfind.notebook import Tabled
from circuitfind.problem import HasProblem, Problem, as_problem

ATTENTION_ROLES = {
    "previous-token": "previous",
    "duplicate-token": "same token",
    "induction": "after same",
}
"""Roles that a head earns by what it looks at."""

ROLES = (*ATTENTION_ROLES, "mover", "negative mover", "inhibition")

LEAST_EFFECT = 0.01
LEAST_ATTENTION = 0.5
LEAST_ATTENTION_COPIED = 0.2
LEAST_COPIED = 0.05
LEAST_TURNED = 0.05

READS_RIGHT = "reads right answers"


@dataclass(frozen=True)
class Role:
    """The role of a head.

    Attributes:
        component: The head.
        role: One of `ROLES`.
        number: What earned it; see the top of the file.
        where: From which position it looks, where it reads what it copies, or whom it turns.
    """

    component: str
    role: str
    number: float
    where: str


class Roles(tuple[Role, ...], Tabled):
    """Roles of heads, which a notebook shows as a table."""

    def __repr__(self) -> str:
        heads = list(dict.fromkeys(role.component for role in self))
        return f"<Roles: {len(self)} of {len(heads)} heads: {', '.join(heads)[:150]}>"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row per role, in the order of the heads."""
        return (asdict(role) for role in self)


def find_roles(asked: HasProblem, seen: Looks | None = None, known: Effects | None = None) -> Roles:
    """Return the roles of all heads of a model on some prompts, in the order of the heads.

    Args:
        asked: The problem, or what a search for its circuit found.
        seen: What the heads look at, where that is known already.
        known: The effects of edges, likewise.

    Raises:
        MetricError: The metric is the same on clean and corrupted prompts.
    """
    problem = as_problem(asked)
    seen = looks(problem) if seen is None else seen
    known = effects(problem) if known is None else known
    heads = [(i, head) for i, head in enumerate(problem.graph.writers) if head.kind == "head"]
    found = [role for head in heads for role in _by_attention(seen, known, *head)]
    if answer_metric(problem.prompts) is not None:
        problem = about_answers(problem)
        written = written_answers(problem, known.lead)
        movers = [role for head in heads for role in _by_copying(seen, written, *head)]
        copiers = [problem.graph.writer(r.component) for r in movers if r.where == READS_RIGHT]
        found += [*movers, *_by_turning(problem, copiers)]
    order = problem.graph.writer_index
    return Roles(sorted(found, key=lambda role: (order[role.component], ROLES.index(role.role))))


def labels(found: Sequence[Role]) -> dict[str, str]:
    """Return what diagrams write under the heads' names."""
    roles: dict[str, list[str]] = {}
    for role in found:
        roles.setdefault(role.component, []).append(role.role)
    return {component: ", ".join(names) for component, names in roles.items()}


def groups(found: Sequence[Role], among: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return which components, of some, have a role in common: two or more for each role."""
    members: dict[str, list[str]] = {}
    for role in found:
        if role.component in among and role.component not in members.get(role.role, ()):
            members.setdefault(role.role, []).append(role.component)
    return {role: tuple(names) for role, names in members.items() if len(names) > 1}


def _by_attention(seen: Looks, known: Effects, writer: int, head: Writer) -> Iterator[Role]:
    acts = [abs(float(effect)) >= LEAST_EFFECT for effect in known.by_place[:, writer]]
    for role, target in ATTENTION_ROLES.items():
        numbers = seen.excess[:, seen.targets.index(target), writer].tolist()
        earned = [
            (number, place)
            for number, place, matters in zip(numbers, seen.places, acts, strict=True)
            if matters and number >= LEAST_ATTENTION
        ]
        if earned:
            number, place = max(earned, key=lambda pair: pair[0])
            yield Role(head.name, role, number, f"from {place}")


def _by_copying(seen: Looks, written: Written, writer: int, head: Writer) -> Iterator[Role]:
    earned = [
        (float(written.copied[number, writer]), source)
        for number, source in enumerate(written.sources)
        if float(seen.of(READ, source)[writer]) >= LEAST_ATTENTION_COPIED
        and abs(float(written.copied[number, writer])) >= LEAST_COPIED
    ]
    if not earned:
        return
    # The right answer is the first source: what is read there is copied, whatever else is read.
    strongest = max(earned, key=lambda pair: abs(pair[0]))
    copied, source = earned[0] if earned[0][1] == RIGHT else strongest
    role = "mover" if copied > 0 else "negative mover"
    where = READS_RIGHT if source == RIGHT else f"reads {source}"
    yield Role(head.name, role, copied, where)


def _by_turning(problem: Problem, copiers: Sequence[Writer]) -> Iterator[Role]:
    for head, turned in turned_attention(problem, copiers).items():
        if turned.off_wrong >= LEAST_TURNED:
            yield Role(head.name, "inhibition", turned.off_wrong, f"of {turned.copier.name}")
