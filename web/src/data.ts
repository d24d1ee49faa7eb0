// What the page is given. `circuitfind/reports/page` and `circuitfind/verbs/report.py` write it.

export const VERSION = 1;

export type NodeKind = "end" | "head" | "kv" | "mlp" | "norm" | "unit" | "input" | "rest" | "error";
export type Port = "q" | "k" | "v" | "qkv" | "";
export type Reason = "tested" | "group" | "dead" | "scored";
export type PatternKind = "clean" | "corrupted" | "circuit";

const REASONS: Reason[] = ["tested", "group", "dead", "scored"];

/**
 * A box: a component of the model, or where places are told apart a component at one of them, and
 * what a head reads there as key and value. `row` orders it from the embedding to the logits.
 */
export interface Component {
  name: string;
  /** The name without the place. */
  component: string;
  label: string;
  /** The number of its place. */
  place: number | null;
  kind: NodeKind;
  layer: number | null;
  row: [number, number];
  role: string;
  /** The name of the block in whose box it stands, where it is a part of one. */
  inside?: string;
}

/** A place of token positions, and what the first prompt has there, in short lines. */
export interface Place {
  name: string;
  tokens: string[];
}

/** Where boxes stand. */
export interface Layout {
  /** The centre of each, upwards from the bottom left, and its width; of MLPs and units their height. */
  boxes: Record<string, [number, number, number, number?]>;
  /** The number of the place of each column, and where the column begins and ends. */
  columns: [number, number, number][];
}

interface RawGraph {
  places: Place[];
  nodes: Component[];
  readers: { name: string; node: number; port: Port }[];
  /** The box of each writer, at each place. */
  writers: number[][];
  arcs: [number, number][];
  /** Of each writer that is a move inside attention, its name and port. */
  moves?: Record<number, [string, Port]>;
}

interface RawRun {
  name: string;
  title: string;
  unit: string;
  method: string;
  threshold: number | null;
  graph: RawGraph;
  edges: {
    writer: number[];
    reader: number[];
    kept: (0 | 1)[];
    decided: (0 | 1)[];
    reason: number[];
    effect: (number | null)[];
    score: (number | null)[];
    before: (number | null)[];
    after: (number | null)[];
  };
  layouts: { circuit: Layout; all: Layout };
  scorecard: Scorecard;
  /** Why the figures cannot be trusted. */
  warnings: string[];
  /** What else a reader should know. */
  notes: string[];
  evaluation: Evaluation | null;
  /** Null where a circuit was not found by a search. */
  search: SearchFigures | null;
  attention: Attention | null;
  /** Neurons or latents of the circuit, the largest effects first. */
  units: Unit[];
  /** By edge: its effect when it alone is cut from the circuit, and the ends of its interval. */
  needed: Record<string, number[]>;
  provenance: Record<string, Record<string, unknown>>;
}

export interface Measurement {
  metric: string;
  unit: string;
  full: number;
  circuit: number;
  empty: number;
  faithfulness: number | null;
  /** Ends of a 95 % interval of the faithfulness. */
  low: number | null;
  high: number | null;
}

/** What `circuitfind evaluate` has found out. */
export interface Evaluation {
  effort: string;
  metric: string;
  rows: [string, string][];
  curve: SizeCurve | null;
  /** The worst set first. */
  knockOuts: KnockOut[];
  tests: HypothesisTest[];
  evidence: Evidence | null;
}

/** Faithfulness by the share of edges; `random` has the 2.5 % quantile, mean and 97.5 % quantile. */
export interface SizeCurve {
  by: string;
  points: [number, number][];
  own: [number, number];
  random: [number, number, number] | null;
}

/** What is left of the model's and of the circuit's faithfulness without some components. */
export interface KnockOut {
  kind: string;
  components: string[];
  full: number | null;
  circuit: number | null;
}

/** A test of what an ideal circuit would satisfy; `rejected` is null where it says nothing. */
export interface HypothesisTest {
  name: string;
  ideal: string;
  statistic: number | null;
  n: number;
  p_value: number | null;
  rejected: boolean | null;
  note: string;
}

/** By edge: its effect when cut from the circuit, the adjusted p-value, the ends of its interval. */
export interface Evidence {
  prompts: number;
  heldOut: boolean;
  edges: Record<string, [number, number, number | null, number | null]>;
}

export interface Scorecard {
  n_edges: number;
  n_edges_full: number;
  n_components: number;
  n_components_full: number;
  n_units: number;
  n_units_full: number;
  n_prompts: number;
  measurements: Measurement[];
  held_out: Measurement | null;
  own: OwnResult | null;
  doubts: string[];
  notes: string[];
}

/** How well the model itself does the task. */
export interface OwnResult {
  metric: string;
  unit: string;
  value: number;
  low: number | null;
  high: number | null;
  accuracy: number;
}

export interface SearchFigures {
  edges_tested: number;
  dead_ends: string[];
  dead_ends_removed: boolean;
  full_graph_error: number | null;
  empty_graph_error: number | null;
  drift: number | null;
  /** How much of it rounding explains. */
  drift_allowed?: number | null;
}

export interface Prompt {
  text: string;
  clean: string[];
  corrupted: string[];
  answers: string[];
  wrongAnswers: string[];
  steps: number[];
  positions: Record<string, number>;
}

/** What makes a neuron or latent active; `effect` is that of all kept edges out of it. */
export interface Unit {
  name: string;
  effect: number | null;
  /** Share of the positions at which it is active. */
  frequency: number;
  /** Each with the share of the activation that falls on it. */
  tokens: [string, number][];
  /** The text before the token, the token, the text after it, and the activation. */
  contexts: [string, string, string, number][];
}

export interface Attention {
  causal: boolean;
  prompts: Prompt[];
  heads: Partial<Record<PatternKind, Record<string, string[]>>>;
}

interface RawDifference {
  both: string[];
  left: string[];
  right: string[];
  /** That to which both circuits are brought. */
  graph: RawGraph;
  layout: Layout;
  /** Whether both circuits have its boxes. */
  alike: boolean;
}

interface RawComparison {
  /** How the circuits are compared, or why they are not. */
  remarks: string[];
  difference?: RawDifference;
}

/** Where an edge leads, without what a run says of it. */
export interface Link {
  name: string;
  /** The name without the place. */
  whole: string;
  place: string | null;
  writer: Component;
  reader: string;
  target: Component;
  port: Port;
}

/** What a picture of a graph is drawn from. */
export interface Graph {
  places: Place[];
  components: Component[];
  byName: Map<string, Component>;
  arcs: [Component, Component][];
}

export type Side = "both" | "right" | "left";

export interface Difference {
  /** By who keeps them. */
  links: [Side, Link][];
  graph: Graph;
  layout: Layout;
  alike: boolean;
}

export interface Comparison {
  remarks: string[];
  difference: Difference | null;
}

/** One edge with all that the run says of it. */
export interface Edge extends Link {
  index: number;
  kept: boolean;
  decided: boolean;
  reason: Reason;
  effect: number | null;
  score: number | null;
  before: number | null;
  after: number | null;
  /** What edges are ranked by: the effect, or the score where there is no effect. */
  value: number | null;
}

export interface Run extends Omit<RawRun, "edges" | "graph">, Graph {
  /** In the order of the search. */
  edges: Edge[];
  /** Largest first; those without a value last. */
  ranked: Edge[];
  grouped: boolean;
}

export interface Page {
  title: string;
  runs: Run[];
  comparison: Comparison | null;
}

interface RawPage {
  version: number;
  title: string;
  runs: RawRun[];
  comparison: RawComparison | null;
}

export function readPage(text: string): Page {
  const raw = JSON.parse(text) as RawPage;
  if (raw.version !== VERSION) throw new Error(`unknown version of the data: ${raw.version}`);
  return { title: raw.title, runs: raw.runs.map(readRun), comparison: raw.comparison && readComparison(raw.comparison) };
}

function readRun(raw: RawRun): Run {
  const graph = readGraph(raw.graph);
  const edges = raw.edges.writer.map((writer, index): Edge => {
    const effect = raw.edges.effect[index];
    const score = raw.edges.score[index];
    return {
      ...link(raw.graph, writer, raw.edges.reader[index]),
      index,
      kept: raw.edges.kept[index] === 1,
      decided: raw.edges.decided[index] === 1,
      reason: REASONS[raw.edges.reason[index]],
      effect,
      score,
      before: raw.edges.before[index],
      after: raw.edges.after[index],
      value: effect ?? score,
    };
  });
  return {
    ...raw,
    ...graph,
    edges,
    ranked: [...edges].sort((a, b) => size(b) - size(a) || a.index - b.index),
    grouped: graph.components.some((node) => node.kind === "kv"),
  };
}

function readGraph({ places, nodes, arcs }: RawGraph): Graph {
  return {
    places,
    components: nodes,
    byName: new Map(nodes.map((node) => [node.name, node])),
    arcs: arcs.map(([from, to]) => [nodes[from], nodes[to]]),
  };
}

function link({ places, nodes, readers, writers, moves }: RawGraph, from: number, to: number): Link {
  const reader = readers[to];
  const target = nodes[reader.node];
  const writer = nodes[writers[from][target.place ?? 0]];
  const move = moves?.[from];
  const name = `${move ? move[0] : writer.component}->${reader.name}`;
  const place = target.place === null ? null : places[target.place].name;
  const whole = place === null ? name : name.slice(0, -place.length - 1);
  const port = move ? move[1] : reader.port;
  return { name, whole, place, writer, reader: reader.name, target, port };
}

function readComparison({ remarks, difference }: RawComparison): Comparison {
  if (!difference) return { remarks, difference: null };
  const { graph: raw, layout, alike } = difference;
  const names = raw.writers.map(([box], index) => raw.moves?.[index]?.[0] ?? raw.nodes[box].component);
  const writers = new Map(names.map((name, index) => [name, index]));
  const readers = new Map(raw.readers.map(({ name }, index) => [name, index]));
  const links = (["both", "right", "left"] as Side[]).flatMap((side) =>
    difference[side].map((name): [Side, Link] => {
      const [from, to] = name.split("->");
      return [side, link(raw, writers.get(from)!, readers.get(to)!)];
    }),
  );
  return { remarks, difference: { links, graph: readGraph(raw), layout, alike } };
}

/** What an edge is ranked by: how large its value is; below all others if it has none. */
export function size(edge: Edge): number {
  return edge.value === null ? -1 : Math.abs(edge.value);
}

/** The share of its attention that each position pays to each other; null beyond what it sees. */
export function unpack(text: string, length: number, causal: boolean): (number | null)[][] {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const values = new DataView(bytes.buffer);
  let next = 0;
  return Array.from({ length }, (_, query) =>
    Array.from({ length }, (_, key) => {
      if (causal && key > query) return null;
      const steps = values.getUint16(2 * next, true);
      next += 1;
      return steps / 65535;
    }),
  );
}
