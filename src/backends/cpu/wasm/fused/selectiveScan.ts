// Mamba's selective scan (nn/selectiveScan.ts) and its VJP. Forward goes token by token over a block of channels, whose
// states stay in the cache; backward channel by channel, making the states of a sequence again in scratch memory.
// Threads take blocks of channels.

import * as e from '../../../../tensor/expr.js';
import { sizeOf } from '../../../../tensor/shape.js';
import type { FusedKernel } from '../../../backend.js';
import { load, op, type FunctionBuilder, type Local, type ModuleBuilder, type Value } from '../emit/assembler.js';
import type { WasmContext } from '../context.js';
import { add, hold, LaneMath, mul } from '../emit/lanes.js';
import type { Code } from './index.js';
import { denseFloats, emitPass, exponentialRows } from './rowFunction.js';

/** Channels that are taken at once at most: their states and A are in the cache. */
const mostChannels = 128;

const splatAt = (f: FunctionBuilder, address: Value): Local => hold(f, load('v128.load32_splat', address));
const plus = (base: Local, offset: Value | number): Value => op('i32.add', base, offset);

export function addSelectiveScan(m: ModuleBuilder, { relaxed }: WasmContext): void {
  addForward(m, relaxed);
  addVjp(m, relaxed);
}

// Of the states' numbers: h before, A, B, C; uniforms are dt and dt x.
const [h, A, B, C] = [0, 1, 2, 3].map(n => e.arg(n));
const [dtU, dtxU] = [e.uniform(0), e.uniform(1)];
const taken = e.mul(dtxU, B);
const nextState = e.add(e.mul(e.exp(e.mul(dtU, A)), h), taken);

/**
 * selectiveScan(sequences, starts, channels, bytes of a row, numbers of a state, bytes of a sequence's states, whether
 * there is an initial state, x, dt, A, B, C, D, initial, y, state). Addresses are those of the block's first channel.
 */
function addForward(m: ModuleBuilder, relaxed: boolean): void {
  const f = m.function('selectiveScan', { params: new Array<'i32'>(16).fill('i32'), results: [] });
  const [sequences, starts, channels, rowBytes, count, statesBytes, carried, ...addresses] = f.params;
  const [x, dt, decays, b, c, pass, initial, y, state] = addresses;
  const math = new LaneMath(f, relaxed);
  const [s, row, end, isFirst, channel, countBytes, blockBytes, offset] = f.localArray('i32', 8);
  const [a, here] = f.localArray('i32', 2);
  f.set(countBytes, op('i32.mul', count, 4));
  f.set(blockBytes, op('i32.mul', channels, countBytes));
  f.loop(s, sequences, 1, () => {
    f.set(row, load('i32.load', starts));
    f.set(end, load('i32.load', starts, 4));
    f.if(
      carried,
      () => f.copy(state, initial, blockBytes),
      () => f.fill(state, 0, blockBytes),
    );
    f.set(isFirst, op('i32.eqz', carried));
    f.loop(row, end, 1, () => {
      f.set(a, decays);
      f.set(here, state);
      f.set(channel, 0);
      f.loop(channel, channels, 1, () => {
        f.set(offset, op('i32.mul', channel, 4));
        const [step, input] = [splatAt(f, plus(dt, offset)), splatAt(f, plus(x, offset))];
        const uniforms = [step, hold(f, mul(step, input))];
        const total = f.local('v128');
        const move = (value: e.Expr): void => {
          const inputs = [here, a, b, c];
          const [sum] = emitPass(math, count, { inputs, uniforms, write: [[here, value]], sum: [e.mul(C, value)] });
          f.set(total, sum);
        };
        f.if(
          isFirst,
          () => move(taken),
          () => move(nextState),
        );
        const direct = mul(splatAt(f, plus(pass, offset)), input);
        f.storeLane('v128.store32_lane', 0, plus(y, offset), add(total, direct));
        f.add(a, countBytes);
        f.add(here, countBytes);
      });
      f.set(isFirst, 0);
      for (const pointer of [x, dt, y]) f.add(pointer, rowBytes);
      for (const pointer of [b, c]) f.add(pointer, countBytes);
    });
    for (const pointer of [initial, state]) f.add(pointer, statesBytes);
    f.add(starts, 4);
  });
}

/** Steps whose shares in the gradient of A are added up before they go to it. */
const stepsTogether = 64;

/**
 * selectiveScanVjp(the same up to D, initial, gradient of y, gradient of the states, dx, ddt, dA, dB, dC, dInitial,
 * rows, scratch): with dh the gradient of a state h, q = exp(dt A) dh and p = q h_before,
 * dh += C gy; dB += dt x dh; dC += gy h; dA += dt p; dx = dt (dh B) + D gy; ddt = x (dh B) + (p A); dh = q.
 */
function addVjp(m: ModuleBuilder, relaxed: boolean): void {
  const f = m.function('selectiveScanVjp', { params: new Array<'i32'>(24).fill('i32'), results: [] });
  const [sequences, starts, channels, rowBytes, count, statesBytes, carried, ...addresses] = f.params;
  const [x, dt, decays, b, c, pass, initial, gy, gState, dx, ddt, dA, dB, dC, dInitial, rows, scratch] = addresses;
  const math = new LaneMath(f, relaxed);
  const [channel, s, first, end, row, list, countBytes, stateOffset] = f.localArray('i32', 8);
  const [near, dh, states, before, after, at, column, bAt, cAt, dBAt, dCAt, isFirst] = f.localArray('i32', 12);
  f.set(countBytes, op('i32.mul', count, 4));
  f.set(near, scratch);
  f.set(dh, plus(near, countBytes));
  f.set(states, plus(dh, countBytes));
  for (const sums of [dB, dC]) f.fill(sums, 0, op('i32.mul', rows, countBytes));
  f.fill(dA, 0, op('i32.mul', channels, countBytes));

  /** Addresses of what belongs to `row`. */
  const toRow = (): void => {
    f.set(column, op('i32.mul', row, rowBytes));
    f.set(at, op('i32.mul', row, countBytes));
    for (const [pointer, base] of [
      [bAt, b],
      [cAt, c],
      [dBAt, dB],
      [dCAt, dC],
    ] as const)
      f.set(pointer, plus(base, at));
    f.set(before, plus(states, op('i32.mul', op('i32.sub', row, first), countBytes)));
    f.set(after, plus(before, countBytes));
    f.set(isFirst, op('i32.and', op('i32.eq', row, first), op('i32.eqz', carried)));
  };
  const given = (address: Local): Local => splatAt(f, plus(address, column));
  const addNear = (): void => {
    emitPass(math, count, { inputs: [dA, near], write: [[dA, e.add(e.arg(0), e.arg(1))]] });
    f.fill(near, 0, countBytes);
  };

  f.loop(channel, channels, 1, () => {
    f.set(list, starts);
    f.set(stateOffset, 0);
    f.set(s, 0);
    f.fill(near, 0, countBytes);
    f.loop(s, sequences, 1, () => {
      f.set(first, load('i32.load', list));
      f.set(end, load('i32.load', list, 4));
      f.if(carried, () => f.copy(states, plus(initial, stateOffset), countBytes));
      f.set(row, first);
      f.loop(row, end, 1, () => {
        toRow();
        const step = given(dt);
        const uniforms = [step, hold(f, mul(step, given(x)))];
        const move = (value: e.Expr): void => {
          emitPass(math, count, { inputs: [before, decays, bAt], uniforms, write: [[after, value]] });
        };
        f.if(
          isFirst,
          () => move(taken),
          () => move(nextState),
        );
      });

      f.copy(dh, plus(gState, stateOffset), countBytes);
      f.set(row, end);
      f.if(op('i32.gt_u', end, first), () => {
        f.repeat(again => {
          f.set(row, op('i32.sub', row, 1));
          toRow();
          const [step, input, g] = [given(dt), given(x), given(gy)];
          const uniforms = [step, hold(f, mul(step, input)), g];
          const [fromInput, fromDecay] = [f.local('v128'), f.local('v128')];
          const back = (decaying: boolean): void => {
            const [hBefore, a, bHere, cHere, hHere, dhAfter, dBHere, dCHere, nearHere] = [
              0, 1, 2, 3, 4, 5, 6, 7, 8,
            ].map(n => e.arg(n));
            const whole = e.add(dhAfter, e.mul(cHere, e.uniform(2)));
            const q = e.mul(e.exp(e.mul(dtU, a)), whole);
            const p = e.mul(q, hBefore);
            const sums = emitPass(math, count, {
              inputs: [before, decays, bAt, cAt, after, dh, dBAt, dCAt, near],
              uniforms,
              write: [
                [dBAt, e.add(dBHere, e.mul(whole, dtxU))],
                [dCAt, e.add(dCHere, e.mul(hHere, e.uniform(2)))],
                ...(decaying ? ([[near, e.add(nearHere, e.mul(p, dtU))]] as const) : []),
                ...(decaying ? ([[dh, q]] as const) : []),
              ],
              sum: [e.mul(whole, bHere), ...(decaying ? [e.mul(p, a)] : [])],
            });
            f.set(fromInput, sums[0]);
            if (decaying) f.set(fromDecay, sums[1]);
          };
          f.if(
            isFirst,
            () => {
              back(false);
              f.set(fromDecay, op('f32x4.splat', 0));
            },
            () => back(true),
          );
          const direct = mul(splatAt(f, pass), g);
          f.storeLane('v128.store32_lane', 0, plus(dx, column), add(mul(step, fromInput), direct));
          f.storeLane('v128.store32_lane', 0, plus(ddt, column), add(mul(input, fromInput), fromDecay));
          f.if(op('i32.eqz', op('i32.rem_u', row, stepsTogether)), addNear);
          f.branchIf(again, op('i32.gt_u', row, first));
        });
      });
      addNear();
      f.if(carried, () => f.copy(plus(dInitial, stateOffset), dh, countBytes));
      f.add(stateOffset, statesBytes);
      f.add(list, 4);
    });
    for (const pointer of [x, dt, pass, gy, dx, ddt]) f.add(pointer, 4);
    for (const pointer of [decays, dA, initial, gState, dInitial]) f.add(pointer, countBytes);
  });
}

export function selectiveScanKernels(code: Code, context: WasmContext): [string, FusedKernel][] {
  const { memory, scratch, byteOffsetOf, threads } = context;
  const align = (bytes: number): number => 16 * Math.ceil(bytes / 16);

  return [
    [
      'selectiveScan',
      ({ inputs, outputs: [both], indices }) => {
        const [x, dt, decays, b, c, pass, initial] = inputs;
        if (!x || !dt || !decays || !b || !c || !pass || !indices || !denseFloats([...inputs, both])) return false;
        const [rows, d] = x.shape;
        const n = decays.shape[1];
        const startsAt = scratch(4 * (indices.length + 1));
        new Int32Array(memory.buffer, startsAt, indices.length + 1).set([...indices, rows]);
        const parts = threads.parts(rows * d * n * exponentialRows);
        const width = Math.max(1, Math.min(mostChannels, Math.ceil(d / parts)));
        const [byChannel, byState] = [4, 4 * n];
        const [y, state] = [byteOffsetOf(both), byteOffsetOf(both) + 4 * rows * d];
        const calls: number[][] = [];
        for (let from = 0; from < d; from += width)
          calls.push([
            indices.length,
            startsAt,
            Math.min(width, d - from),
            4 * d,
            n,
            4 * d * n,
            initial ? 1 : 0,
            byteOffsetOf(x) + from * byChannel,
            byteOffsetOf(dt) + from * byChannel,
            byteOffsetOf(decays) + from * byState,
            byteOffsetOf(b),
            byteOffsetOf(c),
            byteOffsetOf(pass) + from * byChannel,
            initial ? byteOffsetOf(initial) + from * byState : 0,
            y + from * byChannel,
            state + from * byState,
          ]);
        if (calls.length > 0) threads.run(code().selectiveScan, calls);
        return true;
      },
    ],
    [
      'selectiveScan.vjp',
      ({ inputs, outputs, attributes: { block }, indices }) => {
        const [x, dt, decays, b, c, pass, initial, g] = inputs;
        const [dx, ddt, dA, dB, dC, dInitial] = outputs;
        if (!x || !dt || !decays || !b || !c || !pass || !g || !indices) return false;
        if (!denseFloats([...inputs, ...outputs])) return false;
        const [rows, d] = x.shape;
        const n = decays.shape[1];
        const longest = indices.reduce((most, start, s) => Math.max(most, (indices[s + 1] ?? rows) - start), 0);
        const startsBytes = align(4 * (indices.length + 1));
        const stride = align(4 * n * (longest + 3));
        const startsAt = scratch(startsBytes + threads.seats * stride);
        new Int32Array(memory.buffer, startsAt, indices.length + 1).set([...indices, rows]);
        const [byChannel, byState, byBlock] = [4, 4 * n, 4 * sizeOf([rows, n])];
        const calls: number[][] = [];
        for (let from = 0; from < d; from += block)
          calls.push([
            indices.length,
            startsAt,
            Math.min(block, d - from),
            4 * d,
            n,
            4 * d * n,
            initial ? 1 : 0,
            byteOffsetOf(x) + from * byChannel,
            byteOffsetOf(dt) + from * byChannel,
            byteOffsetOf(decays) + from * byState,
            byteOffsetOf(b),
            byteOffsetOf(c),
            byteOffsetOf(pass) + from * byChannel,
            initial ? byteOffsetOf(initial) + from * byState : 0,
            byteOffsetOf(g) + from * byChannel,
            byteOffsetOf(g) + 4 * rows * d + from * byState,
            byteOffsetOf(dx) + from * byChannel,
            byteOffsetOf(ddt) + from * byChannel,
            byteOffsetOf(dA) + from * byState,
            byteOffsetOf(dB) + (from / block) * byBlock,
            byteOffsetOf(dC) + (from / block) * byBlock,
            dInitial ? byteOffsetOf(dInitial) + from * byState : 0,
            rows,
          ]);
        if (calls.length > 0) threads.run(code().selectiveScanVjp, calls, startsAt + startsBytes, stride);
        return true;
      },
    ],
  ];
}
