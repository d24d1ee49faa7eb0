// Bundle the page into the Python package, with the licences of all that goes into the bundle.

import { readFileSync, writeFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const assets = "../circuitfind/reports/page/assets";

const common = { bundle: true, minify: true, target: "es2022", charset: "ascii", logLevel: "warning" };
const script = await build({
  ...common,
  entryPoints: ["src/main.ts"],
  outfile: join(assets, "page.js"),
  format: "iife",
  legalComments: "none",
  metafile: true,
});
await build({ ...common, entryPoints: ["src/page.css"], outfile: join(assets, "page.css") });

const bundled = new Set(
  Object.keys(script.metafile.inputs)
    .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
    .filter(Boolean),
);
const notices = [...bundled].sort().map((name) => {
  const folder = join("node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf-8"));
  const file = ["LICENSE", "LICENSE.md", "LICENCE"].map((n) => join(folder, n)).find(existsSync);
  return `${name} ${version} (${license})\n\n${readFileSync(file, "utf-8").trim()}\n`;
});
const head = "page.js contains these packages, under their own licences.\n";
writeFileSync(join(assets, "third-party.txt"), [head, ...notices].join(`\n${"-".repeat(72)}\n\n`));
