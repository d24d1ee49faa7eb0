// Ways for lines around the boxes that they do not touch.
//
// Boxes stand in rows, and every line goes upwards, from a row to a higher one. A line crosses the
// rows on its way through gaps between their boxes: those that bend it least, found row by row by
// dynamic programming. Within its gaps it is pulled tight. Lines that then lie against one side of a
// gap get lanes there, and are pulled tight again. The curve is a monotone cubic spline of x over y
// (Fritsch and Carlson 1980): between two points it never leaves their range of x, so it stays in the
// gaps, and between rows there are no boxes.
//
// The units of an MLP stand in rows in its box, and these rows are crossed in the same way: a line
// leaves the box through its upper side and enters it through its lower one.
//
// Where the picture has columns, lines stay in theirs. What attention moves from one to another leads
// up, across between two rows, and up again.

import { mean } from "d3-array";

export interface Place {
  x: number;
  y: number;
  width: number;
  height: number;
  /** The box in which it stands. */
  frame?: Place | null;
  /** Of a box in which others stand: how much of its left side they leave free. */
  nameWidth?: number;
}

export interface Way {
  from: Place;
  to: Place;
  /** Where it enters, in widths of the box from its centre. */
  entry: number;
}

export interface Route {
  path: string;
  left: number;
  right: number;
}

/** Smallest and largest x. */
export type Range = [number, number];

const EVERYWHERE: Range = [-Infinity, Infinity];

interface Row {
  y: number;
  half: number;
  gaps: Range[];
}

/** A line on its way: where it begins and ends, and its place in the rows that it crosses. */
interface Track {
  start: Point;
  end: Point;
  stops: Stop[];
  firstRow: Row;
  lastRow: Row;
}

/** A row that is crossed; `x` is where the line comes in at the bottom and goes out at the top. */
interface Stop {
  row: Row;
  gap: Range;
  /** The part of the gap that it may use. */
  room: Range;
  x: [number, number];
}

type Point = [number, number];

const CLEAR = 6;
const ARROW = 5;
const LANE = 5;
const CORNER = 5;
const WIDEST = 150;
const NEAREST = 4;
const SWEEPS = 16;
const STILL = 0.5;
const SIDE = 2;

/** Return a route for each way, in their order; all of them between two walls. */
export function routes(places: readonly Place[], ways: readonly Way[], walls = EVERYWHERE): Route[] {
  const rows = rowsOf(outermost(places), walls);
  const middle = mean(places, (place) => place.x) ?? 0;
  const indexOf = new Map(rows.map((row, index) => [row.y, index]));
  const inside = new Map<Place, Row[]>();
  for (const { frame } of places)
    if (frame && !inside.has(frame)) inside.set(frame, rowsInside(frame, places, rows[indexOf.get(frame.y)!]));
  const tracks = ways.map((way) => {
    const [first, last] = [way.from, way.to].map((end) => indexOf.get((end.frame ?? end).y)!);
    const own = [way.from, way.to].map(({ frame }) => (frame ? inside.get(frame)! : []));
    const [from, to] = [way.from, way.to].map(({ y }, i) => own[i].findIndex((row) => row.y === y));
    const up = from < 0 ? [] : own[0].slice(from + 1);
    const down = own[1].slice(0, Math.max(0, to));
    const between = [...up, ...rows.slice(first + 1, last), ...down];
    return trackOf(way, own[0][from] ?? rows[first], between, own[1][to] ?? rows[last], middle);
  });
  tracks.forEach(tighten);
  separate(tracks);
  tracks.forEach(tighten);
  return tracks.map(routeOf);
}

function outermost(places: readonly Place[]): Place[] {
  return places.filter(({ frame }) => !frame);
}

/** The rows of what stands in a box, with the sides of the box before and after them. */
function rowsInside(box: Place, places: readonly Place[], outside: Row): Row[] {
  const [left, right] = [box.x - box.width / 2, box.x + box.width / 2];
  const [top, bottom] = [box.y - box.height / 2, box.y + box.height / 2];
  const walls: Range = [left + (box.nameWidth ?? 0), right];
  const side = (a: number, b: number): Row => ({
    y: (a + b) / 2,
    half: Math.abs(a - b) / 2,
    gaps: [[walls[0] + SIDE, walls[1] - SIDE]],
  });
  const units = places.filter(({ frame }) => frame === box);
  return [
    side(outside.y + outside.half, bottom - SIDE),
    ...rowsOf(units, walls),
    side(top + SIDE, outside.y - outside.half),
  ];
}

/** The rows from the bottom to the top: y grows downwards. */
function rowsOf(places: readonly Place[], walls: Range): Row[] {
  const byHeight = new Map<number, Place[]>();
  for (const place of places) byHeight.set(place.y, [...(byHeight.get(place.y) ?? []), place]);
  return [...byHeight]
    .sort(([a], [b]) => b - a)
    .map(([y, row]) => ({
      y,
      half: Math.max(...row.map((place) => place.height)) / 2 + 1,
      gaps: gapsOf(row, walls),
    }));
}

function gapsOf(row: Place[], walls: Range): Range[] {
  const sorted = [...row].sort((a, b) => a.x - b.x);
  let left = walls[0];
  const gaps: Range[] = [];
  for (const { x, width } of [...sorted, { x: walls[1], width: 0 }]) {
    const right = x - width / 2;
    const clear = Math.min(CLEAR, (right - left) / 3);
    if (right > left) gaps.push([left + clear, right - clear]);
    left = Math.max(left, x + width / 2);
  }
  return gaps;
}

function trackOf(
  { from, to, entry }: Way,
  firstRow: Row,
  between: Row[],
  lastRow: Row,
  middle: number,
): Track {
  const end: Point = [to.x + entry * to.width, to.y + to.height / 2 + ARROW];
  const start: Point = [from.x, from.y - from.height / 2];
  // Of two gaps that are equally far, the outer one.
  const lean = Math.sign(from.x + to.x - 2 * middle);
  const stops = stopsBetween(between, start, end, lean);
  const towards = stops.length ? stops[0].x[0] : end[0];
  start[0] += within(0.12 * (towards - from.x), [-from.width / 3, from.width / 3]);
  return { start, end, stops, firstRow, lastRow };
}

interface Choice {
  gap: Range;
  x: number;
  cost: number;
  before: Choice | null;
}

/** Choose a gap in each row so that the line bends little. */
function stopsBetween(rows: Row[], start: Point, end: Point, lean: number): Stop[] {
  let choices: Choice[] = [{ gap: [start[0], start[0]], x: start[0], cost: 0, before: null }];
  let y = start[1];
  for (const row of rows) {
    const straight = along(start, end, row.y) + lean;
    choices = nearest(row.gaps, straight).map((gap) =>
      cheapest(choices, gap, within(straight, gap), y - row.y),
    );
    y = row.y;
  }
  let chosen: Choice | null = cheapest(choices, [end[0], end[0]], end[0], y - end[1]).before;
  const stops: Stop[] = [];
  for (let i = rows.length - 1; i >= 0; i--, chosen = chosen!.before)
    stops.push(stopAt(rows[i], chosen!));
  return stops.reverse();
}

/** The gaps nearest to a place, the one at it first. */
function nearest(gaps: Range[], x: number): Range[] {
  let at = gaps.findIndex(([, high]) => x <= high);
  if (at < 0) at = gaps.length - 1;
  let [below, above] = [at - 1, at + 1];
  const found = [gaps[at]];
  while (found.length < NEAREST && (below >= 0 || above < gaps.length)) {
    const lower = below < 0 ? Infinity : x - gaps[below][1];
    const upper = above < gaps.length ? gaps[above][0] - x : Infinity;
    found.push(gaps[lower <= upper ? below-- : above++]);
  }
  return found;
}

function stopAt(row: Row, { gap, x }: Choice): Stop {
  return { row, gap, room: [...gap], x: [x, x] };
}

function cheapest(choices: Choice[], gap: Range, x: number, up: number): Choice {
  let best: Choice | null = null;
  let least = Infinity;
  for (const choice of choices) {
    const cost = choice.cost + (x - choice.x) ** 2 / Math.max(1, up);
    if (cost < least) [best, least] = [choice, cost];
  }
  return { gap, x, cost: least, before: best };
}

function along(start: Point, end: Point, y: number): number {
  return start[0] + ((end[0] - start[0]) * (y - start[1])) / (end[1] - start[1] || 1);
}

/** Pull a line tight within its gaps. */
function tighten({ start, end, stops }: Track): void {
  const ys = [start[1], ...stops.flatMap(({ row }) => [row.y + row.half, row.y - row.half]), end[1]];
  const xs = [start[0], ...stops.flatMap(({ x }) => x), end[0]];
  const last = xs.length - 2;
  let moved = Infinity;
  for (let sweep = 0; sweep < SWEEPS && moved > STILL; sweep++) {
    moved = 0;
    for (let i = 1; i <= last; i++) {
      const at = sweep % 2 ? last + 1 - i : i;
      const share = (ys[at] - ys[at - 1]) / (ys[at + 1] - ys[at - 1]);
      const wanted = xs[at - 1] + share * (xs[at + 1] - xs[at - 1]);
      const x = within(wanted, stops[(at - 1) >> 1].room);
      moved = Math.max(moved, Math.abs(x - xs[at]));
      xs[at] = x;
    }
  }
  stops.forEach((stop, i) => (stop.x = [xs[2 * i + 1], xs[2 * i + 2]]));
}

/** Give the lines that lie against one side of a gap lanes, the longest the farthest from the box. */
function separate(tracks: Track[]): void {
  for (const side of [0, 1] as const) {
    const sharing = new Map<Range, { stop: Stop; length: number }[]>();
    for (const { stops } of tracks)
      for (const stop of stops) {
        if (!stop.x.some((x) => Math.abs(x - stop.gap[side]) < 0.5)) continue;
        if (!sharing.has(stop.gap)) sharing.set(stop.gap, []);
        sharing.get(stop.gap)!.push({ stop, length: stops.length });
      }
    for (const [gap, users] of sharing) {
      users.sort((a, b) => a.length - b.length);
      const room = Math.min(WIDEST, 0.45 * (gap[1] - gap[0]));
      const lane = Math.min(LANE, room / Math.max(1, users.length - 1));
      users.forEach(({ stop }, i) => (stop.room[side] += (side ? -1 : 1) * i * lane));
    }
  }
}

function routeOf({ start, end, stops, firstRow, lastRow }: Track): Route {
  const points: Point[] = [
    start,
    // Boxes beside the first and the last one may be taller than these.
    [start[0], firstRow.y - firstRow.half],
    ...stops.flatMap(({ row, x }): Point[] => [
      [x[0], row.y + row.half],
      [x[1], row.y - row.half],
    ]),
    [end[0], lastRow.y + lastRow.half],
    end,
  ];
  const upwards = points.filter(([, y], i) => i === 0 || y < points[i - 1][1]);
  if (upwards.at(-1) !== end) upwards.splice(-1, 1, end);
  const across = points.map(([x]) => x);
  return { path: spline(upwards), left: Math.min(...across), right: Math.max(...across) };
}

/** A monotone cubic spline of x over y, upright at both ends, as Bezier curves. */
function spline(points: Point[]): string {
  const slopes = slopesOf(points);
  let path = `M${text(points[0][0], points[0][1])}C`;
  for (let i = 1; i < points.length; i++) {
    const [from, to] = [points[i - 1], points[i]];
    const third = (to[1] - from[1]) / 3;
    const leaving = text(from[0] + slopes[i - 1] * third, from[1] + third);
    const arriving = text(to[0] - slopes[i] * third, to[1] - third);
    path += `${i > 1 ? " " : ""}${leaving} ${arriving} ${text(to[0], to[1])}`;
  }
  return path;
}

/** Return a route for each way to another column: the further left it begins, the higher it crosses. */
export function crossings(places: readonly Place[], ways: readonly Way[]): Route[] {
  const rows = rowsOf(outermost(places), EVERYWHERE);
  const lanes = new Map<Place, number>();
  rows.forEach((row, i) => {
    const inRow = ways.map(({ from }) => from).filter((from) => from.y === row.y);
    const sources = [...new Set(inRow)].sort((a, b) => b.x - a.x);
    const above = rows[i + 1] ?? row;
    const [low, high] = [row.y - row.half - CORNER, above.y + above.half + ARROW + CORNER];
    const apart = Math.min(LANE, (low - high) / Math.max(1, sources.length - 1));
    sources.forEach((source, number) => lanes.set(source, low - number * apart));
  });
  return ways.map(({ from, to }) => ({
    path: crossing(from, to, lanes.get(from)!),
    left: Math.min(from.x, to.x),
    right: Math.max(from.x, to.x),
  }));
}

/** Lead up to a lane, along it and up again, with round corners. */
function crossing(from: Place, to: Place, lane: number): string {
  const [start, end] = [from.y - from.height / 2, to.y + to.height / 2 + ARROW];
  const turn = Math.max(0, Math.min(CORNER, Math.abs(to.x - from.x) / 2, start - lane, lane - end));
  const side = to.x > from.x ? turn : -turn;
  return (
    `M${text(from.x, start)}L${text(from.x, lane + turn)}` +
    `Q${text(from.x, lane)} ${text(from.x + side, lane)}L${text(to.x - side, lane)}` +
    `Q${text(to.x, lane)} ${text(to.x, lane - turn)}L${text(to.x, end)}`
  );
}

function text(x: number, y: number): string {
  return `${Math.round(10 * x) / 10},${Math.round(10 * y) / 10}`;
}

/** Slopes dx/dy at each point: harmonic means of those on both sides, 0 where x turns. */
function slopesOf(points: Point[]): number[] {
  const secants = points.slice(1).map(([x, y], i) => (x - points[i][0]) / (y - points[i][1]));
  return points.map((_, i) => {
    if (i === 0 || i === points.length - 1) return 0;
    const [before, after] = [secants[i - 1], secants[i]];
    return before * after <= 0 ? 0 : (2 * before * after) / (before + after);
  });
}

function within(value: number, [low, high]: Range): number {
  return Math.max(low, Math.min(high, value));
}
