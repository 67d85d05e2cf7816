// What reuse keeps of an example as a file: its states, keys and values in safetensors, under a name that is the hash
// of everything that decides them, with a checksum. Valid for any later run that would compute the same bits; a file
// that is damaged counts as absent.

import type { BoundedFolder } from '../io/boundedFolderNode.js';
import { memorySource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { nodeOnly } from '../io/nodeOnly.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import { keep } from '../autograd/scope.js';
import { KVCache } from '../models/cache.js';
import type { CausalLM } from '../models/causalLM.js';
import { siteName, type Site } from '../models/sites.js';
import { create } from '../tensor/create.js';
import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { computationFingerprint, sha256 } from './fingerprint.js';
import type { Window } from './windows.js';

export interface KeptStates {
  /** Unedited hidden states at the starting site for the window, [1, end - start, hidden]. */
  readonly hiddenStates: Tensor;
  /** Keys and values of the tokens before the window, at the layers that are still computed. */
  readonly prefix: KVCache;
}

/** The same as it was read, checked, in the host's memory. */
export interface StoredStates {
  /** States, then keys and values of each layer. */
  readonly tensors: readonly { readonly shape: Shape; readonly values: Float32Array | Float64Array }[];
  readonly start: number;
  readonly firstLayer: number;
}

export function disposeStates({ hiddenStates, prefix }: KeptStates): void {
  hiddenStates.storage.dispose();
  prefix.dispose();
}

const suffix = '.reuse.safetensors';
const format = 'reft-reuse 2';
/** For the header of a file: a tensor's entry. */
const headerBytes = 128;

export class ReuseFiles {
  private readonly base: CausalLM;
  private readonly folder: BoundedFolder;
  private readonly computation: string;
  private readonly names = new Map<Window, string>();
  private needed: ReadonlySet<string> = new Set();

  private constructor(base: CausalLM, folder: BoundedFolder, computation: string) {
    this.base = base;
    this.folder = folder;
    this.computation = computation;
  }

  /** @throws Error naming the folder when it cannot be opened, or that there are no folders (a browser) */
  static async open(directory: string, limitBytes: number, base: CausalLM): Promise<ReuseFiles> {
    nodeOnly('a folder for reuse', 'leave reuseDirectory out');
    const { openBoundedFolder } = await import('../io/boundedFolderNode.js');
    return new ReuseFiles(
      base,
      await openBoundedFolder(directory, suffix, limitBytes),
      await computationFingerprint(base),
    );
  }

  /** About how long the file of states of `bytes` at `layers` layers is. */
  static fileBytes(bytes: number, layers: number): number {
    return bytes + headerBytes * (2 * layers + 4);
  }

  /** Names the files of a run's windows, computed up to `site`: none of them makes room for another. */
  async claim(windows: readonly Window[], site: Site): Promise<void> {
    for (const window of windows) {
      const { example, start, end } = window;
      const decides = JSON.stringify([
        format,
        this.computation,
        siteName(site),
        start,
        [...example.ids.subarray(0, end)],
      ]);
      this.names.set(window, (await sha256(new TextEncoder().encode(decides))).replace(/^sha256:/, ''));
    }
    this.needed = new Set([...this.names.values()].map(name => name + suffix));
  }

  async write(window: Window, { hiddenStates, prefix }: KeptStates): Promise<void> {
    const dtype = this.base.dtype === 'f64' ? 'F64' : 'F32';
    const entries: SafetensorsEntry[] = [];
    for (const [name, tensor] of [
      ['states', hiddenStates] as const,
      ...prefix.layersHeld.flatMap(([layer, held]) => [
        [`keys.${layer}`, held.keys] as const,
        [`values.${layer}`, held.values] as const,
      ]),
    ])
      entries.push({ name, dtype, shape: tensor.shape, data: (await tensor.data()) as Float32Array | Float64Array });
    entries.sort((a, b) => inFile(a.name, b.name));
    const name = this.names.get(window) as string;
    const metadata = { format, key: name, checksum: await sha256(joined(entries.map(e => e.data as Float32Array))) };
    await this.folder.write(name + suffix, writeSafetensors(entries, metadata), this.needed);
  }

  /**
   * Begins to read what an earlier step or run wrote, of the layers from `firstLayer` on. `begun` resolves once the
   * system has been asked for all of it and never rejects; `states` to null where there is no file, or not a whole one,
   * and rejects, to whoever waits, with what kept it from being read.
   */
  begin(
    window: Window,
    firstLayer: number,
  ): { readonly begun: Promise<void>; readonly states: Promise<StoredStates | null> } {
    const name = this.names.get(window) as string;
    const opened = this.folder.begin(name + suffix);
    const states = opened.then(async wait => {
      const bytes = await wait?.();
      if (!bytes) return null;
      try {
        return await this.parse(bytes, name, window, firstLayer);
      } catch (error) {
        if (error instanceof FormatError) return null;
        throw error;
      }
    });
    states.catch(() => undefined);
    return {
      begun: opened.then(
        () => undefined,
        () => undefined,
      ),
      states,
    };
  }

  /** What was read, on the model's device. */
  place({ tensors, start, firstLayer }: StoredStates): KeptStates {
    const { dtype, backend } = this.base;
    const made = tensors.map(({ shape, values }) => keep(create.from(values, shape, { dtype, backend })));
    const layers = Array.from({ length: (made.length - 1) / 2 }, (_, i) => firstLayer + i);
    return {
      hiddenStates: made[0],
      prefix: KVCache.holding(
        start,
        layers.map((layer, i) => [layer, { keys: made[1 + 2 * i], values: made[2 + 2 * i] }]),
      ),
    };
  }

  /** Checks a file's bytes; its values are views of them. */
  private async parse(
    bytes: Uint8Array,
    name: string,
    { start, end }: Window,
    firstLayer: number,
  ): Promise<StoredStates> {
    const file = await openSafetensors(memorySource(bytes, name));
    const { layers, kvHeads, headDim, hiddenSize } = this.base.config;
    const kv = [1, kvHeads, start, headDim];
    const computed = Array.from({ length: layers - firstLayer }, (_, i) => firstLayer + i);
    const expected: [string, Shape][] = [
      ['states', [1, end - start, hiddenSize]],
      ...computed.flatMap((layer): [string, Shape][] => [
        [`keys.${layer}`, kv],
        [`values.${layer}`, kv],
      ]),
    ];
    const damaged = (what: string): FormatError => new FormatError(file.name, what);
    if (file.metadata.format !== format || file.metadata.key !== name || file.tensors.size !== expected.length)
      throw damaged('is another file');
    const [dtype, Numbers] =
      this.base.dtype === 'f64' ? (['F64', Float64Array] as const) : (['F32', Float32Array] as const);
    const found = expected.map(([tensor, shape]) => {
      const stored = file.tensors.get(tensor);
      if (stored?.dtype !== dtype || stored.shape.join() !== shape.join())
        throw damaged(`has no ${tensor} of the expected shape`);
      return stored;
    });
    // One after the other up to the end, so that one checksum is that of all.
    const ordered = [...found].sort((a, b) => inFile(a.name, b.name));
    let at = ordered[0].byteOffset;
    const data = bytes.subarray(at);
    for (const { name: tensor, byteOffset, byteLength } of ordered) {
      if (byteOffset !== at || (bytes.byteOffset + at) % Numbers.BYTES_PER_ELEMENT !== 0)
        throw damaged(`has ${tensor} at another place`);
      at += byteLength;
    }
    if (at !== bytes.length || file.metadata.checksum !== (await sha256(data)))
      throw damaged('does not have its checksum');
    const tensors = found.map(({ byteOffset, byteLength }, i) => ({
      shape: expected[i][1],
      values: new Numbers(
        bytes.buffer as ArrayBuffer,
        bytes.byteOffset + byteOffset,
        byteLength / Numbers.BYTES_PER_ELEMENT,
      ),
    }));
    return { tensors, start, firstLayer };
  }
}

/** The order of tensors of one type in a file. */
const inFile = (a: string, b: string): number => (a < b ? -1 : 1);

function joined(arrays: readonly (Float32Array | Float64Array)[]): Uint8Array {
  const all = new Uint8Array(arrays.reduce((n, a) => n + a.byteLength, 0));
  let at = 0;
  for (const { buffer, byteOffset, byteLength } of arrays) {
    all.set(new Uint8Array(buffer, byteOffset, byteLength), at);
    at += byteLength;
  }
  return all;
}
