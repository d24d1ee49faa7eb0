// Neurons and latents of the circuit, with the tokens and contexts that make each active.

import { button, h, type Child } from "./dom";
import type { Component, Run, Unit } from "./data";
import type { Store } from "./store";
import { count, effectText, nameOfValues, number, percent, signed } from "./text";

const FEW = 2;

let wanted = "";

/** What the units of a run are called: all are of one kind. */
export function unitsName(runs: Run[]): string {
  return runs.some((run) => run.units.some(({ name }) => name.includes(".f"))) ? "Latents" : "Neurons";
}

export function unitsPanel(runs: Run[], store: Store): Child[] {
  const place = h("div");
  const fill = () => {
    place.replaceChildren(
      ...runs.map((run) => {
        const found = run.units.filter((unit) => textOf(unit).includes(wanted.toLowerCase()));
        return h(
          "section",
          {},
          runs.length > 1 && h("h2", { class: "run-name" }, run.name),
          h("p", { class: "quiet" }, `${count(found.length, "unit")} of ${run.units.length.toLocaleString("en")} shown`),
          h("ol", { class: "unit-list" }, ...found.map((unit) => unitRow(unit, run, store))),
        );
      }),
    );
  };
  const input = h("input", {
    type: "search",
    placeholder: "m5.n17, a word …",
    "aria-label": "Only units whose name, tokens or contexts contain",
    value: wanted,
    oninput: () => {
      wanted = input.value.trim();
      fill();
    },
  });
  fill();
  return [input, place];
}

function textOf({ name, tokens, contexts }: Unit): string {
  const parts = [name, ...tokens.map(([text]) => text), ...contexts.map(([before, token, after]) => before + token + after)];
  return parts.join("\n").toLowerCase();
}

function unitRow(unit: Unit, run: Run, store: Store): HTMLElement {
  const box = boxOf(unit.name, run);
  const onclick = () => store.set({ selected: { kind: "component", name: box?.name ?? unit.name }, tab: "details" });
  return h(
    "li",
    {},
    button(h("span", { class: "name mono" }, unit.name), { class: "edge-row unit-row", onclick }, h("span", {}, valueOf(unit, run))),
    ...activity(unit, FEW),
  );
}

/** The box of a unit: where places are told apart, one that is in the circuit. */
function boxOf(name: string, run: Run): Component | undefined {
  const used = run.edges.find((edge) => edge.kept && edge.writer.component === name);
  return used?.writer ?? run.components.find((box) => box.component === name);
}

function valueOf({ effect }: Unit, run: Run): string {
  if (effect === null) return "not measured";
  const kind = nameOfValues(run);
  return kind === "effect" ? `effect ${effectText(effect)} ${run.unit}` : `score ${signed(effect)}`;
}

/** What makes a unit active, for the details of its box. */
export function unitDetails(component: string, run: Run): Child[] {
  const unit = run.units.find(({ name }) => name === component);
  if (!unit) return [];
  return [h("h4", {}, "What makes it active"), h("p", { class: "quiet" }, `All edges out of it together: ${valueOf(unit, run)}.`), ...activity(unit)];
}

function spaceOf(token: string): string {
  return token.trim() && /^\s/.test(token) ? " " : "";
}

function activity({ frequency, tokens, contexts }: Unit, most = Infinity): Child[] {
  const often = `Active at ${percent(frequency)} of the positions of the clean prompts`;
  const words = tokens.slice(0, Math.max(most, 3)).map(([text, share]) => `${text} ${percent(share)}`);
  return [
    h("p", { class: "quiet" }, words.length ? `${often}: ${words.join(", ")}` : `${often}.`),
    h(
      "ul",
      { class: "plain contexts" },
      ...contexts.slice(0, most).map(([before, token, after, activation]) =>
        h("li", {}, before, spaceOf(token), h("mark", {}, token.trim() || token), after, h("span", { class: "quiet" }, ` ${number(activation)}`)),
      ),
    ),
  ];
}
