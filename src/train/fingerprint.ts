// Hashes that tell models and data apart: of weights as they are in memory, whatever file they came from. Not a
// checksum of files.

import { scope } from '../autograd/scope.js';
import { noGrad } from '../autograd/tape.js';
import type { Example } from '../data/examples.js';
import type { CausalLM } from '../models/causalLM.js';
import { siteName, type Site } from '../models/sites.js';
import type { Module } from '../nn/module.js';
import { concat } from '../tensor/layout.js';
import type { Tensor } from '../tensor/tensor.js';

const samples = 64;

/**
 * `sha256:` and the hash of bytes in hex. @throws Error where there is no WebCrypto (a page that is not served over
 * https or localhost)
 */
export async function sha256(bytes: Uint8Array): Promise<string> {
  // The DOM library types `crypto` as always whole; an insecure page has no `subtle`.
  const subtle = (globalThis.crypto as Partial<Crypto> | undefined)?.subtle;
  if (!subtle) throw new Error('sha256: WebCrypto is not available; serve the page over https or from localhost');
  const hash = new Uint8Array(
    await subtle.digest(
      'SHA-256',
      bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : bytes.slice(),
    ),
  );
  return `sha256:${Array.from(hash, b => b.toString(16).padStart(2, '0')).join('')}`;
}

/**
 * The hash of each parameter's name, shape and 64 evenly spaced values as f32, but for those of the names in `except`.
 */
export async function modelFingerprint(model: Module, except: readonly string[] = []): Promise<string> {
  const parameters = [...model.namedParameters()].filter(([name]) => !except.includes(name));
  const picked = noGrad(() =>
    scope(() =>
      concat(
        parameters.map(([, t]) => {
          const last = t.size - 1;
          const at = Int32Array.from({ length: samples }, (_, i) => Math.floor((i * last) / (samples - 1)));
          // Packed weights are read by rows, and decode to what they would be unpacked.
          const columns = t.packing ? t.shape[1] : 1;
          const rows = (t.packing ? t : t.reshape([t.size, 1])).takeRows(at.map(i => Math.floor(i / columns)));
          return rows.reshape([samples * columns, 1]).takeRows(at.map((i, sample) => sample * columns + (i % columns)));
        }),
      ),
    ),
  );
  const values = Float32Array.from(await picked.data());
  picked.storage.dispose();
  const names = new TextEncoder().encode(parameters.map(([name, t]) => `${name} ${t.shape.join('x')}\n`).join(''));
  const bytes = new Uint8Array(names.length + values.byteLength);
  bytes.set(names);
  const view = new DataView(bytes.buffer, names.length);
  // A zero counts as positive: unpacking on another device may give the other one.
  values.forEach((value, i) => {
    view.setFloat32(4 * i, value + 0, true);
  });
  return sha256(bytes);
}

/**
 * The hash of what decides a model's hidden states to the bit: its weights and the form they are in, its configuration,
 * the device, and the states that it gives for short inputs, in which kernels show (relaxed SIMD or plain).
 */
export async function computationFingerprint(model: CausalLM): Promise<string> {
  const { config, dtype, backend } = model;
  const last: Site = { layer: config.layers - 1, component: 'block_output' };
  const lengths = [1, 2, 37].filter(n => n <= config.maxPositions);
  const states = noGrad(() =>
    scope(() =>
      concat(
        lengths.map(length => {
          const inputIds = Int32Array.from({ length }, (_, i) => (7919 * (i + 1)) % config.vocabSize);
          const { collected } = model.forward({
            inputIds,
            shape: [1, length],
            collect: [last],
            logitsAt: new Int32Array(0),
          });
          return (collected.get(siteName(last)) as Tensor).reshape([length, config.hiddenSize]);
        }),
      ),
    ),
  );
  const { buffer, byteOffset, byteLength } = await states.data();
  states.storage.dispose();
  const forms = [...model.namedParameters()].map(([, t]) => t.packing ?? t.dtype);
  const shown = await sha256(new Uint8Array(buffer, byteOffset, byteLength));
  const decides = JSON.stringify([await modelFingerprint(model), config, dtype, backend.name, forms, shown]);
  return sha256(new TextEncoder().encode(decides));
}

/** The hash of the ids, labels and prompt lengths of examples, in order. */
export async function examplesFingerprint(examples: readonly Example[]): Promise<string> {
  const numbers = examples.flatMap(e => [e.ids.length, e.promptLength, ...e.ids, ...e.labels]);
  const view = new DataView(new ArrayBuffer(4 * numbers.length));
  numbers.forEach((n, i) => {
    view.setInt32(4 * i, n, true);
  });
  return sha256(new Uint8Array(view.buffer));
}
