// What the reader has chosen, in one place; everything that shows it is told of changes.

export interface Selection {
  kind: "component" | "edge" | "layer";
  name: string;
}

export type Tab = "details" | "scorecard" | "search" | "edges" | "units" | "about";

export interface State {
  /** Edges of the circuit alone, or also those that the search cut. */
  scope: "circuit" | "all";
  /** How many of these edges are shown, the largest first. */
  limit: number;
  /** Whether the heads of a layer are drawn as one; null: where there are many edges. */
  grouped: boolean | null;
  /** The layers whose heads are drawn apart nevertheless. */
  open: ReadonlySet<number>;
  /** The places whose edges are shown; empty: all of them. */
  places: ReadonlySet<string>;
  selected: Selection | null;
  tab: Tab;
  /** How many decisions of the search are replayed; null while no replay is shown. */
  step: number | null;
  /** Of two runs: one beside the other, or their difference. */
  view: "circuits" | "difference";
  prompt: number;
}

type Listener = (state: State, before: State) => void;

export class Store {
  private listeners: Listener[] = [];

  constructor(private current: State) {}

  get state(): State {
    return this.current;
  }

  set(change: Partial<State>): void {
    const before = this.current;
    this.current = { ...before, ...change };
    for (const listener of this.listeners) listener(this.current, before);
  }

  /** Call now and after every change. */
  watch(listener: Listener): void {
    this.listeners.push(listener);
    listener(this.current, this.current);
  }
}
