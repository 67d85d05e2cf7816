// Softmax over the last axis and cross-entropy, with their VJPs.

import * as e from '../../../../tensor/expr.js';
import type { FusedKernel, View } from '../../../backend.js';
import { load, op, type ModuleBuilder } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { div, hold, splat, sub } from '../emit/lanes.js';
import {
  addRowFunction,
  denseFloats,
  denseIntegers,
  exponentialRows,
  plainRows,
  rowsOf,
  runRows,
} from './rowFunction.js';
import type { Code } from './index.js';

/** How the addresses of each function move. */
const moves = {
  softmax: ['row', 'row'],
  softmaxVjp: ['row', 'row', 'row'],
  crossEntropy: ['row', 'element', 'element', 'element', 'element'],
  crossEntropyVjp: ['row', 'element', 'element', 'element', 'element', 'row'],
} as const;

const [a, b] = [e.arg(0), e.arg(1)];
const [u, w] = [e.uniform(0), e.uniform(1)];

export function addSoftmax(m: ModuleBuilder, { relaxed }: WasmContext): void {
  addRowFunction(m, 'softmax', relaxed, moves.softmax, 0, ({ f, at: [x, y], pass }) => {
    const [top] = pass({ inputs: [x], max: [a] });
    const shifted = e.exp(e.sub(a, u));
    const [total] = pass({ inputs: [x], uniforms: [top], write: [[y, shifted]], sum: [shifted] });
    pass({ inputs: [y], uniforms: [hold(f, div(splat(1), total))], write: [[y, e.mul(a, u)]] });
  });
  addRowFunction(m, 'softmaxVjp', relaxed, moves.softmaxVjp, 0, ({ at: [y, g, dx], pass }) => {
    const [inner] = pass({ inputs: [y, g], sum: [e.mul(a, b)] });
    pass({ inputs: [y, g], uniforms: [inner], write: [[dx, e.mul(a, e.sub(b, u))]] });
  });

  addRowFunction(
    m,
    'crossEntropy',
    relaxed,
    moves.crossEntropy,
    0,
    ({ f, math, at: [logits, labels, loss, top, total], pass }) => {
      const [most] = pass({ inputs: [logits], max: [a] });
      const [sum] = pass({ inputs: [logits], uniforms: [most], sum: [e.exp(e.sub(a, u))] });
      f.storeLane('v128.store32_lane', 0, top, most);
      f.storeLane('v128.store32_lane', 0, total, sum);
      const label = f.local('i32');
      f.set(label, load('i32.load', labels));
      f.if(
        op('i32.lt_s', label, 0),
        () => f.store('i32.store', loss, 0),
        () => {
          const chosen = load('v128.load32_splat', op('i32.add', logits, op('i32.mul', label, 4)));
          f.storeLane('v128.store32_lane', 0, loss, op('f32x4.add', math.log(sum), sub(most, chosen)));
        },
      );
    },
  );
  addRowFunction(
    m,
    'crossEntropyVjp',
    relaxed,
    moves.crossEntropyVjp,
    0,
    ({ f, count, at: [logits, labels, top, total, g, out], pass }) => {
      const label = f.local('i32');
      f.set(label, load('i32.load', labels));
      f.if(
        op('i32.lt_s', label, 0),
        () => f.fill(out, 0, op('i32.mul', count, 4)),
        () => {
          const [most, gradient] = [hold(f, load('v128.load32_splat', top)), hold(f, load('v128.load32_splat', g))];
          const share = hold(f, div(gradient, load('v128.load32_splat', total)));
          pass({ inputs: [logits], uniforms: [most, share], write: [[out, e.mul(e.exp(e.sub(a, u)), w)]] });
          const own = f.local('i32');
          f.set(own, op('i32.add', out, op('i32.mul', label, 4)));
          f.storeLane('v128.store32_lane', 0, own, sub(load('v128.load32_splat', own), gradient));
        },
      );
    },
  );
}

export function softmaxKernels(code: Code, context: WasmContext): [string, FusedKernel][] {
  const run = (name: keyof typeof moves, rows: number, count: number, views: readonly View[], work: number): void => {
    runRows(
      context,
      code()[name],
      moves[name],
      rows,
      count,
      views.map(v => context.byteOffsetOf(v)),
      work,
    );
  };
  return [
    [
      'softmax',
      ({ inputs: [x], outputs: [y] }) => {
        if (!x || x.shape.length === 0 || !denseFloats([x, y])) return false;
        run('softmax', rowsOf(x), x.shape[x.shape.length - 1], [x, y], exponentialRows);
        return true;
      },
    ],
    [
      'softmax.vjp',
      ({ inputs: [y, g], outputs: [dx] }) => {
        if (!y || !g || y.shape.length === 0 || !denseFloats([y, g, dx])) return false;
        run('softmaxVjp', rowsOf(y), y.shape[y.shape.length - 1], [y, g, dx], plainRows);
        return true;
      },
    ],
    [
      'crossEntropy',
      ({ inputs: [logits, labels], outputs: [loss, top, total] }) => {
        if (!logits || !labels || !denseFloats([logits, loss, top, total]) || !denseIntegers(labels)) return false;
        run('crossEntropy', logits.shape[0], logits.shape[1], [logits, labels, loss, top, total], exponentialRows);
        return true;
      },
    ],
    [
      'crossEntropy.vjp',
      ({ inputs: [logits, labels, top, total, g], outputs: [dlogits] }) => {
        if (
          !logits ||
          !labels ||
          !top ||
          !total ||
          !g ||
          !denseFloats([logits, top, total, g, dlogits]) ||
          !denseIntegers(labels)
        )
          return false;
        run(
          'crossEntropyVjp',
          logits.shape[0],
          logits.shape[1],
          [logits, labels, top, total, g, dlogits],
          exponentialRows,
        );
        return true;
      },
    ],
  ];
}
