// From edges to boxes and lines with places: what a picture shows, before anything is drawn.
//
// Apart, components stand where the static diagrams have them. Grouped, the heads of a layer are one
// box; these boxes stand in a column on the left, MLPs in one on the right, and a line bundles all
// edges between two boxes. Lines go around the boxes that they do not touch.
//
// The units of an MLP stand in its box; grouped, they are part of it.
//
// Where places are told apart, each is a column, and all of this is done in every column.

import { sum } from "d3-array";
import type { Component, Layout, Link, Place } from "./data";
import { crossings, routes, type Range, type Route, type Way } from "./routes";
import { isChosen } from "./strokes";
import { count, describe } from "./text";

export interface Box {
  id: string;
  label: string;
  role: string;
  kind: Component["kind"] | "layer";
  layer: number | null;
  place: string | null;
  /** Whether it is at a place that is not chosen. */
  away: boolean;
  members: string[];
  /** The box of the MLP in which it stands. */
  frame: Box | null;
  /** Of a box in which others stand: how much of it is for its name, on the left. */
  nameWidth: number;
  x: number;
  y: number;
  width: number;
  height: number;
  description: string;
}

/** An edge to draw: in which tone, and the size of its effect (null: not measured). */
export interface Stroke {
  edge: Link;
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
  edges: Link[];
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

/** A column of the picture, behind the boxes of a place. */
export interface Column {
  name: string;
  tokens: string[];
  away: boolean;
  left: number;
  right: number;
  top: number;
  /** Where the boxes end. */
  floor: number;
  bottom: number;
}

export interface Scene {
  boxes: Box[];
  columns: Column[];
  lines: Line[];
  arcs: Arc[];
  bounds: { x: number; y: number; width: number; height: number };
}

export interface Drawn {
  components: Component[];
  places: Place[];
  layout: Layout;
  arcs: [Component, Component][];
  strokes: Stroke[];
  grouped: boolean;
  open: ReadonlySet<number>;
  /** The places whose edges are shown; empty: all of them. */
  chosen: ReadonlySet<string>;
  /** Width by height of the window: narrow pictures are stretched to fill it. */
  aspect: number;
}

const BOX_HEIGHT = 20;
const ROLE_HEIGHT = 11;
const COLUMN = 120;
const MARGIN = 26;
const COLUMN_GAP = 14;
const COLUMN_ROOM = 8;
export const NAME_ROOM = 26;
export const TOKEN_LINE = 11;
const MOST_STRETCHED = 2.2;

export function sceneOf(drawn: Drawn): Scene {
  const [boxes, walls] = drawn.grouped ? groupedBoxes(drawn) : plainBoxes(drawn);
  for (const box of boxes) box.away = !isChosen(box.place, drawn.chosen);
  const boxOf = new Map(boxes.flatMap((box) => box.members.map((name) => [name, box])));
  const lines = drawn.grouped
    ? bundles(drawn.strokes, boxOf)
    : drawn.strokes.flatMap((stroke) => plainLine(stroke, boxOf));
  const arcs = arcsOf(drawn, boxOf, lines);
  const ways = [...lines, ...arcs].map((way) => ({ ...way, way, entry: PORT_OFFSET[way.port] ?? 0 }));
  const found = [...walls].flatMap(([place, range]) => {
    const here = ways.filter(({ from, to }) => from.place === place && to.place === place);
    const there = boxes.filter((box) => box.place === place);
    return routed(here, routes(there, here, range));
  });
  const across = ways.filter(({ from, to }) => from.place !== to.place);
  found.push(...routed(across, crossings(boxes, across)));
  const inside = boundsOf(boxes, found, walls);
  const columns = columnsOf(drawn, walls, inside);
  return { boxes, lines, arcs, columns, bounds: framed(inside, columns) };
}

function routed(ways: (Way & { way: { path: string } })[], found: Route[]): Route[] {
  ways.forEach(({ way }, i) => (way.path = found[i].path));
  return found;
}

/** The arcs between boxes that are drawn; where places are told apart, between those in use. */
function arcsOf({ arcs, places }: Drawn, boxOf: Map<string, Box>, lines: Line[]): Arc[] {
  const used = new Set(lines.flatMap(({ from, to }) => [from, to]));
  const isShown = (box: Box) => !places.length || (used.has(box) && !box.away);
  const found = new Map<string, Arc>();
  for (const [from, to] of arcs) {
    const [tail, head] = [boxOf.get(from.name), boxOf.get(to.name)];
    if (!tail || !head || tail === head || !isShown(tail) || !isShown(head)) continue;
    const id = `${tail.id}|${head.id}`;
    found.set(id, { id, from: tail, to: head, port: "", path: "" });
  }
  return [...found.values()];
}

/** Where lines into a head end, in widths of its box from the centre. */
const PORT_OFFSET: Record<string, number> = { q: -0.3, v: 0.3 };

/** The boxes, and between which walls those of each place stand. */
type Placed = [Box[], Map<string | null, Range>];

const NO_WALLS: Range = [-Infinity, Infinity];

function plainBoxes({ components, places, layout, aspect }: Drawn): Placed {
  const stretch = stretchOf(layout, aspect);
  const found = new Map<string, Box>();
  for (const component of components.filter(({ name }) => layout.boxes[name])) {
    const own = boxOfComponent(component, places);
    const [x, y, width, height = own.height] = layout.boxes[component.name];
    const frame = component.inside === undefined ? null : found.get(component.inside)!;
    const shift = (stretch - 1) * layout.boxes[component.inside ?? component.name][0];
    if (frame) frame.nameWidth = boxWidth(frame);
    found.set(own.id, { ...own, frame, x: x + shift, y: -y, width, height });
  }
  const boxes = [...found.values()];
  if (!places.length) return [boxes, new Map([[null, NO_WALLS]])];
  const walls = layout.columns.map(
    ([place, left, right]): [string, Range] => [places[place].name, [left * stretch, right * stretch]],
  );
  return [boxes, new Map(walls)];
}

/** Lines are told apart more easily the more room they have. */
function stretchOf({ boxes }: Layout, aspect: number): number {
  const centres = Object.values(boxes);
  const width = extentOf(centres.map(([x]) => x)) + 60;
  const height = extentOf(centres.map(([, y]) => y)) + 60;
  return Math.max(1, Math.min(MOST_STRETCHED, (0.8 * aspect * height) / width));
}

function extentOf(values: number[]): number {
  return Math.max(...values, 0) - Math.min(...values, 0);
}

function boxOfComponent(component: Component, places: Place[]): Box {
  const { name, label, role, kind, layer, place } = component;
  return {
    id: name,
    label,
    role,
    kind,
    layer,
    place: place === null ? null : places[place].name,
    away: false,
    members: [name],
    frame: null,
    nameWidth: 0,
    x: 0,
    y: 0,
    width: boxWidth({ label, role }),
    height: BOX_HEIGHT + (role ? ROLE_HEIGHT : 0),
    description: describe(component),
  };
}

/** The width that the text of a box needs. */
function boxWidth({ label, role }: Pick<Box, "label" | "role">): number {
  return 12 + Math.max(6 * label.length, 5.6 * role.length);
}

function groupedBoxes({ components, places, layout, open, aspect }: Drawn): Placed {
  const rows = new Map<string, Box[]>();
  const groups = new Map<string, { box: Box; members: Component[] }>();
  const units = components.filter(({ name, inside }) => layout.boxes[name] && inside !== undefined);
  for (const component of components.filter((each) => layout.boxes[each.name] && each.inside === undefined)) {
    const { layer, kind, row } = component;
    const inGroup = layer !== null && kind !== "mlp" && !open.has(layer);
    // At places, what heads read as keys and values stands below the heads, as it does apart.
    const keys = places.length > 0 && kind === "kv";
    const line = !inGroup ? row.join(".") : keys ? `${row[0]}.0` : places.length ? `${row[0]}.1` : `${row[0]}`;
    if (!rows.has(line)) rows.set(line, []);
    const box = boxOfComponent(component, places);
    box.members.push(...units.filter(({ inside }) => inside === box.id).map(({ name }) => name));
    if (!inGroup) {
      rows.get(line)!.push(box);
      continue;
    }
    const id = [`layer ${layer}`, keys && "kv", box.place !== null && `@${box.place}`].filter(Boolean).join(" ");
    if (groups.has(id)) groups.get(id)!.members.push(component);
    else {
      groups.set(id, { box: { ...box, id, kind: "layer" }, members: [component] });
      rows.get(line)!.push(groups.get(id)!.box);
    }
  }
  for (const { box, members } of groups.values()) {
    const heads = members.filter(({ kind, component }) => component.includes(".h") || (places.length && kind === "kv"));
    const keys = heads.length > 0 && heads.every(({ kind }) => kind === "kv");
    box.members = members.map(({ name }) => name);
    box.label = keys ? `a${box.layer} kv · ${heads.length}` : `a${box.layer} · ${count(heads.length, "head")}`;
    box.description = keys
      ? `keys and values of ${count(heads.length, "head")} of layer ${box.layer}, drawn as one`
      : `${count(heads.length, "head")} of layer ${box.layer}, drawn as one`;
    box.role = "";
    box.width = 12 + 6 * box.label.length;
    box.height = BOX_HEIGHT;
  }
  if (!places.length) return [placedInRows(rows, aspect), new Map([[null, NO_WALLS]])];
  return placedInColumns(rows, layout.columns.map(([place]) => places[place]), aspect);
}

function placedInRows(rows: Map<string, Box[]>, aspect: number): Box[] {
  const order = inOrder(rows);
  const column = Math.max(COLUMN, Math.min(3 * COLUMN, 7 * aspect * order.length));
  placedUp(order, 16);
  for (const row of order) centred(row, sideOf(row[0]) * column);
  return order.flat();
}

/** Each place has a column, as wide as its fullest row, or wider where there is room. */
function placedInColumns(rows: Map<string, Box[]>, places: Place[], aspect: number): Placed {
  const order = inOrder(rows);
  const walls = new Map<string | null, Range>();
  placedUp(order, 26);
  const parts = places.map(({ name }) => order.map((row) => row.filter((box) => box.place === name)));
  const needed = places.map(({ name, tokens }, i) => {
    const letters = Math.max(...[name, ...tokens].map((line) => line.length));
    return Math.max(6 * letters, ...parts[i].map(widthOf)) + 2 * COLUMN_ROOM;
  });
  const height = extentOf(order.map(([box]) => box.y)) + 60;
  const stretch = Math.max(1, Math.min(MOST_STRETCHED, (0.8 * aspect * height) / sum(needed)));
  let left = 0;
  places.forEach(({ name }, i) => {
    const width = needed[i] * stretch;
    walls.set(name, [left, left + width]);
    for (const part of parts[i]) centred(part, left + width / 2);
    left += width + COLUMN_GAP;
  });
  return [order.flat(), walls];
}

function inOrder(rows: Map<string, Box[]>): Box[][] {
  return [...rows.keys()].sort((a, b) => Number(a) - Number(b)).map((key) => rows.get(key)!);
}

/** Place rows from bottom to top, with some gap between those of one layer. */
function placedUp(order: Box[][], inLayer: number): void {
  let y = 0;
  order.forEach((row, i) => {
    const below = order[i - 1];
    if (below) y -= (tallest(below) + tallest(row)) / 2 + (row[0].layer === below[0].layer ? inLayer : 26);
    for (const box of row) box.y = y;
  });
}

function widthOf(row: Box[]): number {
  return sum(row, (box) => box.width + 9) - 9;
}

function centred(row: Box[], centre: number): void {
  let left = centre - widthOf(row) / 2;
  for (const box of row) {
    box.x = left + box.width / 2;
    left += box.width + 9;
  }
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

type Frame = Scene["bounds"];

function boundsOf(boxes: Box[], found: Route[], walls: Map<string | null, Range>): Frame {
  if (!boxes.length) return { x: 0, y: 0, width: 100, height: 60 };
  const edges = (side: -1 | 1) => boxes.map((box) => box.x + (side * box.width) / 2);
  const ends = (side: 0 | 1) => [...walls.values()].map((wall) => wall[side]).filter(Number.isFinite);
  const left = Math.min(...edges(-1), ...found.map((route) => route.left), ...ends(0));
  const right = Math.max(...edges(1), ...found.map((route) => route.right), ...ends(1));
  const top = Math.min(...boxes.map((box) => box.y - box.height / 2));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height / 2));
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/** The columns behind the boxes, with room for names above and below, and for tokens. */
function columnsOf({ places, chosen }: Drawn, walls: Map<string | null, Range>, inside: Frame): Column[] {
  const lines = Math.max(0, ...places.map(({ tokens }) => tokens.length));
  return places
    .filter(({ name }) => walls.has(name))
    .map(({ name, tokens }) => {
      const [left, right] = walls.get(name)!;
      const [top, floor] = [inside.y - NAME_ROOM, inside.y + inside.height];
      const bottom = floor + NAME_ROOM + lines * TOKEN_LINE + (lines ? 5 : 0);
      return { name, tokens, left, right, top, floor, bottom, away: !isChosen(name, chosen) };
    });
}

function framed({ x, y, width, height }: Frame, columns: Column[]): Frame {
  const top = Math.min(y, ...columns.map((column) => column.top));
  const bottom = Math.max(y + height, ...columns.map((column) => column.bottom));
  return {
    x: x - MARGIN,
    y: top - MARGIN,
    width: width + 2 * MARGIN,
    height: bottom - top + 2 * MARGIN,
  };
}
