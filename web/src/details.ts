// What the side panel says of the component or edge that is selected.

import { attentionPanel } from "./attention";
import { button, h, type Child } from "./dom";
import type { Component, Edge, Run } from "./data";
import { size } from "./data";
import type { Selection, Store } from "./store";
import {
  count,
  describe,
  evidenceName,
  evidenceText,
  isOfMlp,
  nameOfValues,
  neededText,
  portName,
  readsForHead,
  signed,
  title,
  valueFigure,
  valueText,
  verdict,
} from "./text";
import { shownEdges } from "./strokes";
import { unitDetails } from "./units";

const MOST_LISTED = 12;

export function detailsPanel(runs: Run[], store: Store): Child[] {
  const { selected } = store.state;
  return runs.map((run) => {
    const parts = selected ? ofSelection(run, selected, store) : overview(run, store);
    const title = runs.length > 1 && h("h2", { class: "run-name" }, run.name);
    return h("section", {}, title, ...parts);
  });
}

function overview(run: Run, store: Store): Child[] {
  const strongest = shownEdges(run, store.state).slice(0, MOST_LISTED);
  const roles = rolesOf(run);
  return [
    h("h3", {}, "Strongest edges"),
    strongest.length
      ? edgeList(strongest, run, store, (edge) => edge.whole)
      : h("p", { class: "quiet" }, "No edge is shown."),
    h(
      "p",
      { class: "quiet" },
      "Choose a box or a line to see what is known of it: where a head looks, what enters its " +
        "query, key and value, and how each edge was decided.",
    ),
    roles.length > 0 && h("h3", {}, "Roles"),
    roles.length > 0 &&
      h("ul", { class: "plain" }, ...roles.map((component) => roleRow(component, store))),
  ];
}

/** A box of each component that has a role: where places are told apart, one that is in the circuit. */
function rolesOf(run: Run): Component[] {
  const used = new Set(run.edges.filter((edge) => edge.kept).flatMap((edge) => [edge.writer, edge.target]));
  const found = new Map<string, Component>();
  for (const box of run.components.filter(({ role }) => role))
    if (!found.has(box.component) || (used.has(box) && !used.has(found.get(box.component)!)))
      found.set(box.component, box);
  return [...found.values()];
}

function roleRow(box: Component, store: Store): HTMLElement {
  const onclick = () => store.set({ selected: { kind: "component", name: box.name } });
  return h("li", {}, button(box.component, { class: "link", onclick }), ` ${box.role}`);
}

function ofSelection(run: Run, selected: Selection, store: Store): Child[] {
  if (selected.kind === "edge") {
    const edge = run.edges.find((each) => each.name === selected.name);
    return edge ? ofEdge(edge, run, store) : [absent(selected.name)];
  }
  if (selected.kind === "layer") return ofLayer(run, Number(selected.name), store);
  const component = run.byName.get(selected.name);
  return component ? ofComponent(component, run, store) : [absent(selected.name)];
}

function absent(name: string): HTMLElement {
  return h("p", { class: "quiet" }, `${name} is not in the graph of this run.`);
}

function ofEdge(edge: Edge, run: Run, store: Store): Child[] {
  const facts: [string, string][] = [
    ["enters", `the ${portName(edge.port)} of ${edge.target.component}`],
    ["value", valueText(edge, run)],
    ["rank", `${run.ranked.indexOf(edge) + 1} of ${run.edges.length.toLocaleString("en")}`],
    ["decided", `${edge.index + 1} of ${run.edges.length.toLocaleString("en")}`],
  ];
  if (edge.place !== null) facts.splice(1, 0, ["place", edge.place]);
  const needed = neededText(edge, run);
  const evidence = evidenceText(edge, run);
  if (evidence) facts.splice(2, 0, [evidenceName(run), evidence]);
  if (needed) facts.splice(2, 0, ["cut from the circuit", needed]);
  if (edge.effect !== null && edge.score !== null) facts.push(["score", signed(edge.score)]);
  const end = (component: Component) =>
    button(component.component, {
      class: "link",
      "aria-label": title(component),
      onclick: () => store.set({ selected: { kind: "component", name: component.name } }),
    });
  return [
    h("h3", { class: "mono" }, end(edge.writer), " → ", end(edge.target), edge.place !== null && ` @${edge.place}`),
    h("p", {}, verdict(edge, run)),
    factTable(facts),
  ];
}

export function factTable(facts: [string, Child][]): HTMLElement {
  const rows = facts.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)));
  return h("table", { class: "facts" }, h("tbody", {}, ...rows));
}

function ofLayer(run: Run, layer: number, store: Store): Child[] {
  const isOpen = store.state.open.has(layer);
  const members = run.components.filter(
    (component) => component.layer === layer && !isOfMlp(component),
  );
  const shown = shownEdges(run, store.state);
  const toggle = () => {
    const open = new Set(store.state.open);
    if (!open.delete(layer)) open.add(layer);
    store.set({ open });
  };
  const rows = members
    .map((component) => ({
      component,
      own: shown.filter((edge) => edge.writer === component || edge.target === component),
    }))
    .filter(({ own }) => own.length > 0);
  return [
    h("h3", {}, `Heads of layer ${layer}`),
    h("p", {}, button(isOpen ? "Draw as one" : "Draw apart", { onclick: toggle })),
    h(
      "ul",
      { class: "plain" },
      ...rows.map(({ component, own }) =>
        h(
          "li",
          {},
          button(title(component), {
            class: "link",
            onclick: () => store.set({ selected: { kind: "component", name: component.name } }),
          }),
          ` ${component.role} ${count(own.length, "edge")}`,
        ),
      ),
    ),
  ];
}

function ofComponent(component: Component, run: Run, store: Store): Child[] {
  const shown = shownEdges(run, store.state);
  const into = shown.filter((edge) => edge.target === component || sharesReader(edge, component, run));
  const from = shown.filter((edge) => edge.writer === component);
  const ports = [...new Set(into.map((edge) => edge.port))].sort(
    (a, b) => "qkv".indexOf(a) - "qkv".indexOf(b),
  );
  const isHead = component.kind === "head" || readsForHead(component);
  return [
    h("h3", {}, h("span", { class: "mono" }, title(component)), ` ${describe(component)}`),
    component.role && h("p", { class: "role" }, component.role),
    ...unitDetails(component.component, run),
    isHead && h("h4", {}, "Where it looks"),
    isHead && attentionPanel(run, component.component, store),
    ...ports.flatMap((port) => {
      const edges = into.filter((edge) => edge.port === port);
      const heading = `Into its ${portName(port)}: ${count(edges.length, "edge")}`;
      return [
        h("h4", { class: `port-heading tone-${port || "plain"}` }, heading),
        edgeList(edges, run, store, (edge) => edge.writer.component),
      ];
    }),
    into.length === 0 &&
      component.row[0] > 0 &&
      h("p", { class: "quiet" }, "No edge that is shown enters it."),
    from.length > 0 && h("h4", {}, `Out of it: ${count(from.length, "edge")}`),
    edgeList(from, run, store, (edge) => edge.whole.slice(edge.whole.indexOf(">") + 1)),
    from.length === 0 &&
      component.component !== "logits" &&
      component.kind !== "kv" &&
      component.kind !== "input" &&
      h("p", { class: "quiet" }, "No edge that is shown leaves it."),
  ];
}

/**
 * With grouped key/value heads, what enters theirs enters the heads that share them; what enters an MLP
 * enters its neurons, and what enters any head of an attention that is taken apart enters its latents.
 */
function sharesReader(edge: Edge, component: Component, run: Run): boolean {
  if (component.kind === "input") return false;
  if (component.inside !== undefined) {
    const { target } = edge;
    if (component.inside === target.name) return component.kind !== "error";
    if (target.kind === "input") return component.inside === target.inside;
    return run.arcs.some(([from, to]) => from === target && to.name === component.inside);
  }
  return run.arcs.some(([from, to]) => from === edge.target && to === component && from.kind === "kv");
}

/** Edges, strongest first, each a button with a bar, and with its place where places are told apart. */
export function edgeList(
  edges: Edge[],
  run: Run,
  store: Store,
  label: (edge: Edge) => string,
): HTMLElement | false {
  if (!edges.length) return false;
  const largest = Math.max(...run.ranked.slice(0, 1).map(size), 0);
  const placed = run.places.length > 0;
  const list = h("ol", { class: placed ? "edge-list placed" : "edge-list" });
  const add = (some: Edge[]) => list.append(...some.map((edge) => edgeRow(edge, store, label, largest)));
  add(edges.slice(0, MOST_LISTED));
  const rest = edges.slice(MOST_LISTED);
  const more = button(`${rest.length.toLocaleString("en")} more`, {
    class: "link",
    onclick: () => {
      add(rest);
      more.remove();
    },
  });
  const names = ["edge", "place", "", nameOfValues(run)].map((name) => h("span", {}, name));
  const head = placed && h("div", { class: "edge-head", "aria-hidden": "true" }, ...names);
  return h("div", {}, head, list, rest.length > 0 && more);
}

function edgeRow(
  edge: Edge,
  store: Store,
  label: (edge: Edge) => string,
  largest: number,
): HTMLElement {
  const bar = h("span", { class: `bar tone-${edge.kept ? edge.port || "plain" : "cut"}` });
  const share = edge.value === null || largest <= 0 ? 0 : size(edge) / largest;
  bar.style.setProperty("--share", String(share));
  if (edge.value !== null && edge.value < 0) bar.classList.add("negative");
  return h(
    "li",
    {},
    button(
      h("span", { class: "name mono" }, label(edge)),
      {
        class: "edge-row",
        "aria-label": `${edge.name}, ${edge.value === null ? "not measured" : valueFigure(edge)}`,
        onclick: () => store.set({ selected: { kind: "edge", name: edge.name }, tab: "details" }),
      },
      edge.place !== null && h("span", { class: "place mono" }, edge.place),
      bar,
      h("span", { class: "figure" }, valueFigure(edge)),
    ),
  );
}

