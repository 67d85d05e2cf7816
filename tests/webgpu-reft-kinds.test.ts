// Every kind of edit and every orthogonal map on WebGPU: values and gradients are the CPU's, R is orthonormal, files
// hold the same bits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../src/backends/backend.js';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { gradientsOf, noGrad } from '../src/autograd/tape.js';
import {
  cayley,
  compactHouseholder,
  matrixExponential,
  orthogonalInit,
  polarRetraction,
  qrRetraction,
} from '../src/nn/index.js';
import {
  adapterFromFiles,
  adapterToFiles,
  getReftModel,
  kindNames,
  type ReftConfig,
  type ReftModel,
} from '../src/reft/index.js';
import { create } from '../src/tensor/create.js';
import { hostBackend } from '../src/devices.js';
import type { Tensor } from '../src/tensor/tensor.js';
import { tinyModel } from './helpers/tinyModel.js';
import { openForTests } from './helpers/webgpu.js';
import { onWholeBatch } from './helpers/packed.js';

const gpu = await openForTests();
const cpu = createCpuBackend();
const normal = (shape: readonly number[], seed: number, backend: Backend, std = 1): Tensor =>
  create.normal(shape, { seed, backend, std });

function assertNear(there: ArrayLike<number>, here: ArrayLike<number>, what: string): void {
  const largest = Math.max(1e-3, ...Array.from(here, Math.abs));
  Array.from(here).forEach((x, i) => {
    assert.ok(Math.abs(there[i] - x) <= 1e-4 * largest, `${what}, entry ${i}: ${there[i]}, on the CPU ${x}`);
  });
}

if (gpu) {
  for (const map of [compactHouseholder, cayley, matrixExponential, qrRetraction, polarRetraction]) {
    test(`WebGPU: ${map.name} gives the CPU's R and gradient, orthonormal, several at once`, async () => {
      const [r, d] = [3, 37];
      const run = async (backend: Backend) => {
        const start = orthogonalInit([r, d], { seed: 1, backend: hostBackend(backend) });
        const { parameters } = map.initial(start, { dtype: 'f32', backend });
        const [name] = Object.entries(parameters).find(([, t]) => t.requiresGrad) as [string, Tensor];
        const twice = Object.fromEntries(
          Object.entries(parameters).map(([own, t]) => [
            own,
            t
              .detach()
              .unsqueeze(0)
              .expand([2, ...t.shape])
              .contiguous(),
          ]),
        );
        const leaf = twice[name]
          .add(normal([2, r, d], 2, backend, 0.3))
          .detach()
          .requireGrad();
        const R = map.rotation({ ...twice, [name]: leaf });
        const [g] = gradientsOf(R, [leaf], { gradient: normal([2, r, d], 3, backend) });
        const errors = noGrad(() => R.matmulT(R).sub(create.eye(r, { backend })).abs().max());
        return { R: await R.data(), g: await (g as Tensor).data(), error: await errors.item() };
      };
      const [there, here] = [await run(gpu), await run(cpu)];
      assertNear(there.R, here.R, 'R');
      assertNear(there.g, here.g, 'gradient');
      assert.ok(there.error < 3e-6, `deviation ${there.error}`);
    });
  }

  test("WebGPU: every kind gives the CPU's states and gradients, with scales and subspaces, and its files", async () => {
    const bases = [await tinyModel({ device: gpu }), await tinyModel({ device: cpu })];
    const layout = { batch: 2, width: 4, starts: [0, 1], promptLengths: [4, 3], lengths: [4, 3] };
    for (const kind of kindNames()) {
      const config: ReftConfig = {
        kind,
        layers: [1],
        rank: 2,
        positions: 'f1+l1',
        tied: true,
        scale: 0.5,
        trainScale: true,
        ...(kind === 'adaptive' ? { kindOptions: { experts: 2 } } : {}),
      };
      const refts = bases.map(base => getReftModel(base, config));
      const subspaces = refts[1].interventions[0].parameterSet.has('R') ? { subspaces: [[1], null] } : {};
      const run = async (reft: ReftModel, backend: Backend) => {
        const h = normal([2, 4, 16], 5, backend).requireGrad();
        const edited = onWholeBatch(reft.edits(layout, undefined, { scale: [1, -2], ...subspaces })[0])(h);
        const leaves = [h, ...reft.trained().map(t => t.tensor)];
        const gradients = gradientsOf(edited, leaves, { gradient: normal([2, 4, 16], 6, backend) });
        return Promise.all([edited, ...gradients].map(t => (t as Tensor).data()));
      };
      const [there, here] = [await run(refts[0], gpu), await run(refts[1], cpu)];
      here.forEach((expected, i) => {
        assertNear(there[i], expected, `${kind}, ${i === 0 ? 'states' : `gradient ${i}`}`);
      });
      const files = await adapterToFiles(refts[0]);
      const again = await adapterFromFiles(bases[0], files);
      assert.deepEqual(
        (await adapterToFiles(again)).get('adapter_model.safetensors'),
        files.get('adapter_model.safetensors'),
        kind,
      );
    }
  });

  test('WebGPU: identityStart changes nothing', async () => {
    const base = await tinyModel({ device: gpu });
    for (const kind of kindNames().filter(name => name !== 'consreft')) {
      const reft = getReftModel(base, { kind, layers: [1], rank: 2, positions: 'all', identityStart: true });
      const h = normal([1, 3, 16], 7, gpu);
      const [edit] = reft.edits({ batch: 1, width: 3, starts: [0], promptLengths: [3], lengths: [3] });
      const apply = onWholeBatch(edit);
      const moved = await noGrad(() => apply(h).sub(h).abs().max()).item();
      assert.ok(moved < 1e-5, `${kind}: ${moved}`);
    }
  });
}
