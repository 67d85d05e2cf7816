// The parameters of an adapter: how they start, what is trained of them, and matrices that an orthogonal map holds.

import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { ParameterSet, type ParameterDefinition } from '../src/adapt/parameterSet.js';
import { sharedRotations } from '../src/adapt/sharedRotations.js';
import { noGrad } from '../src/autograd/tape.js';
import { defaultBackend } from '../src/devices.js';
import { orthogonalInit } from '../src/nn/init.js';
import { orthonormalBasis, orthonormalityError, symmetricEigen } from '../src/nn/hostMatrices.js';
import { orthogonalMaps, type OrthogonalMapName } from '../src/nn/orthogonal/maps.js';
import { getInterchangeModel, interchangeFromFiles, interchangeToFiles } from '../src/reft/index.js';
import { tensor, type Tensor } from '../src/tensor/index.js';
import { tinyModel } from './helpers/tinyModel.js';

const sizes: readonly ParameterDefinition[] = [
  { name: 'R', shape: [2, 6], start: 'orthogonal', stream: 0 },
  { name: 'W', shape: [2, 6], start: 'linear', stream: 1 },
  { name: 'b', shape: [2], start: 'linear', stream: 2, fanIn: 6 },
];

function setOf(definitions = sizes, map: OrthogonalMapName = 'householder', seed = 3): ParameterSet {
  const backend = defaultBackend();
  return new ParameterSet(
    { id: 'block_output/1', kind: 'loreft', map: orthogonalMaps[map], seed, backend, dtype: 'f32' },
    definitions,
  );
}

const numbers = (t: Tensor): number[] => Array.from(t.dataSync());
const valuesOf = (set: ParameterSet): Record<string, Tensor> => noGrad(() => set.values());

describe('a parameter set', () => {
  it('starts as its definitions say', () => {
    const values = valuesOf(
      setOf([
        { name: 'I', shape: [2, 3], start: 'identity', stream: 0 },
        { name: 'tall', shape: [3, 2], start: 'identity', stream: 1 },
        { name: 'c', shape: [3], start: 0.25, stream: 2 },
        { name: 'u', shape: [400], start: 'unit', stream: 3 },
        { name: 'l', shape: [400], start: 'linear', stream: 4, fanIn: 4 },
        { name: 'm', shape: [100, 4], start: 'linear', stream: 4 },
      ]),
    );
    assert.deepEqual(numbers(values.I), [1, 0, 0, 0, 1, 0]);
    assert.deepEqual(numbers(values.tall), [1, 0, 0, 1, 0, 0]);
    assert.deepEqual(numbers(values.c), [0.25, 0.25, 0.25]);
    const u = numbers(values.u);
    assert.ok(Math.min(...u) >= 0 && Math.min(...u) < 0.02 && Math.max(...u) > 0.98, `${Math.min(...u)}`);
    const l = numbers(values.l);
    assert.ok(Math.max(...l) <= 0.5 && Math.max(...l) > 0.48 && Math.min(...l) < -0.48, `${Math.max(...l)}`);
    // One stream and one bound: the same numbers, whatever the shape.
    assert.deepEqual(numbers(values.m), l);
  });

  it('names its tensors, rotations first, and knows what is trained', () => {
    const set = setOf(
      [...sizes, { name: 'mean', shape: [6], start: 0, stream: 3, trained: false }],
      'torchHouseholder',
    );
    const [state, trained] = [set.state(), set.trained()].map(list =>
      list.map(t => t.name.replace('block_output/1.', '')),
    );
    assert.deepEqual(state, ['R.original', 'R.base', 'W', 'b', 'mean']);
    assert.deepEqual(trained, ['R.original', 'W', 'b']);
    assert.deepEqual(
      set.trained().map(t => t.orthogonal),
      [true, false, false],
    );
    assert.equal(set.count, 12 + 12 + 2 + 6);
    const frozen = setOf(sizes.map(s => ({ ...s, trained: false })));
    assert.deepEqual(frozen.trained(), []);
    assert.equal(frozen.values().R.needsGrad, false);
  });

  it('computes R once while nothing is trained, and again when a value changed', () => {
    const set = setOf();
    const { R } = valuesOf(set);
    assert.equal(valuesOf(set).R, R);
    const versions = set.versions;
    const other = setOf(sizes, 'householder', 4);
    for (const { name, tensor } of other.state()) set.setState(name, tensor);
    assert.notEqual(set.versions, versions);
    assert.deepEqual(numbers(valuesOf(set).R), numbers(valuesOf(other).R));
    assert.equal(set.values().R.needsGrad, true);
  });

  it('takes what rotations were computed for it', () => {
    const set = setOf();
    const given = tensor.zeros([2, 6]);
    assert.equal(set.values({ R: given }).R, given);
  });

  it('holds a given R to the bit until it is trained, and makes one that is off orthonormal', () => {
    for (const map of ['householder', 'cayley', 'polar'] as const) {
      const set = setOf(sizes, map);
      const R = orthogonalInit([2, 6], { seed: 9, dtype: 'f32' });
      set.set('R', R);
      assert.deepEqual(numbers(valuesOf(set).R), numbers(R), map);
      set.set('R', R.mul(1.01));
      const made = valuesOf(set).R;
      assert.ok(orthonormalityError(made.dataSync(), made.shape).error < 1e-6, map);
    }
    const set = setOf();
    // Its own R, which the set frees as it takes the new one.
    const before = numbers(valuesOf(set).R);
    set.set('R', valuesOf(set).R);
    assert.deepEqual(numbers(valuesOf(set).R), before);
  });

  it('refuses other names and shapes', () => {
    const set = setOf();
    const value = tensor.zeros([2, 5]);
    assert.throws(() => {
      set.set('Q', value);
    }, /^RangeError: block_output\/1: loreft has no parameter 'Q'$/);
    for (const name of ['R', 'W'])
      assert.throws(
        () => {
          set.set(name, value);
        },
        new RegExp(`^RangeError: block_output/1\\.${name}: expected shape \\[2,6\\], got \\[2,5\\]$`),
      );
    assert.throws(() => {
      set.setState('block_output/1.Q', value);
    }, /^RangeError: block_output\/1 has no state 'block_output\/1\.Q'$/);
    assert.throws(() => {
      set.setRotationParameters('W', {});
    }, /^RangeError: block_output\/1: loreft has no W$/);
  });

  it('frees all it holds', () => {
    const backend = defaultBackend();
    const before = backend.stats().liveBytes;
    const set = setOf();
    valuesOf(set);
    assert.ok(backend.stats().liveBytes > before, 'nothing was allocated');
    set.dispose();
    assert.equal(backend.stats().liveBytes, before);
  });

  it('evaluates maps of one shape together: the same R for each', () => {
    const sets = [3, 4, 5].map(seed => setOf(sizes, 'householder', seed));
    const wide = setOf([{ name: 'R', shape: [2, 8], start: 'orthogonal', stream: 0 }]);
    const shared = sharedRotations([...sets, wide]);
    assert.deepEqual([...shared.keys()], sets);
    for (const set of sets) assert.deepEqual(numbers(shared.get(set)!.R), numbers(valuesOf(set).R));
  });
});

describe('interchange interventions in files', () => {
  it('give the same R to the bit, and the same bytes, when they are read back', async () => {
    const base = await tinyModel();
    const model = getInterchangeModel(base, [{ kind: 'lowRankRotatedSpace', layer: 1, lowRankDimension: 3, seed: 2 }]);
    const files = await interchangeToFiles(model);
    const again = await interchangeFromFiles(base, files);
    assert.deepEqual(await interchangeToFiles(again), files);
  });
});

describe('small matrices on the host', () => {
  it('a row of NaN is not orthonormal, whatever comes after it', () => {
    assert.equal(orthonormalityError([NaN, 0, 1, 0], [2, 2]).error, NaN);
    assert.deepEqual(orthonormalityError([1, 0, 0.5, 1], [2, 2]), { error: 0.5, rows: [0, 1] });
    assert.deepEqual(orthonormalityError([1, 0, 0, 2], [2, 2]), { error: 3, rows: [1, 1] });
    assert.deepEqual(orthonormalityError([1, 0, 0, 1], [2, 2]), { error: 0, rows: [0, 0] });
  });

  it('a basis leaves out rows that depend on earlier ones, and leaves its input alone', () => {
    const rows = [Float64Array.of(3, 0, 0), Float64Array.of(2, 0, 0), Float64Array.of(1, 0, -4)];
    assert.deepEqual(
      orthonormalBasis(rows).map(row => [...row]),
      [
        [1, 0, 0],
        [0, 0, -1],
      ],
    );
    assert.deepEqual([...rows[2]], [1, 0, -4]);
    // What is left of a sum of earlier rows is rounding, not a direction.
    const [x, y] = [Float64Array.of(1 / 3, 1 / 7, 1 / 11), Float64Array.of(1 / 5, 1 / 13, 1 / 17)];
    assert.equal(orthonormalBasis([x, y, x.map((v, k) => 0.3 * v + 0.7 * y[k])]).length, 2);
  });

  it('eigenvalues of a matrix of tiny numbers', () => {
    const tiny = 1e-20;
    const { values } = symmetricEigen([Float64Array.of(2 * tiny, tiny), Float64Array.of(tiny, 2 * tiny)]);
    const sorted = [...values].map(v => v / tiny).sort((a, b) => a - b);
    assert.ok(Math.abs(sorted[0] - 1) < 1e-12 && Math.abs(sorted[1] - 3) < 1e-12, `${sorted}`);
  });
});
