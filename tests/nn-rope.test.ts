// Rotary frequencies and tables against the formulas of transformers' modeling_rope_utils.py in f64, and what relative
// positions mean.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { rope, ropeFrequencies, ropeTables, type RopeFrequencies, type RopeOptions } from '../src/nn/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { runs } from './helpers/draw.js';

const near = (actual: ArrayLike<number>, expected: readonly number[], tolerance = 1.5e-6): void => {
  assert.equal(actual.length, expected.length);
  expected.forEach((x, i) =>
    assert.ok(Math.abs(actual[i] - x) <= tolerance * Math.abs(x), `entry ${i}: ${actual[i]}, expected ${x}`),
  );
};
const perPosition = (options: RopeOptions): Float32Array => ropeFrequencies(options).perPosition;
const plain = (headDim: number, theta: number): number[] =>
  Array.from({ length: headDim / 2 }, (_, i) => theta ** (-(2 * i) / headDim));

// The exponent is rounded to f32, which counts ln(theta) times.
test('frequencies are 1 / theta^(2i/D)', () =>
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 128 }), fc.constantFrom(10000, 100000, 500000, 1e6), (half, theta) => {
      near(perPosition({ headDim: 2 * half, theta }), plain(2 * half, theta));
      near(perPosition({ headDim: 2 * half, theta, scaling: { rope_type: 'default' } }), plain(2 * half, theta));
    }),
    runs(30),
  ));

test('linear scaling divides every frequency', () => {
  for (const key of ['rope_type', 'type'])
    near(
      perPosition({ headDim: 8, theta: 10000, scaling: { [key]: 'linear', factor: 4 } }),
      plain(8, 10000).map(f => f / 4),
    );
});

test('llama3 scaling: fast ones stay, slow ones are divided, between them a blend', () => {
  const [headDim, theta] = [64, 500000];
  const scaling = {
    rope_type: 'llama3',
    factor: 32,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const kinds = new Set<string>();
  const expected = plain(headDim, theta).map(f => {
    const wavelength = (2 * Math.PI) / f;
    if (wavelength < 8192 / 4) {
      kinds.add('fast');
      return f;
    }
    if (wavelength > 8192) {
      kinds.add('slow');
      return f / 32;
    }
    kinds.add('between');
    const smooth = (8192 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * (f / 32) + smooth * f;
  });
  assert.equal(kinds.size, 3);
  near(perPosition({ headDim, theta, scaling }), expected);
});

const golden = JSON.parse(
  readFileSync(new URL('fixtures/nn/ropeScalings.json', import.meta.url), 'utf8'),
) as (RopeOptions & { name: string; perPosition: number[]; scale: number })[];
for (const { name, perPosition: expected, scale, ...options } of golden) {
  test(`${name}: frequencies have the bits of transformers`, () => {
    const found = ropeFrequencies(options);
    assert.deepEqual(found.perPosition, Float32Array.from(expected));
    assert.equal(found.scale, scale);
    const { cos, sin } = ropeTables(found, Int32Array.of(0, 5));
    assert.equal(cos[0], Math.fround(scale));
    assert.equal(
      sin[expected.length],
      Math.fround(Math.fround(Math.sin(Math.fround(5 * found.perPosition[0]))) * scale),
    );
  });
}

test('divisors divide each frequency, after scaling', () => {
  const scaling = { rope_type: 'linear', factor: 4 };
  near(
    perPosition({ headDim: 8, theta: 10000, scaling, divisors: [1, 2, 4, 8] }),
    plain(8, 10000).map((x, i) => x / 4 / 2 ** i),
  );
});

test('tables are cosines and sines of position times frequency, rounded to f32 in between', () => {
  const frequencies = ropeFrequencies({ headDim: 6, theta: 10000 });
  const positions = Int32Array.of(0, 3, 3, 70_000);
  const { cos, sin } = ropeTables(frequencies, positions);
  const angles = [...positions].flatMap(p => [...frequencies.perPosition].map(f => Math.fround(p * f)));
  assert.deepEqual(cos, Float32Array.from(angles, Math.cos));
  assert.deepEqual(sin, Float32Array.from(angles, Math.sin));
});

/** x [T, D] rotated at the given positions, f64. */
function rotated(x: Tensor, frequencies: RopeFrequencies, positions: Int32Array): Tensor {
  const { cos, sin } = ropeTables(frequencies, positions);
  const [T, D] = x.shape;
  const table = (data: Float32Array): Tensor => tensor(Float64Array.from(data), [1, T, D / 2], { dtype: 'f64' });
  return rope(x.reshape([1, T, 1, D]), table(cos), table(sin)).reshape([T, D]);
}

const distances = fc.record({
  seed: fc.nat(1000),
  shift: fc.integer({ min: 0, max: 500 }),
  gap: fc.integer({ min: 0, max: 50 }),
});
test('scores depend on distance alone, and lengths stay', () =>
  fc.assert(
    fc.property(distances, ({ seed, shift, gap }) => {
      const frequencies = ropeFrequencies({ headDim: 8, theta: 10000 });
      const x = tensor.normal([2, 8], { seed, dtype: 'f64' });
      const at = (start: number): Tensor => rotated(x, frequencies, Int32Array.of(start, start + gap));
      const product = (y: Tensor): number => y.select(0, 0).mul(y.select(0, 1)).sum().dataSync()[0];
      // The tables are f32: angles up to 550 are off by 3e-5.
      assert.ok(
        Math.abs(product(at(0)) - product(at(shift))) <= 2e-3,
        'Math.abs(product(at(0)) - product(at(shift))) <= 2e-3',
      );
      near(at(shift).square().sum(1).dataSync(), [...x.square().sum(1).dataSync()], 1e-6);
    }),
    runs(25),
  ));

test('the first half turns against the second, as rotate_half does', () => {
  const quarter = rope(tensor([1, 2, 3, 4]).reshape([1, 1, 1, 4]), tensor.zeros([1, 1, 2]), tensor.ones([1, 1, 2]));
  assert.deepEqual([...quarter.dataSync()], [-3, -4, 1, 2]);
});

const longrope = { rope_type: 'longrope', factor: 4, original_max_position_embeddings: 64 };

test('a part of a head: its frequencies are those of a smaller head, in the scalings too', () => {
  near(perPosition({ headDim: 16, theta: 10000, fraction: 0.25 }), plain(4, 10000));
  near(
    perPosition({ headDim: 16, theta: 10000, scaling: { rope_type: 'default', partial_rotary_factor: 0.5 } }),
    plain(8, 10000),
  );
  // Pythia's rotary_pct of a quarter of 10 columns: transformers cuts it to whole columns.
  near(perPosition({ headDim: 10, theta: 10000, fraction: 0.25 }), plain(2, 10000));
  // Phi-4-mini: three quarters of a head, and so many factors.
  const short_factor = [1, 1.5, 2, 2.5, 3, 4];
  const scaled = ropeFrequencies({
    headDim: 16,
    theta: 10000,
    fraction: 0.75,
    scaling: { ...longrope, short_factor, long_factor: short_factor },
  });
  near(
    scaled.perPosition,
    plain(12, 10000).map((x, i) => x / short_factor[i]),
  );
  assert.equal(scaled.scale, Math.sqrt(1 + Math.log(4) / Math.log(64)));
  // yarn finds the columns that it blends by the rotated part's size.
  const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 512 };
  assert.deepEqual(
    perPosition({ headDim: 32, theta: 10000, fraction: 0.5, scaling: yarn }),
    perPosition({ headDim: 16, theta: 10000, scaling: yarn }),
  );
});

test('the first columns turn and the others stay; neighbours turn against each other', () => {
  const x = tensor([1, 2, 3, 4, 5, 6]).reshape([1, 1, 1, 6]);
  const [zeros, ones] = [tensor.zeros([1, 1, 2]), tensor.ones([1, 1, 2])];
  assert.deepEqual([...rope(x, zeros, ones).dataSync()], [-3, -4, 1, 2, 5, 6]);
  assert.deepEqual([...rope(x, zeros, ones, { pairs: 'interleaved' }).dataSync()], [-2, 1, -4, 3, 5, 6]);
  assert.throws(() => rope(x, zeros, tensor.ones([1, 1, 1])), {
    name: 'ShapeError',
    message: 'rope: tables [1,1,2] and [1,1,1] do not fit [1,1,1,6], expected [1|1,1,1 to 3]',
  });
});

test('messages', () => {
  const bad = (options: Partial<RopeOptions>, message: string): void =>
    assert.throws(() => ropeFrequencies({ headDim: 8, theta: 10000, ...options }), { message });
  bad(
    { scaling: { rope_type: 'ntk', factor: 2 } },
    "rope scaling 'ntk' is not known; known: default, linear, dynamic, llama3, yarn, longrope",
  );
  bad(
    { scaling: { type: 'constructor' } },
    "rope scaling 'constructor' is not known; known: default, linear, dynamic, llama3, yarn, longrope",
  );
  bad(
    { scaling: { rope_type: 'yarn', factor: 2 } },
    "rope scaling 'yarn': original_max_position_embeddings must be a positive number, got undefined",
  );
  bad(
    { scaling: { rope_type: 'yarn', factor: 2, original_max_position_embeddings: 8, truncate: 1 } },
    "rope scaling 'yarn': truncate must be true or false, got 1",
  );
  bad({ scaling: { type: 'dynamic' } }, "rope scaling 'dynamic': factor must be a positive number, got undefined");
  bad({ divisors: [1, 2, 3] }, 'rope: expected 4 positive divisors of frequencies, got 3');
  bad({ divisors: [1, 2, 0, 4] }, 'rope: expected 4 positive divisors of frequencies, got 4');
  bad({ scaling: { rope_type: 'linear' } }, "rope scaling 'linear': factor must be a positive number, got undefined");
  bad(
    { scaling: { rope_type: 'linear', factor: '2' } },
    "rope scaling 'linear': factor must be a positive number, got 2",
  );
  bad(
    { scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 } },
    "rope scaling 'llama3': original_max_position_embeddings must be a positive number, got undefined",
  );
  bad({ headDim: 7 }, 'rope: the columns that are rotated must be even in number and positive, got 7');
  bad(
    { headDim: 10, fraction: 0.5 },
    'rope: the columns that are rotated must be even in number and positive, got 5, 0.5 of a head of 10',
  );
  bad(
    { fraction: 1.5 },
    'rope: the columns that are rotated must be even in number and positive, got 12, 1.5 of a head of 8',
  );
  bad(
    { fraction: 0.5, scaling: { rope_type: 'default', partial_rotary_factor: 0.25 } },
    "rope scaling 'default': partial_rotary_factor is 0.25, and 0.5 beside it",
  );
  bad(
    { headDim: 16, fraction: 0.75, scaling: { ...longrope, short_factor: [1, 2, 3, 4, 5, 6, 7, 8] } },
    "rope scaling 'longrope': short_factor must be a list of 6 positive numbers, got a list of 8",
  );
  bad({ theta: NaN }, 'rope: theta must be positive, got NaN');
});
