// Seeded damage to files, for the tests that readers must survive it. The same seed makes the same damage.

/** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const below = (next: () => number, limit: number): number => Math.floor(next() * limit);
export const pick = <T>(next: () => number, items: readonly T[]): T => items[below(next, items.length)];

const extremes = [
  0n,
  1n,
  2n,
  7n,
  255n,
  65535n,
  ...[31n, 32n, 40n, 53n, 63n, 64n].flatMap(power => [2n ** power - 1n, 2n ** power + 1n]),
];

/**
 * One to three kinds of damage: cut, longer, bits flipped, extreme integers, parts copied, removed, inserted or zeroed;
 * mostly in the first `focus` bytes.
 */
export function mutateBytes(original: Uint8Array, next: () => number, focus: number): Uint8Array {
  let bytes: Uint8Array = original.slice();
  const place = (): number => below(next, next() < 0.8 ? Math.min(focus, bytes.length) : bytes.length);
  for (let round = below(next, 3); round >= 0 && bytes.length > 0; round--) {
    const at = place();
    const length = Math.min(1 + below(next, 40), bytes.length - at);
    switch (below(next, 8)) {
      case 0:
        bytes = bytes.slice(0, at);
        break;
      case 1:
        bytes = join(
          bytes,
          Uint8Array.from({ length: 1 + below(next, 200) }, () => below(next, 256)),
        );
        break;
      case 2:
      case 3:
        for (let flips = below(next, 6); flips >= 0; flips--) bytes[place()] ^= 1 << below(next, 8);
        break;
      case 4: {
        const view = new DataView(new ArrayBuffer(8));
        view.setBigUint64(0, pick(next, extremes), true);
        const size = Math.min(pick(next, [1, 2, 4, 8]), bytes.length - at);
        bytes.set(new Uint8Array(view.buffer, 0, size), at);
        break;
      }
      case 5:
        bytes.copyWithin(at, place(), place() + length);
        break;
      case 6:
        bytes = join(bytes.slice(0, at), bytes.slice(at + length));
        break;
      default:
        bytes =
          next() < 0.5
            ? join(bytes.slice(0, at), new Uint8Array(length), bytes.slice(at))
            : bytes.fill(0, at, at + length);
    }
  }
  return bytes;
}

export function join(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const oddNumbers = ['-1', '0', '0.5', '1e308', '9007199254740993', '18446744073709551615'];
const oddJson = [...oddNumbers, 'null', '[]', '{}', '"F16"', '"I64"', '"X"', '[[[[0]]]]', '"__proto__"'];

/**
 * JSON text with one to three tokens (numbers, strings) replaced by odd or other ones, or a piece of it given twice.
 */
export function mutateJson(json: string, next: () => number): string {
  let text = json;
  for (let round = below(next, 3); round >= 0; round--) {
    const tokens = [...text.matchAll(/"[^"]*"|-?\d+/g)];
    if (tokens.length === 0) break;
    const token = pick(next, tokens);
    const other = next() < 0.5 ? pick(next, oddJson) : pick(next, tokens)[0];
    text = text.slice(0, token.index) + other + text.slice(token.index + token[0].length);
  }
  if (next() < 0.1) text = text.replace(/("[^"]*":\{[^{}]*\})/, '$1,$1');
  return text;
}
