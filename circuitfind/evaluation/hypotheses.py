"""Tests of what an ideal circuit would satisfy (Shi et al. 2024, arXiv 2410.13032).

    equivalence    H0: circuit and model outperform each other equally often, up to epsilon
    independence   H0: what the model scores on a prompt and what is left of it without the circuit
                   are independent
    minimality     H0: cutting an edge of the circuit changes more than cutting a random edge that
                   was added to it does, in a share q of all cases
    sufficiency    H0: the circuit is closer to the model than random circuits of its size in no
                   more than a share q of all cases

An ideal circuit keeps the first three and is let down by a rejection; the fourth has to be
rejected. Statistics are those of the authors' package `circuitry` (blei-lab/circuitry) but for four
things. Its equivalence test counts a difference of means where its own documentation counts
prompts: here prompts are counted, and those without a difference are left out. Permutation p-values
count the observed value in, so that none is 0. The authors' package leaves the correction for
testing many edges open: here it is Bonferroni's. Random circuits have exactly the circuit's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import binom, binomtest
from torch import Tensor

from circuitfind.evaluation.random_circuits import p_value

ALPHA = 0.05
QUANTILE = 0.9
EPSILON = 0.1

PerPrompt = Float[Tensor, " batch"]
Scores = Float[Tensor, "circuit batch"]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class HypothesisTest:
    """A test and its outcome.

    Attributes:
        name: equivalence, independence, minimality or sufficiency.
        ideal: Whether an ideal circuit's null hypothesis is `kept` or `rejected`.
        statistic: What was measured: the distance of the share of prompts on which the circuit
            wins from 1/2; the Hilbert-Schmidt independence criterion; how many edges are not
            needed; how many random circuits are no closer to the model.
        n: Out of how many prompts, edges or random circuits.
        p_value: Under the null hypothesis; of the edge with the smallest one, times the number of
            edges, for minimality. None where the test says nothing.
        rejected: Whether it is below 0.05; None where the test says nothing.
        note: Why the test says nothing, or what it found.
    """

    name: str
    ideal: str
    statistic: float | None
    n: int
    p_value: float | None
    rejected: bool | None
    note: str = ""

    @property
    def as_ideal(self) -> bool | None:
        """Whether the result is that of an ideal circuit."""
        return None if self.rejected is None else self.rejected == (self.ideal == "rejected")


def not_applicable(name: str, note: str) -> HypothesisTest:
    """Return a test that says nothing, and why."""
    ideal = "rejected" if name == "sufficiency" else "kept"
    return HypothesisTest(name, ideal, None, 0, None, None, note)


def _test(name: str, statistic: float, n: int, chance: float, note: str = "") -> HypothesisTest:
    ideal = "rejected" if name == "sufficiency" else "kept"
    return HypothesisTest(name, ideal, statistic, n, chance, chance < ALPHA, note)


def equivalence_test(
    full: PerPrompt, circuit: PerPrompt, *, epsilon: float = EPSILON
) -> HypothesisTest:
    """Test whether the circuit outperforms the model as often as the model outperforms it.

    Args:
        full: A score of the model on each prompt; which direction is better does not matter.
        circuit: Of the circuit.
        epsilon: How far the share of prompts on which the circuit wins may be from 1/2.
    """
    difference = (circuit - full).double().cpu().numpy()
    decided = difference[np.abs(difference) > 1e-9 * np.abs(full.cpu().numpy()).max()]
    n = len(decided)
    if not n:
        return not_applicable("equivalence", "the circuit scores what the model scores everywhere")
    distance = abs(float((decided > 0).mean()) - 0.5)
    counts = np.arange(n + 1)
    extreme = np.abs(counts / n - 0.5) >= distance - 1e-12
    chance = float(binom.pmf(counts, n, 0.5 + epsilon)[extreme].sum())
    share = (decided > 0).mean()
    note = f"the circuit's score is higher on {share:.0%} of {n} prompts"
    return _test("equivalence", distance, n, min(1.0, chance), note)


def independence_test(
    full: PerPrompt, rest: PerPrompt, *, n_permutations: int = 1000, seed: int = 0
) -> HypothesisTest:
    """Test whether the scores of the model without the circuit depend on the model's.

    The statistic is the Hilbert-Schmidt independence criterion with Gaussian kernels, whose width
    is the median distance of a score of the one from a score of the other; its distribution is
    that over permutations of the prompts.
    """
    x, y = (values.double().cpu().numpy() for values in (full, rest))
    width = float(np.median(np.abs(x[:, None] - y[None, :])))
    if not (width > 0 and np.ptp(x) > 0 and np.ptp(y) > 0):
        return not_applicable("independence", "the scores are the same on all prompts")
    kernel, other = _centred(_gaussian(x, width)), _gaussian(y, width)
    scale = (len(x) - 1) ** 2
    observed = float((kernel * other).sum() / scale)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_permutations):
        order = generator.permutation(len(x))
        drawn.append(float((kernel * other[np.ix_(order, order)]).sum() / scale))
    return _test("independence", observed, len(x), p_value(observed - 1e-15, drawn))


def _gaussian(values: Numbers, width: float) -> Numbers:
    kernel: Numbers = np.exp(-((values[:, None] - values[None, :]) ** 2) / (2 * width**2))
    return kernel


def _centred(kernel: Numbers) -> Numbers:
    centred: Numbers = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    return centred


def minimality_test(
    edges: Sequence[float], added: Sequence[float], *, quantile: float = QUANTILE
) -> HypothesisTest:
    """Test each edge against random edges that were added to the circuit.

    Args:
        edges: For each of the circuit's edges, the mean squared change of the score over prompts
            when it is cut.
        added: Likewise for random edges, each in the circuit with a random path added to it.
        quantile: The share of random edges that an edge has to exceed.
    """
    reference = np.array(added)
    chances = [
        float(
            binomtest(
                int((effect > reference).sum()), len(reference), quantile, alternative="less"
            ).pvalue
        )
        for effect in edges
    ]
    corrected = [min(1.0, chance * len(chances)) for chance in chances]
    n_useless = sum(chance < ALPHA for chance in corrected)
    note = f"{n_useless} of {len(chances)} edges change no more than added ones do"
    return _test("minimality", float(n_useless), len(chances), min(corrected), note)


def sufficiency_test(
    circuit: float, drawn: Sequence[float], *, quantile: float = QUANTILE
) -> HypothesisTest:
    """Test whether the circuit is closer to the model than random circuits are.

    Args:
        circuit: The mean squared difference of the circuit's score from the model's over prompts.
        drawn: Likewise of random circuits.
        quantile: The share of random circuits that it has to beat.
    """
    beaten = int((circuit <= np.array(drawn)).sum())
    chance = float(binomtest(beaten, len(drawn), quantile, alternative="greater").pvalue)
    note = f"{beaten} of {len(drawn)} random circuits are no closer to the model"
    return _test("sufficiency", float(beaten), len(drawn), chance, note)


def squared_distance(one: Scores, other: Float[Tensor, "_ batch"]) -> list[float]:
    """Return the mean squared difference over prompts, row by row."""
    distances: list[float] = (one - other).square().mean(dim=1).tolist()
    return distances
