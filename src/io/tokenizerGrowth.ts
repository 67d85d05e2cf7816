// How much longer a tokenizer may make a text. Its files say what is put in place of what, and a few replacements one
// after the other would fill any memory.

import type { Component } from './tokenizerParts.js';

/** How many times as long; tokenizers in use put a few characters, and Unicode's longest decomposition has 18. */
const mostGrowth = 100;
const longestDecomposition = 18;

/** @throws Error where a component could make texts far longer than they are */
export function checkGrowth(name: string, component: Component | null): void {
  if (growthOf(component) <= mostGrowth) return;
  throw new Error(`${name}: could make a text more than ${mostGrowth} times as long as it is`);
}

function growthOf(component: Component | null): number {
  if (!component) return 1;
  const lists = ['normalizers', 'pretokenizers', 'decoders'].map(key => component[key]).filter(Array.isArray);
  const parts = lists.flat() as Component[];
  return parts.reduce((growth, part) => growth * growthOf(part), lengthPut(component));
}

/** The most characters that one character becomes. */
function lengthPut({ type, content, replacement }: Component): number {
  if (type === 'Precompiled') return longestDecomposition;
  const put = type === 'Replace' ? content : type === 'Metaspace' ? replacement : '';
  return typeof put === 'string' ? Math.max(1, put.length) : 1;
}
