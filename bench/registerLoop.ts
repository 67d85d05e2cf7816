// The most a core can do in WebAssembly: multiply-adds on registers alone, in a loop of our own assembler, without
// loads or stores. What the GEMM kernels are held against, and the yardstick by which runs at different moments are
// compared.

import {
  f32x4Const,
  instantiate,
  laneOp,
  ModuleBuilder,
  op,
  type Value,
} from '../src/backends/cpu/wasm/emit/assembler.js';

const chains = 12;
const unrolled = 4;

export interface RegisterLoop {
  /** Multiply-adds of one call, counted as two operations each. */
  readonly flops: number;
  run(): void;
}

/** As many independent chains as hide the latency of a multiply-add, and fit the registers. */
export function registerLoop(relaxed: boolean, times = 20_000): RegisterLoop {
  const m = new ModuleBuilder();
  const f = m.function('loop', { params: ['i32'], results: ['f32'] });
  const sums = f.localArray('v128', chains);
  const [x, y] = [f.local('v128'), f.local('v128')];
  const i = f.local('i32');
  f.set(x, f32x4Const(0.5));
  f.set(y, f32x4Const(1));
  f.loop(i, f.params[0], 1, () => {
    for (let k = 0; k < unrolled; k++) {
      for (const sum of sums)
        f.set(sum, relaxed ? op('f32x4.relaxed_madd', x, sum, y) : op('f32x4.add', op('f32x4.mul', x, sum), y));
    }
  });
  f.return(
    sums.map((sum): Value => laneOp('f32x4.extract_lane', 0, sum)).reduce((total, lane) => op('f32.add', total, lane)),
  );
  const { loop } = instantiate(m.bytes(), new WebAssembly.Memory({ initial: 1 }));
  return {
    flops: 2 * 4 * chains * unrolled * times,
    run: () => {
      const sum = loop(times);
      // Every chain tends to 2.
      if (Math.abs(sum - 2 * chains) > 1e-3) throw new Error(`register loop: expected ${2 * chains}, got ${sum}`);
    },
  };
}
