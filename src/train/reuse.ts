// What a frozen decoder lets training compute once, exactly. Below the lowest edited layer no hidden state ever
// changes, and no key or value before the first edited token does, at any layer: they are kept for each example. A step
// then computes the tokens from the first edited one on, in the layers from the lowest edited one up. They are kept in
// memory up to a bound, and in a folder up to another (reuseFiles.ts); examples beyond both are computed in full.

import type { Adapter, FirstChange } from '../adapt/adapter.js';
import { observed } from '../autograd/observer.js';
import { keep, scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Example } from '../data/examples.js';
import { KVCache } from '../models/cache.js';
import type { ForwardOptions } from '../models/causalLM.js';
import { siteName, type Site } from '../models/sites.js';
import { concat, pad } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Sequence } from '../reft/layout.js';
import { disposeStates, ReuseFiles, type KeptStates, type StoredStates } from './reuseFiles.js';
import { labelledSpan, type Window } from './windows.js';

export const defaultReuseBytes = 2 ** 30;
export const defaultReuseDirectoryBytes = 2 ** 34;
/** Most examples that are being read at a time: each is an open file, and its bytes in memory. */
const mostComing = 64;

/**
 * Whether anything may be kept: the adapter says from where on it changes a sequence, and no token before sees it.
 */
export const canReuse = (adapter: Adapter, example: Example): boolean =>
  adapter.base.keepsPrefixes && adapter.firstChanged(sequenceOf(example)) !== null;

/** @throws Error where nothing may be kept: ask `canReuse` first */
function firstChanged(adapter: Adapter, example: Example): FirstChange {
  const change = adapter.firstChanged(sequenceOf(example));
  if (change) return change;
  throw new Error('reuse: weights of the base are trained, so nothing of what it computes may be kept');
}

const sequenceOf = (example: Example): Sequence => ({ ...example, length: example.ids.length });

export interface ReuseOptions {
  /** Most bytes in memory. */
  readonly budgetBytes?: number;
  /** A folder (Node), and most bytes there. */
  readonly directory?: { readonly path: string; readonly budgetBytes: number };
}

export class PrefixReuse {
  private readonly adapter: Adapter;
  private readonly site: Site & { readonly component: 'embeddings' | 'block_input' | 'block_output' };
  private readonly windows = new Map<Example, Window>();
  /** Examples whose states stay in memory, and those that have a file: some have both. */
  private readonly inMemory = new Set<Example>();
  private readonly inFolder = new Set<Example>();
  private readonly kept = new Map<Example, KeptStates>();
  /** What is being read. */
  private readonly coming = new Map<Example, Promise<StoredStates | null>>();
  private files: ReuseFiles | null = null;

  /**
   * Which examples are kept is decided here, in their order, so that it does not depend on when they are visited. Use
   * `open` for a folder.
   */
  constructor(
    adapter: Adapter,
    examples: readonly Example[],
    { budgetBytes = defaultReuseBytes, directory }: ReuseOptions = {},
  ) {
    this.adapter = adapter;
    const { layer, component } = firstChanged(adapter, examples[0]);
    this.site = { layer, component };
    let [bytes, fileBytes] = [0, 0];
    for (const example of examples) {
      if (this.windows.has(example)) continue;
      const { first, end } = labelledSpan(example);
      // Predictions before the first change count in the loss too: their tokens stay in the window.
      const start = Math.min(first, firstChanged(adapter, example).position);
      const window = { example, start, end };
      bytes += this.bytesOf(window);
      fileBytes += ReuseFiles.fileBytes(this.bytesOf(window), adapter.base.config.layers - this.firstLayer);
      if (bytes <= budgetBytes) this.inMemory.add(example);
      if (directory && fileBytes <= directory.budgetBytes) this.inFolder.add(example);
      if (!this.inMemory.has(example) && !this.inFolder.has(example)) break;
      this.windows.set(example, window);
    }
  }

  /** With a folder, which is made if need be. @throws Error naming the folder when it cannot be used */
  static async open(adapter: Adapter, examples: readonly Example[], options: ReuseOptions): Promise<PrefixReuse> {
    const reuse = new PrefixReuse(adapter, examples, options);
    const { directory } = options;
    if (!directory) return reuse;
    const files = await ReuseFiles.open(directory.path, directory.budgetBytes, adapter.base);
    await files.claim(
      [...reuse.inFolder].map(example => reuse.windows.get(example) as Window),
      reuse.site,
    );
    reuse.files = files;
    return reuse;
  }

  /** First layer whose blocks are still computed. */
  private get firstLayer(): number {
    return this.site.layer + (this.site.component === 'block_output' ? 1 : 0);
  }

  private bytesOf({ start, end }: Window): number {
    const { layers, kvHeads, headDim, hiddenSize } = this.adapter.base.config;
    const numbers = 2 * start * kvHeads * headDim * (layers - this.firstLayer) + (end - start) * hiddenSize;
    return numbers * (this.adapter.base.dtype === 'f64' ? 8 : 4);
  }

  /** The part of an example that is still computed; undefined when nothing is kept for it. */
  windowOf(example: Example): Window | undefined {
    return this.windows.get(example);
  }

  /**
   * Brings what is kept of these examples in the folder into memory, before a step that needs it: steps wait for
   * nothing.
   */
  async fetch(examples: readonly Example[]): Promise<void> {
    const { files } = this;
    if (!files) return;
    await this.ahead(() => examples);
    for (const example of examples) {
      const coming = this.coming.get(example);
      if (!this.kept.has(example) && this.inFolder.has(example)) {
        const window = this.windows.get(example) as Window;
        const found = await (coming ?? files.begin(window, this.firstLayer).states);
        if (found) this.kept.set(example, files.place(found));
        else
          await files.write(
            window,
            noGrad(() => this.compute(window)),
          );
      }
      this.coming.delete(example);
    }
  }

  /**
   * Begins to read what a coming `fetch` of these examples needs, so that it is read beside what is computed until
   * then. Resolves once the system is at it. What keeps a file from being read is thrown by that `fetch`. Which they
   * are is only asked where there is a folder.
   */
  async ahead(examples: () => readonly Example[]): Promise<void> {
    const { files } = this;
    if (!files) return;
    const begun: Promise<void>[] = [];
    for (const example of examples()) {
      if (this.coming.size >= mostComing) break;
      const stays = this.kept.has(example) && this.inMemory.has(example);
      if (stays || this.coming.has(example) || !this.inFolder.has(example)) continue;
      const reading = files.begin(this.windows.get(example) as Window, this.firstLayer);
      this.coming.set(example, reading.states);
      begun.push(reading.begun);
    }
    await Promise.all(begun);
  }

  /** Gives back the memory of what `fetch` brought beyond the bound. */
  release(): void {
    for (const [example, kept] of this.kept) {
      if (this.inMemory.has(example)) continue;
      disposeStates(kept);
      this.kept.delete(example);
    }
  }

  /** What stands for the tokens before these windows and the layers below. Owned by the scope it is called in. */
  stateFor(windows: readonly Window[]): Pick<ForwardOptions, 'from' | 'cache'> {
    return observed('reuse', () => this.joined(windows));
  }

  private joined(windows: readonly Window[]): Pick<ForwardOptions, 'from' | 'cache'> {
    return noGrad(() => {
      const parts = windows.map(w => this.kept.get(w.example) ?? this.compute(w));
      const width = Math.max(...windows.map(w => w.end - w.start));
      const rows = parts.map(({ hiddenStates: h }) =>
        h.shape[1] < width ? pad(h, [0, 0, 0], [0, width - h.shape[1], 0]) : h,
      );
      const from = { ...this.site, hiddenStates: concat(rows, 0) };
      return parts.some(p => p.prefix.length > 0)
        ? { from, cache: KVCache.joined(parts.map(p => p.prefix)) }
        : { from };
    });
  }

  /**
   * One pass over an example, alone, so that what is kept does not depend on its neighbours. It stays until `release`
   * or `close`.
   */
  compute(window: Window): KeptStates {
    const kept = observed('reuse', () => this.computed(window));
    this.kept.set(window.example, kept);
    return kept;
  }

  private computed({ example, start, end }: Window): KeptStates {
    return scope(() => {
      const cache = new KVCache(end);
      try {
        const { collected } = this.adapter.base.forward({
          inputIds: example.ids.subarray(0, end),
          shape: [1, end],
          cache,
          collect: [this.site],
          logitsAt: new Int32Array(0),
        });
        const hiddenStates = collected.get(siteName(this.site)) as Tensor;
        return {
          hiddenStates: keep(hiddenStates.slice(1, start, end).mul(1)),
          prefix: cache.prefix(start, this.firstLayer),
        };
      } finally {
        cache.dispose();
      }
    });
  }

  /** Frees what is kept, and resolves when no file is being read any more. */
  async close(): Promise<void> {
    for (const kept of this.kept.values()) disposeStates(kept);
    this.kept.clear();
    await Promise.allSettled(this.coming.values());
    this.coming.clear();
  }
}
