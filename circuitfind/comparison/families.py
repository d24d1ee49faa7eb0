"""Families of prompts that share a circuit, what tells them apart, how far each circuit carries.

What explains a split is the share of its entropy that an attribute of the prompts removes (mutual
information), minus what labels in random order would remove: 1 if the attribute tells the family of
every prompt, 0 if it tells no more than chance. Its p is that of 999 random orders, times the
number of attributes (Bonferroni).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from circuitfind import records
from circuitfind.comparison.clusters import Labels, adjusted_rand, contingency
from circuitfind.evaluation.random_circuits import p_value
from circuitfind.notebook import Tabled

LEVEL = 0.05
"""Below which p one cluster is ruled out."""

NEARLY = 0.9
"""Of the best attribute's share, from which on one with fewer values is preferred."""

_ORDERS = 999

Orders = Int[np.ndarray, "draw prompt"]


@dataclass(frozen=True)
class Family:
    """Prompts that share a circuit.

    Attributes:
        name: `family 1` is the largest.
        prompts: Their numbers among the prompts of the search, from 0; prompts that repeat
            earlier ones are in no family.
        n_measured: On how many prompts of the family circuits are measured.
        example: The prompt nearest to the family's centre.
        edges: The circuit: the fewest edges found to reach the target on these prompts. Empty where
            there is nothing to explain: the full and the empty graph have the same metric.
        alone: Those that no other family's circuit has.
        sources: Where each of the prompts comes from, such as the line of a file; empty where
            nobody said.
    """

    name: str
    prompts: tuple[int, ...]
    n_measured: int
    example: str
    edges: tuple[str, ...]
    alone: tuple[str, ...]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribute:
    """Something that prompts differ in, beside the families.

    Attributes:
        name: What it is: `template`, `wording`, `length`, `order` (of named positions), `position
            of NAME`, `answer` or `last token` (where the metric first reads).
        values: Its values.
        counts: For each value, how many prompts each family has with it.
        adjusted_rand: Adjusted Rand index of the families and of the groups by value.
        share: How much of the split it explains beyond chance; 1 is all.
        p_value: How often chance explains as much, times the number of attributes.
    """

    name: str
    values: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    adjusted_rand: float
    share: float
    p_value: float


@dataclass(frozen=True)
class Share:
    """Faithfulness of a circuit on a family.

    Attributes:
        circuit: `family 1`, ...; `union` of these; `pooled`, chosen in the same way for all prompts
            together; or `found`, the circuit whose prompts these are.
        n_edges: Its size.
        on: A family, or `all`.
        faithfulness: Its faithfulness; None where it is undefined.
        low: Lower end of its 95 % interval over prompts; None where there is none.
        high: Its upper end.
    """

    circuit: str
    n_edges: int
    on: str
    faithfulness: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Families(Tabled):
    """Families of the prompts of a search.

    Attributes:
        n_prompts: How many different prompts there are.
        ranked_by: What scores the edges for each prompt.
        target: Faithfulness that the circuits chosen here have on the prompts they are chosen by.
        tested: What counts as independent draws: `64 prompts`, or `16 templates`.
        index: The statistic of the test of one cluster (`comparison.clusters`).
        p_value: Its p: how often one cluster, Gaussian or flat, has at most this index.
        gaussian_p_value: The same of one Gaussian.
        asked: How many families were asked for; None where the test and the silhouette decided.
        silhouette: Mean silhouette of the families; None where there is one.
        families: The families, the largest first.
        attributes: What explains the split, the best first; empty where there is one family.
        shared: Edges that the circuits of all families have.
        measured_on: Prompts that faithfulness is measured on: `held-out`, each of them counted to
            the family whose centre is nearest, or `discovery`.
        shares: The faithfulness of each circuit on each family and on all.
        seconds: How long it took.
    """

    n_prompts: int
    ranked_by: str
    target: float
    tested: str
    index: float
    p_value: float
    gaussian_p_value: float
    asked: int | None
    silhouette: float | None
    families: tuple[Family, ...]
    attributes: tuple[Attribute, ...]
    shared: tuple[str, ...]
    measured_on: str
    shares: tuple[Share, ...]
    seconds: float

    def __post_init__(self) -> None:
        """Require what a damaged file may lack: families in order, and each prompt in one."""
        n, numbers = len(self.families), [k for each in self.families for k in each.prompts]
        if [each.name for each in self.families] != [name_of(k) for k in range(n)]:
            raise ValueError("its families are not called family 1, family 2, ...")
        if len(numbers) != self.n_prompts or len(set(numbers)) < len(numbers):
            raise ValueError(f"its families do not share out {self.n_prompts} prompts")
        if any(len(each.sources) not in (0, len(each.prompts)) for each in self.families):
            raise ValueError("a family does not say where each of its prompts comes from")
        rows = [row for each in self.attributes for row in each.counts]
        if any(len(row) != n for row in rows) or any(
            len(each.counts) != len(each.values) for each in self.attributes
        ):
            raise ValueError("an attribute does not count the prompts of each family")

    def __repr__(self) -> str:
        return f"<Families: {self.verdict}>"

    @property
    def verdict(self) -> str:
        """What was shown, in a sentence."""
        n = len(self.families)
        verb = "is" if self.p_value < LEVEL else "is not"
        said = f"{n} {'families' if n > 1 else 'family'}"
        if self.asked is not None:
            said += " as asked" if n == self.asked else f" ({self.asked} were asked for)"
        said += f": one cluster {verb} ruled out (p {self.p_value:.2g}, {self.tested})"
        if gapless := [each.name for each in self.families if not each.edges]:
            said += f"; there is nothing to explain in {', '.join(gapless)}"
        if (best := self.explanation) is None:
            return said
        if best.p_value >= LEVEL:
            return f"{said}; no attribute of the prompts explains the split"
        return f"{said}; {best.name} explains {best.share:.0%} of the split"

    @property
    def explanation(self) -> Attribute | None:
        """The attribute with the fewest values of those that explain nearly as much as the best.

        Those that explain no more than chance come last.
        """
        sure = [each for each in self.attributes if each.p_value < LEVEL]
        known = sure or self.attributes
        best = max((each.share for each in known), default=0.0)
        rivals = [each for each in known if each.share >= min(best, NEARLY * best)]
        return min(rivals, key=lambda each: len(each.values), default=None)

    def labels(self) -> list[int]:
        """Return the number of the family, from 0, of each prompt, in the order of the prompts."""
        found = {n: number for number, each in enumerate(self.families) for n in each.prompts}
        return [found[n] for n in sorted(found)]

    def attribute(self, name: str) -> Attribute | None:
        """Return an attribute by its name; None if the prompts do not differ in it."""
        return next((each for each in self.attributes if each.name == name), None)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the faithfulness of each circuit on each family as rows."""
        yield from map(asdict, self.shares)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found: dict[str, Any] = records.as_json(self)
        return found


def name_of(number: int) -> str:
    """Return what a family is called, by its number from 0."""
    return f"family {number + 1}"


def explained(
    labels: Labels, attributes: Mapping[str, Sequence[str]], units: Labels, seed: int = 0
) -> tuple[Attribute, ...]:
    """Return how much of a split each attribute explains, the best first.

    Args:
        labels: The family of each prompt.
        attributes: For each, its value on each prompt.
        units: Which independent draw each prompt belongs to: its template, or it alone.
        seed: Fixes the random orders.
    """
    generator = np.random.default_rng([len(labels), seed])
    free = labels[generator.permuted(np.tile(np.arange(len(labels)), (_ORDERS, 1)), axis=1)]
    whole = np.stack([labels[_reordered(units, generator)] for _ in range(_ORDERS)])
    found = [
        _attribute(labels, *each, units, (free, whole), len(attributes))
        for each in attributes.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.share, len(each.values), each.name)))


def _reordered(units: Labels, generator: np.random.Generator) -> Labels:
    """Return for each prompt one of the unit that takes the place of its own, in random order."""
    names, numbers, sizes = np.unique(units, return_inverse=True, return_counts=True)
    members, first = np.argsort(numbers, kind="stable"), np.cumsum(sizes) - sizes
    other = generator.permutation(len(names))[numbers]
    found: Labels = members[first[other] + generator.integers(0, sizes[other])]
    return found


def _attribute(
    labels: Labels,
    name: str,
    given: Sequence[str],
    units: Labels,
    orders: tuple[Orders, Orders],
    n_tests: int,
) -> Attribute:
    values, numbers = np.unique(np.array(given, dtype=object).astype(str), return_inverse=True)
    free, whole = orders
    tells_the_unit = len(set(zip(given, units.tolist(), strict=True))) == len(values)
    own, *drawn = information(np.concatenate([labels[None], free]), numbers)
    chance, (most,) = float(np.mean(drawn)), information(labels[None], labels)
    share = 0.0 if most <= chance else (own - chance) / (most - chance)
    alike = drawn if tells_the_unit else information(whole, numbers).tolist()
    return Attribute(
        name,
        tuple(values.tolist()),
        tuple(map(tuple, contingency(numbers, labels).tolist())),
        adjusted_rand(labels, numbers),
        float(share),
        min(1.0, n_tests * p_value(own - 1e-9, alike)),
    )


def information(labels: Orders, numbers: Labels) -> Float[np.ndarray, " draw"]:
    """Return the mutual information of partitions, one in each row, and another one, in nats."""
    n = labels.shape[1]
    groups, families = np.eye(numbers.max() + 1)[numbers], np.eye(labels.max() + 1)[labels]
    joint = np.einsum("pv,dpf->dvf", groups, families, optimize=True) / n
    apart = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
    ratio = np.divide(joint, apart, out=np.ones_like(joint), where=joint > 0)
    found: Float[np.ndarray, " draw"] = (joint * np.log(ratio)).sum((1, 2))
    return found
