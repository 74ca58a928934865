// The graph, in a thread of its own, so that the page stays alive while it runs. Loaded by
// ask_graph.js, which sends questions; one is answered after the other.

import { pixelsOf } from "./image_pixels.js";

const LIBRARY = new URL("./onnxruntime-web/", import.meta.url).href;
const KINDS = { float32: Float32Array, float16: Uint16Array };
const SHOWN = 5; // labels of an answer, at most

const loaded = new Map(); // folder of a model → promise of what runs it
const tables = new Map(); // file of an adapter → promise of what it feeds
let newest = 0; // number of the image that was asked about last
let prepared = { number: 0 }; // the last image, ready
let turn = Promise.resolve();

// ---- loading -------------------------------------------------------------------------------------

async function bytesOf(file, told = () => {}) {
  const response = await fetch(new URL(file.address, import.meta.url));
  if (!response.ok) throw new Error(`${file.name}: the web server answered ${response.status}`);
  const bytes = new Uint8Array(file.bytes), reader = response.body.getReader();
  let got = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (got + part.value.length > bytes.length) break;
    bytes.set(part.value, got);
    told(got += part.value.length);
  }
  if (got !== bytes.length) throw new Error(`${file.name}: has not the ${bytes.length} bytes that it was exported with`);
  return bytes;
}

// Threads share memory, which browsers allow where the host isolates the page from others.
function threads(asked) {
  const cores = navigator.hardwareConcurrency || 1;
  return self.crossOriginIsolated ? asked || (cores < 4 ? cores : Math.min(8, Math.ceil(cores / 2))) : 1;
}

async function session(graph, provider, asked) {
  const [name, build] = provider === "webgpu" ? ["webgpu", "threaded.asyncify"] : ["wasm", "threaded"];
  const ort = await import(`${LIBRARY}ort.${name}.min.js`), file = `${LIBRARY}ort-wasm-simd-${build}`;
  ort.env.logLevel = "error"; // of WebGPU it tells which nodes stay on the processor
  ort.env.wasm.wasmPaths = { mjs: `${file}.js`, wasm: `${file}.wasm` };
  ort.env.wasm.numThreads = threads(asked);
  const made = await ort.InferenceSession.create(graph, { executionProviders: [provider] });
  return { ort, session: made, backend: provider, threads: ort.env.wasm.numThreads };
}

// int8 is faster on the processor: WebGPU has no such arithmetic here.
async function usable(precision) {
  const adapter = precision !== "int8" && await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && (precision !== "fp16" || adapter.features.has("shader-f16"));
}

async function load(model, choice) {
  const told = (got) => self.postMessage({ loading: model.name, got, bytes: model.graph.bytes });
  const graph = await bytesOf(model.graph, told);
  const wanted = choice.backend || (await usable(model.precision) ? "webgpu" : "wasm");
  let made, why = "";
  try {
    made = await session(graph, wanted, choice.threads);
    await warm(made, model);
  } catch (error) {
    if (choice.backend || wanted === "wasm") throw error;
    why = error.message;
    made = await session(graph, "wasm", choice.threads);
    await warm(made, model);
  }
  const { backend, threads, apart } = made, allowed = model.check?.tolerance;
  self.postMessage({ loaded: model.name, backend, threads, apart, allowed, isolated: self.crossOriginIsolated, why });
  return made;
}

// The first run plans memory, and on a GPU compiles. It is of the golden image, where the bundle has one, whose
// answer must be the reference's: a kernel that is wrong here shall not answer in silence.
async function warm(made, model) {
  const { check, preprocess: { input_size: [, height, width] } } = model;
  const pixels = check ? await bytesOf(check) : new Uint8Array(height * width * 3);
  const { logits } = await run(made, model, model.adapters[0], pixels);
  if (!check) return;
  const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  made.apart = largest(check.logits.map((value, i) => value - logits[i])) / largest(check.logits);
  if (!(made.apart <= check.tolerance)) {
    throw new Error(`it answers the golden image otherwise than the reference, by ${made.apart.toExponential(0)}`);
  }
}

// ---- running -------------------------------------------------------------------------------------

async function fed(adapter) {
  const bytes = await bytesOf(adapter.tables);
  return adapter.tables.values.map(({ name, dtype, shape, offset, count }) =>
    [name, dtype, new KINDS[dtype](bytes.buffer, offset, count), shape]);
}

async function tablesOf(adapter) {
  if (!adapter.tables) return [];
  const name = adapter.tables.name;
  if (!tables.has(name)) {
    tables.set(name, fed(adapter));
    tables.get(name).catch(() => tables.delete(name)); // the next question tries again
  }
  return tables.get(name);
}

async function run({ ort, session }, model, adapter, pixels) {
  const [, height, width] = model.preprocess.input_size;
  const feeds = { [model.input]: new ort.Tensor("uint8", pixels, [1, height, width, 3]) };
  if (model.layout === "bank") {
    feeds.adapter = new ort.Tensor("int32", Int32Array.of(adapter.index), [1]);
    for (const [name, dtype, values, shape] of await tablesOf(adapter)) {
      feeds[name] = new ort.Tensor(dtype, values, shape);
    }
  }
  const found = await session.run(feeds);
  const row = (name) => found[name] && Float32Array.from(found[name].data.subarray(0, adapter.labels.length));
  return { logits: row("logits"), scores: row("scores") };
}

function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b)), every = Float64Array.from(logits, (v) => Math.exp(v - most));
  const sum = every.reduce((a, b) => a + b);
  return every.map((value) => value / sum);
}

// Labels with their scores, best first; where an image may have several, also those that it is given.
function told({ logits, scores }, { labels, thresholds }) {
  if (![logits, scores].every((values) => !values || values.every(Number.isFinite))) {
    throw new Error("the logits hold NaN or Inf; the graph overflows on this image");
  }
  const shares = thresholds ? scores : softmax(logits);
  const ranked = Array.from(shares, (score, i) => ({ label: labels[i], score, i })).sort((a, b) => b.score - a.score);
  const plain = ({ label, score }) => ({ label, score });
  const top = ranked.slice(0, SHOWN).map(plain);
  const given = thresholds && ranked.filter(({ score, i }) => score >= Math.fround(thresholds[i])).map(plain);
  return { ...top[0], top, ...(given ? { labels: given } : {}), logits };
}

async function ready(model, image, number) {
  if (prepared.number !== number || prepared.model !== model.folder) {
    const begun = performance.now(), pixels = await pixelsOf(image, model.preprocess, model.pillow);
    prepared = { number, model: model.folder, pixels, ms: performance.now() - begun };
  }
  return prepared;
}

function readyGraph(model, choice) {
  if (!loaded.has(model.folder)) {
    loaded.set(model.folder, load(model, choice));
    loaded.get(model.folder).catch(() => loaded.delete(model.folder));
  }
  return loaded.get(model.folder);
}

async function answer({ model, adapter, image, number, choice }) {
  await new Promise((done) => setTimeout(done)); // newer questions may have come
  if (number !== newest) throw Object.assign(new Error("another image came meanwhile"), { late: true });
  const made = await readyGraph(model, choice), { pixels, ms } = await ready(model, image, number);
  if (model.layout === "bank") await tablesOf(adapter);
  const begun = performance.now(), found = await run(made, model, adapter, pixels);
  const runMs = performance.now() - begun;
  return { ...told(found, adapter), ms: ms + runMs, runMs };
}

self.onmessage = ({ data }) => {
  if (data.number) newest = data.number;
  const work = data.image ? () => answer(data) : () => readyGraph(data.model, data.choice).then(() => ({}));
  turn = turn.then(work).then(
    (found) => self.postMessage({ id: data.id, found }),
    (error) => self.postMessage({ id: data.id, error: error.message || String(error), late: error.late }),
  );
};
