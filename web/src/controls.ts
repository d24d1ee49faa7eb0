// The bar under the graph: how many edges, from which effect on, and how they are drawn.

import { button, h } from "./dom";
import type { Run } from "./data";
import { size } from "./data";
import type { State, Store } from "./store";
import { candidates } from "./strokes";
import { count, number } from "./text";

export function controls(runs: Run[], store: Store, hasDifference: boolean): HTMLElement {
  const slider = h("input", {
    type: "range",
    min: 0,
    class: "limit",
    "aria-label": "How many edges are shown, largest effect first",
    oninput: () => store.set({ limit: Number(slider.value) }),
  });
  const amount = h("input", {
    type: "number",
    min: 0,
    class: "amount",
    "aria-label": "Number of edges",
    onchange: () => store.set({ limit: clamped(amount.valueAsNumber) }),
  });
  const threshold = h("input", {
    type: "text",
    inputmode: "decimal",
    class: "threshold",
    "aria-label": "Smallest effect shown",
    onchange: () => setThreshold(Number(threshold.value)),
  });
  const says = h("output", { class: "says", "aria-live": "polite" });

  const total = (state: State) =>
    Math.max(...runs.map((run) => candidates(run, state.scope).length));
  const clamped = (n: number) => Math.max(0, Math.min(total(store.state), Math.round(n) || 0));
  const setThreshold = (least: number) => {
    if (!Number.isFinite(least)) return;
    const found = runs.map(
      (run) => candidates(run, store.state.scope).filter((edge) => size(edge) >= least).length,
    );
    store.set({ limit: Math.max(...found) });
  };

  const scope = h(
    "label",
    { class: "check" },
    h("input", {
      type: "checkbox",
      class: "scope",
      onchange: (event) => setScope((event.target as HTMLInputElement).checked),
    }),
    "cut edges too",
  );
  const setScope = (all: boolean) => {
    const next = all ? "all" : "circuit";
    const everything = Math.max(...runs.map((run) => candidates(run, next).length));
    store.set({ scope: next, limit: everything, grouped: store.state.grouped || everything > MANY });
  };
  const grouped = h("input", {
    type: "checkbox",
    class: "grouped",
    onchange: () => store.set({ grouped: grouped.checked, open: new Set(), selected: null }),
  });
  const views = (["circuits", "difference"] as const).map((view) =>
    button(view === "circuits" ? "Side by side" : "Difference", {
      class: "view",
      onclick: () => store.set({ view }),
    }),
  );

  store.watch((state) => {
    const all = total(state);
    slider.max = amount.max = String(all);
    slider.value = amount.value = String(state.limit);
    const edges = candidates(runs[0], state.scope);
    const least = edges[Math.min(state.limit, edges.length) - 1];
    const measured = least && size(least) >= 0;
    threshold.value = measured ? number(size(least)) : "";
    // A replay shows what was decided so far, a difference all that either circuit keeps.
    const fixed = state.step !== null || state.view === "difference";
    threshold.disabled = fixed || edges.every((edge) => edge.value === null);
    says.textContent = summary(runs, state);
    grouped.checked = state.grouped;
    views.forEach((each, i) =>
      each.setAttribute("aria-pressed", String((i === 0) === (state.view === "circuits"))),
    );
    for (const input of [slider, amount]) input.disabled = fixed;
  });

  return h(
    "div",
    { class: "controls" },
    hasDifference && h("div", { class: "views", role: "group", "aria-label": "View" }, ...views),
    h("div", { class: "slide" }, slider, says),
    h("label", {}, "edges", amount),
    h("label", {}, "effect ≥", threshold, runs[0].unit && h("span", { class: "quiet" }, runs[0].unit)),
    h("div", { class: "checks" }, scope, h("label", { class: "check" }, grouped, "group by layer")),
  );
}

/** From how many edges on the heads of a layer are drawn as one, unless chosen otherwise. */
export const MANY = 400;

function summary(runs: Run[], state: State): string {
  return runs
    .map((run) => {
      const all = candidates(run, state.scope);
      const shown = all.slice(0, state.limit);
      const kept = shown.filter((edge) => edge.kept).length;
      const name = runs.length > 1 ? `${run.name}: ` : "";
      const cut = shown.length - kept;
      const rest = cut ? `, ${cut.toLocaleString("en")} cut` : "";
      return `${name}${kept.toLocaleString("en")} of the circuit's ${count(run.scorecard.n_edges, "edge")}${rest}`;
    })
    .join("; ");
}
