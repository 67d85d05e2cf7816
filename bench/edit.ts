// The edit op, fused against composed, forward and backward, over hidden sizes, ranks and positions. One thread.

import { Bench } from 'tinybench';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import type { Backend } from '../src/backends/backend.js';
import { create } from '../src/tensor/create.js';
import { scope } from '../src/autograd/scope.js';
import { gradientsOf } from '../src/autograd/tape.js';
import { edit } from '../src/reft/editOp.js';
import type { BenchRow } from './results.js';

/** A backend without the fused edit: the composition runs. */
function composedBackend(): Backend {
  const backend = createCpuBackend();
  backend.fused.delete('edit');
  backend.fused.delete('edit.vjp');
  return backend;
}

function step(backend: Backend, d: number, r: number, n: number, tokens: number): () => void {
  const make = (shape: number[], seed: number) => create.normal(shape, { seed, backend, std: 1 / Math.sqrt(d) }).requireGrad();
  const [W, R] = [make([1, r, d], 1), make([1, r, d], 2)];
  const b = make([1, r], 3);
  const h = create.normal([tokens, d], { seed: 4, backend }).requireGrad();
  const gradient = create.normal([tokens, d], { seed: 5, backend });
  const indices = Int32Array.from({ length: n }, (_, i) => Math.floor((i * tokens) / n));
  const slots = new Int32Array(n);
  return () => scope(() => {
    const y = edit(h, { A: W, b, C: R, P: R }, { indices, slots });
    gradientsOf(y, [h, W, b, R], { gradient });
  });
}

export async function benchEdit(full: boolean): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  const [fused, composed] = [createCpuBackend(), composedBackend()];
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
        rows.push({ name: `edit d ${d}, r ${r}, n ${n}, forward and backward`, ours, peer, peerName: 'composed', unit: 'ms', better: 'lower', bar });
      }
    }
  }
  return rows;
}
