// The search, decision by decision, and its replay in the graph.

import { button, h, type Child } from "./dom";
import type { Edge, Run } from "./data";
import { lossPlot } from "./plots";
import type { Store } from "./store";
import { valueFigure, verdict } from "./text";

const ROWS_BEFORE = 6;
const ROWS = 14;
const SECONDS = 20;

/** The panel of one run's search; returns what brings it up to date with the store. */
export function searchPanel(run: Run, store: Store): { element: HTMLElement; update(): void } {
  const last = run.edges.length;
  const plot = lossPlot(lossesOf(run), run.unit);
  const slider = h("input", {
    type: "range",
    min: 0,
    max: last,
    "aria-label": "Decision of the search",
    oninput: () => go(Number(slider.value)),
  });
  const says = h("p", { class: "readout", "aria-live": "polite" });
  const rows = h("tbody");
  const play = button("Play", { class: "play", onclick: () => (timer ? stop() : start()) });
  let timer: ReturnType<typeof setInterval> | null = null;

  const step = () => store.state.step ?? 0;
  const go = (to: number) => store.set({ step: Math.max(0, Math.min(last, to)) });
  const stop = () => {
    if (timer) clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const start = () => {
    if (step() >= last) go(0);
    // As long for every search, in steps as large as that takes.
    const stride = Math.max(1, Math.round(last / (SECONDS * 12)));
    timer = setInterval(() => (step() < last ? go(step() + stride) : stop()), 1000 / 12);
    play.textContent = "Pause";
  };
  const jump = (label: string, title: string, by: () => number) =>
    button(label, { title, "aria-label": title, onclick: () => (stop(), go(by())) });

  const element = h(
    "section",
    {},
    h("h3", {}, "The search, decision by decision"),
    h(
      "div",
      { class: "row player" },
      jump("«", "To the start", () => 0),
      jump("‹", "One decision back", () => step() - 1),
      play,
      jump("›", "One decision on", () => step() + 1),
      jump("»", "To the end", () => last),
    ),
    slider,
    says,
    plot.any && h("p", { class: "quiet" }, "Loss after each decision."),
    plot.any && plot.svg,
    h(
      "table",
      { class: "decisions" },
      h("thead", {}, h("tr", {}, ...["#", "edge", "effect", ""].map((name) => h("th", { scope: "col" }, name)))),
      rows,
    ),
  );

  const update = () => {
    if (store.state.step === null) {
      stop();
      return;
    }
    const at = step();
    slider.value = String(at);
    plot.moveTo(at);
    says.textContent = at === 0 ? `Nothing is decided: all ${last.toLocaleString("en")} edges are there.` : told(run, at);
    const first = Math.max(0, Math.min(at - 1 - ROWS_BEFORE, last - ROWS));
    rows.replaceChildren(
      ...run.edges.slice(first, first + ROWS).map((edge) => decisionRow(edge, at, () => go(edge.index + 1))),
    );
  };
  return { element, update };
}

function told(run: Run, step: number): string {
  const edge = run.edges[step - 1];
  const kept = run.edges.slice(0, step).filter((each) => each.decided).length;
  return `${step} of ${run.edges.length}: ${edge.name}. ${verdict(edge, run)} ${kept} kept so far.`;
}

function decisionRow(edge: Edge, step: number, go: () => void): HTMLElement {
  const state = edge.index + 1 === step ? "now" : edge.index + 1 > step ? "open" : "";
  const outcome = edge.decided ? "kept" : edge.reason === "dead" ? "dead" : "cut";
  const cells: Child[] = [
    h("td", {}, String(edge.index + 1)),
    h("td", {}, button(edge.name, { class: "link mono", onclick: go })),
    h("td", { class: "figure" }, valueFigure(edge)),
    h("td", { class: outcome }, outcome),
  ];
  return h("tr", { class: state }, ...cells);
}

/** The loss as it stands after each decision: it moves when an edge is cut. */
function lossesOf(run: Run): (number | null)[] {
  let loss: number | null = null;
  return run.edges.map((edge) => {
    if (edge.before !== null) loss = edge.decided ? edge.before : (edge.after ?? edge.before);
    return loss;
  });
}

