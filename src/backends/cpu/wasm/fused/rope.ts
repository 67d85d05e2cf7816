// Rotary position embeddings, half-split convention (rotate_half in Hugging Face's modeling_llama.py): one pass over
// each head.

import * as e from '../../../../tensor/expr.js';
import type { FusedKernel } from '../../../backend.js';
import { op, type ModuleBuilder } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { hold, LaneMath } from '../emit/lanes.js';
import type { Code } from './index.js';
import { denseFloats, emitPass } from './rowFunction.js';

/**
 * rope(x, y, cos, sin, B, T, H, half, steps of x along B, T and H in bytes, step of the tables along B, sign of the
 * sine).
 */
export function addRope(m: ModuleBuilder, { relaxed }: WasmContext): void {
  const f = m.function('rope', { params: [...new Array<'i32'>(12).fill('i32'), 'f32'], results: [] });
  const [x, y, cos, sin, B, T, H, half, xB, xT, xH, tableB, sign] = f.params;
  const math = new LaneMath(f, relaxed);
  const turn = hold(f, op('f32x4.splat', sign));
  const [halfBytes, b, t, h, atT, atH, cosAt, sinAt, x2, y2] = f.localArray('i32', 10);
  const [x1, other, c, s] = [0, 1, 2, 3].map(k => e.arg(k));
  const sine = e.mul(s, e.uniform(0));
  f.set(halfBytes, op('i32.mul', half, 4));
  f.loop(b, B, 1, () => {
    f.set(atT, x);
    f.set(cosAt, cos);
    f.set(sinAt, sin);
    f.set(t, 0);
    f.loop(t, T, 1, () => {
      f.set(atH, atT);
      f.set(h, 0);
      f.loop(h, H, 1, () => {
        f.set(x2, op('i32.add', atH, halfBytes));
        f.set(y2, op('i32.add', y, halfBytes));
        emitPass(math, half, {
          inputs: [atH, x2, cosAt, sinAt],
          uniforms: [turn],
          write: [
            [y, e.sub(e.mul(x1, c), e.mul(other, sine))],
            [y2, e.add(e.mul(other, c), e.mul(x1, sine))],
          ],
        });
        f.add(atH, xH);
        f.set(y, op('i32.add', y2, halfBytes));
      });
      f.add(atT, xT);
      f.add(cosAt, halfBytes);
      f.add(sinAt, halfBytes);
    });
    f.add(x, xB);
    f.add(cos, tableB);
    f.add(sin, tableB);
  });
}

/** How long a pair of elements takes, in multiply-adds (see Threads.parts). */
const workOfPair = 16;

export function ropeKernels(code: Code, { byteOffsetOf: at, threads }: WasmContext): [string, FusedKernel][] {
  return [
    [
      'rope',
      ({ inputs: [x, cos, sin], outputs: [y], attributes: { inverse } }) => {
        if (!x || !cos || !sin || x.dtype !== 'f32' || x.strides[3] !== 1 || !denseFloats([cos, sin, y])) return false;
        const [B, T, H, D] = x.shape;
        const [xB, xT, xH] = x.strides.map(s => 4 * s);
        const tableB = cos.shape[0] === 1 ? 0 : 4 * T * (D / 2);
        const argsOf = (b: number, batch: number, t: number, length: number): number[] => {
          const table = b * tableB + 2 * D * t;
          return [
            at(x) + b * xB + t * xT,
            at(y) + 4 * D * H * (b * T + t),
            at(cos) + table,
            at(sin) + table,
            batch,
            length,
            H,
            D / 2,
            xB,
            xT,
            xH,
            tableB,
            inverse ? -1 : 1,
          ];
        };
        const parts = threads.parts(B * T * H * (D / 2) * workOfPair);
        if (parts === 1) threads.run(code().rope, [argsOf(0, B, 0, T)]);
        else {
          const length = Math.max(1, Math.ceil((B * T) / parts));
          const ofEach = Array.from({ length: Math.ceil(T / length) }, (_, i) => i * length);
          threads.run(
            code().rope,
            Array.from({ length: B }, (_, b) => ofEach.map(t => argsOf(b, 1, t, Math.min(length, T - t)))).flat(),
          );
        }
        return true;
      },
    ],
  ];
}
