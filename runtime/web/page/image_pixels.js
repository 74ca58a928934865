// An image file → the pixels that a graph takes, as `vptkit run` makes them: upright, RGB without
// alpha, resized by Pillow's arithmetic, the centre cut out. Decoding is the browser's.

import { resized } from "./pillow_resize.js";

const MOST = 89478485; // pixels of an image, decoded or resized, as of vptkit run

// Python's round: halves to the even number.
function rounded(value) {
  const low = Math.floor(value), part = value - low;
  return part > 0.5 || (part === 0.5 && low % 2 === 1) ? low + 1 : low;
}

// What the whole picture is resized to: the shorter side, or, of a graph that is not square, as timm
// covers it (vptkit/images/preprocess.py has the same arithmetic).
function target({ width, height }, { input_size: [, high, wide], crop_pct: share }) {
  const h = Math.floor(high / share), w = Math.floor(wide / share);
  if (h === w) {
    return width <= height ? { width: h, height: Math.trunc(h * height / width) }
      : { width: Math.trunc(h * width / height), height: h };
  }
  const ratio = Math.min(height / h, width / w);
  return { width: rounded(width / ratio), height: rounded(height / ratio) };
}

function require(size, what) {
  if (size.width * size.height > MOST) {
    throw new Error(`${size.width} x ${size.height} pixels ${what}, more than ${MOST}. Cut the image into parts first.`);
  }
}

// Colours of transparent pixels are kept by WebGL alone: a canvas stores them multiplied by alpha.
function withoutAlpha(bitmap) {
  const canvas = new OffscreenCanvas(1, 1), gl = canvas.getContext("webgl2");
  if (!gl || Math.max(bitmap.width, bitmap.height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  const texture = gl.getParameter(gl.TEXTURE_BINDING_2D);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const pixels = new Uint8Array(bitmap.width * bitmap.height * 4);
  gl.readPixels(0, 0, bitmap.width, bitmap.height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // a browser has few of them
  return failed ? null : pixels;
}

function opaque(pixels) {
  for (let i = 3; i < pixels.length; i += 4) if (pixels[i] !== 255) return false;
  return true;
}

async function decoded(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image",
    });
  } catch {
    throw new Error("not an image that this browser can read");
  }
  try {
    require(bitmap, "came");
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const drawn = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
    const pixels = opaque(drawn) ? drawn : withoutAlpha(bitmap);
    if (!pixels) throw new Error("has transparent pixels, whose colours this browser does not tell: save it without alpha");
    return { pixels, width: bitmap.width, height: bitmap.height };
  } finally {
    bitmap.close();
  }
}

// uint8 [H, W, 3] of a Blob, for the preprocessing of a bundle, as that version of Pillow makes them.
export async function pixelsOf(file, preprocess, pillow) {
  const image = await decoded(file), [, height, width] = preprocess.input_size;
  const whole = target(image, preprocess);
  require(whole, "it would have when resized");
  const cut = {
    left: rounded((whole.width - width) / 2), top: rounded((whole.height - height) / 2), width, height,
  };
  return resized(image.pixels, image, whole, cut, preprocess.interpolation, pillow);
}
