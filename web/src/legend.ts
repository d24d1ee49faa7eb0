// What the colours and strokes of the graph mean, as far as they occur.

import { h, s } from "./dom";
import type { Page, Run } from "./data";
import { marksOf, strengthOf, widthOf, type Scale } from "./scale";
import type { State } from "./store";
import { isGrouped } from "./strokes";
import { isOfStream, nameOfValues, number } from "./text";

const PORTS: [string, string][] = [
  ["q", "into a query"],
  ["k", "into a key"],
  ["v", "into a value"],
  ["qkv", "into a head"],
  ["plain", "into an MLP or the logits"],
];

/** How broad lines are drawn. */
export interface Widths {
  runs: Run[];
  scale: Scale;
  sizes: (number | null)[];
  /** Whether there are smaller ones than the thinnest line stands for. */
  below: boolean;
  /** Whether a line stands for several edges. */
  together: boolean;
}

/** Return the legend, and what brings it up to date. */
export function legend(page: Page) {
  const element = h("ul", { class: "legend", "aria-label": "Legend" });
  const update = (state: State, widths: Widths[]) =>
    element.replaceChildren(
      ...entries(page, state).map(([tone, text, dashed]) => h("li", {}, sample(tone, dashed), text)),
      ...widths.flatMap((each) => widthEntries(each, widths.length > 1)),
    );
  return { element, update };
}

function widthEntries({ runs, scale, sizes, below, together }: Widths, named: boolean): HTMLElement[] {
  const [{ unit }] = runs;
  const whose = named ? `${runs[0].name}: ` : "";
  const what = nameOfValues(runs[0]) + (together ? "s together" : "");
  return marksOf(sizes, scale).map((size) => {
    const upTo = below && size === scale.low ? "up to " : "";
    const line = sample("plain", false, widthOf(strengthOf(size, scale)));
    const of = nameOfValues(runs[0]) === "effect" ? ` ${unit}` : "";
    return h("li", { class: "width" }, line, `${whose}${what} ${upTo}${number(size)}${of}`);
  });
}

function entries(page: Page, state: State): [string, string, boolean][] {
  const shown = state.view === "difference" ? [page.comparison!.difference!.graph] : page.runs;
  const moves: [string, string, boolean][] = shown.some((each) => each.places.length) ? [["move", "moved by attention, never cut", false]] : [];
  if (state.view === "difference") {
    const [left, right] = page.runs;
    return [
      ["left", `only in ${left.name}`, false],
      ["right", `only in ${right.name}`, false],
      ["both", "in both", false],
      ...moves,
    ];
  }
  const edges = page.runs.flatMap((run) => run.edges);
  const used = new Set(edges.filter((edge) => edge.kept).map((edge) => edge.port || "plain"));
  const hasStream = page.runs.some((run) => run.components.some(isOfStream));
  const found = PORTS.filter(([tone]) => used.has(tone as never)).map(([tone, text]): [string, string, boolean] => [
    tone,
    hasStream && tone === "plain" ? "into an MLP, the stream or the logits" : text,
    false,
  ]);
  if (state.step !== null) {
    found.push(["now-kept", "just kept", false], ["now-cut", "just cut", false], ["open", "undecided", false]);
  } else {
    if (state.scope === "all") found.push(["cut", "not in the circuit", false]);
    const negative = edges.some((edge) => (edge.value ?? 0) < 0 && (edge.kept || state.scope === "all"));
    if (negative) found.push(["plain", "cutting it helps", true]);
    if (isGrouped(page.runs, state)) found.push(["mixed", "several kinds in one", false]);
  }
  return [...found, ...moves];
}

function sample(tone: string, dashed: boolean, width = 2.5): SVGSVGElement {
  const line = s("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: `line tone-${tone}`, "stroke-width": width.toFixed(2) });
  if (dashed) line.setAttribute("stroke-dasharray", "5 3");
  return s("svg", { class: "sample", viewBox: "0 0 22 10", width: 22, height: 10, "aria-hidden": "true" }, line);
}
