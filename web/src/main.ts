// Put the page together and keep it in step with what the reader chooses.

import { aboutPanel } from "./about";
import { controls } from "./controls";
import { readPage, size, type Difference, type Edge, type Graph, type Layout, type Page, type Run } from "./data";
import { detailsPanel } from "./details";
import { button, h, type Child } from "./dom";
import { edgesPanel } from "./edges";
import { GraphView, type GraphHandlers } from "./graph";
import { legend, type Widths } from "./legend";
import { scaleOf, strengthOf } from "./scale";
import { sceneOf, type Box, type Line, type Scene, type Stroke } from "./scene";
import { scorecardPanel } from "./scorecard";
import { searchPanel } from "./search";
import { Store, type State, type Tab } from "./store";
import { circuitStrokes, differenceStrokes, isGrouped, replayStrokes } from "./strokes";
import { count, evidenceName, evidenceText, isOfMlp, nameOfValues, neededText, number, valueText, verdict } from "./text";
import { themeButton } from "./theme";
import { unitsName, unitsPanel } from "./units";

const TABS: [Tab, string][] = [
  ["details", "Details"],
  ["scorecard", "Scorecard"],
  ["search", "Search"],
  ["edges", "Edges"],
  ["units", "Units"],
  ["about", "About"],
];

function start(): void {
  const page = readPage(document.getElementById("data")!.textContent!);
  const largest = Math.max(...page.runs.map((run) => run.edges.filter((edge) => edge.kept).length));
  const store = new Store({
    scope: "circuit",
    limit: largest,
    grouped: null,
    open: new Set(),
    places: new Set(),
    selected: null,
    tab: "details",
    step: null,
    view: "circuits",
    prompt: 0,
  });
  document
    .getElementById("page")!
    .append(...[header(page), warnings(page)].filter((each) => each !== null), h("main", {}, graphs(page, store), panel(page, store)));
}

function header(page: Page): HTMLElement {
  const figures = page.runs.map((run) => {
    const [own] = run.scorecard.measurements;
    const share = own.faithfulness === null ? "undefined" : own.faithfulness.toFixed(2);
    const { n_edges, n_edges_full, n_prompts } = run.scorecard;
    return h(
      "p",
      { class: "figures" },
      h("strong", {}, run.title),
      h("span", {}, `${n_edges.toLocaleString("en")} of ${count(n_edges_full, "edge")}`),
      h("span", {}, `faithfulness ${share} (${own.metric})`),
      h("span", {}, count(n_prompts, "prompt")),
    );
  });
  return h("header", {}, h("h1", {}, "circuitfind"), h("div", { class: "titles" }, ...figures), themeButton());
}

/** Why the figures cannot be trusted, above all of them. */
function warnings(page: Page): HTMLElement | null {
  const notes = page.runs
    .filter((run) => run.warnings.length)
    .map((run) =>
      h(
        "div",
        { class: "warnings", role: "note" },
        h("strong", {}, page.runs.length > 1 ? `Warning about ${run.name}` : "Warning"),
        h("ul", {}, ...run.warnings.map((text) => h("li", {}, text))),
      ),
    );
  return notes.length ? h("section", { "aria-label": "Warnings" }, ...notes) : null;
}

interface View {
  graph: GraphView;
  /** The run whose effects give lines their widths. */
  run: Run | null;
  scene(state: State): Scene;
  shown(state: State): boolean;
}

function graphs(page: Page, store: Store): HTMLElement {
  const views = page.runs.map((run) => circuitView(run, page, store));
  const difference = page.comparison?.difference;
  if (difference) views.push(differenceView(page, difference, store));
  const frames = h("div", { class: "graphs" });
  const labels = page.runs.length > 1 ? page.runs.map((run) => run.name) : [];
  views.forEach(({ graph }, i) => {
    const label = labels[i] ?? (i === page.runs.length && i > 1 ? "difference" : "");
    frames.append(h("div", { class: "pane" }, label && h("h2", { class: "pane-name" }, label), graph.element));
  });
  let fitted = "";
  const key = legend(page);
  const draw = (state: State) => {
    const shown = views.filter((view) => view.shown(state));
    const scenes = shown.map((view) => ({ ...view, scene: view.scene(state) }));
    const widths = scaled(scenes, isGrouped(page.runs, state));
    scenes.forEach(({ graph, scene }) => graph.draw(scene, marked(scene, state)));
    key.update(state, widths);
  };
  store.watch((state) => {
    views.forEach(({ shown }, i) => ((frames.children[i] as HTMLElement).hidden = !shown(state)));
    draw(state);
    const frame = [state.scope, isGrouped(page.runs, state), state.view, state.step === null].join();
    if (frame !== fitted) views.forEach(({ graph }) => graph.fit());
    fitted = frame;
  });
  for (const view of views) {
    linkZoom(view.graph, views);
    view.graph.onResized = () => {
      draw(store.state);
      view.graph.fit();
    };
  }
  const bar = controls(page.runs, store, Boolean(difference));
  const remarks = (page.comparison?.remarks ?? []).map((text) => h("p", { class: "remark" }, text));
  return h("div", { class: "stage" }, ...remarks, frames, key.element, bar);
}

function linkZoom(graph: GraphView, views: View[]): void {
  graph.onMoved = (transform) => {
    for (const other of views) if (other.graph !== graph) other.graph.follow(transform);
  };
}

/** Give lines their strengths: one scale for all runs that are measured alike. */
function scaled(views: { run: Run | null; scene: Scene }[], grouped: boolean): Widths[] {
  const alike = new Map<string, { runs: Run[]; lines: Line[] }>();
  for (const { run, scene } of views) {
    if (!run) continue;
    const kind = `${nameOfValues(run)} ${run.unit}`;
    if (!alike.has(kind)) alike.set(kind, { runs: [], lines: [] });
    alike.get(kind)!.runs.push(run);
    alike.get(kind)!.lines.push(...scene.lines);
  }
  return [...alike.values()].flatMap(({ runs, lines }) => {
    const drawn = lines.map((line) => line.size);
    // While the slider moves, an edge keeps its width; bundles change with what they hold.
    const kept = runs.flatMap((run) => run.edges.filter((edge) => edge.kept && edge.value !== null).map(size));
    const sizes = grouped || !kept.some(Boolean) ? drawn : kept;
    const scale = scaleOf(sizes);
    for (const line of lines) line.strength = line.size === null ? null : strengthOf(line.size, scale);
    if (!scale) return [];
    const below = drawn.some((each) => each !== null && each < scale.low);
    return [{ runs, scale, sizes, below, together: grouped }];
  });
}

/** The boxes and lines of a scene that are what the reader chose, or hold it. */
function marked(scene: Scene, state: State): Set<string> {
  const { selected } = state;
  if (!selected) return new Set();
  const { kind, name } = selected;
  if (kind === "edge") {
    const lines = scene.lines.filter((line) => line.edges.some((edge) => edge.name === name));
    return new Set(lines.map((line) => line.id));
  }
  const boxes = scene.boxes.filter((box) =>
    kind === "layer" ? String(box.layer) === name && !isOfMlp(box) : box.members.includes(name),
  );
  return new Set(boxes.map((box) => box.id));
}

function circuitView(run: Run, page: Page, store: Store): View {
  const graph = new GraphView(`Circuit ${run.title}`, handlersFor(run, store));
  return {
    graph,
    run,
    shown: (state) => state.view === "circuits",
    scene: (state) => {
      const replayed = state.step !== null && page.runs.length === 1;
      const strokes = replayed ? replayStrokes(run, state.step!, state.places) : circuitStrokes(run, state);
      return sceneFor(run, page, strokes, layoutFor(run, page, state, replayed), state, graph.aspect);
    },
  };
}

function layoutFor(run: Run, page: Page, state: State, replayed: boolean): Layout {
  if (state.scope === "all" || replayed) return run.layouts.all;
  const difference = page.comparison?.difference;
  return difference?.alike ? difference.layout : run.layouts.circuit;
}

function differenceView(page: Page, difference: Difference, store: Store): View {
  const graph = new GraphView("Difference of the two circuits", handlersFor(page.runs[0], store, page));
  return {
    graph,
    run: null,
    shown: (state) => state.view === "difference",
    scene: (state) =>
      sceneFor(
        difference.graph,
        page,
        differenceStrokes(difference, state.places),
        difference.layout,
        state,
        graph.aspect,
      ),
  };
}

function sceneFor(of: Graph, page: Page, strokes: Stroke[], layout: Layout, state: State, aspect: number): Scene {
  const { components, places, arcs } = of;
  const grouped = isGrouped(page.runs, state);
  const { open, places: chosen } = state;
  return sceneOf({ components, places, arcs, layout, strokes, grouped, open, chosen, aspect });
}

function handlersFor(run: Run, store: Store, page?: Page): GraphHandlers {
  return {
    select: (box) => store.set({ selected: box && selectionOf(box), tab: box ? "details" : store.state.tab }),
    selectLine: (line) => {
      if (line.edges.length === 1)
        store.set({ selected: { kind: "edge", name: line.edges[0].name }, tab: "details" });
    },
    tooltip: (line) => (page ? differenceTip(line, page) : tooltip(line, run)),
    describe: (box, drawn) => described(box, drawn),
  };
}

function selectionOf(box: Box): State["selected"] {
  if (box.kind === "layer") return { kind: "layer", name: String(box.layer) };
  return { kind: "component", name: box.id };
}

function tooltip(line: Line, run: Run): string[] {
  const edge = run.edges.find((each) => each.name === line.edges[0].name);
  if (edge && line.edges.length === 1) return edgeTip(edge, run);
  return [
    `${line.from.label} → ${line.to.label}`,
    `${count(line.edges.length, "edge")}, effects together ${number(line.size ?? 0)} ${run.unit}`,
  ];
}

function edgeTip(edge: Edge, run: Run): string[] {
  const needed = neededText(edge, run);
  const evidence = evidenceText(edge, run);
  const parts = [
    edge.name,
    valueText(edge, run),
    needed && `cut from the circuit: ${needed}`,
    evidence && `${evidenceName(run)}: ${evidence}`,
  ];
  return [...parts.filter(Boolean), verdict(edge, run)];
}

function differenceTip(line: Line, page: Page): string[] {
  const [left, right] = page.runs;
  const what: Record<string, string> = {
    both: "in both",
    left: `only in ${left.name}`,
    right: `only in ${right.name}`,
    mixed: "some shared, some not",
  };
  const name = line.edges.length === 1 ? line.edges[0].name : count(line.edges.length, "edge");
  const values = page.runs.flatMap((run) => {
    const edge = run.edges.find((each) => each.name === line.edges[0].name);
    return edge && line.edges.length === 1 ? [`${run.name}: ${valueText(edge, run)}`] : [];
  });
  return [name, what[line.tone] ?? "", ...values];
}

function described(box: Box, drawn: Scene): string {
  const into = drawn.lines.filter((line) => line.to === box).length;
  const from = drawn.lines.filter((line) => line.from === box).length;
  const role = box.role ? `, ${box.role}` : "";
  const place = box.place === null ? "" : `, at ${box.place}`;
  return `${box.label}, ${box.description}${place}${role}: ${count(into, "line")} in, ${from} out`;
}

/** Where the panel stands below the graph; `page.css` has the same width. */
const NARROW = matchMedia("(max-width: 860px)");

function panel(page: Page, store: Store): HTMLElement {
  const single = page.runs.length === 1 ? page.runs[0] : null;
  const search = single?.search ? searchPanel(single, store) : null;
  const absent = [...(search ? [] : ["search"]), ...(page.runs.some((run) => run.units.length) ? [] : ["units"])];
  const tabs = TABS.filter(([tab]) => !absent.includes(tab));
  const body = h("div", { class: "panel-body", role: "tabpanel", id: "panel", tabindex: 0 });
  const buttons = tabs.map(([tab, label]) =>
    button(tab === "units" ? unitsName(page.runs) : label, { role: "tab", id: `tab-${tab}`, "aria-controls": "panel", onclick: () => open(tab) }),
  );
  const open = (tab: Tab) => store.set({ tab });
  const content: Record<Tab, () => Child[]> = {
    details: () => detailsPanel(page.runs, store),
    scorecard: () => scorecardPanel(page.runs),
    search: () => [search!.element],
    edges: () => edgesPanel(page.runs, store),
    units: () => unitsPanel(page.runs, store),
    about: () => aboutPanel(page.runs),
  };
  const list = h("div", { class: "tabs", role: "tablist", onkeydown: (event) => walkTabs(event as KeyboardEvent, buttons) }, ...buttons);
  const back = button("↑ graph", {
    class: "back",
    onclick: () => document.querySelector(".graphs")!.scrollIntoView(),
  });
  const head = h("div", { class: "panel-head" }, back, list);
  const element = h("aside", { class: "panel", "aria-label": "What is known" }, head, body);
  store.watch((state, before) => {
    tabs.forEach(([tab], i) => {
      buttons[i].setAttribute("aria-selected", String(tab === state.tab));
      buttons[i].tabIndex = tab === state.tab ? 0 : -1;
    });
    body.setAttribute("aria-labelledby", `tab-${state.tab}`);
    if (isStale(state, before)) {
      const heading = h("h2", { class: "unseen" }, tabs.find(([tab]) => tab === state.tab)![1]);
      body.replaceChildren(heading, ...(content[state.tab]().filter(Boolean) as Node[]));
      if (state.tab !== before.tab || state.selected !== before.selected) body.scrollTop = 0;
    }
    // A replay goes on only while its controls are there.
    if (state.tab === "search" && state.step === null) store.set({ step: 0 });
    else if (state.tab !== "search" && state.step !== null) store.set({ step: null });
    search?.update();
    // Below each other, the panel begins where the window ends.
    if (state.selected && state.selected !== before.selected && NARROW.matches) element.scrollIntoView();
  });
  return element;
}

function isStale(state: State, before: State): boolean {
  if (state === before || state.tab !== before.tab) return true;
  const same =
    state.selected === before.selected &&
    state.limit === before.limit &&
    state.scope === before.scope &&
    state.places === before.places &&
    state.open === before.open;
  return !same && (state.tab === "details" || state.tab === "edges");
}

function walkTabs(event: KeyboardEvent, buttons: HTMLButtonElement[]): void {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const at = buttons.indexOf(event.target as HTMLButtonElement);
  const next = buttons[(at + by + buttons.length) % buttons.length];
  next.focus();
  next.click();
}

start();
