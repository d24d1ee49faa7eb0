// Draw a scene as SVG that can be zoomed, moved, pointed at and walked through with the keyboard.

import { select } from "d3-selection";
import { zoom, zoomIdentity, type ZoomTransform } from "d3-zoom";
import { button, freshId, h, s } from "./dom";
import { widthOf } from "./scale";
import { NAME_ROOM, TOKEN_LINE, type Arc, type Box, type Column, type Line, type Scene } from "./scene";

export interface GraphHandlers {
  select(box: Box | null): void;
  selectLine(line: Line): void;
  tooltip(line: Line): string[];
  describe(box: Box, scene: Scene): string;
}

const TONES = ["q", "k", "v", "qkv", "plain", "cut", "mixed", "open", "now-kept", "now-cut", "move"];
const SIDES = ["left", "right", "both"];
const MOST_TARGETS = 700;

export class GraphView {
  readonly element: HTMLElement;
  /** Called when the reader zooms or moves the picture. */
  onMoved: (transform: ZoomTransform) => void = () => {};
  /** Called when there is more or less room. */
  onResized: () => void = () => this.fit();
  private readonly svg: SVGSVGElement;
  private readonly canvas: SVGGElement;
  private readonly tip: HTMLElement;
  private readonly nothing = h("p", { class: "nothing" }, "There is no edge to draw.");
  private readonly behaviour = zoom<SVGSVGElement, unknown>();
  private readonly prefix = freshId("arrow");
  private scene: Scene | null = null;
  private selected: ReadonlySet<string> = new Set();
  private current = "logits";
  private silent = false;
  private isLit = false;

  constructor(
    label: string,
    private readonly handlers: GraphHandlers,
  ) {
    this.canvas = s("g", {}, s("g", { class: "columns" }));
    this.canvas.append(s("g", { class: "frames" }), s("g", { class: "arcs" }), s("g", { class: "lines" }));
    this.canvas.append(s("g", { class: "targets" }), s("g", { class: "boxes" }));
    this.svg = s(
      "svg",
      { class: "graph", role: "group", "aria-label": label },
      this.markers(),
      this.canvas,
    );
    this.tip = h("div", { class: "tip", role: "status", hidden: true });
    this.element = h("div", { class: "graph-frame" }, this.svg, this.nothing, this.tip, this.zoomButtons());
    this.listen();
  }

  private markers(): SVGDefsElement {
    const arrow = (tone: string) =>
      s(
        "marker",
        {
          id: `${this.prefix}-${tone}`,
          class: `arrow tone-${tone}`,
          viewBox: "0 0 10 10",
          refX: 1,
          refY: 5,
          markerWidth: 7,
          markerHeight: 7,
          markerUnits: "userSpaceOnUse",
          orient: "auto",
        },
        s("path", { d: "M0,0L10,5L0,10z" }),
      );
    return s("defs", {}, ...[...TONES, ...SIDES].map(arrow));
  }

  private zoomButtons(): HTMLElement {
    const make = (sign: string, label: string, act: () => void) =>
      button(sign, { class: "round", title: label, "aria-label": label, onclick: act });
    return h(
      "div",
      { class: "zoom-buttons" },
      make("+", "Zoom in", () => this.zoomBy(1.4)),
      make("−", "Zoom out", () => this.zoomBy(1 / 1.4)),
      make("⤢", "Fit to the window", () => this.fit()),
    );
  }

  private listen(): void {
    this.behaviour.scaleExtent([0.05, 8]).on("zoom", ({ transform }) => {
      this.canvas.setAttribute("transform", String(transform));
      if (!this.silent) this.onMoved(transform);
    });
    select(this.svg).call(this.behaviour).on("dblclick.zoom", null);
    this.svg.addEventListener("click", (event) => {
      if (event.target === this.svg) this.handlers.select(null);
    });
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.onResized()).observe(this.element);
  }

  /** Show a scene; what stays of the one before keeps its elements. */
  draw(scene: Scene, selected: ReadonlySet<string>): void {
    this.scene = scene;
    this.selected = selected;
    this.nothing.hidden = scene.boxes.length > 0;
    if (!scene.boxes.some((box) => box.id === this.current))
      this.current = scene.boxes.at(-1)?.id ?? "";
    this.drawColumns(scene);
    this.drawLines(scene);
    this.drawBoxes(scene, selected);
    this.light(selected);
  }

  private drawColumns(scene: Scene): void {
    select(this.canvas.querySelector(".columns"))
      .selectAll<SVGGElement, Column>("g")
      .data(scene.columns, (column) => column.name)
      .join("g")
      .attr("class", (column) => `column${column.away ? " away" : ""}`)
      .each(function (column) {
        this.replaceChildren(...columnParts(column));
      })
      .order();
  }

  private drawLines(scene: Scene): void {
    const many = scene.lines.length > 80;
    const hittable = scene.lines.length <= MOST_TARGETS;
    select(this.canvas.querySelector(".arcs"))
      .selectAll<SVGPathElement, (typeof scene.arcs)[0]>("path")
      .data(scene.arcs, (arc) => arc.id)
      .join("path")
      .attr("class", (arc) => (arc.from.place === null ? null : "move"))
      .attr("marker-end", (arc) => (arc.from.place === null ? null : `url(#${this.prefix}-move)`))
      .attr("d", (arc) => arc.path);
    select(this.canvas.querySelector(".lines"))
      .selectAll<SVGPathElement, Line>("path")
      .data(scene.lines, (line) => line.id)
      .join("path")
      .attr("class", (line) => `line tone-${line.tone}`)
      .attr("d", (line) => line.path)
      .attr("marker-end", (line) =>
        // Thousands of arrowheads take long to paint and hide what they point at.
        line.tone === "open" || !hittable ? null : `url(#${this.prefix}-${line.tone})`,
      )
      .attr("stroke-width", (line) => breadthOf(line).toFixed(2))
      .attr("stroke-opacity", (line) => opacityOf(line, many).toFixed(3))
      .attr("stroke-dasharray", (line) => (line.negative ? "5 3" : null))
      .order();
    // Thin lines are hard to hit: each has a broad invisible one over it, unless they are too many.
    const targets = hittable ? scene.lines : [];
    select(this.canvas.querySelector(".targets"))
      .selectAll<SVGPathElement, Line>("path")
      .data(targets, (line) => line.id)
      .join("path")
      .attr("d", (line) => line.path)
      .on("pointerenter", (event: PointerEvent, line) => this.point(line, event))
      .on("pointerleave", () => this.point(null))
      .on("click", (_, line) => this.handlers.selectLine(line));
  }

  private drawBoxes(scene: Scene, selected: ReadonlySet<string>): void {
    const busy = new Set(scene.lines.flatMap((line) => [line.from, line.to]).flatMap(withFrame));
    // The boxes in which others stand lie under the lines; what they are clicked at lies above.
    select(this.canvas.querySelector(".frames"))
      .selectAll<SVGRectElement, Box>("rect")
      .data(scene.boxes.filter(({ nameWidth }) => nameWidth), (box) => box.id)
      .join("rect")
      .attr("class", (box) => (box.away ? "away" : busy.has(box.id) ? null : "idle"))
      .attr("x", (box) => box.x - box.width / 2)
      .attr("y", (box) => box.y - box.height / 2)
      .attr("width", (box) => box.width)
      .attr("height", (box) => box.height);
    select(this.canvas.querySelector(".boxes"))
      .selectAll<SVGGElement, Box>("g")
      .data(scene.boxes, (box) => box.id)
      .join((enter) => {
        const group = enter.append("g").attr("role", "button");
        group.append("rect");
        group.append("text").attr("class", "label");
        group.append("text").attr("class", "role");
        return group
          .on("click", (_, box) => this.choose(box))
          .on("pointerenter", (_, box) => this.light(new Set([box.id])))
          .on("pointerleave", () => this.light(this.selected))
          .on("focus", (_, box) => (this.current = box.id));
      })
      .attr("class", (box) => {
        const state = box.away ? " away" : busy.has(box.id) ? "" : " idle";
        return `box kind-${box.kind}${box.nameWidth ? " frame" : ""}${state}`;
      })
      .attr("data-name", (box) => box.id)
      .attr("tabindex", (box) => (box.id === this.current ? 0 : -1))
      .attr("aria-label", (box) => this.handlers.describe(box, scene))
      .attr("aria-pressed", (box) => String(selected.has(box.id)))
      .attr("transform", (box) => `translate(${box.x},${box.y})`)
      .each(function (box) {
        const group = select(this);
        const corner = { head: 6, kv: 6, layer: 6, end: 10, mlp: 1, norm: 1, unit: 1, input: 4, rest: 1, error: 1 }[box.kind];
        const middle = box.nameWidth ? (box.nameWidth - box.width) / 2 : 0;
        group
          .select("rect")
          .attr("x", -box.width / 2)
          .attr("y", -box.height / 2)
          .attr("width", box.width)
          .attr("height", box.height)
          .attr("rx", corner);
        group
          .select(".label")
          .attr("x", middle)
          .attr("y", box.role ? -2 : 3.5)
          .text(box.label);
        group.select(".role").attr("x", middle).attr("y", 10).text(box.role);
      })
      .order();
  }

  /** Let only the lines of some boxes, or one line, stand out. */
  private light(names: ReadonlySet<string>): void {
    const any = names.size > 0;
    if (!any && !this.isLit) return;
    this.isLit = any;
    const near = new Set(names);
    this.canvas.classList.toggle("lit", any);
    const touches = ({ id, from, to }: Line | Arc) => {
      const touched = names.has(id) || names.has(from.id) || names.has(to.id);
      if (touched) for (const id of [from, to].flatMap(withFrame)) near.add(id);
      return touched;
    };
    for (const kind of [".lines", ".arcs"])
      select(this.canvas.querySelector(kind)).selectAll<SVGPathElement, Line | Arc>("path").classed("near", touches);
    select(this.canvas.querySelector(".boxes"))
      .selectAll<SVGGElement, Box>("g")
      .classed("near", (box) => near.has(box.id))
      .classed("chosen", (box) => this.selected.has(box.id));
  }

  private choose(box: Box): void {
    this.current = box.id;
    this.handlers.select(box);
  }

  private point(line: Line | null, event?: PointerEvent): void {
    this.tip.hidden = line === null;
    if (!line || !event) return;
    this.tip.replaceChildren(...this.handlers.tooltip(line).map((text) => h("div", {}, text)));
    const frame = this.element.getBoundingClientRect();
    const left = Math.min(event.clientX - frame.left + 14, frame.width - this.tip.offsetWidth - 8);
    const top = Math.min(event.clientY - frame.top + 14, frame.height - this.tip.offsetHeight - 8);
    this.tip.style.left = `${Math.max(4, left)}px`;
    this.tip.style.top = `${Math.max(4, top)}px`;
  }

  private key(event: KeyboardEvent): void {
    const acts: Record<string, () => void> = {
      Enter: () => this.chooseCurrent(),
      " ": () => this.chooseCurrent(),
      Escape: () => this.handlers.select(null),
      ArrowUp: () => this.walk(0, -1),
      ArrowDown: () => this.walk(0, 1),
      ArrowLeft: () => this.walk(-1, 0),
      ArrowRight: () => this.walk(1, 0),
      "+": () => this.zoomBy(1.4),
      "-": () => this.zoomBy(1 / 1.4),
      "0": () => this.fit(),
    };
    const act = acts[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  private chooseCurrent(): void {
    const box = this.scene?.boxes.find((each) => each.id === this.current);
    if (box) this.choose(box);
  }

  /** Move the focus to the nearest box in a direction. */
  private walk(dx: number, dy: number): void {
    const boxes = this.scene?.boxes ?? [];
    const here = boxes.find((box) => box.id === this.current);
    if (!here) return;
    const distance = (box: Box) => {
      const along = (box.x - here.x) * dx + (box.y - here.y) * dy;
      const aside = Math.abs((box.x - here.x) * dy) + Math.abs((box.y - here.y) * dx);
      return along > 1 ? along + 2 * aside : Infinity;
    };
    const there = boxes.reduce((best, box) => (distance(box) < distance(best) ? box : best), here);
    if (distance(there) === Infinity) return;
    this.focus(there.id);
  }

  private focus(id: string): void {
    this.current = id;
    for (const element of this.canvas.querySelectorAll<SVGGElement>(".boxes > g")) {
      const isIt = element.dataset.name === id;
      element.setAttribute("tabindex", isIt ? "0" : "-1");
      if (isIt) element.focus({ preventScroll: true });
    }
  }

  /** Width by height of the room that there is. */
  get aspect(): number {
    const { clientWidth: width, clientHeight: height } = this.svg;
    return width && height ? width / height : 1;
  }

  zoomBy(factor: number): void {
    this.behaviour.scaleBy(select(this.svg), factor);
  }

  /** Show the whole picture. */
  fit(): void {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!this.scene || !width || !height) return;
    const { bounds } = this.scene;
    const scale = Math.min(width / bounds.width, height / bounds.height, 1.8);
    const x = width / 2 - scale * (bounds.x + bounds.width / 2);
    const y = height / 2 - scale * (bounds.y + bounds.height / 2);
    this.follow(zoomIdentity.translate(x, y).scale(scale));
  }

  /** Follow another view. */
  follow(transform: ZoomTransform): void {
    this.silent = true;
    this.behaviour.transform(select(this.svg), transform);
    this.silent = false;
  }
}

/** A band with the name of its place above and below, and what the first prompt has there. */
function columnParts({ name, tokens, left, right, top, floor, bottom }: Column): Node[] {
  const x = (left + right) / 2;
  return [
    s("rect", { x: left - 4, y: top, width: right - left + 8, height: bottom - top, rx: 4 }),
    s("text", { x, y: top + NAME_ROOM / 2 + 4 }, name),
    s("text", { x, y: floor + NAME_ROOM / 2 + 4 }, name),
    ...tokens.map((line, i) => s("text", { class: "token-line", x, y: floor + NAME_ROOM + (i + 0.7) * TOKEN_LINE }, line)),
  ];
}

function breadthOf(line: Line): number {
  if (line.tone === "open") return 0.6;
  if (line.tone.startsWith("now-")) return 3;
  return line.strength === null ? 1.3 : widthOf(line.strength);
}

/** In large pictures weak lines fade. */
function opacityOf(line: Line, many: boolean): number {
  if (!many) return 1;
  if (line.tone === "open") return 0.18;
  if (line.tone.startsWith("now-")) return 1;
  return line.strength === null ? 0.5 : 0.14 + 0.86 * line.strength ** 2;
}

/** A box and the one in which it stands, by name. */
function withFrame({ id, frame }: Box): string[] {
  return frame ? [id, frame.id] : [id];
}
