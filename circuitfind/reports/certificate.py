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
        kind = "" if found.prompts == "given" else f"{found.prompts} "
        cases = f"{found.n_cases:,} {kind}prompts"
    if not found.equal:
        yield f"not equal to the model: {found.n_different:,} of {cases} differ ({found.ablation})"
    elif found.every_input:
        how = f"{cases}, {found.ablation}" if pairs else found.ablation
        yield f"equal to the model on all {found.n_inputs:,} inputs ({how})"
    else:
        yield f"equal to the model on {cases} ({found.ablation}), which are not all inputs"
    yield from _figures(found)
    if not found.every_input:
        yield (
            f"on prompts like these it differs in less than {found.failure_bound:.2%} "
            f"({LEVEL:.0%} confidence)"
        )
    if found.prompts == "discovery":
        yield "the circuit was found on these very prompts, so the share on others may be larger"
    if found.counterexample is not None:
        yield from _counterexample(found.counterexample)
    if found.levels:
        yield from map(_level, found.levels)
        yield f"level of minimality reached: {found.reached or 'none'}"


def _figures(found: Certificate) -> Iterator[str]:
    yield f"largest difference of an output: {found.largest_difference:.3g}"
    if found.smallest_margin is not None:
        yield (
            f"smallest margin of the model's label: {found.smallest_margin:.3g}; "
            f"needed because of rounding: {found.rounding:.3g}"
        )
    if found.n_ties:
        yield (
            f"the model's own best two outputs are equal in {found.n_ties:,} of "
            f"{found.n_cases:,} cases: numbers are compared there"
        )
    if found.n_ties or found.smallest_margin is None:
        yield f"difference allowed: {found.allowed:.3g}; rounding: taken as {found.rounding:.3g}"


def _counterexample(case: Counterexample) -> Iterator[str]:
    yield f"counterexample: {case.prompt}"
    if case.corrupted:
        yield f"  cut edges carry what they do on: {case.corrupted}"
    for name, outputs in (("model", case.model), ("circuit", case.circuit)):
        said = ", ".join(f"{output}: {value:.4g}" for output, value in outputs.items())
        yield f"  outputs of the {name} at position {case.position}: {said}"


def _level(level: Level) -> str:
    claim = _CLAIMS[level.name]
    if level.holds is None:
        return f"{level.name}: not tried ({level.note})"
    if level.holds:
        return f"{level.name}: {claim} ({level.n_tried:,} tried)"
    smaller = ", ".join(level.smaller) or "no edge at all"
    return f"{level.name}: refused; these edges are equal to the model too: {smaller}"
