// How the page gets its answers without a server: the graph runs in this browser, in graph_worker.js.
// ask_server.js has the same functions. What is beside it says manifest.json.

import { count, ms } from "./words.js";

export const place = "This browser";
export const every = 1000; // milliseconds between two looks at the state
const KEPT = 60; // seconds of which the times are shown
// ?backend=wasm and ?threads=1, to compare
const asked = new URLSearchParams(location.search);
const choice = { backend: asked.get("backend"), threads: Number(asked.get("threads")) || 0 };
const NAMES = { wasm: "WebAssembly", webgpu: "WebGPU" };

const worker = new Worker(new URL("./graph_worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // number of a question → what to do with its answer
const numbers = new WeakMap(); // image → its number: the worker keeps the last one's pixels
const backends = new Map(); // model → where it runs
const times = []; // of the last minute: {at, ms, failed}
let questions = 0, images = 0, status = "Loading…", begun = null;

worker.onmessage = ({ data }) => {
  if (data.loading) status = `Loading ${data.loading}: ${megabytes(data.got)} of ${megabytes(data.bytes)} MB`;
  if (data.loaded) {
    backends.set(data.loaded, data);
    status = ready(data);
  }
  if (data.id) {
    const { done, failed } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) failed(Object.assign(new Error(data.error), { late: data.late }));
    else done(data.found);
  }
};
worker.onerror = (event) => {
  const error = new Error(`The part that runs the graph failed: ${event.message || "it could not be loaded"}`);
  status = error.message;
  for (const { failed } of waiting.values()) failed(error);
  waiting.clear();
};

const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

function ready({ backend, threads, isolated, why }) {
  const where = backend === "webgpu" ? NAMES.webgpu : `${NAMES.wasm}, ${count(threads, "thread")}`;
  const alone = backend === "wasm" && !isolated
    ? ". This host does not isolate the page (COOP and COEP headers), so it has one thread" : "";
  return `Ready: ${where}${alone}${why ? `. WebGPU failed: ${why}` : ""}`;
}

function send(message) {
  return new Promise((done, failed) => {
    const id = ++questions;
    waiting.set(id, { done, failed });
    worker.postMessage({ ...message, id, choice });
  });
}

// Files are asked for with a part of their digest, so that a browser has none of an earlier export.
function dated(model, digests) {
  for (const file of [model.graph, model.check, ...model.adapters.map((one) => one.tables)]) {
    if (file) file.address = `${file.name}?${digests[file.name].slice(0, 12)}`;
  }
}

async function begin() {
  const response = await fetch(new URL("manifest.json", import.meta.url), { cache: "no-cache" });
  if (!response.ok) throw new Error(`manifest.json: the web server answered ${response.status}`);
  const found = await response.json();
  if (found.format !== "vptkit.web/1") throw new Error("manifest.json: is not of this page");
  found.models.forEach((model) => dated(model, found.files));
  send({ model: found.models[0] }).catch((error) => { status = `The graph cannot run: ${error.message}`; });
  return found;
}

function manifest() {
  begun ??= begin();
  begun.catch(() => { begun = null; });
  return begun;
}

// Models with their adapters; the times of the last minute.
export async function state() {
  const { models } = await manifest(), now = performance.now();
  while (times.length && now - times[0].at > 1000 * KEPT) times.shift();
  return {
    models: models.map((model) => ({
      name: model.name, layout: model.layout, adapters: model.adapters.map((one) => one.name),
      about: `${model.backbone}, ${model.precision}, ${megabytes(model.graph.bytes)} MB`,
    })),
    status, editable: false,
  };
}

export const statusOf = (found) => found.status;

function quantile(share) {
  const sorted = times.filter((one) => !one.failed).map((one) => one.ms).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.ceil(share * sorted.length) - 1] : null;
}

export function facts(found) {
  const failed = times.filter((one) => one.failed).length;
  return {
    "Runs on": [...backends.values()].map(({ loaded, backend, threads }) =>
      `${loaded}: ${NAMES[backend]}${backend === "wasm" ? `, ${count(threads, "thread")}` : ""}`).join("; ") || "-",
    "Golden answer": [...backends.values()].map(({ apart, allowed }) => apart === undefined
      ? "none to compare with"
      : `differs by ${apart.toExponential(0)} (allowed ${allowed.toExponential(0)})`).join("; ") || "-",
    "Graph": found.models.map((one) => one.about).join("; "),
    "p50": ms(quantile(0.5)), "p99": ms(quantile(0.99)),
    "Answered": `${times.length} in the last ${KEPT} s, ${failed} failed`,
    "Your images": "stay in this browser",
  };
}

// {top: [{label, score}], labels: […] where an image may have several, ms, runMs of the graph, logits}
export async function answer(image, name, adapter) {
  const { models } = await manifest(), model = models.find((one) => one.name === name);
  if (!numbers.has(image)) numbers.set(image, ++images);
  const whom = model.adapters.find((one) => one.name === adapter) || model.adapters[0];
  try {
    const found = await send({ model, adapter: whom, image, number: numbers.get(image) });
    times.push({ at: performance.now(), ms: found.ms });
    return found;
  } catch (error) {
    if (!error.late) times.push({ at: performance.now(), failed: true });
    throw error;
  }
}
