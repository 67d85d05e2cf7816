// What a kernel is told with each call: sizes, strides, offsets and uniforms as 32-bit words of one uniform buffer. The
// position of a word depends on the kernel's structure alone, so that the same positions serve the generated code and
// every call of it.

const scratch = new DataView(new ArrayBuffer(4));

/** The bits of an f32 as u32. */
export function floatBits(x: number): number {
  scratch.setFloat32(0, x);
  return scratch.getUint32(0);
}

export class Params {
  readonly words: number[] = [];

  /** Appends a word (an integer of either sign, wrapped) and returns its position. */
  add(value: number): number {
    this.words.push(value >>> 0);
    return this.words.length - 1;
  }

  addAll(values: readonly number[]): number[] {
    return values.map(v => this.add(v));
  }

  addFloat(value: number): number {
    return this.add(floatBits(value));
  }
}

/** The word at a position, as u32, in WGSL. */
export const word = (at: number): string => `params[${at >> 2}u].${'xyzw'[at & 3]}`;

/** The name that `holdWords` gives the word at a position. */
export const held = (at: number): string => `w${at}`;

/** Statements that read all words once: software compilers do not move reads out of loops. */
export const holdWords = (words: number): string =>
  Array.from({ length: words }, (_, at) => `let ${held(at)} = ${word(at)};`).join('\n  ');

/** The declaration that `word` reads from. */
export const declareParams = (words: number): string =>
  `@group(0) @binding(0) var<uniform> params: array<vec4<u32>, ${Math.max(1, Math.ceil(words / 4))}>;`;
