// On WebGPU: edits switched off are the base bit for bit, a batch of different edits gives each row what it gets alone,
// and generation with a cache is generation without one; for every kind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noGrad } from '../src/autograd/tape.js';
import { getReftModel, kindNames, layoutOf, mixEdits, type ReftModel, type RowEdits } from '../src/reft/index.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';
import { openForTests } from './helpers/webgpu.js';

const gpu = await openForTests();
const width = 6;
const idsOf = (rows: readonly number[]): Int32Array => Int32Array.from(rows.flatMap(row => [...tinyIds(width, row)]));
const inputs = (rows: readonly number[]) => ({ inputIds: idsOf(rows), shape: [rows.length, width] }) as const;
const layout = (batch: number) =>
  layoutOf(new Int32Array(batch * width).fill(1), [batch, width], new Array<number>(batch).fill(4));
const values = async (t: Tensor): Promise<number[]> => [...(await t.data())];

if (gpu) {
  test('every kind: off is the base bit for bit; rows of a mixed batch are as alone; cached generation is uncached', async () => {
    const model = await tinyModel({ device: gpu });
    const config = { layers: [0, 2], positions: 'f1+l1', newTokens: { every: 2 }, rank: 2, scale: 2 };
    const sets = kindNames().map((kind, seed) => getReftModel(model, { ...config, kind, seed }));
    assert.ok(sets.length >= 9, 'sets.length >= 9');
    const base = await values(noGrad(() => model.forward(inputs([0]))).logits);
    for (const set of sets) {
      set.enabled = false;
      assert.deepEqual(await values(noGrad(() => set.forward(inputs([0]), layout(1))).logits), base);
      set.enabled = true;
    }
    const rows: RowEdits[] = [...sets, null, [sets[0], sets[3]]];
    const numbers = rows.map((_, i) => i);
    const together = noGrad(() => mixEdits(rows).forward(inputs(numbers), layout(rows.length))).logits;
    for (const i of numbers) {
      const own =
        rows[i] === null ? [] : Array.isArray(rows[i]) ? (rows[i] as readonly ReftModel[]) : [rows[i] as ReftModel];
      const alone = await values(
        noGrad(() => model.forward({ ...inputs([i]), edits: own.flatMap(set => set.edits(layout(1))) })).logits,
      );
      const row = await values(together.slice(0, i, i + 1));
      alone.forEach((v, k) =>
        assert.ok(Math.abs(v - row[k]) <= 2e-5 * Math.max(1, Math.abs(v)), `row ${i}: ${row[k]}, alone ${v}`),
      );
    }
    const prompts = rows.map((_, i) => [...tinyIds(3 + (i % 3), i)]);
    const options = { maxNewTokens: 4, stopTokenIds: [] };
    const cached = await mixEdits(rows).generate(prompts, options);
    const uncached = await mixEdits(rows).generate(prompts, { ...options, useCache: false });
    assert.deepEqual(
      cached.map(r => r.ids),
      uncached.map(r => r.ids),
    );
  });
}
