// What reuse keeps of an example as a file: its states, keys and values in safetensors, under a name that is the hash of everything that decides
// them, with a checksum. Valid for any later run that would compute the same bits; a file that is damaged counts as absent.

import type { BoundedFolder } from '../io/boundedFolderNode.js';
import { memorySource } from '../io/byteSource.js';
import { FormatError } from '../io/errors.js';
import { nodeOnly } from '../io/nodeOnly.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../io/safetensors.js';
import type { TensorFile } from '../io/tensorFile.js';
import { keep } from '../autograd/scope.js';
import { KVCache } from '../models/cache.js';
import type { CausalLM } from '../models/causalLM.js';
import { siteName, type Site } from '../models/sites.js';
import { create } from '../tensor/create.js';
import type { Shape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { computationFingerprint, sha256 } from './fingerprint.js';
import type { Window } from './trainerWindows.js';

export interface KeptStates {
  /** Unedited hidden states at the starting site for the window, [1, end - start, hidden]. */
  readonly hiddenStates: Tensor;
  /** Keys and values of the tokens before the window, at the layers that are still computed. */
  readonly prefix: KVCache;
}

export function disposeStates({ hiddenStates, prefix }: KeptStates): void {
  hiddenStates.storage.dispose();
  prefix.dispose();
}

const suffix = '.reuse.safetensors';
const format = 'reft-reuse 1';
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
    return new ReuseFiles(base, await openBoundedFolder(directory, suffix, limitBytes), await computationFingerprint(base));
  }

  /** About how long the file of states of `bytes` at `layers` layers is. */
  static fileBytes(bytes: number, layers: number): number {
    return bytes + headerBytes * (2 * layers + 4);
  }

  /** Names the files of a run's windows, computed up to `site`: none of them makes room for another. */
  async claim(windows: readonly Window[], site: Site): Promise<void> {
    for (const window of windows) {
      const { example, start, end } = window;
      const decides = JSON.stringify([format, this.computation, siteName(site), start, [...example.ids.subarray(0, end)]]);
      this.names.set(window, (await sha256(new TextEncoder().encode(decides))).replace(/^sha256:/, ''));
    }
    this.needed = new Set([...this.names.values()].map(name => name + suffix));
  }

  async write(window: Window, { hiddenStates, prefix }: KeptStates): Promise<void> {
    const dtype = this.base.dtype === 'f64' ? 'F64' : 'F32';
    const entries: SafetensorsEntry[] = [];
    for (const [name, tensor] of [['states', hiddenStates] as const, ...prefix.layersHeld.flatMap(([layer, held]) => [
      [`keys.${layer}`, held.keys] as const, [`values.${layer}`, held.values] as const,
    ])]) entries.push({ name, dtype, shape: tensor.shape, data: await tensor.data() as Float32Array | Float64Array });
    const name = this.names.get(window) as string;
    const metadata = { format, key: name, checksum: await checksumOf(entries.map(e => e.data as Float32Array)) };
    await this.folder.write(name + suffix, writeSafetensors(entries, metadata), this.needed);
  }

  /** What an earlier step or run wrote, of the layers from `firstLayer` on; null where there is none, or not a whole one. */
  async read(window: Window, firstLayer: number): Promise<KeptStates | null> {
    const name = this.names.get(window) as string;
    const bytes = await this.folder.read(name + suffix);
    if (!bytes) return null;
    try {
      return await this.parse(await openSafetensors(memorySource(bytes, name)), name, window, firstLayer);
    } catch (error) {
      if (error instanceof FormatError) return null;
      throw error;
    }
  }

  private async parse(file: TensorFile, name: string, { start, end }: Window, firstLayer: number): Promise<KeptStates> {
    const { layers, kvHeads, headDim, hiddenSize } = this.base.config;
    const kv = [1, kvHeads, start, headDim];
    const computed = Array.from({ length: layers - firstLayer }, (_, i) => firstLayer + i);
    const expected: [string, Shape][] = [
      ['states', [1, end - start, hiddenSize]], ...computed.flatMap((layer): [string, Shape][] => [[`keys.${layer}`, kv], [`values.${layer}`, kv]]),
    ];
    const damaged = (what: string): FormatError => new FormatError(file.name, what);
    if (file.metadata.format !== format || file.metadata.key !== name || file.tensors.size !== expected.length) throw damaged('is another file');
    const dtype = this.base.dtype === 'f64' ? 'F64' : 'F32';
    const arrays: (Float32Array | Float64Array)[] = [];
    for (const [tensor, shape] of expected) {
      const stored = file.tensors.get(tensor);
      if (stored?.dtype !== dtype || stored.shape.join() !== shape.join()) throw damaged(`has no ${tensor} of the expected shape`);
      arrays.push(dtype === 'F64' ? await file.readFloat64(tensor) : await file.readFloat32(tensor));
    }
    if (file.metadata.checksum !== await checksumOf(arrays)) throw damaged('does not have its checksum');
    const made = expected.map(([, shape], i) => keep(create.from(arrays[i], shape, { dtype: this.base.dtype, backend: this.base.backend })));
    return { hiddenStates: made[0], prefix: KVCache.holding(start, computed.map((layer, i) => [layer, { keys: made[1 + 2 * i], values: made[2 + 2 * i] }])) };
  }
}

async function checksumOf(arrays: readonly (Float32Array | Float64Array)[]): Promise<string> {
  const all = new Uint8Array(arrays.reduce((n, a) => n + a.byteLength, 0));
  let at = 0;
  for (const { buffer, byteOffset, byteLength } of arrays) {
    all.set(new Uint8Array(buffer, byteOffset, byteLength), at);
    at += byteLength;
  }
  return sha256(all);
}
