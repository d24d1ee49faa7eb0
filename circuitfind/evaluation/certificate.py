"""What is known of a circuit on all inputs of its model, or on those that were tried."""

from dataclasses import dataclass
from itertools import takewhile

from circuitfind.evaluation.levels import Level


@dataclass(frozen=True)
class Counterexample:
    """A case in which a circuit is not equal to its model.

    Attributes:
        prompt: The input.
        corrupted: The prompt that cut edges take their value from; empty where there is none.
        position: Where the outputs differ most, counted from 0.
        model: The model's outputs there: the best five, by their names.
        circuit: The circuit's outputs of the same names, and its own best.
    """

    prompt: str
    corrupted: str
    position: int
    model: dict[str, float]
    circuit: dict[str, float]


@dataclass(frozen=True)
class Certificate:
    """What is known of a circuit on all inputs, or on those tried.

    Attributes:
        equal: Whether the circuit was equal to the model in all cases that were checked; where the
            rounding is proved, whether that is.
        every_input: Whether these are all cases that there are.
        compares: `labels` or `numbers`.
        ablation: What cut edges carry.
        n_inputs: How many inputs were checked.
        n_cases: How many cases: pairs of inputs, where cut edges carry what another prompt gives.
        n_different: How many cases differ; where the rounding is proved, how many surely do.
        largest_difference: The largest difference of an output from the model's.
        smallest_margin: How far the model's label is above the next output of the circuit where
            that is least, compared with how far it must be; None where only numbers are compared.
        allowed: How far outputs may differ, where numbers are compared; where the rounding is
            proved, that included.
        rounding: How far the difference of two outputs is from its exact value at most, or a
            thousand times what was measured.
        failure_bound: In which share of all cases, or of prompts like these, the circuit differs
            at most, with 95 % confidence; the share that is not equal, where all cases were
            checked.
        counterexample: A case that differs; where none surely does, one that may.
        levels: The levels of minimality; none where the circuit is not equal, or not on all inputs.
        n_ties: In how many cases the model's own best two outputs are equal up to rounding
            somewhere, so that numbers are compared there, although labels are elsewhere.
        prompts: What was checked: `all` cases; cases `drawn` at random; `held-out` prompts, those
            of the search (`discovery`), or those that were `given`.
        shared_mean: Whether cut edges carry a mean over the prompts that were checked.
        rounding_proved: Whether the rounding is proved, so that what is said of equal and different
            cases is true in exact arithmetic with the model's weights.
        unproved: Why it is not: the operation that has no bound, or the bound that is too large.
        n_open: In how many cases neither is proved, as rounding could decide.
        margin_needed: How far the label must be above the next output where the margin is smallest.
    """

    equal: bool
    every_input: bool
    compares: str
    ablation: str
    n_inputs: int
    n_cases: int
    n_different: int
    largest_difference: float
    smallest_margin: float | None
    allowed: float
    rounding: float
    failure_bound: float
    counterexample: Counterexample | None = None
    levels: tuple[Level, ...] = ()
    n_ties: int = 0
    prompts: str = "given"
    shared_mean: bool = False
    rounding_proved: bool = False
    unproved: str = ""
    n_open: int = 0
    margin_needed: float | None = None

    @property
    def reached(self) -> str:
        """The highest level of minimality that holds; empty if none."""
        return next((each.name for each in reversed(self.levels) if each.holds), "")

    @property
    def reached_with_proof(self) -> str:
        """The highest one that is proved, with all before it; empty if none."""
        proved = takewhile(lambda each: each.holds and each.proved, self.levels)
        return next((each.name for each in reversed(list(proved))), "")
