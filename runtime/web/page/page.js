import * as source from "./source.js"; // ask_server.js, or ask_graph.js of `vptkit export --target web`
import { ms, percent } from "./words.js";

const SIDE = 1024; // pixels that a frame of the camera has at most
const at = (id) => document.getElementById(id);
const made = (tag, text, kind) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

let models = [];
let chosen = new Set();
let image = null; // the Blob that is asked about
let asked = 0; // number of the last question, so that a late answer to another is not shown
let stream = null;

const model = () => models.find((one) => one.name === at("model").value) || models[0];

// ---- the state -----------------------------------------------------------------------------------

async function look() {
  try {
    const found = await source.state();
    at("token").hidden = true;
    show(found);
  } catch (error) {
    if (error.status === 401) at("token").hidden = false;
    at("status").textContent = error.message;
  }
}

function show(found) {
  const before = JSON.stringify(models.map((one) => [one.name, one.adapters]));
  models = found.models;
  const status = source.statusOf(found);
  if (at("status").textContent !== status) at("status").textContent = status;
  if (before !== JSON.stringify(models.map((one) => [one.name, one.adapters]))) {
    options(at("model"), models.map((one) => one.name));
    at("model-row").hidden = models.length < 2;
    adapters();
  }
  at("changes").hidden = !found.editable || model().layout !== "bank";
  facts(at("state"), source.facts(found));
}

function options(select, names) {
  const kept = select.value;
  select.replaceChildren(...names.map((name) => {
    const option = made("option", name);
    option.value = name;
    return option;
  }));
  if (names.includes(kept)) select.value = kept;
}

function facts(list, entries) {
  list.replaceChildren(...Object.entries(entries).flatMap(([name, value]) =>
    [made("dt", name), made("dd", value)]));
}

// ---- adapters ------------------------------------------------------------------------------------

function adapters() {
  const names = model().adapters;
  chosen = new Set([...chosen].filter((name) => names.includes(name)));
  if (!chosen.size) chosen = new Set(names.slice(0, 4));
  at("filter-row").hidden = names.length < 9;
  const word = at("filter").value.toLowerCase();
  const shown = names.filter((name) => name.toLowerCase().includes(word));
  at("adapters").replaceChildren(...shown.map(box));
}

function box(name) {
  const label = made("label"), input = made("input");
  input.type = "checkbox";
  input.checked = chosen.has(name);
  input.addEventListener("change", () => {
    if (input.checked) chosen.add(name); else chosen.delete(name);
    ask();
  });
  label.append(input, made("span", name));
  return label;
}

function tick(all) {
  for (const label of at("adapters").children) {
    if (all) chosen.add(label.textContent);
  }
  if (!all) chosen.clear();
  for (const input of at("adapters").querySelectorAll("input")) input.checked = all;
  ask();
}

// ---- questions and answers -----------------------------------------------------------------------

async function ask() {
  if (!image || !models.length) return;
  const number = ++asked, names = model().adapters.filter((name) => chosen.has(name));
  if (!names.length) {
    at("answers").replaceChildren();
    at("summary").textContent = "No adapter is chosen.";
    return;
  }
  const found = await Promise.all(names.map((name) =>
    source.answer(image, model().name, name).catch((error) => ({ error: error.message }))));
  if (number !== asked) return;
  at("answers").replaceChildren(...found.map((one, i) => card(names[i], one)));
  const bad = found.filter((one) => one.error);
  const text = bad.length === found.length ? `No answer: ${bad[0].error}`
    : found.map((one, i) => `${names[i]}: ${one.error ? "no answer" : word(one)}`).join("; ");
  if (at("summary").textContent !== text) at("summary").textContent = text;
}

// Of the camera without numbers: it is read aloud whenever it changes.
function word(one) {
  if (one.labels) return one.labels.map((pair) => pair.label).join(" and ") || "none of its labels";
  return stream ? one.label : `${one.label}, ${percent(one.score)}`;
}

function card(name, one) {
  const element = made("article", undefined, "answer");
  element.append(made("h3", name));
  if (one.error) {
    element.append(made("p", one.error, "bad"));
    return element;
  }
  const list = made("ol");
  const given = new Set((one.labels || []).map((pair) => pair.label));
  for (const pair of one.top) {
    const line = made("li"), mark = given.has(pair.label) ? "✓ " : "";
    line.append(bar(pair.score), made("span", mark + pair.label), made("span", percent(pair.score)));
    list.append(line);
  }
  element.append(list, made("p", ms(one.ms), "time"));
  return element;
}

function bar(score) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), rect = document.createElementNS(space, "rect");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("height", "100%");
  rect.setAttribute("width", `${100 * Math.min(Math.max(score, 0), 1)}%`);
  svg.append(rect);
  return svg;
}

// ---- where images come from ----------------------------------------------------------------------

function take(file) {
  if (!file) return;
  at("problem").textContent = "";
  stop();
  image = file;
  const preview = at("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = `The image that is asked about: ${file.name || "pasted"}`;
  preview.hidden = false;
  at("hint").hidden = true;
  ask();
}

function first(items) {
  const file = [...items].find((one) => one instanceof File);
  if (!file) at("problem").textContent = "That was no file: drop an image from this computer.";
  return file;
}

async function camera() {
  if (stream) { stop(); return; }
  at("problem").textContent = "";
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    at("problem").textContent = `The camera cannot be used: ${error.message}`;
    return;
  }
  const video = at("video");
  video.srcObject = stream;
  await video.play();
  video.hidden = false;
  at("preview").hidden = at("hint").hidden = true;
  at("camera").textContent = "Stop the camera";
  at("camera").setAttribute("aria-pressed", "true");
  watch(stream);
}

// A frame is asked about when the answers to the one before it are there: none waits.
async function watch(own) {
  const video = at("video"), canvas = document.createElement("canvas");
  while (stream === own) {
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const frame = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    if (stream !== own) return;
    image = frame;
    await ask();
    await new Promise((done) => setTimeout(done, 100));
  }
}

function stop() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  at("video").hidden = true;
  at("hint").hidden = false;
  at("camera").textContent = "Use the camera";
  at("camera").setAttribute("aria-pressed", "false");
}

// ---- adapters of a bank are changed --------------------------------------------------------------

async function change(verb, call) {
  const button = at("upload").querySelector("[type=submit]");
  button.disabled = at("remove").disabled = true;
  at("changed").textContent = `${verb}…`;
  try {
    const found = await call();
    await look();
    at("changed").textContent = "removed" in found ? `Removed ${found.removed}.`
      : `Done: ${found.adapters.length} adapters.`;
    ask();
  } catch (error) {
    at("changed").textContent = `Not done: ${error.message}`;
  }
  button.disabled = at("remove").disabled = false;
}

// ---- begin ---------------------------------------------------------------------------------------

at("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
at("camera").addEventListener("click", camera);
at("all").addEventListener("click", () => tick(true));
at("none").addEventListener("click", () => tick(false));
at("filter").addEventListener("input", adapters);
at("model").addEventListener("change", () => { chosen.clear(); adapters(); ask(); });
at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  source.use(at("user").value);
  look();
});
at("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("name").value, file = at("adapter").files[0];
  change("Adding", () => source.put(model().name, name, file, at("admin").value));
});
at("remove").addEventListener("click", () => {
  const name = at("name").value, admin = at("admin").value;
  if (!name || !admin) { at("changed").textContent = "Name the adapter, and enter the token."; return; }
  if (confirm(`Remove the adapter ${name}?`)) {
    change("Removing", () => source.remove(model().name, name, admin));
  }
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a file that misses the field would be opened in the page's place
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(first(event.dataTransfer.files));
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(first(event.clipboardData.files));
});
at("live").textContent = source.place;
at("late").remove();
look();
setInterval(look, source.every);
