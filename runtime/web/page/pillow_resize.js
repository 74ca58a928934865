// Pillow's resampling of 8-bit images, to the bit: weights as whole numbers of 22 bits behind the
// point, rows and columns one after the other, each rounded. (Pillow, src/libImaging/Resample.c and, of
// "nearest", Geometry.c.) A canvas resizes in its own way, which a network was not tuned on.

const POINT = 22; // bits; a sum of 255 times weights stays within 32
const PI = Math.PI;

const sinc = (x) => x === 0 ? 1 : Math.sin(x * PI) / (x * PI);

// Name → how far the filter reaches, and its curve, which is even
const FILTERS = {
  bilinear: [1, (x) => x < 1 ? 1 - x : 0],
  bicubic: [2, (x) => x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0],
  lanczos: [3, (x) => x < 3 ? sinc(x) * sinc(x / 3) : 0],
};

// For outputs `from` to `from + count` of a row: where each begins in the input, and its weights.
function weights(inputs, outputs, from, count, [reach, curve]) {
  const scale = inputs / outputs, wide = Math.max(scale, 1), support = reach * wide;
  return Array.from({ length: count }, (_, i) => {
    const centre = (from + i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), inputs);
    const raw = [];
    let sum = 0;
    for (let x = first; x < end; x++) {
      const weight = curve(Math.abs((x - centre + 0.5) * (1 / wide)));
      raw.push(weight);
      sum += weight;
    }
    return { first, taps: Int32Array.from(raw, (w) => fixed(sum === 0 ? w : w / sum)) };
  });
}

const fixed = (weight) => Math.trunc(weight * (1 << POINT) + (weight < 0 ? -0.5 : 0.5));
const level = (sum) => { const found = sum >> POINT; return found < 0 ? 0 : found > 255 ? 255 : found; };

// Passes over RGB or RGBA (`step` numbers a pixel) of `width` pixels a row, which make RGB.

// One pixel: what a plan makes of pixels that lie `stride` numbers apart.
function weigh(out, at, source, begin, stride, taps) {
  let r = 1 << (POINT - 1), g = r, b = r, p = begin;
  for (let i = 0; i < taps.length; i++, p += stride) {
    const weight = taps[i];
    r = (r + source[p] * weight) | 0;
    g = (g + source[p + 1] * weight) | 0;
    b = (b + source[p + 2] * weight) | 0;
  }
  out[at] = level(r);
  out[at + 1] = level(g);
  out[at + 2] = level(b);
}

function rows(source, width, step, plan, top, end) {
  const out = new Uint8Array((end - top) * plan.length * 3);
  let at = 0;
  for (let y = top; y < end; y++) {
    for (const { first, taps } of plan) {
      weigh(out, at, source, (y * width + first) * step, step, taps);
      at += 3;
    }
  }
  return out;
}

function columns(source, width, step, plan, left, end) {
  const out = new Uint8Array(plan.length * (end - left) * 3), row = width * step;
  let at = 0;
  for (const { first, taps } of plan) {
    for (let x = left; x < end; x++) {
      weigh(out, at, source, first * row + x * step, row, taps);
      at += 3;
    }
  }
  return out;
}

// From the first to behind the last input that a plan reads; and the plan of those alone.
const extent = (plan) => ({ from: plan[0].first, end: plan.at(-1).first + plan.at(-1).taps.length });
const shifted = (plan, by) => plan.map(({ first, taps }) => ({ first: first - by, taps }));

// Pillow from 13 on begins with the columns where these lose more than twice as many pixels as the rows.
const columnsFirst = (from, to) =>
  to.height < from.height && from.height - to.height > 2 * (from.width - to.width);

// Where each output is taken from: Pillow adds the step up, in floating point.
function nearest(inputs, outputs, from, count) {
  const step = inputs / outputs, found = [];
  for (let x = 0, at = step * 0.5; x < from + count; x++, at += step) {
    if (x >= from) found.push(Math.min(Math.trunc(at), inputs - 1));
  }
  return found;
}

function picked(source, width, xs, ys) {
  const out = new Uint8Array(xs.length * ys.length * 3);
  let at = 0;
  for (const y of ys) {
    for (const x of xs) {
      const p = (y * width + x) * 4;
      out[at++] = source[p];
      out[at++] = source[p + 1];
      out[at++] = source[p + 2];
    }
  }
  return out;
}

// A part of an image as it is when the whole is resized: RGBA of width × height → RGB of cut.width ×
// cut.height. `target` is the size of the whole, `cut` lies within it; `pillow` is the version, as 13.
export function resized(source, size, target, cut, filter, pillow) {
  const { width, height } = size;
  if ((width === target.width && height === target.height) || filter === "nearest") {
    const xs = nearest(width, target.width, cut.left, cut.width);
    return picked(source, width, xs, nearest(height, target.height, cut.top, cut.height));
  }
  const curve = FILTERS[filter];
  if (!curve) throw new Error(`no filter ${filter}`);
  const across = weights(width, target.width, cut.left, cut.width, curve);
  const down = weights(height, target.height, cut.top, cut.height, curve);
  if (pillow >= 13 && columnsFirst(size, target)) {
    const { from, end } = extent(across);
    const between = columns(source, width, 4, down, from, end);
    return rows(between, end - from, 3, shifted(across, from), 0, cut.height);
  }
  const { from, end } = extent(down);
  const between = rows(source, width, 4, across, from, end);
  return columns(between, cut.width, 3, shifted(down, from), 0, cut.width);
}
