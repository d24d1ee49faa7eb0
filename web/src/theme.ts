// Light or dark: as the system has it, until the reader chooses.

import { button } from "./dom";

export function themeButton(): HTMLButtonElement {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen: boolean | null = null;
  const toggle = button("", {
    class: "round theme",
    onclick: () => {
      chosen = !isDark();
      show();
    },
  });
  const isDark = () => chosen ?? system.matches;
  const show = () => {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    toggle.textContent = isDark() ? "☀" : "☾";
    toggle.title = isDark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  };
  system.addEventListener("change", show);
  show();
  return toggle;
}
