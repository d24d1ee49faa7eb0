// Small plots: the edges by size of effect, and the loss over the search.

import { max, min } from "d3-array";
import { scaleLinear, scaleLog } from "d3-scale";
import type { KnockOut, SizeCurve } from "./data";
import { s } from "./dom";
import { number, withoutRounding } from "./text";

const WIDTH = 400;
const HEIGHT = 170;
const EDGE = { left: 46, right: 8, top: 10, bottom: 34 };

type Scale = { (value: number): number; ticks(n?: number): number[] };

interface Axes {
  x: Scale;
  y: Scale;
  xLabel: string;
  yLabel: string;
  yTicks?: number[];
  xTicks?: [number, string][];
  height?: number;
}

function frame(label: string, axes: Axes, marks: SVGElement[]): SVGSVGElement {
  const { x, y, height = HEIGHT } = axes;
  const bottom = height - EDGE.bottom;
  const grid = (axes.yTicks ?? y.ticks(4)).map((tick) =>
    s(
      "g",
      { class: "tick", transform: `translate(0,${y(tick).toFixed(1)})` },
      s("line", { x1: EDGE.left, x2: WIDTH - EDGE.right }),
      s("text", { x: EDGE.left - 5, y: 3.5, "text-anchor": "end" }, number(tick, 2)),
    ),
  );
  const whole = x.ticks(5).filter(Number.isInteger);
  const named = axes.xTicks ?? whole.map((tick): [number, string] => [tick, tick.toLocaleString("en")]);
  const ticks = named.map(([tick, name]) =>
    s("text", { x: x(tick), y: bottom + 13, "text-anchor": x(tick) > WIDTH - 20 ? "end" : "middle" }, name),
  );
  return s(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label },
    ...grid,
    s("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: bottom, y2: bottom }),
    ...ticks,
    ...marks,
    s(
      "text",
      { class: "axis-label", x: (EDGE.left + WIDTH - EDGE.right) / 2, y: height - 5, "text-anchor": "middle" },
      axes.xLabel,
    ),
    s(
      "text",
      { class: "axis-label", transform: `translate(10,${(EDGE.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
      axes.yLabel,
    ),
  );
}

export interface Dot {
  value: number;
  kept: boolean;
}

/** Sizes of effects from the largest to the smallest, on a logarithmic scale where that fits. */
export function rankPlot(dots: Dot[], threshold: number | null, unit: string): SVGSVGElement {
  const sizes = dots.map((dot) => Math.abs(dot.value)).filter((value) => value > 0);
  const largest = max(sizes) ?? 1;
  const smallest = Math.max(min(sizes) ?? largest / 10, largest * 1e-6);
  const x = scaleLinear([0, Math.max(1, dots.length)], [EDGE.left, WIDTH - EDGE.right]);
  const y = scaleLog([smallest, largest], [HEIGHT - EDGE.bottom, EDGE.top]).clamp(true);
  const powers = y.ticks(5).filter((tick) => Number.isInteger(Math.log10(tick)));
  const marks = dots.map((dot, rank) =>
    s("circle", {
      class: dot.kept ? "kept" : "cut",
      cx: x(rank + 0.5).toFixed(1),
      cy: y(Math.abs(dot.value) || smallest).toFixed(1),
      r: dots.length > 400 ? 1.2 : 2,
    }),
  );
  const line =
    threshold !== null && threshold > 0
      ? [
          s("line", { class: "threshold", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(threshold), y2: y(threshold) }),
          s("text", { class: "threshold-label", x: WIDTH - EDGE.right, y: y(threshold) - 4, "text-anchor": "end" }, `threshold ${number(threshold)}`),
        ]
      : [];
  const yTicks = powers.length >= 2 ? powers : [smallest, largest];
  return frame("Edges by the size of their effect", { x, y, xLabel: "edges, largest first", yLabel: unit || "size", yTicks }, [
    ...marks,
    ...line,
  ]);
}

/** Faithfulness against the share of edges, the circuit, and random circuits of its size. */
export function sizePlot(curve: SizeCurve): SVGSVGElement {
  const smallest = Math.min(0.1, ...curve.points.map(([share]) => share), curve.own[0] || 1);
  const x = scaleLog([smallest, 1], [EDGE.left, WIDTH - EDGE.right]).clamp(true);
  const y = scaleLinear([-0.1, 1.1], [HEIGHT - EDGE.bottom, EDGE.top]).clamp(true);
  const at = ([share, f]: [number, number]) => ({ cx: x(share).toFixed(1), cy: y(f).toFixed(1) });
  const path = curve.points.map(([share, f], i) => `${i ? "L" : "M"}${x(share).toFixed(1)},${y(f).toFixed(1)}`);
  const percent = (share: number): [number, string] => [share, `${Number((100 * share).toPrecision(2))} %`];
  const powers = [0.0001, 0.001, 0.01, 0.1, 1].filter((share) => share >= smallest);
  const axes = { x, y, xLabel: "edges left", yLabel: "faithfulness", yTicks: [0, 0.5, 1], xTicks: powers.map(percent) };
  return frame("Faithfulness against size", axes, [
    s("path", { class: "curve", d: path.join("") }),
    ...curve.points.map((point) => s("circle", { class: "kept", ...at(point), r: 2.5 })),
    ...spread(curve, x, y),
    s("circle", { class: "own", ...at(curve.own), r: 4 }),
  ]);
}

/** Random circuits: a dot at their mean, and a line over 95 % of them. */
function spread({ own: [share], random }: SizeCurve, x: Scale, y: Scale): SVGElement[] {
  if (!random) return [];
  const [low, mean, high] = random;
  return [
    s("line", { class: "spread", x1: x(share), x2: x(share), y1: y(low), y2: y(high) }),
    s("circle", { class: "cut", cx: x(share), cy: y(mean), r: 3 }),
  ];
}

const SQUARE = 300;
const FOUR_KINDS = 4;

/** What is left of the circuit against what is left of the model, and the kinds of dots in it. */
export function knockOutPlot(knockOuts: KnockOut[]): { svg: SVGSVGElement; kinds: string[] } {
  const dots = knockOuts.flatMap(({ kind, components, full, circuit }) =>
    full === null || circuit === null ? [] : [{ kind: kind.split(" ")[0], name: kind, components, full, circuit }],
  );
  const kinds = [...new Set(dots.map((dot) => dot.kind))].sort();
  const values = dots.flatMap(({ full, circuit }) => [full, circuit]);
  const reach = [Math.min(-0.1, ...values), Math.max(1.1, ...values)];
  const x = scaleLinear(reach, [EDGE.left, WIDTH - EDGE.right]);
  const y = scaleLinear(reach, [SQUARE - EDGE.bottom, EDGE.top]);
  const [low, high] = reach;
  const marks = dots.map(({ kind, name, components, full, circuit }) =>
    s(
      "circle",
      { class: `kind-${kinds.indexOf(kind) % FOUR_KINDS}`, cx: x(full).toFixed(1), cy: y(circuit).toFixed(1), r: 3.5 },
      s("title", {}, `${name}: ${components.join(", ")}; model ${number(full)}, circuit ${number(circuit)}`),
    ),
  );
  const ticks = x.ticks(6);
  const axes = {
    x,
    y,
    height: SQUARE,
    xLabel: "left of the model without them",
    yLabel: "left of the circuit",
    yTicks: ticks,
    xTicks: ticks.map((tick): [number, string] => [tick, number(tick, 2)]),
  };
  const alike = s("line", { class: "alike", x1: x(low), y1: y(low), x2: x(high), y2: y(high) });
  return { svg: frame("Completeness: components knocked out", axes, [alike, ...marks]), kinds };
}

/** The loss after each decision, and a mark that can be moved to one of them. */
export function lossPlot(losses: (number | null)[], unit: string) {
  const known = losses.flatMap((loss, step) => (loss === null ? [] : [{ loss, step }]));
  const x = scaleLinear([0, Math.max(1, losses.length)], [EDGE.left, WIDTH - EDGE.right]);
  const low = withoutRounding(min(known, (point) => point.loss) ?? 0);
  const high = max(known, (point) => point.loss) ?? 1;
  const range = [HEIGHT - EDGE.bottom, EDGE.top];
  const y = scaleLinear([Math.min(0, low), high > low ? high : low + 1], range).nice(4);
  const path = known.map(({ loss, step }, i) => `${i ? "L" : "M"}${x(step + 1).toFixed(1)},${y(loss).toFixed(1)}`);
  const mark = s("line", { class: "mark", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  const svg = frame("Loss over the search", { x, y, xLabel: "decisions", yLabel: unit || "loss" }, [
    s("path", { class: "curve", d: path.join("") }),
    mark,
  ]);
  const moveTo = (step: number) => {
    mark.setAttribute("x1", String(x(step)));
    mark.setAttribute("x2", String(x(step)));
  };
  return { svg, moveTo, any: known.length > 1 };
}
