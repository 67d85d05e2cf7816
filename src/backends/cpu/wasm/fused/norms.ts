// RMS and layer normalisation over the last axis, with the VJPs of their input. Gradients of weights are sums over rows
// and stay compositions.

import * as e from '../../../../tensor/expr.js';
import type { FusedKernel, View } from '../../../backend.js';
import { load, op, type Local, type ModuleBuilder, type Value } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { add, div, hold, mul, splat } from '../emit/lanes.js';
import type { Code } from './index.js';
import { addRowFunction, denseFloats, plainRows, rowsOf, runRows, type RowKernel } from './rowFunction.js';

/** How the addresses of each function move. */
const moves = {
  rmsNorm: ['row', 'stay', 'row', 'element'],
  rmsNormVjp: ['row', 'stay', 'element', 'row', 'row'],
  layerNorm: ['row', 'stay', 'stay', 'row', 'element', 'element'],
  layerNormVjp: ['row', 'stay', 'element', 'element', 'row', 'row'],
} as const;

const [a, b, c] = [e.arg(0), e.arg(1), e.arg(2)];
const [u, v, w] = [e.uniform(0), e.uniform(1), e.uniform(2)];

/** A row's total over its number of elements. */
const meanOf = ({ f, count }: RowKernel, total: Local): Local =>
  hold(f, div(total, op('f32x4.splat', op('f32.convert_i32_u', count))));

const reciprocalRoot = ({ f }: RowKernel, square: Value): Local => hold(f, div(splat(1), op('f32x4.sqrt', square)));

export function addNorms(m: ModuleBuilder, { relaxed }: WasmContext): void {
  addRowFunction(m, 'rmsNorm', relaxed, moves.rmsNorm, 1, row => {
    const {
      f,
      at: [x, weight, y, rstd],
      scalars: [eps],
    } = row;
    const [squares] = row.pass({ inputs: [x], sum: [e.mul(a, a)] });
    const r = reciprocalRoot(row, add(meanOf(row, squares), eps));
    f.storeLane('v128.store32_lane', 0, rstd, r);
    row.pass({ inputs: [x, weight], uniforms: [r], write: [[y, e.mul(e.mul(a, u), b)]] });
  });
  // dx = r g w - x r^3 mean(g w x)
  addRowFunction(m, 'rmsNormVjp', relaxed, moves.rmsNormVjp, 0, row => {
    const {
      f,
      at: [x, weight, rstd, g, dx],
    } = row;
    const gw = e.mul(b, c);
    const [inner] = row.pass({ inputs: [x, weight, g], sum: [e.mul(a, gw)] });
    const r = hold(f, load('v128.load32_splat', rstd));
    const along = hold(f, mul(mul(r, r), mul(r, meanOf(row, inner))));
    row.pass({ inputs: [x, weight, g], uniforms: [r, along], write: [[dx, e.sub(e.mul(gw, u), e.mul(a, v))]] });
  });

  addRowFunction(m, 'layerNorm', relaxed, moves.layerNorm, 1, row => {
    const {
      f,
      at: [x, weight, bias, y, mean, rstd],
      scalars: [eps],
    } = row;
    const [total] = row.pass({ inputs: [x], sum: [a] });
    const middle = meanOf(row, total);
    const centred = e.sub(a, u);
    const [squares] = row.pass({ inputs: [x], uniforms: [middle], sum: [e.mul(centred, centred)] });
    const r = reciprocalRoot(row, add(meanOf(row, squares), eps));
    f.storeLane('v128.store32_lane', 0, mean, middle);
    f.storeLane('v128.store32_lane', 0, rstd, r);
    row.pass({ inputs: [x, weight, bias], uniforms: [middle, r], write: [[y, e.add(e.mul(e.mul(centred, v), b), c)]] });
  });
  // With n = (x - mean) r: dx = r (g w - mean(g w) - n mean(g w n))
  addRowFunction(m, 'layerNormVjp', relaxed, moves.layerNormVjp, 0, row => {
    const {
      f,
      at: [x, weight, mean, rstd, g, dx],
    } = row;
    const [middle, r] = [hold(f, load('v128.load32_splat', mean)), hold(f, load('v128.load32_splat', rstd))];
    const gw = e.mul(b, c);
    const normal = e.mul(e.sub(a, u), v);
    const [total, inner] = row.pass({ inputs: [x, weight, g], uniforms: [middle, r], sum: [gw, e.mul(gw, normal)] });
    const uniforms = [middle, r, meanOf(row, total), meanOf(row, inner)];
    const value = e.mul(e.sub(e.sub(gw, w), e.mul(normal, e.uniform(3))), v);
    row.pass({ inputs: [x, weight, g], uniforms, write: [[dx, value]] });
  });
}

export function normKernels(code: Code, context: WasmContext): [string, FusedKernel][] {
  const run = (
    name: keyof typeof moves,
    x: View,
    weight: View,
    others: readonly View[],
    scalars: readonly number[] = [],
  ): void => {
    const addresses = [x, weight, ...others].map(v => context.byteOffsetOf(v));
    runRows(context, code()[name], moves[name], rowsOf(x), weight.shape[0], addresses, plainRows, scalars);
  };
  return [
    [
      'rmsNorm',
      ({ inputs: [x, weight], outputs: [y, rstd], attributes: { eps } }) => {
        if (!x || !weight || !denseFloats([x, weight, y, rstd])) return false;
        run('rmsNorm', x, weight, [y, rstd], [eps]);
        return true;
      },
    ],
    [
      'rmsNorm.vjp',
      ({ inputs: [x, weight, rstd, g], outputs: [dx] }) => {
        if (!x || !weight || !rstd || !g || !denseFloats([x, weight, rstd, g, dx])) return false;
        run('rmsNormVjp', x, weight, [rstd, g, dx]);
        return true;
      },
    ],
    [
      'layerNorm',
      ({ inputs: [x, weight, bias], outputs: [y, mean, rstd], attributes: { eps } }) => {
        if (!x || !weight || !bias || !denseFloats([x, weight, bias, y, mean, rstd])) return false;
        run('layerNorm', x, weight, [bias, y, mean, rstd], [eps]);
        return true;
      },
    ],
    [
      'layerNorm.vjp',
      ({ inputs: [x, weight, mean, rstd, g], outputs: [dx] }) => {
        if (!x || !weight || !mean || !rstd || !g || !denseFloats([x, weight, mean, rstd, g, dx])) return false;
        run('layerNormVjp', x, weight, [mean, rstd, g, dx]);
        return true;
      },
    ],
  ];
}
