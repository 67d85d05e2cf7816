// Orders drawn at random.

/** Fisher-Yates, in place, by uniform numbers in [0, 1). */
export function shuffle<T>(items: T[], uniform: () => number): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(uniform() * (i + 1));
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}

/**
 * Numbers in [0, 1) for the orders of epochs: SplitMix (Steele et al. 2014) with 32-bit state and murmur3's finaliser,
 * started from seed and stream. Everything else is drawn by Threefry; orders keep this one, so that a seed visits rows
 * as it always did, and a run goes on from an earlier version's checkpoint.
 */
export function splitMix32(seed: number, stream: number): () => number {
  let state = finalise(
    finalise(seed >>> 0) ^ finalise(Math.floor(seed / 2 ** 32) + 0x9e3779b9) ^ Math.imul(stream + 1, 0x85ebca6b),
  );
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    return finalise(state) / 2 ** 32;
  };
}

function finalise(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
