// How numbers are written.

export const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
export const ms = (value) => value === null ? "-" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const percent = (score) => `${(100 * score).toFixed(score > 0.995 || score < 0.1 ? 1 : 0)} %`;
