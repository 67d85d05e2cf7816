// Control vectors for llama.cpp: a GGUF with one direction a layer, which is added to the output of that block at every
// token. Only an edit that is such an addition can be written: lobireft or addition, at block outputs, at all positions
// and all new tokens. Source: llama.cpp, common/common.cpp (common_control_vector_load) and src/llama-adapter.cpp:
// direction.k is added after block k, k from 1 on.

import { noGrad } from '../../autograd/tape.js';
import { scope } from '../../autograd/scope.js';
import type { ReftModel } from '../reftModel.js';

const alignment = 32;

/** @throws RangeError naming the edit that is no addition at every token */
export async function controlVectorOf(reft: ReftModel): Promise<Uint8Array> {
  const vectors = new Map<number, Float32Array>();
  for (const intervention of reft.interventions) {
    const { id, site, kind, config, scale } = intervention;
    const refuse = (why: string): never => {
      throw new RangeError(`${id}: ${why}, so it is no control vector`);
    };
    if (!reft.enabled || !intervention.enabled) refuse('it is switched off');
    if (kind.name !== 'lobireft' && kind.name !== 'addition') refuse(`${kind.name} does more than add a vector`);
    if (kind.name === 'lobireft' && config.activation !== 'linear')
      refuse(`it has the activation ${config.activation}`);
    if (site.component !== 'block_output') refuse(`it edits ${site.component}, not block outputs`);
    if (config.positions.type !== 'all' || config.newTokens !== 'all') refuse('it does not edit every token');
    if (site.layer === 0) refuse('llama.cpp has no control vector for block 0');
    const vector = noGrad(() =>
      scope(() => {
        const { R, s, v, scale: trained } = intervention.parameters();
        const direction = kind.name === 'lobireft' ? s.matmul(R) : v.mul(1);
        return (trained ? direction.mul(trained) : direction).mul(scale);
      }),
    );
    vectors.set(site.layer, Float32Array.from(await vector.data()));
    vector.storage.dispose();
  }
  return writeGguf(reft.base.config.modelType, vectors);
}

function writeGguf(architecture: string, vectors: ReadonlyMap<number, Float32Array>): Uint8Array {
  const header = new Bytes();
  header.ascii('GGUF').uint32(3).uint64(vectors.size).uint64(3);
  header.string('general.architecture').uint32(8).string('controlvector');
  header.string('controlvector.model_hint').uint32(8).string(architecture);
  header.string('controlvector.layer_count').uint32(4).uint32(vectors.size);
  let at = 0;
  for (const [layer, vector] of vectors) {
    header.string(`direction.${layer}`).uint32(1).uint64(vector.length).uint32(0).uint64(at);
    at = padded(at + vector.byteLength);
  }
  const begin = padded(header.length);
  const out = new Uint8Array(begin + at);
  out.set(header.bytes());
  let to = begin;
  for (const vector of vectors.values()) {
    out.set(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength), to);
    to = padded(to + vector.byteLength);
  }
  return out;
}

const padded = (n: number): number => Math.ceil(n / alignment) * alignment;

/** Little-endian fields, one after the other. */
class Bytes {
  private readonly data: number[] = [];
  get length(): number {
    return this.data.length;
  }
  bytes(): Uint8Array {
    return Uint8Array.from(this.data);
  }
  ascii(text: string): this {
    this.data.push(...new TextEncoder().encode(text));
    return this;
  }
  uint32(n: number): this {
    this.data.push(n & 255, (n >>> 8) & 255, (n >>> 16) & 255, (n >>> 24) & 255);
    return this;
  }
  uint64(n: number): this {
    return this.uint32((n % 2 ** 32) >>> 0).uint32(Math.floor(n / 2 ** 32));
  }
  string(text: string): this {
    return this.uint64(new TextEncoder().encode(text).length).ascii(text);
  }
}
