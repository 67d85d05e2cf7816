// Sizes that blocks of memory are rounded up to, so that a freed one fits the next of about its size. What hands blocks
// out is each backend's own.

const alignment = 64;

/** The smallest of eight sizes an octave that holds `byteLength`, a multiple of 64. */
export function sizeClass(byteLength: number): number {
  const least = Math.max(alignment, byteLength);
  const octave = 2 ** Math.floor(Math.log2(least));
  const step = Math.max(alignment, octave / 8);
  return Math.ceil(least / step) * step;
}
