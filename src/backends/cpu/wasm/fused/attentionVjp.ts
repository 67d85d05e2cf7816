// The VJP of attention, recomputed from the log-sum-exp as in Dao et al. 2022: for a tile of queries and each panel of
// eight keys, the weights p = exp(score - lse) and ds = p (g V^T - sum(g o)), both [queries, 8], which are the panels
// for dV^T += g^T p and dK^T += Q^T ds; ds is kept turned, [keys, 8] for each eight queries, for dQ^T = K^T ds^T. dK
// and dV are sums over all heads that share the keys: one thread's work.

import * as e from '../../../../tensor/expr.js';
import {
  call,
  i32x4Const,
  load,
  op,
  type FunctionBuilder,
  type Local,
  type ModuleBuilder,
  type Value,
} from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { transpose4 } from '../products/gemmKernels.js';
import { words } from '../products/gemmUnpacked.js';
import { hold, LaneMath, mul, splat, sub } from '../emit/lanes.js';
import {
  boundsOf,
  keep,
  larger,
  minus,
  placeOf,
  plus,
  seenBy,
  smaller,
  startFunction,
  times,
  type Bounds,
  type Strided,
} from './attentionLoops.js';
import { addFinishKeys } from './attentionScores.js';
import { addPanelProducts, columnBytes, width } from './panelProducts.js';
import { emitPass } from './rowFunction.js';

/**
 * What is known of a query of the tile: minus its log-sum-exp to the base 2, sum(g o), the first key it sees and one
 * past the last.
 */
const info = { lse: 0, inner: 4, first: 8, past: 12 } as const;
export const infoBytes = 16;

const up = (value: Value, step: number): Value => op('i32.and', plus(value, step - 1), -step);

/**
 * weigh(scores, gradients, turned, turnedPanel, queries, blocks, toPowers, key, all, slopes): scores and gradients
 * [8 blocks, 8] of the keys from `key` become p and ds, and ds turned goes to `turned`, blocks of eight queries
 * `turnedPanel` apart. Unless `all` see all, `queries` says who sees what. Where scores are capped, ds is multiplied by
 * `slopes`.
 */
function addWeigh(m: ModuleBuilder, relaxed: boolean, capped: boolean): FunctionBuilder {
  const name = capped ? 'weighCapped' : 'weigh';
  const f = m.function(name, { params: [...words(6), 'f32', 'i32', 'i32', 'i32'], results: [] }, { exported: false });
  const [scores, gradients, turned, turnedPanel, queries, blocks, power, key, all, slopes] = f.params;
  const math = new LaneMath(f, relaxed);
  const toPowers = hold(f, op('f32x4.splat', power));
  const [block, row] = f.localArray('i32', 2);
  const halves = [0, 1] as const;
  const keys = halves.map(half =>
    hold(f, op('i32x4.add', op('i32x4.splat', key), i32x4Const(...[0, 1, 2, 3].map(i => i + 4 * half)))),
  );
  const rows = (masked: boolean): void => {
    f.set(row, 0);
    f.loop(row, width, 1, () => {
      const [lse, inner] = [info.lse, info.inner].map(offset => hold(f, load('v128.load32_splat', queries, offset)));
      const [first, past] = masked
        ? [info.first, info.past].map(offset => hold(f, load('v128.load32_splat', queries, offset)))
        : [];
      for (const half of halves) {
        const seen = masked
          ? hold(f, op('v128.and', op('i32x4.ge_s', keys[half], first), op('i32x4.lt_s', keys[half], past)))
          : undefined;
        const where = (value: Value): Value => (seen ? op('v128.and', value, seen) : value);
        const power = op('f32x4.pmin', math.madd(load('v128.load', scores, 16 * half), toPowers, lse), splat(0));
        const weight = hold(f, where(math.power2(power)));
        f.store('v128.store', scores, weight, 16 * half);
        const change = mul(weight, sub(load('v128.load', gradients, 16 * half), inner));
        f.store(
          'v128.store',
          gradients,
          where(capped ? mul(change, load('v128.load', slopes, 16 * half)) : change),
          16 * half,
        );
      }
      if (capped) f.add(slopes, columnBytes);
      f.add(scores, columnBytes);
      f.add(gradients, columnBytes);
      f.add(queries, infoBytes);
    });
  };
  f.loop(block, blocks, 1, () => {
    f.if(
      all,
      () => rows(false),
      () => rows(true),
    );
    const from = keep(f, minus(gradients, width * columnBytes));
    for (const upper of halves) {
      for (const half of halves) {
        const v = [0, 1, 2, 3].map(i => hold(f, load('v128.load', from, columnBytes * (4 * upper + i) + 16 * half)));
        transpose4(f, v);
        v.forEach((line, i) => f.store('v128.store', turned, line, columnBytes * (4 * half + i) + 16 * upper));
      }
    }
    f.add(turned, turnedPanel);
  });
  return f;
}

/** A tile of queries of one head. */
interface Tile {
  readonly b: Local;
  readonly head: Local;
  /** The head in the batch, the first query, how many. */
  readonly headNumber: Local;
  readonly t0: Local;
  readonly rows: Local;
  /** Filled up to whole blocks of eight. What is computed there, of whatever lies there, goes into no result. */
  readonly padded: Local;
  readonly bounds: Bounds;
}

/** attentionVjp(descriptor, from, to, scratch): key heads, numbered through the batch. */
export function addAttentionVjp(m: ModuleBuilder, { relaxed }: WasmContext): void {
  const { panelRows, packRows, packColumns, product, turn } = addPanelProducts(m, relaxed);
  const finishKeys = addFinishKeys(m, relaxed);
  const [weigh, weighCapped] = [false, true].map(capped => addWeigh(m, relaxed, capped));
  const { f, math, field, from: firstHead, to: endOfHeads } = startFunction(m, 'attentionVjp', relaxed);
  const [dimBytes, panelBytes] = [4, columnBytes].map(bytes => keep(f, times(field.dim, bytes)));
  const keyHeads = keep(f, op('i32.div_u', field.heads, field.group));
  const keys = keep(f, up(field.keys, width)); // filled up to whole panels
  const [one, byScale] = [field.factors, keep(f, plus(field.factors, columnBytes))];
  for (const half of [0, 1]) {
    f.store('v128.store', one, splat(1), 16 * half);
    f.store('v128.store', byScale, op('f32x4.splat', field.dotScale), 16 * half);
  }
  const toPowers = f.local('f32');
  f.set(toPowers, op('f32.mul', field.scale, Math.LOG2E));
  const [inGroup, row, key, at] = f.localArray('i32', 4);
  const place = (name: Strided, b: Value, head: Value, row: Value): Local =>
    keep(f, placeOf(field, name, b, head, row));

  const describeQueries = ({ b, head, headNumber, t0, rows, bounds }: Tile): void => {
    const [g, o] = [place('g', b, head, t0), place('o', b, head, t0)];
    const lseAt = keep(f, plus(field.lse, times(plus(times(headNumber, field.queries), t0), 4)));
    f.set(at, field.queriesInfo);
    f.set(row, 0);
    f.loop(row, rows, 1, () => {
      const seen = seenBy(f, field, bounds, plus(t0, row));
      const [inner] = emitPass(math, field.dim, { inputs: [g, o], sum: [e.mul(e.arg(0), e.arg(1))] });
      f.store('f32.store', at, op('f32.mul', load('f32.load', lseAt), -Math.LOG2E), info.lse);
      f.storeLane('v128.store32_lane', 0, at, inner, info.inner);
      f.store('i32.store', at, seen.from, info.first);
      f.store('i32.store', at, seen.to, info.past);
      f.add(g, field.gT);
      f.add(o, field.oT);
      f.add(lseAt, 4);
      f.add(at, infoBytes);
    });
  };

  /** All there is to do for the eight keys from `key`. */
  const keyPanel = ({ b, head, t0, rows, padded }: Tile, all: Value): void => {
    // Queries that see any of them, in whole blocks: from, and one past the last.
    const distance = keep(f, minus(key, plus(t0, field.causalOffset)));
    const low = keep(f, op('i32.and', larger(f, minus(distance, field.ahead), 0), -width));
    const high = smaller(f, up(plus(distance, field.behind, width), width), padded);
    f.if(op('i32.lt_s', low, high), () => {
      const start = keep(f, minus(low, op('i32.rem_u', low, panelRows)));
      const end = smaller(f, high, rows);
      const panel = keep(f, times(key, dimBytes));
      const rowPanel = times(field.dim, 4 * panelRows);
      for (const [a, b, c] of [
        [field.rowsQ, field.keyPanels, field.scores],
        [field.rowsG, field.valuePanels, field.gradients],
      ]) {
        const to = plus(c, times(start, columnBytes));
        f.do(
          call(product, plus(a, times(start, dimBytes)), rowPanel, plus(b, panel), to, minus(end, start), field.dim, 0),
        );
      }
      f.if(op('i32.or', op('f32.gt', field.softcap, 0), op('i32.ne', field.bias, 0)), () => {
        const [ofStart, slopes] = [field.scores, field.slopes].map(x => plus(x, times(start, columnBytes)));
        f.do(call(finishKeys, f.params[0], ofStart, slopes, b, head, plus(t0, start), key, minus(end, start)));
      });
      const [weights, changes, slopes] = [field.scores, field.gradients, field.slopes].map(x =>
        keep(f, plus(x, times(low, columnBytes))),
      );
      const turned = plus(field.turned, times(times(low, keys), 4), times(key, columnBytes));
      const ofLow = plus(field.queriesInfo, times(low, infoBytes));
      const blocks = op('i32.div_u', minus(high, low), width);
      const weighing = [weights, changes, turned, times(keys, columnBytes), ofLow, blocks, toPowers, key, all, slopes];
      f.if(
        op('f32.gt', field.softcap, 0),
        () => f.do(call(weighCapped, ...weighing)),
        () => f.do(call(weigh, ...weighing)),
      );
      for (const [a, b, c] of [
        [field.columnsG, weights, field.dvTurned],
        [field.columnsQ, changes, field.dkTurned],
      ]) {
        f.do(
          call(
            product,
            plus(a, times(low, 4 * panelRows)),
            times(rows, 4 * panelRows),
            b,
            plus(c, panel),
            field.dim,
            minus(end, low),
            1,
          ),
        );
      }
    });
  };

  const queryGradients = ({ b, head, t0, rows, bounds }: Tile): void => {
    f.set(row, 0);
    f.loop(row, rows, width, () => {
      const t = keep(f, plus(t0, row));
      const some = smaller(f, minus(rows, row), width);
      const { from } = seenBy(f, field, bounds, t);
      const count = keep(f, minus(seenBy(f, field, bounds, minus(plus(t, some), 1)).to, from));
      f.if(
        op('i32.gt_s', count, 0),
        () => {
          const changes = plus(field.turned, times(times(row, keys), 4), times(from, columnBytes));
          f.do(
            call(
              product,
              plus(field.keyColumns, times(from, 4 * panelRows)),
              times(field.keys, 4 * panelRows),
              changes,
              field.out,
              field.dim,
              count,
              0,
            ),
          );
        },
        () => f.fill(field.out, 0, panelBytes),
      );
      f.do(
        call(turn, field.out, place('dq', b, head, t), field.dqT, some, field.dim, byScale, field.spare, field.hasNaN),
      );
    });
  };

  const number = keep(f, firstHead);
  f.loop(number, endOfHeads, 1, () => {
    const [b, keyHead] = [keep(f, op('i32.div_u', number, keyHeads)), keep(f, op('i32.rem_u', number, keyHeads))];
    const bounds = boundsOf(f, field, b);
    const zero = keep(f, 0);
    const [k, v] = [place('k', b, keyHead, zero), place('v', b, keyHead, zero)];
    f.do(call(packColumns, k, field.kT, 4, field.keyPanels, field.dim, field.keys));
    f.do(call(packColumns, v, field.vT, 4, field.valuePanels, field.dim, field.keys));
    f.do(call(packRows, k, 4, field.kT, field.keyColumns, field.keys, field.dim));
    for (const sum of [field.dkTurned, field.dvTurned]) f.fill(sum, 0, times(keys, dimBytes));

    f.set(inGroup, 0);
    f.loop(inGroup, field.group, 1, () => {
      const head = keep(f, plus(times(keyHead, field.group), inGroup));
      const headNumber = keep(f, plus(times(b, field.heads), head));
      const t0 = keep(f, 0);
      f.loop(t0, field.queries, field.tile, () => {
        const rows = smaller(f, minus(field.queries, t0), field.tile);
        const tile: Tile = { b, head, headNumber, t0, rows, padded: keep(f, up(rows, width)), bounds };
        const [q, g] = [place('q', b, head, t0), place('g', b, head, t0)];
        for (const [x, step, inRows, inColumns] of [
          [q, field.qT, field.rowsQ, field.columnsQ],
          [g, field.gT, field.rowsG, field.columnsG],
        ]) {
          f.do(call(packRows, x, step, 4, inRows, field.dim, rows));
          f.do(call(packRows, x, 4, step, inColumns, rows, field.dim));
        }
        describeQueries(tile);
        const [ofFirst, ofLast] = [seenBy(f, field, bounds, t0), seenBy(f, field, bounds, minus(plus(t0, rows), 1))];
        f.set(key, op('i32.and', ofFirst.from, -width));
        f.if(op('i32.lt_s', key, ofLast.to), () =>
          f.loop(key, ofLast.to, width, () => {
            keyPanel(
              tile,
              op('i32.and', op('i32.ge_s', key, ofLast.from), op('i32.le_s', plus(key, width), ofFirst.to)),
            );
          }),
        );
        queryGradients(tile);
      });
    });
    f.set(key, 0);
    f.loop(key, field.keys, width, () => {
      const some = smaller(f, minus(field.keys, key), width);
      for (const [name, sums, factors] of [
        ['dv', field.dvTurned, one],
        ['dk', field.dkTurned, byScale],
      ] as const) {
        f.do(
          call(
            turn,
            plus(sums, times(key, dimBytes)),
            place(name, b, keyHead, key),
            field[`${name}T`],
            some,
            field.dim,
            factors,
            field.spare,
            field.hasNaN,
          ),
        );
      }
    });
  });
}
