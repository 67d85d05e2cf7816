// Attention for panels of eight queries: scores [keys, 8] = K Q^T, whose lanes are queries, so that maxima and sums run
// down the keys and the weights are at once the panel for O^T [D, 8] = V^T P. Keys and values are packed before, once
// for all heads that share them.

import { call, f32x4Const, i32x4Const, load, op, type Local, type ModuleBuilder } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { add, choose, div, hold, mul, splat, sub } from '../emit/lanes.js';
import {
  boundsOf,
  keep,
  larger,
  lowest,
  minus,
  placeOf,
  plus,
  seenBy,
  smaller,
  startFunction,
  times,
} from './attentionLoops.js';
import { finishPanel } from './attentionScores.js';
import { addPanelProducts, columnBytes, width } from './panelProducts.js';

/**
 * attention(descriptor, from, to, scratch): panels of queries for all heads of a group, numbered group by group, the
 * last first: it has most to do.
 */
export function addAttention(m: ModuleBuilder, { relaxed }: WasmContext): void {
  const { panelRows, packRows, packColumns, product, turn } = addPanelProducts(m, relaxed);
  const { f, math, field, from: first, to: last } = startFunction(m, 'attention', relaxed);
  const scale = hold(f, op('f32x4.splat', field.scale));
  const toPowers = hold(f, mul(scale, splat(Math.LOG2E)));
  const halves = [0, 1] as const;
  const [number, current, zero] = [keep(f, first), keep(f, -1), keep(f, 0)];
  const [key, at, inGroup] = f.localArray('i32', 3);

  f.loop(number, last, 1, () => {
    const keyHead = keep(f, op('i32.div_u', number, field.panels)); // numbered through the batch
    const t0 = keep(f, times(minus(minus(field.panels, 1), op('i32.rem_u', number, field.panels)), width));
    const firstHead = keep(f, times(keyHead, field.group)); // likewise
    const b = keep(f, op('i32.div_u', firstHead, field.heads));
    // Packed before, all groups, or here, one group after the other.
    const [packedKeys, packedValues] = [keep(f, field.keyPanels), keep(f, field.valuePanels)];
    f.if(
      field.packedKeys,
      () => {
        f.set(packedKeys, plus(field.packedKeys, times(keyHead, field.headKeys)));
        f.set(packedValues, plus(field.packedValues, times(keyHead, field.headValues)));
      },
      () =>
        f.if(op('i32.ne', keyHead, current), () => {
          f.set(current, keyHead);
          const ownHead = keep(f, op('i32.div_u', op('i32.rem_u', firstHead, field.heads), field.group));
          f.do(call(packRows, placeOf(field, 'k', b, ownHead, zero), field.kT, 4, packedKeys, field.dim, field.keys));
          f.do(call(packRows, placeOf(field, 'v', b, ownHead, zero), 4, field.vT, packedValues, field.keys, field.dim));
        }),
    );
    const rows = smaller(f, minus(field.queries, t0), width);
    const bounds = boundsOf(f, field, b);
    const [own, ofLast] = [seenBy(f, field, bounds, t0), seenBy(f, field, bounds, minus(plus(t0, rows), 1))];
    const [from, to] = [own.from, ofLast.to];
    const count = larger(f, minus(to, from), 0);
    const before = keep(f, op('i32.rem_u', from, panelRows)); // keys of the first panel that nobody sees
    const scores = keep(f, plus(field.scores, times(before, columnBytes)));

    // Keys that not all queries of the panel see, at both ends.
    const lanes = halves.map(half =>
      hold(
        f,
        op(
          'i32x4.add',
          op('i32x4.splat', plus(t0, field.causalOffset)),
          i32x4Const(...[0, 1, 2, 3].map(i => i + 4 * half)),
        ),
      ),
    );
    const firsts = lanes.map(position =>
      hold(
        f,
        op('i32x4.max_s', op('i32x4.splat', bounds.start), op('i32x4.sub', position, op('i32x4.splat', field.behind))),
      ),
    );
    const lasts = lanes.map(position =>
      hold(
        f,
        op(
          'i32x4.min_s',
          op('i32x4.splat', minus(bounds.end, 1)),
          op('i32x4.add', position, op('i32x4.splat', field.ahead)),
        ),
      ),
    );
    const mask = (low: Local, high: Local): void => {
      f.set(key, low);
      f.set(at, plus(scores, times(minus(low, from), columnBytes)));
      f.if(op('i32.lt_s', low, high), () =>
        f.loop(key, high, 1, () => {
          const splatted = hold(f, op('i32x4.splat', key));
          for (const half of halves) {
            const seen = op(
              'v128.and',
              op('i32x4.ge_s', splatted, firsts[half]),
              op('i32x4.le_s', splatted, lasts[half]),
            );
            f.store('v128.store', at, choose(seen, load('v128.load', at, 16 * half), f32x4Const(-Infinity)), 16 * half);
          }
          f.add(at, columnBytes);
        }),
      );
    };
    const allFrom = smaller(f, ofLast.from, to);
    const allTo = larger(f, own.to, allFrom);
    const eachKey = (run: () => void): void => {
      f.set(at, scores);
      f.set(key, 0);
      f.loop(key, count, 1, () => {
        run();
        f.add(at, columnBytes);
      });
    };

    const panelBytes = keep(f, times(field.dim, columnBytes));
    const eachHead = (run: (head: Local, panel: Local) => void): void => {
      const panel = keep(f, field.panel);
      f.set(inGroup, 0);
      f.loop(inGroup, field.group, 1, () => {
        run(keep(f, op('i32.rem_u', plus(firstHead, inGroup), field.heads)), panel);
        f.add(panel, panelBytes);
      });
    };
    // Of all heads first: they lie side by side.
    eachHead((head, panel) =>
      f.do(call(packColumns, placeOf(field, 'q', b, head, t0), field.qT, 4, panel, field.dim, rows)),
    );
    eachHead((head, panel) => {
      const output = keep(f, placeOf(field, 'o', b, head, t0));
      const tops = halves.map(() => hold(f, splat(lowest)));
      const totals = halves.map(() => hold(f, splat(0)));
      f.if(
        count,
        () => {
          const packed = plus(packedKeys, times(times(minus(from, before), field.dim), 4));
          f.do(
            call(
              product,
              packed,
              times(field.dim, 4 * panelRows),
              panel,
              field.scores,
              plus(count, before),
              field.dim,
              0,
            ),
          );
          finishPanel(math, field, scores, { b, head, t0, first: from, count });
          mask(from, allFrom);
          mask(allTo, to);
          eachKey(() => {
            for (const half of halves)
              f.set(tops[half], op('f32x4.pmax', tops[half], load('v128.load', at, 16 * half)));
          });
          eachKey(() => {
            for (const half of halves) {
              const weight = hold(f, math.power2(mul(sub(load('v128.load', at, 16 * half), tops[half]), toPowers)));
              f.store('v128.store', at, weight, 16 * half);
              f.set(totals[half], add(totals[half], weight));
            }
          });
          const values = plus(packedValues, times(from, 4 * panelRows));
          f.do(call(product, values, times(field.keys, 4 * panelRows), scores, field.out, field.dim, count, 0));
        },
        () => f.fill(field.out, 0, panelBytes),
      );

      // A query that sees nothing: no weight, an output of zeros.
      for (const half of halves) {
        const none = hold(f, op('f32x4.eq', totals[half], splat(0)));
        f.store(
          'v128.store',
          field.spare,
          op('v128.andnot', add(mul(tops[half], scale), math.log(totals[half])), none),
          16 * half,
        );
        f.store('v128.store', field.factors, op('v128.andnot', div(splat(1), totals[half]), none), 16 * half);
      }
      f.copy(
        plus(field.lse, times(plus(times(plus(firstHead, inGroup), field.queries), t0), 4)),
        field.spare,
        times(rows, 4),
      );
      f.do(call(turn, field.out, output, field.oT, rows, field.dim, field.factors, field.spare, field.hasNaN));
    });
  });
}
