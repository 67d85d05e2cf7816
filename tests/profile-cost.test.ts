// What the profiler says a kernel costs, against counts made here by loops over elements, pairs and rows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { attention } from '../src/nn/attention.js';
import { linearScan } from '../src/nn/linearScan.js';
import { rmsNorm } from '../src/nn/rmsNorm.js';
import { rope } from '../src/nn/rope.js';
import { selectiveScan } from '../src/nn/selectiveScan.js';
import { startProfile, type ProfileReport, type ProfileRow } from '../src/profile/index.js';
import { edit } from '../src/reft/editOp.js';
import { allocatePacked, create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { runs } from './helpers/draw.js';

const backend = createCpuBackend();
const filled = (shape: number[]): Tensor => create.ones(shape, { backend });

/** What `body` costs, by op. */
function measure(body: () => void): { report: ProfileReport; row: (name: string) => ProfileRow } {
  const profile = startProfile({ backend });
  try {
    body();
  } finally {
    profile.stop();
  }
  const report = profile.stop();
  return {
    report,
    row: name =>
      report.ops.find(r => r.name === name) ??
      assert.fail(`${name} is not among ${report.ops.map(r => r.name).join(', ')}`),
  };
}

test('matmul: 2 m n k, each operand read once, named by its shape and how its operands lie', () => {
  const side = fc.integer({ min: 2, max: 9 });
  fc.assert(
    fc.property(
      side,
      side,
      side,
      fc.integer({ min: 1, max: 4 }),
      fc.boolean(),
      fc.boolean(),
      (m, k, n, batch, ta, tb) => {
        const a = ta ? filled([batch, k, m]).transpose() : filled([batch, m, k]);
        const b = tb ? filled([batch, n, k]).transpose() : filled([batch, k, n]);
        const { report } = measure(() => {
          a.matmul(b);
        });
        const [row] = report.ops;
        assert.equal(report.ops.length, 1);
        assert.equal(
          row.name,
          `matmul ${batch > 1 ? `${batch} of ` : ''}${m}x${k}x${n} ${ta ? 't' : 'n'}${tb ? 't' : 'n'}`,
        );
        let flop = 0;
        for (let i = 0; i < batch * m * n; i++) for (let j = 0; j < k; j++) flop += 2;
        assert.equal(row.flop, flop);
        assert.equal(row.bytes, 4 * batch * (m * k + k * n + m * n));
        assert.equal(row.calls, 1);
      },
    ),
    runs(40),
  );
});

test('matmul with packed weights: their own bytes', () => {
  const weights = allocatePacked('weights', [64, 96], 'q4_0', backend);
  // 16 bytes of weights and 2 of scale for each 32 columns, 54 in a row of 96, padded to a multiple of 4.
  backend.write(weights.storage.allocation, 0, new Int32Array((64 * 56) / 4));
  const { row } = measure(() => {
    filled([3, 96]).matmulT(weights);
  });
  const product = row('matmul 3x96x64 nt q4_0');
  assert.equal(product.flop, 2 * 3 * 96 * 64);
  assert.equal(product.bytes, 4 * (3 * 96 + 3 * 64) + 64 * 56);
});

test('elementwise work: functions of the expression times elements; a repeated operand is read once', () => {
  const [x, row] = [filled([6, 10]), filled([10])];
  const { row: rowOf } = measure(() => {
    x.add(row);
    x.exp().sum();
    x.to('i32');
  });
  assert.deepEqual([rowOf('map add').flop, rowOf('map add').bytes], [60, 4 * (60 + 10 + 60)]);
  assert.equal(rowOf('map exp').flop, 60);
  assert.deepEqual([rowOf('reduce sum').flop, rowOf('reduce sum').bytes], [60, 4 * 61]);
});

test('gather and scatterAdd: the rows that are there, once read and once written', () => {
  const x = filled([5, 8]);
  const { row } = measure(() => {
    x.takeRows([4, -1, 4]).scatterAddRows([0, 1, 1], 2);
  });
  assert.deepEqual([row('gather').flop, row('gather').bytes], [0, 4 * 8 * (2 + 3)]);
  assert.deepEqual([row('scatterAdd').flop, row('scatterAdd').bytes], [24, 4 * 8 * (3 + 2)]);
});

test('attention: 4 D for each query and key it sees, 10 D on the way back', () => {
  const size = fc.integer({ min: 1, max: 7 });
  fc.assert(
    fc.property(
      size,
      fc.integer({ min: 0, max: 5 }),
      fc.boolean(),
      fc.integer({ min: 0, max: 4 }),
      (T, past, causal, window) => {
        const [B, H, KV, D] = [2, 4, 2, 8];
        const S = T + past;
        const [q, k, v] = [filled([B, H, T, D]), filled([B, KV, S, D]), filled([B, KV, S, D])].map(t =>
          t.requireGrad(),
        );
        const { row } = measure(() => {
          attention(q, k, v, { causal, causalOffset: past, window }).sum().backward();
        });
        let pairs = 0;
        for (let t = 0; t < T; t++) {
          for (let s = 0; s < S; s++)
            if ((!causal || s <= t + past) && (window === 0 || s > t + past - window)) pairs++;
        }
        assert.equal(row('attention').flop, 4 * D * B * H * pairs);
        assert.equal(row('attention.vjp').flop, 10 * D * B * H * pairs);
      },
    ),
    runs(30),
  );
});

test('edit: products of the edited rows alone', () => {
  const [n, m, r, d] = [7, 3, 2, 12];
  const bank = { A: filled([1, r, d]), b: filled([1, r]), C: filled([1, r, d]), P: filled([1, r, d]) };
  const h = filled([n, d]).requireGrad();
  const { row } = measure(() => {
    edit(h, bank, { indices: Int32Array.of(1, 4, 6), slots: new Int32Array(m) })
      .sum()
      .backward();
  });
  // A h, C h, P^T u; b and C h into u; c and the sum with h.
  assert.equal(row('edit').flop, m * (3 * 2 * r * d + 2 * r + 2 * d));
  // P g; u g^T; for A and C both (du)^T h and A^T du; b; c and the sum with g.
  assert.equal(row('edit.vjp').flop, m * (6 * 2 * r * d + r + 2 * d));
});

test('norms and rotary embeddings: a fixed number for each element', () => {
  const { row } = measure(() => {
    rmsNorm(filled([5, 16]), filled([16]), 1e-5);
    rope(filled([2, 3, 4, 8]), filled([1, 3, 4]), filled([1, 3, 4]));
  });
  assert.equal(row('rmsNorm').flop, 4 * 80);
  assert.equal(row('rope').flop, 3 * 192);
});

test('scans: a fixed number for each element, and for each number of a state', () => {
  const [N, d, n] = [5, 6, 4];
  const [x, dt, B, C, D] = [filled([N, d]), filled([N, d]), filled([N, n]), filled([N, n]), filled([d])];
  const A = filled([d, n]).requireGrad();
  const { row } = measure(() => {
    linearScan(x.detach().requireGrad(), dt, Int32Array.of(0, 2)).states.sum().backward();
    selectiveScan({ x, dt, A, B, C, D }, Int32Array.of(0, 2)).output.sum().backward();
  });
  assert.equal(row('linearScan').flop, 2 * N * d);
  assert.equal(row('linearScan.vjp').flop, 2 * N * d);
  // dt A, exp, times h, dt x B, their sum, C h and its sum; for a channel dt x, D x and the sum.
  assert.equal(row('selectiveScan').flop, N * d * (7 * n + 3));
  assert.equal(row('selectiveScan.vjp').flop, N * d * (21 * n + 6));
});

test('an op without a formula gives no rate, and none to the sum of its operations', () => {
  const name = 'unheardOf';
  backend.fused.set(name, () => true);
  try {
    const { report, row } = measure(() => {
      backend.fused.get(name)?.({ inputs: [], outputs: [], attributes: {} });
    });
    assert.deepEqual([row(name).flop, row(name).gflops, row(name).calls], [0, null, 1]);
    assert.equal(report.flop, 0);
  } finally {
    backend.fused.delete(name);
  }
});
