// From edges to boxes and lines with places: what a picture shows, before anything is drawn.
//
// Apart, components stand where the static diagrams have them. Grouped, the heads of a layer are one
// box; these boxes stand in a column on the left, MLPs in one on the right, and a line bundles all
// edges between two boxes. Lines go around the boxes that they do not touch.

import { sum } from "d3-array";
import type { Component, Edge, Layout } from "./data";
import { routes, type Route } from "./routes";
import { count, describe } from "./text";

export interface Box {
  id: string;
  label: string;
  role: string;
  kind: Component["kind"] | "layer";
  layer: number | null;
  members: string[];
  x: number;
  y: number;
  width: number;
  height: number;
  description: string;
}

/** An edge to draw: in which tone, and the size of its effect (null: not measured). */
export interface Stroke {
  edge: Edge;
  tone: string;
  size: number | null;
  negative: boolean;
}

export interface Line {
  id: string;
  from: Box;
  to: Box;
  tone: string;
  /** Size of the effects of its edges together; null if none is measured. */
  size: number | null;
  /** How strongly it is drawn, between 0 and 1, as a scale has it. */
  strength: number | null;
  negative: boolean;
  port: string;
  edges: Edge[];
  path: string;
}

/** A line that belongs to the model, not to a circuit. */
export interface Arc {
  id: string;
  from: Box;
  to: Box;
  port: string;
  path: string;
}

export interface Scene {
  boxes: Box[];
  lines: Line[];
  arcs: Arc[];
  bounds: { x: number; y: number; width: number; height: number };
}

export interface Drawn {
  components: Component[];
  layout: Layout;
  arcs: [Component, Component][];
  strokes: Stroke[];
  grouped: boolean;
  open: ReadonlySet<number>;
  /** Width by height of the window: narrow pictures are stretched to fill it. */
  aspect: number;
}

const BOX_HEIGHT = 20;
const ROLE_HEIGHT = 11;
const COLUMN = 120;
const MARGIN = 26;
const MOST_STRETCHED = 2.2;

export function sceneOf(drawn: Drawn): Scene {
  const boxes = drawn.grouped ? groupedBoxes(drawn) : plainBoxes(drawn);
  const boxOf = new Map(boxes.flatMap((box) => box.members.map((name) => [name, box])));
  const lines = drawn.grouped
    ? bundles(drawn.strokes, boxOf)
    : drawn.strokes.flatMap((stroke) => plainLine(stroke, boxOf));
  const arcs = drawn.arcs.flatMap(([from, to]) => {
    const [tail, head] = [boxOf.get(from.name), boxOf.get(to.name)];
    if (!tail || !head || tail === head) return [];
    return [{ id: `${from.name}|${to.name}`, from: tail, to: head, port: "", path: "" }];
  });
  const ways = [...lines, ...arcs];
  const found = routes(boxes, ways.map(({ from, to, port }) => ({ from, to, entry: PORT_OFFSET[port] ?? 0 })));
  ways.forEach((way, i) => (way.path = found[i].path));
  return { boxes, lines, arcs, bounds: boundsOf(boxes, found) };
}

/** Where lines into a head end, in widths of its box from the centre. */
const PORT_OFFSET: Record<string, number> = { q: -0.3, v: 0.3 };

function plainBoxes({ components, layout, aspect }: Drawn): Box[] {
  const stretch = stretchOf(layout, aspect);
  return components
    .filter((component) => layout[component.name])
    .map((component) => {
      const [x, y, width] = layout[component.name];
      return { ...boxOfComponent(component), x: x * stretch, y: -y, width };
    });
}

/** Lines are told apart more easily the more room they have. */
function stretchOf(layout: Layout, aspect: number): number {
  const places = Object.values(layout);
  const width = extentOf(places.map(([x]) => x)) + 60;
  const height = extentOf(places.map(([, y]) => y)) + 60;
  return Math.max(1, Math.min(MOST_STRETCHED, (0.8 * aspect * height) / width));
}

function extentOf(values: number[]): number {
  return Math.max(...values, 0) - Math.min(...values, 0);
}

function boxOfComponent(component: Component): Box {
  const { name, role, kind, layer } = component;
  return {
    id: name,
    label: name,
    role,
    kind,
    layer,
    members: [name],
    x: 0,
    y: 0,
    width: 12 + Math.max(6 * name.length, 5.6 * role.length),
    height: BOX_HEIGHT + (role ? ROLE_HEIGHT : 0),
    description: describe(component),
  };
}

function groupedBoxes({ components, layout, open, aspect }: Drawn): Box[] {
  const rows = new Map<string, Box[]>();
  const groups = new Map<number, Box>();
  for (const component of components.filter((each) => layout[each.name])) {
    const { layer, kind, row } = component;
    const inGroup = layer !== null && kind !== "mlp" && !open.has(layer);
    const place = inGroup ? `${row[0]}` : row.join(".");
    if (!rows.has(place)) rows.set(place, []);
    if (!inGroup) rows.get(place)!.push(boxOfComponent(component));
    else if (groups.has(layer)) groups.get(layer)!.members.push(component.name);
    else {
      groups.set(layer, { ...boxOfComponent(component), id: `layer ${layer}`, kind: "layer" });
      rows.get(place)!.push(groups.get(layer)!);
    }
  }
  for (const box of groups.values()) {
    const heads = box.members.filter((name) => name.includes(".h"));
    box.label = `a${box.layer} · ${count(heads.length, "head")}`;
    box.description = `${count(heads.length, "head")} of layer ${box.layer}, drawn as one`;
    box.role = "";
    box.width = 12 + 6 * box.label.length;
    box.height = BOX_HEIGHT;
  }
  return placedInRows(rows, aspect);
}

function placedInRows(rows: Map<string, Box[]>, aspect: number): Box[] {
  const order = [...rows.keys()].sort((a, b) => Number(a) - Number(b));
  const column = Math.max(COLUMN, Math.min(3 * COLUMN, 7 * aspect * order.length));
  let y = 0;
  let below: Box[] | null = null;
  for (const key of order) {
    const row = rows.get(key)!;
    if (below) y -= (tallest(below) + tallest(row)) / 2 + (row[0].layer === below[0].layer ? 16 : 26);
    below = row;
    const width = sum(row, (box) => box.width + 9) - 9;
    const centre = sideOf(row[0]) * column;
    let left = centre - width / 2;
    for (const box of row) {
      box.x = left + box.width / 2;
      box.y = y;
      left += box.width + 9;
    }
  }
  return order.flatMap((key) => rows.get(key)!);
}

function tallest(row: Box[]): number {
  return Math.max(...row.map((box) => box.height));
}

/** Heads stand on the left, MLPs on the right. */
function sideOf(box: Box): number {
  if (box.kind === "mlp") return 1;
  return box.kind === "end" ? 0 : -1;
}

function plainLine(stroke: Stroke, boxOf: Map<string, Box>): Line[] {
  const from = boxOf.get(stroke.edge.writer.name);
  const to = boxOf.get(stroke.edge.target.name);
  if (!from || !to) return [];
  const { edge, tone, size, negative } = stroke;
  const own = { id: edge.name, port: edge.port, edges: [edge], path: "" };
  return [{ ...own, from, to, tone, size, strength: null, negative }];
}

/** Join the strokes between two boxes; a bundle is as large as its edges together. */
function bundles(strokes: Stroke[], boxOf: Map<string, Box>): Line[] {
  const together = new Map<string, Stroke[]>();
  for (const stroke of strokes) {
    const [from, to] = [boxOf.get(stroke.edge.writer.name), boxOf.get(stroke.edge.target.name)];
    if (!from || !to || from === to) continue;
    const key = `${from.id}|${to.id}`;
    if (!together.has(key)) together.set(key, []);
    together.get(key)!.push(stroke);
  }
  const lines = [...together].map(([id, members]) => bundle(id, members, boxOf));
  return lines.sort((a, b) => (a.size ?? -1) - (b.size ?? -1));
}

function bundle(id: string, members: Stroke[], boxOf: Map<string, Box>): Line {
  const [{ edge }] = members;
  const from = boxOf.get(edge.writer.name)!;
  const to = boxOf.get(edge.target.name)!;
  const tones = new Set(members.map((member) => member.tone));
  const ports = new Set(members.map((member) => member.edge.port));
  const measured = members.filter((member) => member.size !== null);
  return {
    id,
    from,
    to,
    tone: tones.size === 1 ? members[0].tone : "mixed",
    size: measured.length ? sum(measured, (member) => member.size!) : null,
    strength: null,
    negative: sum(measured, (member) => (member.negative ? -1 : 1) * member.size!) < 0,
    port: ports.size === 1 ? edge.port : "",
    edges: members.map((member) => member.edge),
    path: "",
  };
}

function boundsOf(boxes: Box[], found: Route[]): Scene["bounds"] {
  if (!boxes.length) return { x: 0, y: 0, width: 100, height: 60 };
  const edges = (side: -1 | 1) => boxes.map((box) => box.x + (side * box.width) / 2);
  const left = Math.min(...edges(-1), ...found.map((route) => route.left));
  const right = Math.max(...edges(1), ...found.map((route) => route.right));
  const top = Math.min(...boxes.map((box) => box.y - box.height / 2));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height / 2));
  return {
    x: left - MARGIN,
    y: top - MARGIN,
    width: right - left + 2 * MARGIN,
    height: bottom - top + 2 * MARGIN,
  };
}
