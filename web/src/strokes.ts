// Which edges a picture shows and how: the circuit, a moment of the search, or a difference.

import type { Difference, Edge, Run } from "./data";
import { size } from "./data";
import type { Stroke } from "./scene";
import type { State } from "./store";

/** The edges that the scope and the chosen places admit, largest first. */
export function candidates(run: Run, { scope, places }: Pick<State, "scope" | "places">): Edge[] {
  return run.ranked.filter((edge) => (edge.kept || scope === "all") && isChosen(edge.place, places));
}

/** Whether a place is one of those chosen; all are where none is. */
export function isChosen(place: string | null, places: State["places"]): boolean {
  return !places.size || place === null || places.has(place);
}

/** The edges that are shown: the largest of those in scope. */
export function shownEdges(run: Run, state: State): Edge[] {
  return candidates(run, state).slice(0, state.limit);
}

/** From how many edges on the heads of a layer are drawn as one, unless the reader chooses. */
const MANY = 400;

export function isGrouped(runs: Run[], state: State): boolean {
  return state.grouped ?? runs.some((run) => candidates(run, state).length > MANY);
}

/** The strokes of the edges shown; edges outside the circuit are told apart. */
export function circuitStrokes(run: Run, state: State): Stroke[] {
  return shownEdges(run, state)
    .map((edge) => stroke(edge, edge.kept ? tone(edge.port) : "cut"))
    .reverse();
}

function stroke(edge: Edge, name: string): Stroke {
  const measured = edge.value === null ? null : size(edge);
  return { edge, tone: name, size: measured, negative: (edge.value ?? 0) < 0 };
}

function tone(port: string): string {
  return port === "" ? "plain" : port;
}

const MOST_UNDECIDED = 1500;

/** The search after some decisions: what is kept so far, what is open, and what was just decided. */
export function replayStrokes(run: Run, step: number, places: State["places"]): Stroke[] {
  const decided = run.edges.slice(0, step);
  const last = decided.at(-1);
  const open = run.edges.length <= MOST_UNDECIDED ? run.edges.slice(step) : [];
  const strokes = [
    ...open.map((edge) => ({ edge, tone: "open", size: null, negative: false })),
    ...decided
      .filter((edge) => edge.decided && edge !== last)
      .map((edge) => stroke(edge, tone(edge.port))),
    ...(last ? [stroke(last, last.decided ? "now-kept" : "now-cut")] : []),
  ];
  return strokes.filter(({ edge }) => isChosen(edge.place, places));
}

/** The edges of two circuits by who keeps them. */
export function differenceStrokes({ links }: Difference, places: State["places"]): Stroke[] {
  return links
    .filter(([, edge]) => isChosen(edge.place, places))
    .map(([side, edge]) => ({ edge, tone: side, size: null, negative: false }));
}
