// Q5_0, Q5_1 and the K-quants of GGUF: blocks are written here from codes, scales and minima as ggml-common.h lays them
// out, and must decode to what these numbers mean, rounded once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memorySource } from '../src/io/byteSource.js';
import type { BlockDType } from '../src/io/dequantize.js';
import { openGguf } from '../src/io/gguf.js';
import { Random } from '../src/tensor/threefry.js';
import { ggufBytes } from './helpers/ggufBytes.js';
import { halfValue, randomHalf } from './helpers/packedWeights.js';

interface Block {
  readonly bytes: Uint8Array;
  readonly values: number[];
}

/** A writer of bits: field `bits` wide at bit `at` of the bytes (little-endian). */
function setBits(bytes: Uint8Array, at: number, bits: number, value: number): void {
  for (let i = 0; i < bits; i++) if ((value >> i) & 1) bytes[(at + i) >> 3] |= 1 << ((at + i) & 7);
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  setBits(bytes, 8 * at, 16, value);
}

function fifths(random: Random, withMinimum: boolean): Block {
  const bytes = new Uint8Array(withMinimum ? 24 : 22);
  const [d, m] = [randomHalf(random), randomHalf(random)];
  put16(bytes, 0, d);
  if (withMinimum) put16(bytes, 2, m);
  const qh = withMinimum ? 4 : 2;
  const values = Array.from({ length: 32 }, (_, i) => {
    const q = random.integer(32);
    setBits(bytes, 8 * qh + i, 1, q >> 4);
    setBits(bytes, 8 * (qh + 4 + (i % 16)) + (i < 16 ? 0 : 4), 4, q & 15);
    return withMinimum ? halfValue(d) * q + halfValue(m) : halfValue(d) * (q - 16);
  });
  return { bytes, values };
}

/**
 * 256 weights in eight parts with 6-bit scales and minima, packed as get_scale_min_k4 of ggml-quants.c unpacks them.
 */
function superBlock(random: Random, bits: 4 | 5): Block {
  const bytes = new Uint8Array(bits === 4 ? 144 : 176);
  const [d, least] = [randomHalf(random), randomHalf(random)];
  put16(bytes, 0, d);
  put16(bytes, 2, least);
  const scales = Array.from({ length: 8 }, () => random.integer(64));
  const minima = Array.from({ length: 8 }, () => random.integer(64));
  for (let j = 0; j < 4; j++) {
    setBits(bytes, 8 * (4 + j), 6, scales[j]);
    setBits(bytes, 8 * (8 + j), 6, minima[j]);
    setBits(bytes, 8 * (12 + j), 4, scales[4 + j] & 15);
    setBits(bytes, 8 * (12 + j) + 4, 4, minima[4 + j] & 15);
    setBits(bytes, 8 * (4 + j) + 6, 2, scales[4 + j] >> 4);
    setBits(bytes, 8 * (8 + j) + 6, 2, minima[4 + j] >> 4);
  }
  const qs = bytes.length - 128;
  const values = Array.from({ length: 256 }, (_, i) => {
    const [part, l] = [i >> 5, i & 31];
    const q = random.integer(1 << bits);
    setBits(bytes, 8 * (qs + 32 * (part >> 1) + l) + 4 * (part & 1), 4, q & 15);
    if (bits === 5) setBits(bytes, 8 * (16 + l) + part, 1, q >> 4);
    return halfValue(d) * scales[part] * q - halfValue(least) * minima[part];
  });
  return { bytes, values };
}

function sixBits(random: Random): Block {
  const bytes = new Uint8Array(210);
  const d = randomHalf(random);
  put16(bytes, 208, d);
  const scales = Array.from({ length: 16 }, () => random.integer(256) - 128);
  scales.forEach((s, i) => (bytes[192 + i] = s & 255));
  const values = Array.from({ length: 256 }, (_, i) => {
    const [half, quarter, l] = [i >> 7, (i >> 5) & 3, i & 31];
    const q = random.integer(64);
    // Quarters 0 and 2 share the first 32 bytes of low nibbles of their half, 1 and 3 the second.
    setBits(bytes, 8 * (64 * half + 32 * (quarter % 2) + l) + (quarter < 2 ? 0 : 4), 4, q & 15);
    setBits(bytes, 8 * (128 + 32 * half + l) + 2 * quarter, 2, q >> 4);
    return halfValue(d) * scales[i >> 4] * (q - 32);
  });
  return { bytes, values };
}

const formats: readonly { name: BlockDType; type: number; length: number; make: (random: Random) => Block }[] = [
  { name: 'Q5_0', type: 6, length: 32, make: random => fifths(random, false) },
  { name: 'Q5_1', type: 7, length: 32, make: random => fifths(random, true) },
  { name: 'Q4_K', type: 12, length: 256, make: random => superBlock(random, 4) },
  { name: 'Q5_K', type: 13, length: 256, make: random => superBlock(random, 5) },
  { name: 'Q6_K', type: 14, length: 256, make: sixBits },
];

for (const { name, type, length, make } of formats) {
  test(`${name} is read from GGUF as its codes say`, async () => {
    const random = new Random(type, 3);
    const [rows, perRow] = [3, 2];
    const blocks = Array.from({ length: rows * perRow }, () => make(random));
    const data = Uint8Array.from(blocks.flatMap(b => [...b.bytes]));
    const file = await openGguf(
      memorySource(
        ggufBytes({ metadata: [], tensors: [{ name: 'w', sides: [perRow * length, rows], type, data }] }),
        'made.gguf',
      ),
    );
    assert.deepEqual([file.tensors.get('w')?.dtype, file.tensors.get('w')?.shape], [name, [rows, perRow * length]]);
    const expected = Float32Array.from(
      blocks.flatMap(b => b.values),
      v => v + 0,
    );
    assert.deepEqual(
      Float32Array.from(await file.readFloat32('w'), v => v + 0),
      expected,
    );
    assert.deepEqual(
      Float64Array.from(await file.readFloat64('w'), v => v + 0),
      Float64Array.from(expected),
    );
    await assert.rejects(
      file.readPacked('w', () => undefined),
      new RegExp(`made.gguf: .*'w' ${name} .* has no packed form`),
    );
  });
}
