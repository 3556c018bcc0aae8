/**
 * Build the page from its sources: `npm run build`, which `make page` calls.
 *
 * It writes what `simmat export --html` puts together: the page with its script and style, the worker and
 * onnxruntime's WebAssembly (for the processor alone, and with WebGPU), and the licences of what they contain. The same
 * sources and lock file give the same bytes.
 */

import { build } from "esbuild";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const HERE = dirname(fileURLToPath(import.meta.url));
const MODULES = join(HERE, "node_modules");
const OUT = join(HERE, "..", "src", "simmat_plugin_export", "page");
const TESTING = join(HERE, "build");
/** The licences of packages that do not contain them. */
const UNSTATED = {
  "onnxruntime-web": join(HERE, "licences/onnxruntime-web.txt"),
  lerc: join(HERE, "..", "LICENSE"), // Apache 2.0 as well
};
/** Kind of worker -> the entry of onnxruntime-web that it contains, and its WebAssembly. */
const WORKERS = {
  plain: ["onnxruntime-web/wasm", "ort-wasm-simd-threaded.wasm"],
  webgpu: ["onnxruntime-web/webgpu", "ort-wasm-simd-threaded.asyncify.wasm"],
};

const common = {
  absWorkingDir: HERE,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  logOverride: { "empty-import-meta": "silent" },
  write: false,
  metafile: true,
};

/** The packages whose code is in a bundle. */
const used = new Set(["onnxruntime-web"]);

async function bundled(entry, options = {}) {
  const result = await build({ ...common, entryPoints: [entry], ...options });
  for (const file of Object.keys(result.metafile.inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file);
    if (found) used.add(found[1]);
  }
  return result.outputFiles[0].text;
}

function packed(content) {
  const gzip = gzipSync(content, { level: 9 });
  gzip[9] = 255; // the operating system that packed it, which must not change the page
  return gzip;
}

async function page(folder, script) {
  const html = await readFile(join(folder, "index.html"), "utf8");
  const style = join(folder, "style.css");
  const css = existsSync(style) ? await readFile(style, "utf8") : "";
  const parts = [];
  for (const place of ["<!-- policy -->", "<!-- style -->", "<!-- script -->"]) {
    if (html.split(place).length !== 2) throw new Error(`${folder}/index.html needs ${place} once`);
    parts.push(place);
  }
  return { html, css, script, parts };
}

async function licence(name) {
  const folder = join(MODULES, name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|thirdpartynotices|notice)/i.test(file)).sort();
  const texts = [];
  if (!files.length) texts.push(await readFile(UNSTATED[name], "utf8"));
  for (const file of files) texts.push(await readFile(join(folder, file), "utf8"));
  return { name: `${name} ${version}`, licence: license, text: texts.join("\n\n") };
}

await rm(OUT, { recursive: true, force: true });
await mkdir(OUT, { recursive: true });
await mkdir(TESTING, { recursive: true });
for (const [kind, [runtime, wasm]] of Object.entries(WORKERS)) {
  const code = await bundled("src/engine/worker.ts", { alias: { "onnxruntime-web/wasm": runtime } });
  await writeFile(join(OUT, `worker-${kind}.js.gz`), packed(code));
  await writeFile(join(OUT, `ort-${kind}.wasm.gz`), packed(await readFile(join(MODULES, "onnxruntime-web/dist", wasm))));
}
const testing = await page(join(HERE, "src/testing"), await bundled("src/testing/main.ts"));
await writeFile(join(TESTING, "page.json"), JSON.stringify(testing));
const cases = await bundled("src/testing/cases.ts", { format: "esm", platform: "node", minify: false });
await writeFile(join(TESTING, "cases.mjs"), cases);
const shown = await page(join(HERE, "src/page"), await bundled("src/entry.ts"));
await writeFile(join(OUT, "page.json"), JSON.stringify(shown));
const notices = [];
for (const name of [...used].sort()) notices.push(await licence(name));
await writeFile(join(OUT, "notices.json"), JSON.stringify(notices));
