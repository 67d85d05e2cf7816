// The edit op forward and backward: fused against composed over hidden sizes, ranks and positions, on one thread; and a
// whole loreft edit with R from its parametrization, the job of the row edit-pyreft.

import { Bench } from 'tinybench';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import type { Backend } from '../src/backends/backend.js';
import { create } from '../src/tensor/create.js';
import { scope } from '../src/autograd/scope.js';
import { gradientsOf } from '../src/autograd/tape.js';
import { noGrad } from '../src/autograd/tape.js';
import { compactHouseholder, orthogonalInit } from '../src/nn/index.js';
import { edit } from '../src/reft/editOp.js';
import { withBackend } from '../src/devices.js';
import type { Tensor } from '../src/tensor/tensor.js';
import type { BenchRow } from './results.js';

/** A backend without the fused edit: the composition runs. */
function composedBackend(): Backend {
  const backend = createCpuBackend({ threads: 1 });
  backend.fused.delete('edit');
  backend.fused.delete('edit.vjp');
  return backend;
}

function step(backend: Backend, d: number, r: number, n: number, tokens: number): () => void {
  const make = (shape: number[], seed: number) =>
    create.normal(shape, { seed, backend, std: 1 / Math.sqrt(d) }).requireGrad();
  const [W, R] = [make([1, r, d], 1), make([1, r, d], 2)];
  const b = make([1, r], 3);
  const h = create.normal([tokens, d], { seed: 4, backend }).requireGrad();
  const gradient = create.normal([tokens, d], { seed: 5, backend });
  const indices = Int32Array.from({ length: n }, (_, i) => Math.floor((i * tokens) / n));
  const slots = new Int32Array(n);
  return () =>
    scope(() => {
      const y = edit(h, { A: W, b, C: R, P: R }, { indices, slots });
      gradientsOf(y, [h, W, b, R], { gradient });
    });
}

/** Rows 0 .. n - 1, all in one slot. */
const firstRows = (n: number) => ({ indices: Int32Array.from({ length: n }, (_, i) => i), slots: new Int32Array(n) });

/**
 * A loreft edit of n positions of width d: loss and gradients, with R given or from the default orthogonal map. Each
 * call is one of these; both return nothing and free what they made.
 */
export function wholeEdit(
  backend: Backend,
  d: number,
  r: number,
  n: number,
): { given: () => void; mapped: () => void } {
  return withBackend(backend, () => {
    const h = create.normal([1, n, d], { seed: 1 }).requireGrad();
    const W = create.normal([r, d], { seed: 2, std: 0.01 }).requireGrad();
    const b = create.zeros([r]).requireGrad();
    const { parameters } = compactHouseholder.initial(orthogonalInit([r, d], { seed: 3 }));
    const fixed = noGrad(() => compactHouseholder.rotation(parameters)).requireGrad();
    const rows = firstRows(n);
    const trained = Object.values(parameters).filter(t => t.requiresGrad);
    const run = (R: Tensor, leaves: readonly Tensor[]): void => {
      const C = R.unsqueeze(0);
      gradientsOf(edit(h, { A: W.unsqueeze(0), b: b.unsqueeze(0), C, P: C }, rows).sum(), [h, W, b, ...leaves]);
    };
    return {
      given: () => scope(() => run(fixed, [fixed])),
      mapped: () => scope(() => run(compactHouseholder.rotation(parameters), trained)),
    };
  });
}

/** Seconds of the edit of the row edit-pyreft: the fastest of many, as the Python baseline takes it. */
export async function measureWholeEdit(backend: Backend, quick: boolean): Promise<{ given: number; mapped: number }> {
  const tasks = wholeEdit(backend, 4096, 8, 112);
  const bench = new Bench({ time: quick ? 100 : 1500, warmupTime: 200 });
  bench.add('given', tasks.given).add('mapped', tasks.mapped);
  await bench.run();
  const [given, mapped] = bench.tasks.map(t => (t.result as { latency: { min: number } }).latency.min / 1000);
  return { given, mapped };
}

export async function benchEdit(full: boolean): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  const [fused, composed] = [createCpuBackend({ threads: 1 }), composedBackend()];
  const sizes = full ? { d: [576, 2048, 4096], r: [1, 4, 8, 32], n: [1, 14, 112] } : { d: [576], r: [4], n: [112] };
  for (const d of sizes.d) {
    for (const r of sizes.r) {
      for (const n of sizes.n) {
        // As many tokens as are edited: what the edit itself costs, not the copy of rows it leaves alone.
        const bench = new Bench({ time: 150, warmupTime: 50 });
        bench.add('fused', step(fused, d, r, n, n));
        bench.add('composed', step(composed, d, r, n, n));
        await bench.run();
        const [ours, peer] = bench.tasks.map(t => (t.result as { latency: { p50: number } }).latency.p50);
        const bar = d === 576 && r === 4 && n === 112 ? 1 / 1.5 : null;
        rows.push({
          name: `edit d ${d}, r ${r}, n ${n}, forward and backward`,
          ours,
          peer,
          peerName: 'composed',
          unit: 'ms',
          better: 'lower',
          bar,
        });
      }
    }
  }
  return rows;
}
