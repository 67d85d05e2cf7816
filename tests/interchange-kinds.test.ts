// Every kind of interchange: its formula in plain numbers, its gradients by differences, and what must not move.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { gradcheck } from '../src/autograd/gradcheck.js';
import { compactHouseholder } from '../src/nn/orthogonal/maps.js';
import { orthogonalInit } from '../src/nn/init.js';
import {
  interchangeKindByName,
  interchangeKinds,
  type InterchangeCall,
  type InterchangeKind,
  type InterchangeSizes,
} from '../src/interchange/kinds.js';
import { principalComponents } from '../src/interchange/pca.js';
import { symmetricEigen } from '../src/nn/hostMatrices.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { seededRandom } from './helpers/mutate.js';
import { runs } from './helpers/draw.js';

const f64 = { dtype: 'f64' } as const;
const allKinds: readonly InterchangeKind[] = Object.values(interchangeKinds);
const withSource = allKinds.filter(k => k.needsSource);
/** Kinds that replace what they see of the base by what they see of the source. */
const swapping = withSource.filter(k => !['addition', 'subtraction'].includes(k.name));

const normal = (shape: number[], seed: number): Tensor => create.normal(shape, { seed, ...f64 });

function parametersOf(kind: InterchangeKind, sizes: InterchangeSizes, seed: number): Record<string, Tensor> {
  return Object.fromEntries(
    kind.parameters.map(({ name, shape, start }, i) => {
      const sides = shape.map(side => (side === 1 ? 1 : sizes[side]));
      if (start === 'orthogonal' || name === 'components')
        return [name, orthogonalInit(sides as [number, number], { seed: seed + i, ...f64 })];
      if (name === 'interventionBoundaries') return [name, create.full(sides, 0.2 + 0.6 * seededRandom(seed)(), f64)];
      if (name === 'std') return [name, create.uniform(sides, { seed: seed + i, low: 0.5, high: 2, ...f64 })];
      if (name === 'threshold') return [name, create.uniform(sides, { seed: seed + i, low: 0, high: 0.5, ...f64 })];
      return [name, normal(sides, seed + i)];
    }),
  );
}

interface Setting {
  readonly sizes: InterchangeSizes;
  readonly m: number;
  readonly seed: number;
  readonly temperature: number;
}

const settings: fc.Arbitrary<Setting> = fc
  .record({
    width: fc.integer({ min: 1, max: 9 }),
    rankShare: fc.double({ min: 0, max: 1, noNaN: true }),
    latents: fc.integer({ min: 1, max: 12 }),
    m: fc.integer({ min: 1, max: 4 }),
    seed: fc.integer({ min: 1, max: 1e6 }),
    temperature: fc.constantFrom(0.1, 0.7, 3, 50),
  })
  .map(({ width, rankShare, latents, m, seed, temperature }) => ({
    sizes: { width, rank: 1 + Math.floor(rankShare * (width - 1)), latents },
    m,
    seed,
    temperature,
  }));

/** A call on random rows; `subset` chooses features at random, for each row. */
function callOf(
  kind: InterchangeKind,
  { sizes, m, seed, temperature }: Setting,
  subset: boolean,
  more: Partial<InterchangeCall> = {},
): InterchangeCall {
  const features = sizes[kind.features];
  const random = seededRandom(seed);
  const chosen = subset
    ? create.from(
        Int32Array.from({ length: m * features }, () => Number(random() < 0.5)),
        [m, features],
        { dtype: 'bool' },
      )
    : null;
  return {
    base: normal([m, sizes.width], seed + 100),
    source: kind.needsSource ? normal([m, sizes.width], seed + 200) : null,
    parameters: parametersOf(kind, sizes, seed),
    chosen,
    temperature,
    noise: normal([m, sizes.width], seed + 300),
    noiseLevel: 0.3,
    keepError: true,
    ...more,
  };
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** One row by the formulas as written in papers and in pyvene, in plain numbers. */
function formula(kind: InterchangeKind, row: number, { sizes }: Setting, call: InterchangeCall): number[] {
  const { width: d } = sizes;
  const flat = (t: Tensor): number[] => Array.from(t.dataSync());
  const rowOf = (t: Tensor | null): number[] => (t ? flat(t).slice(row * d, (row + 1) * d) : []);
  const [h, s, noise] = [rowOf(call.base), rowOf(call.source), rowOf(call.noise)];
  const p = Object.fromEntries(Object.entries(call.parameters).map(([name, t]) => [name, flat(t)]));
  const features = sizes[kind.features];
  const chosen = call.chosen
    ? flat(call.chosen)
        .slice(row * features, (row + 1) * features)
        .map(Boolean)
    : new Array<boolean>(features).fill(true);
  const times = (M: number[], x: number[]): number[] =>
    Array.from({ length: M.length / d }, (_, i) => x.reduce((sum, v, k) => sum + M[i * d + k] * v, 0));
  const back = (M: number[], u: number[]): number[] =>
    h.map((_, k) => u.reduce((sum, v, i) => sum + v * M[i * d + k], 0));
  const mix = (a: number[], b: number[], w = (i: number) => Number(chosen[i])): number[] =>
    a.map((x, i) => (1 - w(i)) * x + w(i) * b[i]);
  /** Swapped in the span of M's orthonormal rows, the rest kept. */
  const within = (M: number[], w?: (i: number) => number): number[] => {
    const [z, zs] = [times(M, h), times(M, s)];
    return back(
      M,
      mix(z, zs, w).map((x, i) => x - z[i]),
    ).map((x, k) => h[k] + x);
  };
  switch (kind.name) {
    case 'vanilla':
      return mix(h, s);
    case 'rotatedSpace':
    case 'lowRankRotatedSpace':
      return within(p.R);
    case 'boundlessRotatedSpace': {
      const m = (i: number): number =>
        sigmoid(i / call.temperature) * sigmoid((p.interventionBoundaries[0] * d - i) / call.temperature);
      // R^T ((1 - m) R h + m R s), for the whole of R.
      return back(
        p.R,
        mix(times(p.R, h), times(p.R, s), i => (chosen[i] ? m(i) : 0)),
      );
    }
    case 'sigmoidMask':
      return mix(h, s, i => (chosen[i] ? sigmoid(p.mask[i] / call.temperature) : 0));
    case 'sigmoidMaskRotatedSpace':
      return back(
        p.R,
        mix(times(p.R, h), times(p.R, s), i => (chosen[i] ? sigmoid(p.mask[i] / call.temperature) : 0)),
      );
    case 'pcaRotatedSpace': {
      const normed = (x: number[]): number[] => x.map((v, k) => (v - p.mean[k]) / p.std[k]);
      const [z, zs] = [times(p.components, normed(h)), times(p.components, normed(s))];
      const rest = normed(h).map((v, k) => v - back(p.components, z)[k]);
      return back(p.components, mix(z, zs)).map((v, k) => (v + rest[k]) * p.std[k] + p.mean[k]);
    }
    case 'addition':
      return h.map((x, i) => x + (chosen[i] ? s[i] : 0));
    case 'subtraction':
      return h.map((x, i) => x - (chosen[i] ? s[i] : 0));
    case 'zero':
      return h.map((x, i) => (chosen[i] ? 0 : x));
    case 'noise':
      return h.map((x, i) => x + (chosen[i] ? 0.3 * noise[i] : 0));
    case 'collect':
      return h;
    case 'autoencoder':
    case 'jumpReluAutoencoder': {
      const least = (i: number): number => Math.max(0, p.threshold?.[i] ?? 0);
      const encode = (x: number[]): number[] =>
        times(p.encoder, x)
          .map((v, i) => v + p.encoderBias[i])
          .map((v, i) => (v > least(i) ? v : 0));
      const decode = (z: number[]): number[] => back(p.decoder, z).map((v, k) => v + p.decoderBias[k]);
      const mixed = decode(mix(encode(h), encode(s)));
      return call.keepError ? mixed.map((v, k) => v + h[k] - decode(encode(h))[k]) : mixed;
    }
    default:
      throw new Error(kind.name);
  }
}

const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce<number>((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

describe('every kind', () => {
  test('computes its formula, for all features and for chosen ones', () => {
    fc.assert(
      fc.property(settings, fc.boolean(), fc.boolean(), (setting, subset, keepError) => {
        for (const kind of allKinds) {
          const call = callOf(kind, setting, subset, { keepError });
          const actual = kind.apply(call).dataSync();
          for (let row = 0; row < setting.m; row++) {
            const d = setting.sizes.width;
            const off = furthest(actual.slice(row * d, (row + 1) * d), formula(kind, row, setting, call));
            assert.ok(off < 1e-12, `${kind.name}, row ${row}: off by ${off}`);
          }
        }
      }),
      runs(40),
    );
  });

  test('has the gradients of its formula: base, source, masks, boundaries, and R through its map', async () => {
    const checked = new Set<string>();
    /** Whether a feature of an autoencoder is about to begin or to end, where differences see both sides. */
    const nearKink = ({
      base,
      source,
      parameters: { encoder, encoderBias, threshold },
    }: ReturnType<typeof callOf>): boolean =>
      !!encoder &&
      [base, source ?? base].some(x => {
        const before = x.matmulT(encoder).add(encoderBias);
        const distances = (threshold ? [before, before.sub(threshold)] : [before]).flatMap(t => [...t.dataSync()]);
        return distances.some(v => Math.abs(v) < 0.03);
      });
    await fc.assert(
      fc.asyncProperty(settings, fc.boolean(), async (drawn, subset) => {
        const setting = { ...drawn, temperature: Math.min(drawn.temperature, 3) };
        for (const kind of allKinds) {
          const call = callOf(kind, setting, subset);
          if (nearKink(call)) continue;
          checked.add(kind.name);
          const { R, ...plain } = call.parameters;
          const map = R ? compactHouseholder.initial(R).parameters : {};
          const names = Object.keys(plain);
          await gradcheck(
            (base, source, ...rest) => {
              const given = Object.fromEntries(names.map((name, i) => [name, rest[i]]));
              const rotation: Record<string, Tensor> = R
                ? { R: compactHouseholder.rotation({ ...map, V: rest[names.length] }) }
                : {};
              return kind.apply({
                ...call,
                base,
                source: call.source && source,
                parameters: { ...given, ...rotation },
              });
            },
            [call.base, call.source ?? call.base, ...Object.values(plain), ...(R ? [map.V.detach()] : [])],
            { seed: setting.seed },
          );
        }
      }),
      runs(6),
    );
    assert.equal(checked.size, allKinds.length, 'every kind was checked');
  });

  test('with the base as its own source, nothing moves, bit for bit, where features are swapped', () => {
    fc.assert(
      fc.property(settings, fc.boolean(), (setting, subset) => {
        for (const kind of swapping) {
          const call = callOf(kind, setting, subset);
          assert.deepEqual(kind.apply({ ...call, source: call.base }).dataSync(), call.base.dataSync(), kind.name);
        }
      }),
      runs(30),
    );
  });

  test('the whole of R, of the components or of the coordinates gives the source', () => {
    fc.assert(
      fc.property(settings, setting => {
        const whole = { ...setting, sizes: { ...setting.sizes, rank: setting.sizes.width } };
        for (const name of ['vanilla', 'rotatedSpace', 'lowRankRotatedSpace', 'pcaRotatedSpace'] as const) {
          const call = callOf(interchangeKinds[name], whole, false);
          assert.ok(
            furthest(interchangeKinds[name].apply(call).dataSync(), (call.source as Tensor).dataSync()) < 1e-12,
            name,
          );
        }
      }),
      runs(30),
    );
  });

  test('what R or the components do not see stays', () => {
    fc.assert(
      fc.property(settings, fc.boolean(), (setting, subset) => {
        const {
          sizes: { width: d, rank: r },
          m,
        } = setting;
        for (const name of ['lowRankRotatedSpace', 'pcaRotatedSpace'] as const) {
          const kind = interchangeKinds[name];
          const call = callOf(kind, setting, subset);
          const { std } = call.parameters as { std?: Tensor };
          let moved = kind.apply(call).sub(call.base);
          if (std) moved = moved.div(std);
          const rows = call.parameters[name === 'pcaRotatedSpace' ? 'components' : 'R'];
          assert.ok(
            furthest(moved.sub(moved.matmulT(rows).matmul(rows)).dataSync(), new Float64Array(m * d)) < 1e-12,
            `${name} of rank ${r}`,
          );
        }
      }),
      runs(30),
    );
  });

  test('swapping one part of the features and then the rest is swapping all; the order does not matter', () => {
    fc.assert(
      fc.property(settings, setting => {
        for (const kind of swapping.filter(k => !k.name.includes('utoencoder'))) {
          const call = callOf(kind, setting, true);
          const rest = { ...call, chosen: (call.chosen as Tensor).not() };
          const one = kind.apply({ ...rest, base: kind.apply(call) });
          const other = kind.apply({ ...call, base: kind.apply(rest) });
          const all = kind.apply({ ...call, chosen: null });
          for (const both of [one, other]) assert.ok(furthest(both.dataSync(), all.dataSync()) < 1e-12, kind.name);
        }
      }),
      runs(30),
    );
  });
});

test('a cold boundary swaps the first c d features of R, half of the first one', () => {
  const [d, c] = [8, 0.55];
  const { boundlessRotatedSpace: kind } = interchangeKinds;
  const parameters = {
    R: orthogonalInit([d, d], { seed: 3, ...f64 }),
    interventionBoundaries: create.full([1], c, f64),
  };
  const mask = Array.from(kind.softMask(parameters, 1e-4).dataSync());
  assert.deepEqual(mask, [0.5, 1, 1, 1, 1, 0, 0, 0]);
  assert.equal(kind.sparsity(parameters).dataSync()[0], c);
  const beyond = { ...parameters, interventionBoundaries: create.full([1], 7, f64) };
  assert.deepEqual(
    Array.from(kind.softMask(beyond, 1e-3).dataSync()).slice(1),
    new Array(d - 1).fill(1),
    'clamped to 1',
  );
});

test('an unknown kind is refused, naming those there are', () => {
  assert.throws(
    () => interchangeKindByName('rotate'),
    /interchange 'rotate' is not known; known: vanilla, rotatedSpace/,
  );
  assert.throws(() => interchangeKindByName('toString'), /not known/);
});

describe('principal components', () => {
  test('eigenvalues and vectors of symmetric matrices', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 1e6 }), (n, seed) => {
        const random = seededRandom(seed);
        const A = Array.from({ length: n }, () => new Float64Array(n));
        for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) A[i][j] = A[j][i] = random() - 0.5;
        const copy = A.map(row => row.slice());
        const { values, vectors } = symmetricEigen(A);
        vectors.forEach((v, k) => {
          const product = copy.map(row => row.reduce((sum, x, j) => sum + x * v[j], 0));
          assert.ok(
            furthest(
              product,
              v.map(x => values[k] * x),
            ) < 1e-12,
            'furthest(product, v.map(x => values[k] * x)) < 1e-12',
          );
          vectors.forEach((w, l) =>
            assert.ok(
              Math.abs(v.reduce((sum, x, j) => sum + x * w[j], 0) - Number(k === l)) < 1e-12,
              'Math.abs(v.reduce((sum, x, j) => sum + x * w[j], 0) - Number(k === ...',
            ),
          );
        });
      }),
      runs(40),
    );
  });

  test('are the directions of variance, in falling order', async () => {
    // Three directions with deviations 5, 2 and 0.5 in a space of 6, around a mean.
    const Q = orthogonalInit([3, 6], { seed: 4, ...f64 });
    const mean = [1, -2, 3, 0, 4, 5];
    const states = normal([400, 3], 5)
      .mul(create.from([5, 2, 0.5], f64))
      .matmul(Q)
      .add(create.from(mean, f64));
    const found = await principalComponents(states, 3, { standardize: false });
    assert.deepEqual([...found.std], new Array(6).fill(1));
    assert.ok(furthest(found.mean, mean) < 1, 'furthest(found.mean, mean) < 1');
    const cosines = create.from(found.components, [3, 6]).matmulT(Q).abs().dataSync();
    for (let i = 0; i < 3; i++) assert.ok(cosines[4 * i] > 0.99, `component ${i}`);
    assert.deepEqual(
      [...found.variances].map(v => Math.round(Math.sqrt(v) * 2) / 2),
      [5, 2, 0.5],
    );
    await assert.rejects(principalComponents(states, 7), /expected 1 to 6 components, got 7/);
    await assert.rejects(principalComponents(normal([1, 6], 1), 1), /states \[n, d\] with n of 2 or more/);
  });
});
