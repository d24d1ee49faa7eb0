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
    cases, ablation = _cases(found), found.ablation
    if not found.equal:
        labels = found.compares == "labels" and not found.n_ties
        output = "the best output" if labels else "an output"
        yield _refusal(found, output)
    elif found.every_input:
        how = ablation if found.n_cases == found.n_inputs else f"{cases}, {ablation}"
        yield f"equal to the model on all {found.n_inputs:,} inputs ({how})"
    else:
        yield f"equal to the model on {cases} ({ablation}), which are not all"
    yield from _figures(found)
    if not found.every_input:
        of = "of all cases" if found.prompts == "drawn" else "on prompts like these"
        of += ", with the mean of these," * found.shared_mean
        share = f"{100 * found.failure_bound:.3g}%"
        yield f"{of} it differs in at most {share} ({LEVEL:.0%} confidence)"
    if found.prompts == "discovery":
        yield "the circuit was found on these very prompts, so the share on others may be larger"
    if found.counterexample is not None:
        kind = "counterexample" if found.n_different else "a case in which neither is proved"
        yield from _counterexample(kind, found.counterexample)
    if found.levels:
        yield from map(_level, found.levels)
        proved = found.reached_with_proof
        how = "" if proved == found.reached else f" (measured; with proof: {proved or 'none'})"
        yield f"level of minimality reached: {found.reached or 'none'}{how}"


def _refusal(found: Certificate, output: str) -> str:
    """Return how many cases differ, and in how many rounding could decide."""
    cases, ablation = _cases(found), found.ablation
    if not found.n_different:
        return (
            f"not proved to be equal to the model: in {found.n_open:,} of {cases} rounding could "
            f"decide ({ablation})"
        )
    unsure = f"; in {found.n_open:,} more rounding could decide" if found.n_open else ""
    return (
        f"not equal to the model: {found.n_different:,} of {cases} differ in {output}{unsure} "
        f"({ablation})"
    )


def _cases(found: Certificate) -> str:
    """Return how many cases of which kind were checked."""
    if found.every_input:
        pairs = found.n_cases != found.n_inputs
        return f"{found.n_cases:,} {'pairs of inputs' if pairs else 'inputs'}"
    kinds = {"drawn": "random cases", "given": "prompts"}
    return f"{found.n_cases:,} {kinds.get(found.prompts, f'{found.prompts} prompts')}"


def _figures(found: Certificate) -> Iterator[str]:
    yield f"largest difference of an output: {found.largest_difference:.3g}"
    needed = found.rounding if found.margin_needed is None else found.margin_needed
    if found.smallest_margin is not None:
        yield (
            f"smallest margin of the model's label, compared with rounding: "
            f"{found.smallest_margin:.3g}; needed there: {needed:.3g}"
        )
    if found.n_ties:
        yield (
            f"the model's own best two outputs are equal up to rounding in {found.n_ties:,} of "
            f"{found.n_cases:,} cases: numbers are compared there"
        )
    if found.n_ties or found.smallest_margin is None:
        included = ", rounding included" * found.rounding_proved
        yield f"difference allowed{included}: {found.allowed:.3g}"
    yield _rounding(found)


def _rounding(found: Certificate) -> str:
    """Return what is known of rounding, and why it is not proved."""
    if found.rounding_proved:
        return f"rounding: proved to be at most {found.rounding:.3g}"
    why = f"; not proved: {found.unproved}" if found.unproved else ", not proved"
    return f"rounding: taken as {found.rounding:.3g} (measured{why})"


def _counterexample(kind: str, case: Counterexample) -> Iterator[str]:
    yield f"{kind}: {case.prompt}"
    if case.corrupted:
        yield f"  cut edges carry what they do on: {case.corrupted}"
    for name, outputs in (("model", case.model), ("circuit", case.circuit)):
        said = ", ".join(f"{output}: {value:.4g}" for output, value in outputs.items())
        yield f"  outputs of the {name} at position {case.position}: {said}"


def _level(level: Level) -> str:
    claim = _CLAIMS[level.name]
    if level.holds is None:
        return f"{level.name}: {'open' if level.n_tried else 'not tried'} ({level.note})"
    if level.holds:
        how = "each proved to differ" if level.proved else "each differs as measured"
        tried = f", {how}" if level.n_tried else ""
        return f"{level.name}: {claim} ({level.n_tried:,} tried{tried})"
    smaller = ", ".join(level.smaller) or "no edge at all"
    how = "proved to be equal to the model" if level.proved else "equal to the model as measured"
    return f"{level.name}: refused; the circuit of these edges is {how}: {smaller}"
