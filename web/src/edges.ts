// All edges that are shown, as a list that can be searched.

import { h, type Child } from "./dom";
import type { Run } from "./data";
import { edgeList } from "./details";
import type { Store } from "./store";
import { shownEdges } from "./strokes";
import { count } from "./text";

let wanted = "";

export function edgesPanel(runs: Run[], store: Store): Child[] {
  const place = h("div");
  const fill = () => {
    place.replaceChildren(
      ...runs.map((run) => {
        const shown = shownEdges(run, store.state);
        const found = shown.filter((edge) => edge.name.includes(wanted));
        return h(
          "section",
          {},
          runs.length > 1 && h("h2", { class: "run-name" }, run.name),
          h("p", { class: "quiet" }, `${count(found.length, "edge")} of ${shown.length.toLocaleString("en")} shown`),
          edgeList(found, run, store, (edge) => edge.whole),
        );
      }),
    );
  };
  const input = h("input", {
    type: "search",
    placeholder: "a9.h6, ->logits, .q …",
    "aria-label": "Only edges whose name contains",
    value: wanted,
    oninput: () => {
      wanted = input.value.trim();
      fill();
    },
  });
  fill();
  return [input, place];
}
