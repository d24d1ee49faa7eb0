// Numbers and names in words.

import type { Component, Edge, Run } from "./data";

export function number(value: number, digits = 3): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

/** What is smaller than this in a measured value is rounding. */
const ROUNDING = 1e-6;

/** A value of a metric, with four digits. */
export function measuredText(value: number): string {
  return number(withoutRounding(value), 4);
}

/** A measured change, with its sign. */
export function effectText(value: number): string {
  return signed(withoutRounding(value));
}

export function withoutRounding(value: number): number {
  return Math.abs(value) < ROUNDING ? 0 : value;
}

/** A p-value. */
export function chance(value: number): string {
  return value < 0.001 ? value.toExponential(0) : value.toFixed(3);
}

export function signed(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const digits = size < 1e-4 || size >= 1e4 ? size.toExponential(2) : size.toPrecision(3);
  return (value > 0 ? "+" : "−") + digits.replace(/\.?0*e/, "e").replace("e+", "e");
}

export function count(n: number, thing: string): string {
  return `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

/** A token as it shows where its spaces are. */
export function tokenText(token: string): string {
  return token.replace(/\n/g, "⏎").replace(/^ /, "·").replace(/ $/, "·") || "∅";
}

/** What a box is called, with its place in words. */
export function title({ name, component, label, place, inside }: Component): string {
  return place === null ? name : `${inside === undefined ? label : component} at ${name.slice(name.indexOf("@") + 1)}`;
}

/** What is taken apart, by how names of its parts begin. */
const WHOLES: Record<string, string> = {
  a: "attention of",
  m: "MLP of",
  pre: "residual stream before",
  mid: "residual stream before the MLP of",
  post: "residual stream behind",
};

/** Whether a component is a part of the residual stream, or its box. */
export function isOfStream({ component }: Component): boolean {
  return /^(pre|mid|post)\d/.test(component);
}

export function describe(box: Component): string {
  const { component: name, kind, layer } = box;
  const at = name.slice(name.indexOf(".") + 1);
  const whole = `${WHOLES[/^[a-z]*/.exec(name)![0]]} layer ${layer}`;
  if (readsForHead(box)) return `keys and values of head ${at.slice(1)} of layer ${layer}`;
  switch (kind) {
    case "head":
      return `head ${at.slice(1)} of layer ${layer}`;
    case "kv":
      return `key/value head ${at.slice(2)} of layer ${layer}`;
    case "mlp":
      return whole;
    case "input":
      return `what ${at.startsWith("kv") ? `key/value head ${at.slice(2)}` : `head ${at.slice(1)}`} of layer ${layer} reads`;
    case "unit":
      return `${at.startsWith("n") ? "neuron" : "latent"} ${at.slice(1)} of the ${whole}`;
    case "rest":
      return at === "skip"
        ? `skip connection of the dictionary of layer ${layer}`
        : `all other neurons or latents of the ${whole}`;
    case "error":
      return `what the dictionary of the ${whole} does not reconstruct`;
    case "norm":
      return `norm that the heads of layer ${layer} share`;
    default:
      return { embed: "token embedding", pos_embed: "position embedding" }[name] ?? "output";
  }
}

/** Whether a box is an MLP, or the box or a part of a block that is taken apart. */
export function isOfMlp({ kind }: { kind: string }): boolean {
  return ["mlp", "unit", "input", "rest", "error"].includes(kind);
}

/** Whether a box is what a head reads as key and value at a place. */
export function readsForHead({ component, kind }: Component): boolean {
  return kind === "kv" && component.includes(".h");
}

const PORTS: Record<string, string> = {
  q: "query",
  k: "key",
  v: "value",
  qkv: "input",
  "": "input",
};

export function portName(port: string): string {
  return PORTS[port] ?? port;
}

/** What the run found out about an edge, in a sentence. */
export function verdict(edge: Edge, run: Run): string {
  const what = edge.kept ? "In the circuit" : edge.decided ? "A dead end, removed" : "Cut";
  if (!run.search) return `${what}.`;
  switch (edge.reason) {
    case "dead":
      return `${what}: nothing in the circuit reads ${title(edge.target)}.`;
    case "group":
      return `${what} with all edges into ${edge.reader} at once.`;
    case "scored":
      return `${what}, by its score.`;
    default:
      return edge.before === null || edge.after === null
        ? `${what}, by its own test.`
        : `${what}: cutting it moves the loss from ${measuredText(edge.before)} to ${measuredText(edge.after)} ${run.unit}.`;
  }
}

/** What the circuit loses without an edge, with its interval over prompts. */
export function neededText(edge: Edge, run: Run): string {
  const [effect, low, high] = run.needed[edge.name] ?? [];
  if (effect === undefined) return "";
  const interval = low === undefined ? "" : ` (95 %: ${effectText(low)} to ${effectText(high)})`;
  return `${effectText(effect)} ${run.unit}${interval}`;
}

/** What an evaluation found of an edge on other prompts, with its interval and p-value. */
export function evidenceText(edge: Edge, run: Run): string {
  const evidence = run.evaluation?.evidence;
  const found = evidence?.edges[edge.name];
  if (!evidence || !found) return "";
  const [effect, adjusted, low, high] = found;
  const interval = low === null || high === null ? "" : ` (95 %: ${effectText(low)} to ${effectText(high)})`;
  const p = adjusted < 0.001 ? "p < 0.001" : `p ${adjusted.toFixed(3)}`;
  return `${effectText(effect)} ${run.unit}${interval}, ${p}`;
}

/** On which prompts that was. */
export function evidenceName(run: Run): string {
  const evidence = run.evaluation?.evidence;
  return evidence ? `on ${evidence.prompts} ${evidence.heldOut ? "held-out " : ""}prompts` : "";
}

/** What kind of number most edges of a run have. */
export function nameOfValues(run: Run): "effect" | "score" {
  return run.edges.some((edge) => edge.effect !== null) ? "effect" : "score";
}

/** An edge's number: its effect, or else its score. */
export function valueFigure(edge: Edge): string {
  if (edge.effect !== null) return effectText(edge.effect);
  return edge.score === null ? "–" : signed(edge.score);
}

/** An edge's number with what kind of number it is. */
export function valueText(edge: Edge, run: Run): string {
  if (edge.effect !== null) return `effect ${effectText(edge.effect)} ${run.unit}`.trim();
  if (edge.score !== null) return `score ${signed(edge.score)}`;
  return "not measured";
}
