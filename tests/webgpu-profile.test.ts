// Profiles on WebGPU: kernels only record, so the device's time shows as waiting for reads; figures and places are
// those of the CPU.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { formatProfile, startProfile } from '../src/profile/index.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';
import { openForTests } from './helpers/webgpu.js';

const gpu = await openForTests();

async function profiled(device: Backend) {
  const model = await tinyModel({ device });
  const profile = startProfile({ backend: device });
  const { logits } = model.forward({ inputIds: tinyIds(12, 3), shape: [2, 6] });
  const data = await logits.data();
  return { report: profile.stop(), trace: profile.trace(), data };
}

if (gpu) {
  test('WebGPU: the same products at the same sites as on the CPU, and time spent waiting', async () => {
    const [there, here] = [await profiled(gpu), await profiled(createCpuBackend())];
    const { report } = there;
    assert.equal(report.recordsOnly, true);
    assert.equal(here.report.recordsOnly, false);
    assert.equal(report.reads, 1);
    assert.ok(report.waitMs > 0, 'report.waitMs > 0');
    assert.ok(report.peakBytes > 0, 'report.peakBytes > 0');
    const products = ({ report: { ops } }: typeof here) =>
      ops
        .filter(r => r.name.startsWith('matmul'))
        .map(({ name, calls, flop }) => ({ name, calls, flop }))
        .sort((a, b) => a.name.localeCompare(b.name));
    assert.deepEqual(products(there), products(here));
    const flopAt = ({ report: { sites } }: typeof here, name: string) => sites.find(s => s.name === name)?.flop;
    for (const name of ['mlp_output/0', 'attention_output/2', 'mlp_input/1'])
      assert.equal(flopAt(there, name), flopAt(here, name), name);
    assert.match(formatProfile(report), /kernels only record here/);
    assert.doesNotMatch(formatProfile(here.report), /kernels only record/);
    const reads = there.trace.traceEvents.filter(e => e.cat === 'read');
    assert.ok(reads.length === 2 && reads[1].ts > reads[0].ts, 'reads.length === 2 && reads[1].ts > reads[0].ts');
    const plain = await (
      await tinyModel({ device: gpu })
    )
      .forward({ inputIds: tinyIds(12, 3), shape: [2, 6] })
      .logits.data();
    assert.deepEqual([...there.data], [...plain]);
  });
}
