// From edges to boxes and lines with places: what a picture shows, before anything is drawn.
//
// Apart, components stand where the static diagrams have them. Grouped, the heads of a layer are one
// box; these boxes stand in a column on the left, MLPs in one on the right, and a line bundles all
// edges between two boxes.

import { sum } from "d3-array";
import type { Component, Edge, Layout } from "./data";
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

/** An edge to draw: in which tone, and how strongly between 0 and 1 (null: not measured). */
export interface Stroke {
  edge: Edge;
  tone: string;
  strength: number | null;
  negative: boolean;
}

export interface Line {
  id: string;
  from: Box;
  to: Box;
  tone: string;
  strength: number | null;
  negative: boolean;
  port: string;
  edges: Edge[];
  path: string;
}

export interface Scene {
  boxes: Box[];
  lines: Line[];
  arcs: { id: string; path: string }[];
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
    return [{ id: `${from.name}|${to.name}`, path: curve(tail, head, "", false) }];
  });
  return { boxes, lines, arcs, bounds: boundsOf(boxes, drawn.grouped) };
}

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
  let layer: number | null | undefined;
  for (const key of order) {
    const row = rows.get(key)!;
    if (layer !== undefined) y -= row[0].layer === layer ? 32 : 42;
    layer = row[0].layer;
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

/** Heads stand on the left, MLPs on the right. */
function sideOf(box: Box): number {
  if (box.kind === "mlp") return 1;
  return box.kind === "end" ? 0 : -1;
}

function plainLine(stroke: Stroke, boxOf: Map<string, Box>): Line[] {
  const from = boxOf.get(stroke.edge.writer.name);
  const to = boxOf.get(stroke.edge.target.name);
  if (!from || !to) return [];
  const { edge, tone, strength, negative } = stroke;
  const path = curve(from, to, edge.port, false);
  return [
    { id: edge.name, from, to, tone, strength, negative, port: edge.port, edges: [edge], path },
  ];
}

/** Join the strokes between two boxes; a bundle is as strong as its edges together. */
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
  const strongest = Math.max(...lines.map((line) => line.strength ?? 0), 0);
  for (const line of lines)
    if (line.strength !== null && strongest > 0) line.strength /= strongest;
  return lines.sort((a, b) => (a.strength ?? -1) - (b.strength ?? -1));
}

function bundle(id: string, members: Stroke[], boxOf: Map<string, Box>): Line {
  const [{ edge }] = members;
  const from = boxOf.get(edge.writer.name)!;
  const to = boxOf.get(edge.target.name)!;
  const tones = new Set(members.map((member) => member.tone));
  const ports = new Set(members.map((member) => member.edge.port));
  const measured = members.filter((member) => member.strength !== null);
  return {
    id,
    from,
    to,
    tone: tones.size === 1 ? members[0].tone : "mixed",
    strength: measured.length ? sum(measured, (member) => member.strength!) : null,
    negative: sum(measured, (member) => (member.negative ? -1 : 1) * member.strength!) < 0,
    port: ports.size === 1 ? edge.port : "",
    edges: members.map((member) => member.edge),
    path: curve(from, to, ports.size === 1 ? edge.port : "", true),
  };
}

const PORT_OFFSET: Record<string, number> = { q: -0.3, v: 0.3 };

/** A Bezier curve that leaves a box upwards and enters the next one from below. */
function curve(from: Box, to: Box, port: string, inColumns: boolean): string {
  const startY = from.y - from.height / 2;
  const endY = to.y + to.height / 2 + 5;
  const startX = from.x + within(0.08 * (to.x - from.x), from.width / 3);
  const endX = to.x + (PORT_OFFSET[port] ?? 0) * to.width;
  const rise = 0.45 * (startY - endY);
  const aside = inColumns
    ? columnDetour(from, to, startY - endY)
    : detour(endX - startX, startY - endY);
  const points = [
    [startX, startY],
    [startX + aside, startY - rise],
    [endX + aside, endY + rise],
    [endX, endY],
  ].map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`);
  return `M${points[0]}C${points[1]} ${points[2]} ${points[3]}`;
}

function within(value: number, limit: number): number {
  return Math.max(-limit, Math.min(limit, value));
}

/** How far to bend a steep line aside, so that it does not hide behind a column. */
function detour(across: number, up: number): number {
  const steepness = Math.max(0, 1 - Math.abs(across) / 40);
  const side = across >= 0 ? 1 : -1;
  return side * steepness * Math.min(70, 0.22 * Math.max(0, up - 60));
}

/** Lines within a column bulge outwards, the farther the longer; others bend inwards. */
function columnDetour(from: Box, to: Box, up: number): number {
  const sides = sideOf(from) + sideOf(to);
  const bulge = Math.min(260, 14 + 0.3 * Math.max(0, up - 30));
  if (Math.abs(sides) === 2) return Math.sign(sides) * bulge;
  return sides * 0.45 * bulge;
}

function boundsOf(boxes: Box[], inColumns: boolean): Scene["bounds"] {
  if (!boxes.length) return { x: 0, y: 0, width: 100, height: 60 };
  const left = Math.min(...boxes.map((box) => box.x - box.width / 2));
  const right = Math.max(...boxes.map((box) => box.x + box.width / 2));
  const top = Math.min(...boxes.map((box) => box.y - box.height / 2));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height / 2));
  const aside = inColumns ? Math.min(200, 0.2 * (bottom - top)) : 0;
  return {
    x: left - MARGIN - aside,
    y: top - MARGIN,
    width: right - left + 2 * (MARGIN + aside),
    height: bottom - top + 2 * MARGIN,
  };
}
