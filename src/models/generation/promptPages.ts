// Pages of prompts: keys and values of runs of tokens, by all the tokens up to their end, so that prompts that begin
// alike compute what they share once. Pages are counted in bytes; those that were not used for longest go first.

import { keep } from '../../autograd/scope.js';
import type { LayerCache } from '../kept.js';
import type { BatchCache } from './batchCache.js';

/** Tokens of a page. */
export const pageTokens = 16;

interface Page {
  /** Each layer's keys and values, [1, KV, pageTokens, D]. */
  readonly layers: readonly LayerCache[];
  readonly bytes: number;
  /** When it was used last, by a count of uses; a page is never used without those before it. */
  used: number;
}

export class PromptPages {
  private readonly pages = new Map<string, Page>();
  private readonly budget: number;
  private bytes = 0;
  private uses = 0;

  constructor(budgetBytes: number) {
    this.budget = budgetBytes;
  }

  get stats(): { pages: number; pageBytes: number } {
    return { pages: this.pages.size, pageBytes: this.bytes };
  }

  /** How many tokens of a prompt are kept, from its first on. */
  find(ids: readonly number[]): number {
    let known = 0;
    while (known + pageTokens <= ids.length && this.pages.has(keyOf(ids, known + pageTokens))) known += pageTokens;
    return known;
  }

  /** Puts what is kept of `ids`, all of which are, into a row of a batch. */
  put(ids: readonly number[], cache: BatchCache, row: number): void {
    for (let end = pageTokens; end <= ids.length; end += pageTokens) {
      const page = this.pages.get(keyOf(ids, end));
      if (!page) throw new Error(`prompt pages: tokens ${end - pageTokens} to ${end} are not kept any more`);
      page.used = ++this.uses;
      page.layers.forEach((part, layer) => {
        cache.put(layer, row, part, end - pageTokens);
      });
    }
  }

  /** Keeps the whole pages of `ids`, which a row of a batch holds. */
  keep(ids: readonly number[], cache: BatchCache, row: number): void {
    for (let end = pageTokens; end <= ids.length; end += pageTokens) {
      const key = keyOf(ids, end);
      const before = this.pages.get(key);
      if (before) {
        before.used = ++this.uses;
        continue;
      }
      const layers = cache
        .part(row, end - pageTokens, end)
        .map(({ keys, values }) => ({ keys: keep(keys.mul(1)), values: keep(values.mul(1)) }));
      const bytes = layers.reduce((n, { keys, values }) => n + keys.byteLength + values.byteLength, 0);
      this.pages.set(key, { layers, bytes, used: ++this.uses });
      this.bytes += bytes;
    }
    this.shrink();
  }

  /** Frees what was not used for longest, the ends of prompts before their beginnings. */
  private shrink(): void {
    if (this.bytes <= this.budget) return;
    const oldest = [...this.pages].sort(([a, x], [b, y]) => x.used - y.used || b.length - a.length);
    for (const [key, page] of oldest) {
      if (this.bytes <= this.budget) return;
      // A page whose followers are still kept is needed to find them.
      this.free(key, page);
    }
  }

  private free(key: string, page: Page): void {
    for (const { keys, values } of page.layers) {
      keys.storage.dispose();
      values.storage.dispose();
    }
    this.bytes -= page.bytes;
    this.pages.delete(key);
  }

  dispose(): void {
    for (const [key, page] of this.pages) this.free(key, page);
  }
}

const keyOf = (ids: readonly number[], end: number): string => ids.slice(0, end).join();
