"""An evaluation as tables for the terminal and as charts."""

from collections.abc import Iterator, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from circuitfind.evaluation.assessment import Assessment, Reading
from circuitfind.evaluation.baseline import Baseline
from circuitfind.evaluation.hypotheses import HypothesisTest
from circuitfind.evaluation.strongest_path import StrongestPath
from circuitfind.reports.canvas import PALETTE
from circuitfind.reports.chart import Axis, Series, colour_of_series, draw_lines
from circuitfind.reports.diagram import Diagram
from circuitfind.reports.matrix import SIGNIFICANT
from circuitfind.reports.terminal import listing, pairs_table, share_text

_SHARES = Axis("", -0.1, 1.1, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
_MOST_NAMED = 8
_GREY = PALETTE[-1]


def assessment_tables(assessment: Assessment) -> list[Table]:
    """Return the tables of an evaluation: what was found, and the tests."""
    cost = f"{assessment.n_passes} passes, {assessment.seconds:.0f} s"
    remarks = [("note", escape(note)) for note in assessment.notes]
    remarks += [("WARNING", escape(doubt)) for doubt in assessment.doubts]
    tables = [pairs_table([*assessment_rows(assessment), ("cost", cost), *remarks])]
    if assessment.tests:
        headers = ["test", "statistic", "p", "outcome", "an ideal circuit", "note"]
        tables.append(listing(headers, [_test_row(test) for test in assessment.tests]))
    return tables


def assessment_rows(assessment: Assessment) -> list[tuple[str, str]]:
    """Return what was found as names and texts, without remarks and the time that it took."""
    return list(_rows(assessment))


def _rows(given: Assessment) -> Iterator[tuple[str, str]]:
    share = given.n_edges / given.n_edges_full
    if given.own is not None:
        yield "the model itself", str(given.own)
    yield "edges", f"{given.n_edges} of {given.n_edges_full} ({share:.1%})"
    yield from _reading_rows(given.readings)
    if given.curve is not None and given.curve.cpr is not None and given.curve.cmd is not None:
        acc = given.curve.acc_auc
        yield (
            f"size curve, by {given.curve.by}",
            f"CPR {_number(given.curve.cpr)}, CMD {_number(given.curve.cmd)}"
            + ("" if acc is None else f", acc-AUC {_number(acc)}"),
        )
    for baseline in given.baselines:
        yield f"random circuits, same {baseline.null}", _among(baseline)
    yield from _path_rows(given)
    yield from _part_rows(given)
    for each in given.divergences:
        held_out = "" if each.held_out is None else f", {each.held_out:.4g} on held-out ones"
        yield (
            f"KL, {each.ablation} ablation",
            f"{each.discovery:.4g} nats on discovery prompts{held_out}",
        )
    for curve in given.roc:
        precision = "-" if curve.precision is None else f"{curve.precision:.3f}"
        yield (
            f"{curve.of} against {given.against}",
            f"precision {precision}, recall {curve.recall:.3f}, ROC area {curve.area:.3f} "
            f"by {curve.by} ({curve.n_true} of {curve.n_all})",
        )


def _reading_rows(readings: Sequence[Reading]) -> Iterator[tuple[str, str]]:
    for reading in readings:
        if not reading.prompts.startswith("template"):
            yield (
                f"{reading.measured.metric}, {reading.prompts} prompts",
                f"faithfulness {share_text(reading.measured)} on {reading.n_prompts}",
            )
    shares = [
        (reading.measured.faithfulness, reading.prompts)
        for reading in readings
        if reading.prompts.startswith("template") and reading.measured.faithfulness is not None
    ]
    if shares:
        (low, worst), (high, best) = min(shares), max(shares)
        yield (
            f"{len(shares)} templates",
            f"faithfulness from {_number(low)} ({worst}) to {_number(high)} ({best})",
        )


def _among(baseline: Baseline) -> str:
    return (
        f"faithfulness {_number(baseline.mean)} on average "
        f"({_number(baseline.low)} to {_number(baseline.high)}) of {baseline.n_circuits}; "
        f"this one {_number(baseline.faithfulness)}, p {_chance(baseline.p_value)}"
    )


def _path_rows(given: Assessment) -> Iterator[tuple[str, str]]:
    """Yield what the strongest path carries, and what chance does without it."""
    if given.path is None:
        return
    path, n = given.path, given.path.baseline.n_circuits
    yield (
        "strongest path",
        f"{_some(path.edges)}: faithfulness {_number(path.alone)} alone, "
        f"{_number(path.without)} of the circuit without it; {path.n_holding} of {n} random "
        "circuits hold it",
    )
    yield "random circuits without it", _among(path.baseline)
    if given.baselines and given.baselines[0].p_value > SIGNIFICANT:
        yield "why chance does as well", _why(path)


def _why(path: StrongestPath) -> str:
    if path.baseline.p_value > SIGNIFICANT:
        return "not because of the strongest path: random circuits do as well without it, too"
    held = f"{path.n_holding} of {path.baseline.n_circuits}"
    if 2 * path.n_holding > path.baseline.n_circuits:
        return (
            f"{held} random circuits hold the strongest path; with one of its edges replaced they "
            "do worse"
        )
    return (
        f"few random circuits do, and fewer where an edge of the strongest path is replaced; {held}"
        " hold it, so it explains little"
    )


def _part_rows(given: Assessment) -> Iterator[tuple[str, str]]:
    if given.completeness is not None:
        worst = given.completeness.knock_outs[0]
        yield (
            "completeness",
            f"knocked out of circuit and model alike, worst difference "
            f"{_number(given.completeness.worst)} ({', '.join(worst.components)}: circuit "
            f"{_number(worst.circuit)}, model {_number(worst.full)}), "
            f"mean {_number(given.completeness.mean)}",
        )
        if given.completeness.backups:
            backups = [f"{b.component} ({_number(b.effect)})" for b in given.completeness.backups]
            yield "stands in for them", _some(backups)
    if given.minimality is not None:
        yield "edges never needed", _some(given.minimality.useless_edges) or "none"
        yield "components never needed", _some(given.minimality.useless_components) or "none"
    if given.discoveries is not None:
        found = given.discoveries
        yield (
            "edges with an effect",
            f"{found.n_effective} of {len(found.edges)} at a false discovery rate of 5 % on "
            f"{found.n_prompts} {'held-out ' if found.held_out else ''}prompts "
            f"({found.n_effective_any} under any dependence)",
        )


def _test_row(test: HypothesisTest) -> list[str]:
    if test.p_value is None or test.statistic is None:
        return [test.name, "-", "-", "says nothing", "", test.note]
    outcome = "rejected" if test.rejected else "kept"
    verdict = "would be, too" if test.as_ideal else f"would be {test.ideal}"
    return [
        test.name, f"{test.statistic:.3g}", _chance(test.p_value), outcome, verdict, test.note,
    ]  # fmt: skip


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    shown = ", ".join(names[:_MOST_NAMED])
    return f"{shown} and {rest} more" if rest > 0 else shown


def _number(value: float) -> str:
    return f"{value if abs(value) >= 5e-4 else 0:.3f}"


def _chance(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def charts(assessment: Assessment) -> Mapping[str, Diagram]:
    """Return the charts of an evaluation by name."""
    found = {
        "size-curve": _size_chart(assessment),
        "knock-outs": _knock_out_chart(assessment),
        "roc": _roc_chart(assessment),
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def _size_chart(given: Assessment) -> Diagram | None:
    curve = given.curve
    if curve is None or curve.cpr is None or curve.cmd is None:
        return None
    points = [
        (point.share, point.faithfulness)
        for point in curve.points
        if point.faithfulness is not None and point.share > 0
    ]
    series = [
        Series(
            f"by {curve.by}",
            tuple(points),
            PALETTE[0],
            tips=tuple(f"{share:.2%} of edges: {f:.3f}" for share, f in points),
        )
    ]
    own = given.n_edges / given.n_edges_full
    if given.baselines:
        base = given.baselines[0]
        # The circuit is drawn last: random circuits of its size can be as faithful.
        series += [
            Series(
                "95 % of random circuits", ((own, base.low), (own, base.high)), _GREY, dots=False
            ),
            Series("their mean", ((own, base.mean),), _GREY, "none"),
            Series("the circuit", ((own, base.faithfulness),), PALETTE[1], "none", mark="diamond"),
        ]
    low = min(share for share, _ in [*points, (own or 1.0, 0)])
    x_axis = Axis(
        "edges left", min(low, 0.1), 1.0, (0.001, 0.01, 0.1, 1.0), logarithmic=True, percent=True
    )
    title = f"CPR {_number(curve.cpr)}, CMD {_number(curve.cmd)}"
    return draw_lines(f"Faithfulness against size: {title}", x_axis, _faithfulness(given), series)


def _faithfulness(given: Assessment) -> Axis:
    return Axis(f"faithfulness ({given.metric})", _SHARES.low, _SHARES.high, _SHARES.ticks)


def _knock_out_chart(given: Assessment) -> Diagram | None:
    if given.completeness is None:
        return None
    kinds = dict.fromkeys(each.kind for each in reversed(given.completeness.knock_outs))
    series = [Series("alike", ((-0.1, -0.1), (1.1, 1.1)), _GREY, dots=False, dashed=True)]
    for number, kind in enumerate(kinds):
        found = [each for each in given.completeness.knock_outs if each.kind == kind]
        series.append(
            Series(
                kind,
                tuple((each.full, each.circuit) for each in found),
                colour_of_series(number)[0],
                "none",
                tips=tuple(", ".join(each.components) for each in found),
            )
        )
    x_axis = Axis("faithfulness of the model without them", -0.1, 1.1, _SHARES.ticks)
    y_axis = Axis("of the circuit without them", -0.1, 1.1, _SHARES.ticks)
    return draw_lines("Completeness: components knocked out", x_axis, y_axis, series)


def _roc_chart(given: Assessment) -> Diagram | None:
    if not given.roc:
        return None
    rates = Axis("false positive rate", 0.0, 1.0, _SHARES.ticks)
    series = [
        Series(
            f"{curve.of}, area {curve.area:.3f}",
            ((0.0, 0.0), *_front(curve.points), (1.0, 1.0)),
            colour,
            "steps",
            dots=False,
        )
        for curve, colour in zip(given.roc, PALETTE, strict=False)
    ]
    true = Axis("true positive rate", 0.0, 1.0, _SHARES.ticks)
    return draw_lines(f"ROC against {given.against}", rates, true, series)


def _front(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield the points that no other one beats, from the left."""
    best = 0.0
    for false_rate, true_rate in sorted(points):
        if true_rate > best:
            best = true_rate
            yield false_rate, true_rate
