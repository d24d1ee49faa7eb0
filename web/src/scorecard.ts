// How good the circuit is: shares of the behaviour, sizes, and how exact the run was.

import { h, type Child } from "./dom";
import type { Evaluation, Measurement, Run } from "./data";
import { factTable } from "./details";
import { rankPlot, sizePlot } from "./plots";
import { count, number, percent } from "./text";

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
  const isEffect = run.edges.some((edge) => edge.effect !== null);
  return [
    h("h3", {}, "Faithfulness"),
    h(
      "p",
      { class: "quiet" },
      "What share of the way from the model with every edge cut (0) to the full model (1) the " +
        "circuit goes.",
    ),
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
    h("h3", {}, "Size and search"),
    factTable([
      ["edges", of(scorecard.n_edges, scorecard.n_edges_full)],
      ["components", of(scorecard.n_components, scorecard.n_components_full)],
      ["prompts", String(scorecard.n_prompts)],
      ["edges tested", search.edges_tested.toLocaleString("en")],
      ["dead ends", deadEnds(run)],
      ["seconds", search.seconds.toFixed(1)],
    ]),
    h("h3", {}, "How exact"),
    factTable([
      ["full graph", difference(search.full_graph_error, "the model on the clean prompts")],
      ["empty graph", difference(search.empty_graph_error, "the model on the corrupted prompts")],
      ["drift", difference(search.drift, "the state computed from scratch")],
    ]),
  ];
}

function evaluated(evaluation: Evaluation): Child[] {
  const { curve, effort, metric, rows } = evaluation;
  return [
    curve && h("h3", {}, "Size"),
    curve && h("p", { class: "quiet" }, `Faithfulness (${metric}) of the first edges by ${curve.by}.`, ...keys(curve.random !== null)),
    curve && sizePlot(curve),
    h("h3", {}, `Evaluation (${effort})`),
    factTable(rows),
  ];
}

function keys(random: boolean): Child[] {
  const chance = [", ", h("span", { class: "key cut" }, "random circuits and 95 % of them")];
  return [" ", h("span", { class: "key own" }, "The circuit"), ...(random ? chance : []), "."];
}

function of(part: number, whole: number): string {
  return `${part.toLocaleString("en")} of ${whole.toLocaleString("en")} (${percent(part / whole)})`;
}

function deadEnds(run: Run): string {
  const { dead_ends: found, dead_ends_removed: removed } = run.search;
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
  const values = `full ${number(row.full, 4)}, circuit ${number(row.circuit, 4)}, empty ${number(row.empty, 4)} ${row.unit}`;
  return h(
    "div",
    { class: "measurement" },
    h("span", { class: "name" }, name),
    h("span", { class: "figure" }, share === null ? "undefined" : share.toFixed(3) + interval(row)),
    bar,
    h("span", { class: "quiet" }, values),
  );
}
