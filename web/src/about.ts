// How to read the page, and where the run comes from.

import { h, type Child } from "./dom";
import type { Run } from "./data";
import { factTable } from "./details";

const KEYS: [string, string][] = [
  ["Tab", "to the next control; the graph is one of them"],
  ["← ↑ → ↓", "from box to box"],
  ["Enter", "choose the box"],
  ["Esc", "choose nothing"],
  ["+ − 0", "zoom, and show everything"],
];

export function aboutPanel(runs: Run[]): Child[] {
  return [
    h("h3", {}, "How to read the graph"),
    h(
      "ul",
      {},
      ...[
        "Boxes are components: a9.h6 is head 6 of layer 9, m3 the MLP of layer 3. They run from bottom to top.",
        "Lines are edges. Their colour says what they enter: a query, a key, a value, or an MLP or the logits.",
        "The broader, the larger the effect, by its logarithm. Dashed: cutting the edge made the model better.",
        "The effect of an edge is what was measured when it was tested, all else as it stood then. The slider " +
          "ranks edges by it; a search with another threshold may find other edges.",
        "Large graphs draw the heads of a layer as one box and join the edges between two boxes into one line.",
      ].map((text) => h("li", {}, text)),
    ),
    h("h3", {}, "Keyboard"),
    factTable(KEYS.map(([key, text]) => [key, text])),
    ...runs.flatMap((run) => [
      h("h3", {}, runs.length > 1 ? `Where ${run.name} comes from` : "Where this comes from"),
      ...Object.entries(run.provenance).flatMap(([group, values]) => [
        h("h4", {}, group),
        factTable(Object.entries(values).map(([name, value]) => [name.replaceAll("_", " "), shown(value)])),
      ]),
    ]),
  ];
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
