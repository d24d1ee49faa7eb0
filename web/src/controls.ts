// The bar under the graph: how many edges, from which effect on, and how they are drawn.

import { min } from "d3-array";
import { button, h } from "./dom";
import type { Run } from "./data";
import { size } from "./data";
import type { State, Store } from "./store";
import { candidates, isGrouped } from "./strokes";
import { count, nameOfValues, number } from "./text";

export function controls(runs: Run[], store: Store, hasDifference: boolean): HTMLElement {
  const what = nameOfValues(runs[0]);
  const unit = what === "effect" ? runs[0].unit : "";
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
    "aria-label": `Smallest ${what} shown`,
    placeholder: "none",
    onchange: () => setThreshold(threshold.value),
  });
  const says = h("output", { class: "says", "aria-live": "polite" });

  const total = (state: State) =>
    Math.max(...runs.map((run) => candidates(run, state).length));
  const clamped = (n: number) => Math.max(0, Math.min(total(store.state), Math.round(n) || 0));
  // What was asked for stands in the field as long as it is what is shown.
  let asked: { text: string; limit: number; scope: State["scope"] } | null = null;
  const setThreshold = (text: string) => {
    const { scope, places } = store.state;
    const least = text.trim() ? Number(text.replace(",", ".")) : NaN;
    if (!Number.isFinite(least)) return store.set({});
    const found = runs.map(
      (run) => candidates(run, { scope, places }).filter((edge) => size(edge) >= least).length,
    );
    const limit = Math.max(...found);
    asked = { text: text.trim(), limit, scope };
    store.set({ limit });
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
    const { places } = store.state;
    const counts = runs.map((run) => candidates(run, { scope: next, places }).length);
    store.set({ scope: next, limit: Math.max(...counts) });
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
    slider.value = amount.value = String(Math.min(state.limit, all));
    const current = asked?.limit === state.limit && asked.scope === state.scope;
    threshold.value = current ? asked!.text : smallestText(runs, state);
    // A replay shows what was decided so far, a difference all that either circuit keeps.
    const fixed = state.step !== null || state.view === "difference";
    threshold.disabled = fixed || runs.every((run) => run.edges.every((edge) => edge.value === null));
    says.textContent = summary(runs, state);
    grouped.checked = isGrouped(runs, state);
    views.forEach((each, i) =>
      each.setAttribute("aria-pressed", String((i === 0) === (state.view === "circuits"))),
    );
    for (const input of [slider, amount]) input.disabled = fixed;
  });

  return h(
    "div",
    { class: "controls" },
    hasDifference && h("div", { class: "views", role: "group", "aria-label": "View" }, ...views),
    placeChoice(runs, store),
    h("div", { class: "slide" }, slider, says),
    h("label", {}, "edges", amount),
    h("label", {}, `${what} ≥`, threshold, unit && h("span", { class: "quiet" }, unit)),
    h("div", { class: "checks" }, scope, h("label", { class: "check" }, grouped, "group by layer")),
  );
}

/** A button for each place, pressed where its edges are shown; null where there are no places. */
function placeChoice(runs: Run[], store: Store): HTMLElement | null {
  const names = [...new Set(runs.flatMap((run) => run.places.map((place) => place.name)))];
  if (!names.length) return null;
  // What is shown grows and shrinks with the places, unless the reader has asked for fewer edges.
  const choose = (places: ReadonlySet<string>) => {
    const { scope, limit, places: before } = store.state;
    const most = (chosen: ReadonlySet<string>) =>
      Math.max(...runs.map((run) => candidates(run, { scope, places: chosen }).length));
    store.set({ places, limit: limit >= most(before) ? most(places) : limit });
  };
  const toggle = (name: string) => {
    const places = new Set(store.state.places);
    if (!places.delete(name)) places.add(name);
    choose(places);
  };
  const all = button("all", { class: "view", onclick: () => choose(new Set()) });
  const buttons = names.map((name) => button(name, { class: "view", onclick: () => toggle(name) }));
  store.watch(({ places }) => {
    all.setAttribute("aria-pressed", String(!places.size));
    buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(places.has(names[i]))));
  });
  return h("div", { class: "places", role: "group", "aria-label": "Places" }, "places", all, ...buttons);
}

/** The smallest effect that is shown, rounded down so that it does not leave the edge out. */
function smallestText(runs: Run[], state: State): string {
  const shown = runs.flatMap((run) => candidates(run, state).slice(0, state.limit));
  const smallest = min(shown, (edge) => (edge.value === null ? undefined : size(edge)));
  if (smallest === undefined) return "";
  const nearest = Number(smallest.toPrecision(3));
  const step = 10 ** (Math.floor(Math.log10(smallest || 1)) - 2);
  return number(nearest <= smallest ? nearest : nearest - step);
}

function summary(runs: Run[], state: State): string {
  return runs
    .map((run) => {
      const all = candidates(run, state);
      const shown = all.slice(0, state.limit);
      const kept = shown.filter((edge) => edge.kept).length;
      const name = runs.length > 1 ? `${run.name}: ` : "";
      const cut = shown.length - kept;
      const rest = cut ? `, ${cut.toLocaleString("en")} cut` : "";
      return `${name}${kept.toLocaleString("en")} of the circuit's ${count(run.scorecard.n_edges, "edge")}${rest}`;
    })
    .join("; ");
}
