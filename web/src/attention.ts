// Where a head looks: its pattern on a prompt as a heatmap, and row by row in numbers.

import { button, h, s } from "./dom";
import type { Attention, PatternKind, Prompt, Run } from "./data";
import { unpack } from "./data";
import { tokenText } from "./text";
import type { Store } from "./store";

const KINDS: [PatternKind, string][] = [
  ["clean", "clean prompt"],
  ["corrupted", "corrupted prompt"],
  ["circuit", "clean prompt, in the circuit"],
];
const MOST_LISTED = 5;

let kind: PatternKind = "clean";

export function attentionPanel(run: Run, head: string, store: Store): HTMLElement {
  const attention = run.attention;
  if (!attention) return note("The model was not at hand when this report was written.");
  if (!attention.heads.clean?.[head])
    return note(
      "The pattern of this head is not stored: it would make the file too large, and the head is " +
        "not in the circuit.",
    );
  const place = h("div", { class: "attention" });
  const show = () => place.replaceChildren(...shown(attention, head, store, show));
  show();
  return place;
}

function note(text: string): HTMLElement {
  return h("p", { class: "quiet" }, text);
}

function shown(
  attention: Attention,
  head: string,
  store: Store,
  again: () => void,
): HTMLElement[] {
  const index = Math.min(store.state.prompt, attention.prompts.length - 1);
  const prompt = attention.prompts[index];
  const tokens = kind === "corrupted" ? prompt.corrupted : prompt.clean;
  const pattern = unpack(attention.heads[kind]![head][index], tokens.length, attention.causal);
  const choices = h(
    "div",
    { class: "row" },
    promptChoice(attention.prompts, index, (chosen) => {
      store.set({ prompt: chosen });
      again();
    }),
    kindChoice((chosen) => {
      kind = chosen;
      again();
    }),
  );
  return [choices, ...patternView(head, tokens, pattern, prompt)];
}

function promptChoice(prompts: Prompt[], index: number, choose: (i: number) => void) {
  const options = prompts.map((prompt, i) => {
    const text = prompt.text.trim();
    const short = text.length > 70 ? `${text.slice(0, 69)}…` : text;
    return h("option", { value: i, selected: i === index }, `${i + 1}. ${short}`);
  });
  const onchange = (event: Event) => choose(Number((event.target as HTMLSelectElement).value));
  return h("select", { "aria-label": "Prompt", class: "prompt", onchange }, ...options);
}

function kindChoice(choose: (kind: PatternKind) => void) {
  const options = KINDS.map(([value, text]) =>
    h("option", { value, selected: value === kind }, text),
  );
  const onchange = (event: Event) =>
    choose((event.target as HTMLSelectElement).value as PatternKind);
  return h("select", { "aria-label": "Which run", class: "kind", onchange }, ...options);
}

function patternView(
  head: string,
  tokens: string[],
  pattern: (number | null)[][],
  prompt: Prompt,
): HTMLElement[] {
  const readout = h("p", { class: "readout", "aria-live": "polite" });
  const strip = h("div", { class: "tokens", role: "group", "aria-label": "Look from this token" });
  const list = h("ol", { class: "weights" });
  const names = namesOf(prompt);
  let from = prompt.steps.at(-1) ?? tokens.length - 1;

  const map = heatmap(head, tokens, pattern, (query, key) => {
    if (query !== from) choose(query);
    say(query, key);
  });
  const buttons = tokens.map((token, position) =>
    button(
      h("span", {}, tokenText(token)),
      {
        class: "token",
        "data-position": position,
        title: [`position ${position}`, ...(names.get(position) ?? [])].join(", "),
        onclick: () => choose(position),
      },
      names.has(position) && h("small", {}, names.get(position)!.join(" ")),
    ),
  );
  strip.append(...buttons);

  function say(query: number, key: number): void {
    const weight = pattern[query][key];
    const share = weight === null ? "cannot see" : "attends to";
    readout.textContent =
      `“${tokenText(tokens[query])}” (${query}) ${share} “${tokenText(tokens[key])}” (${key})` +
      (weight === null ? "" : `: ${weight.toFixed(3)}`);
  }

  function choose(query: number): void {
    from = query;
    buttons.forEach((each, position) => {
      const weight = pattern[query][position] ?? 0;
      each.style.setProperty("--weight", String(weight));
      each.setAttribute("aria-pressed", String(position === query));
    });
    map.mark(query);
    const row = pattern[query].map((weight, key) => ({ weight: weight ?? 0, key }));
    row.sort((a, b) => b.weight - a.weight || a.key - b.key);
    list.replaceChildren(
      ...row.slice(0, MOST_LISTED).map(({ weight, key }) => weightRow(tokens[key], key, weight)),
    );
    say(query, row[0].key);
  }

  choose(from);
  const answers = prompt.answers.map(tokenText).join(" ") || "—";
  const wrong = prompt.wrongAnswers.map(tokenText).join(" ");
  return [
    h("p", { class: "quiet" }, `answer ${answers}${wrong ? `, not ${wrong}` : ""}`),
    strip,
    map.element,
    readout,
    list,
  ];
}

function weightRow(token: string, key: number, weight: number): HTMLElement {
  const bar = h("span", { class: "bar" });
  bar.style.setProperty("--share", String(weight));
  return h(
    "li",
    {},
    h("span", { class: "name" }, `${tokenText(token)} (${key})`),
    bar,
    h("span", { class: "figure" }, weight.toFixed(3)),
  );
}

function namesOf(prompt: Prompt): Map<number, string[]> {
  const names = new Map<number, string[]>();
  for (const [name, position] of Object.entries(prompt.positions))
    names.set(position, [...(names.get(position) ?? []), name]);
  return names;
}

const MOST_LABELLED = 40;

function heatmap(
  head: string,
  tokens: string[],
  pattern: (number | null)[][],
  point: (query: number, key: number) => void,
) {
  const labelled = tokens.length <= MOST_LABELLED;
  const cell = labelled ? 16 : Math.max(4, Math.floor(640 / tokens.length));
  const longest = Math.max(...tokens.map((token) => Math.min(10, tokenText(token).length)));
  const room = labelled ? 8 + 6.2 * longest : 4;
  const side = tokens.length * cell;
  const cells = pattern.flatMap((row, query) =>
    row.flatMap((weight, key) =>
      weight === null
        ? []
        : [
            s("rect", {
              x: room + key * cell,
              y: room + query * cell,
              width: cell - (cell > 8 ? 1 : 0),
              height: cell - (cell > 8 ? 1 : 0),
              "data-query": query,
              "data-key": key,
              "data-weight": weight.toFixed(5),
              "fill-opacity": Math.max(0.04, weight).toFixed(4),
            }),
          ],
    ),
  );
  const mark = s("rect", { class: "mark", x: room, width: side, height: cell });
  const labels = labelled ? tokens.flatMap((token, i) => axisLabels(token, i, room, cell)) : [];
  const element = s(
    "svg",
    {
      class: "pattern",
      role: "img",
      "aria-label": `Attention pattern of ${head}: rows look at columns`,
      viewBox: `0 0 ${room + side + 2} ${room + side + 2}`,
      width: room + side + 2,
    },
    s("g", { class: "cells" }, ...cells),
    ...labels,
    mark,
  );
  const pointed = (event: Event) => {
    const { query, key } = (event.target as SVGElement).dataset;
    if (query !== undefined && key !== undefined) point(Number(query), Number(key));
  };
  element.addEventListener("pointerover", pointed);
  element.addEventListener("click", pointed);
  const frame = h("div", { class: "pattern-frame" });
  frame.append(element);
  return {
    element: frame,
    mark: (query: number) => mark.setAttribute("y", String(room + query * cell)),
  };
}

function axisLabels(token: string, index: number, room: number, cell: number): SVGElement[] {
  const text = tokenText(token);
  const short = text.length > 10 ? `${text.slice(0, 9)}…` : text;
  const middle = room + index * cell + cell / 2;
  return [
    s("text", { x: room - 4, y: middle + 3.5, "text-anchor": "end" }, short),
    s("text", { transform: `translate(${middle + 3.5},${room - 4}) rotate(-90)` }, short),
  ];
}

