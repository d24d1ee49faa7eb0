// How good the circuit is: shares of the behaviour, sizes, and how exact the run was.

import { h, type Child } from "./dom";
import type { Evaluation, HypothesisTest, KnockOut, Measurement, OwnResult, Run, Scorecard, SearchFigures } from "./data";
import { factTable } from "./details";
import { knockOutPlot, rankPlot, sizePlot } from "./plots";
import { chance, count, measuredText, number, percent } from "./text";

export function scorecardPanel(runs: Run[]): Child[] {
  return runs.map((run) =>
    h("section", {}, runs.length > 1 && h("h2", { class: "run-name" }, run.name), ...card(run)),
  );
}

function card(run: Run): Child[] {
  const { scorecard, search } = run;
  const rows = scorecard.measurements.map((row) => measured(row.metric, row));
  const heldOut = scorecard.held_out && measured(`${scorecard.held_out.metric}, held-out prompts`, scorecard.held_out);
  const ranked = run.ranked.flatMap((edge) =>
    edge.value === null ? [] : [{ value: edge.value, kept: edge.kept }],
  );
  const own = scorecard.own;
  const isEffect = run.edges.some((edge) => edge.effect !== null);
  return [
    h("h3", {}, "Faithfulness"),
    h(
      "p",
      { class: "quiet" },
      "What share of the way from the model with every edge cut (0) to the full model (1) the " +
        "circuit goes.",
    ),
    own && h("p", {}, `The model itself: ${ownText(own)}.`),
    ...run.notes.map((note) => h("p", {}, `Note: ${note}.`)),
    ...rows,
    heldOut,
    ...(run.evaluation ? evaluated(run.evaluation) : []),
    h("h3", {}, isEffect ? "Effects" : "Scores"),
    h(
      "p",
      { class: "quiet" },
      `Each dot is an edge: `,
      h("span", { class: "key kept" }, "in the circuit"),
      " or ",
      h("span", { class: "key cut" }, "cut"),
      ".",
    ),
    ranked.length > 0 && rankPlot(ranked, run.threshold, isEffect ? run.unit : "score"),
    h("h3", {}, search ? "Size and search" : "Size"),
    factTable([
      ["edges", of(scorecard.n_edges, scorecard.n_edges_full)],
      [
        scorecard.n_units_full ? "components" : "heads and MLPs",
        of(scorecard.n_components, scorecard.n_components_full),
      ],
      ...unitsOf(scorecard),
      ["prompts", String(scorecard.n_prompts)],
      ...(search ? searched(search) : []),
    ]),
    ...(search ? exactness(search) : []),
  ];
}

function unitsOf({ n_units, n_units_full }: Scorecard): [string, string][] {
  return n_units_full ? [["neurons and latents", of(n_units, n_units_full)]] : [];
}

function searched(search: SearchFigures): [string, string][] {
  return [
    ["edges tested", search.edges_tested.toLocaleString("en")],
    ["dead ends", deadEnds(search)],
  ];
}

function exactness(search: SearchFigures): Child[] {
  return [
    h("h3", {}, "How exact"),
    factTable([
      ["full graph", difference(search.full_graph_error, "the model on the clean prompts")],
      ["empty graph", difference(search.empty_graph_error, "the model on the corrupted prompts")],
      ["drift", difference(search.drift, "the state computed from scratch")],
    ]),
  ];
}

function evaluated(evaluation: Evaluation): Child[] {
  const { curve, effort, metric, rows, knockOuts, tests } = evaluation;
  return [
    curve && h("h3", {}, "Size"),
    curve && h("p", { class: "quiet" }, `Faithfulness (${metric}) of the first edges by ${curve.by}.`, ...keys(curve.random !== null)),
    curve && sizePlot(curve),
    ...(knockOuts.length ? completeness(knockOuts, metric) : []),
    ...(tests.length ? hypotheses(tests) : []),
    h("h3", {}, `Evaluation (${effort})`),
    factTable(rows),
  ];
}

function completeness(knockOuts: KnockOut[], metric: string): Child[] {
  const { svg, kinds } = knockOutPlot(knockOuts);
  const keys = kinds.flatMap((kind, i): Child[] => [
    i ? ", " : "",
    h("span", { class: `key kind-${i}` }, kind),
  ]);
  return [
    h("h3", {}, "Knock-outs"),
    h(
      "p",
      { class: "quiet" },
      `Faithfulness (${metric}) that is left when the same components are taken out of circuit and ` +
        "model. On the dashed line both break alike; below it the circuit lacks something. Each dot is a set of components: ",
      ...keys,
      ".",
    ),
    svg,
  ];
}

/** What each test takes for granted until the figures speak against it. */
const HYPOTHESES: Record<string, string> = {
  equivalence: "circuit and model outperform each other equally often",
  independence: "the model without the circuit scores independently of the model",
  minimality: "every edge changes more than most random edges do",
  sufficiency: "the circuit is no closer to the model than most random circuits",
};

const TEST_COLUMNS = ["test", "statistic", "p", "outcome", "ideal"];

function hypotheses(tests: HypothesisTest[]): Child[] {
  return [
    h("h3", {}, "Hypothesis tests"),
    h(
      "p",
      { class: "quiet" },
      "Whether each hypothesis is rejected at a level of 5 %, and whether it would be for an ideal circuit.",
    ),
    h(
      "table",
      { class: "tests" },
      h("thead", {}, h("tr", {}, ...TEST_COLUMNS.map((name) => h("th", { scope: "col" }, name)))),
      ...tests.map(testRows),
    ),
  ];
}

function testRows(test: HypothesisTest): HTMLElement {
  const { name, ideal, statistic, p_value, rejected, note } = test;
  const silent = statistic === null || p_value === null || rejected === null;
  const outcome = silent ? "says nothing" : rejected ? "rejected" : "kept";
  const judged = silent ? "" : outcome === ideal ? "as-ideal" : "not-ideal";
  const parts = [HYPOTHESES[name] && `Hypothesis: ${HYPOTHESES[name]}.`, note && `Found: ${note}.`];
  return h(
    "tbody",
    {},
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h("td", {}, statistic === null ? "–" : number(statistic)),
      h("td", {}, p_value === null ? "–" : chance(p_value)),
      h("td", { class: judged }, outcome),
      h("td", {}, ideal),
    ),
    h("tr", { class: "note" }, h("td", { class: "quiet", colspan: TEST_COLUMNS.length }, parts.filter(Boolean).join(" "))),
  );
}

function keys(random: boolean): Child[] {
  const chance = [", ", h("span", { class: "key cut" }, "random circuits and 95 % of them")];
  return [" ", h("span", { class: "key own" }, "The circuit"), ...(random ? chance : []), "."];
}

function ownText({ metric, unit, value, low, high, accuracy }: OwnResult): string {
  const ends = low === null || high === null ? "" : ` (${measuredText(low)} to ${measuredText(high)})`;
  const own = `${metric} ${measuredText(value)}${ends} ${unit}`;
  return metric === "accuracy" ? own : `${own}, accuracy ${measuredText(accuracy)}`;
}

function of(part: number, whole: number): string {
  return `${part.toLocaleString("en")} of ${whole.toLocaleString("en")} (${percent(part / whole)})`;
}

function deadEnds({ dead_ends: found, dead_ends_removed: removed }: SearchFigures): string {
  if (!found.length) return "none";
  return `${count(found.length, "edge")}, ${removed ? "removed" : "kept: removing them is not free here"}`;
}

function difference(value: number | null, from: string): string {
  return value === null ? "not applicable" : `${value.toExponential(1)} off ${from}`;
}

function interval(row: Measurement): string {
  return row.low === null || row.high === null ? "" : ` (${row.low.toFixed(3)} to ${row.high.toFixed(3)})`;
}

function measured(name: string, row: Measurement): HTMLElement {
  const share = row.faithfulness;
  const bar = h("span", { class: "share" });
  bar.style.setProperty("--share", String(Math.max(0, Math.min(1, share ?? 0))));
  const values = `full ${measuredText(row.full)}, circuit ${measuredText(row.circuit)}, empty ${measuredText(row.empty)} ${row.unit}`;
  return h(
    "div",
    { class: "measurement" },
    h("span", { class: "name" }, name),
    h("span", { class: "figure" }, share === null ? "undefined" : share.toFixed(3) + interval(row)),
    bar,
    h("span", { class: "quiet" }, values),
  );
}
