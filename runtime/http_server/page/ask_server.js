// How the page gets its answers from `vptkit serve`: one request an adapter, all at once, which the
// server runs as one batch. Another source of answers has the same functions.

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
  return told(await fetch("state", { headers: headers(), cache: "no-store" }));
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
