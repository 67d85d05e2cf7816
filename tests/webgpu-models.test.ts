// Models of several configurations on WebGPU: what transformers computes, with windows by layer, padding and a cache,
// and the gradients of the CPU.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../src/backends/index.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { variantGreedy, variantIds, variantLogits, variantModel, variantNames } from './helpers/variants.js';
import { openForTests } from './helpers/webgpu.js';

const gpu = await openForTests();

function near(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    assert.ok(
      Math.abs(actual[i] - expected[i]) <= tolerance,
      `${what}, entry ${i}: ${actual[i]}, expected ${expected[i]}`,
    );
  }
}

if (gpu) {
  for (const name of variantNames) {
    test(`${name}: logits, behind padding too, and a greedy continuation`, async () => {
      const model = await variantModel(name, {}, { device: gpu });
      const expected = await variantLogits(name);
      const alone = model.forward({ inputIds: variantIds, shape: [1, variantIds.length] });
      near(await alone.logits.data(), expected, 1e-4, 'logits');
      const padding = [0, 0, 0];
      const padded = model.forward({
        inputIds: Int32Array.of(...padding, ...variantIds),
        shape: [1, padding.length + variantIds.length],
        attentionMask: Int32Array.of(...padding, ...variantIds.map(() => 1)),
      });
      near((await padded.logits.data()).subarray(padding.length * 32), expected, 1e-4, 'logits behind padding');
      const [{ ids }] = await model.generate(variantIds, { maxNewTokens: 8, rounded: false });
      assert.deepEqual(ids, variantGreedy(name));
    });
  }

  test('gradients through windows are those of the CPU', async () => {
    for (const name of variantNames.filter(variant => variant.startsWith('window'))) {
      const gradient = async (device?: Backend): Promise<ArrayLike<number>> => {
        const model = await variantModel(name, {}, device ? { device } : {});
        const sites = ['block_output/0'];
        const { gradients } = model.gradients(
          { inputIds: variantIds, shape: [1, variantIds.length] },
          variantIds,
          sites,
        );
        return (gradients.get('block_output/0') as Tensor).data();
      };
      const expected = await gradient();
      const largest = Math.max(...Array.from(expected, Math.abs));
      near(await gradient(gpu), expected, 1e-4 * largest, name);
    }
  });
}
