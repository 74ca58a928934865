// How the page gets its answers from `vptkit serve`: one request an adapter, all at once, which the
// server runs as one batch. ask_graph.js has the same functions, without a server.

import { count, ms } from "./words.js";

export const place = "Server";
export const every = 2000; // milliseconds between two looks at the state
let token = "";

export function use(given) { token = given; }

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function told(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(body.error || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return body;
}

// Models with their adapters, the queue, the last minute's times.
export async function state() {
  const asked = fetch("state", { headers: headers(), cache: "no-store" });
  return told(await asked.catch(() => { throw new Error("The server does not answer."); }));
}

export function statusOf({ models, ready }) {
  const all = models.reduce((sum, one) => sum + one.adapters.length, 0);
  return `${ready ? "Ready" : "Shutting down"}: ${count(models.length, "model")}, ${count(all, "adapter")}`;
}

export function facts(found) {
  return {
    "Backend": [...new Set(found.models.map((one) => one.backend))].join(", "),
    "Queue": found.models.map((one) => `${one.held} of ${one.size}`).join(", "),
    "Images a second": found.images_per_s.toFixed(1),
    "p50": ms(found.p50_ms), "p99": ms(found.p99_ms),
    "Requests": `${found.requests} in the last ${found.seconds} s, ${found.failed} failed`,
  };
}

// {top: [{label, score}], labels: […] where an image may have several, ms}
export async function answer(image, model, adapter) {
  const query = new URLSearchParams({ model, top_k: "5" });
  if (adapter !== null) query.set("adapter", adapter);
  const begun = performance.now();
  const found = await told(await fetch(`../predict?${query}`, {
    method: "POST", body: image,
    headers: headers({ "Content-Type": "application/octet-stream" }),
  }));
  return { ...found.predictions[0], ms: performance.now() - begun };
}

export async function put(model, name, file, admin) {
  const place = `../adapters/${encodeURIComponent(name)}?${new URLSearchParams({ model })}`;
  return told(await fetch(place, {
    method: "PUT", body: file,
    headers: { Authorization: `Bearer ${admin}`, "Content-Type": "application/octet-stream" },
  }));
}

export async function remove(model, name, admin) {
  const place = `../adapters/${encodeURIComponent(name)}?${new URLSearchParams({ model })}`;
  return told(await fetch(place, { method: "DELETE", headers: { Authorization: `Bearer ${admin}` } }));
}
