"""A certificate in words."""

from collections.abc import Iterator

from circuitfind.evaluation.certificate import Certificate, Counterexample
from circuitfind.evaluation.intervals import LEVEL
from circuitfind.evaluation.levels import Level

_CLAIMS = {
    "edge": "no single edge can be cut",
    "pair": "no two edges can be cut",
    "subset": "no set of its edges can be cut",
    "least": "no circuit of fewer edges is equal to the model",
}


def certificate_text(found: Certificate) -> str:
    """Return what a certificate says, a line each."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Certificate) -> Iterator[str]:
    pairs = found.n_cases != found.n_inputs
    cases = f"{found.n_cases:,} {'pairs of inputs' if pairs else 'inputs'}"
    if not found.every_input:
        cases = f"{found.n_cases:,} prompts"
    if found.equal and found.every_input:
        yield f"equal to the program on all {found.n_inputs:,} inputs ({cases}, {found.ablation})"
    elif found.equal:
        yield f"equal to the model on {cases} ({found.ablation}), which are not all inputs"
    else:
        yield f"not equal to the model: {found.n_different:,} of {cases} differ ({found.ablation})"
    yield from _figures(found)
    if not found.every_input:
        yield (
            f"on prompts like these it differs in less than {found.failure_bound:.2%} "
            f"({LEVEL:.0%} confidence)"
        )
    if found.counterexample is not None:
        yield from _counterexample(found.counterexample)
    if found.levels:
        yield from map(_level, found.levels)
        yield f"level of minimality reached: {found.reached or 'none'}"


def _figures(found: Certificate) -> Iterator[str]:
    yield f"largest difference of an output: {found.largest_difference:.3g}"
    if found.smallest_margin is None:
        yield f"difference allowed: {found.allowed:.3g}; rounding: below {found.rounding:.3g}"
    else:
        yield (
            f"smallest margin of the model's label: {found.smallest_margin:.3g}; "
            f"needed because of rounding: {found.allowed:.3g}"
        )


def _counterexample(case: Counterexample) -> Iterator[str]:
    yield f"counterexample: {case.prompt}"
    if case.corrupted:
        yield f"  cut edges carry what they do on: {case.corrupted}"
    for name, outputs in (("model", case.model), ("circuit", case.circuit)):
        said = ", ".join(f"{output} {value:.4g}" for output, value in outputs.items())
        yield f"  {name} at position {case.position}: {said}"


def _level(level: Level) -> str:
    claim = _CLAIMS[level.name]
    if level.holds is None:
        return f"{level.name}: not tried ({level.note})"
    if level.holds:
        return f"{level.name}: {claim} ({level.n_tried:,} tried)"
    smaller = ", ".join(level.smaller) or "no edge at all"
    return f"{level.name}: refused; these edges are equal to the model too: {smaller}"
