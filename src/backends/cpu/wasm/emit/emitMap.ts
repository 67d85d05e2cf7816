// Programs (tensor/expr.ts) as SIMD code: the expressions for four elements, and the loop over one row of elements with
// its tail, outputs and running sums. Which rows there are is the caller's business (map.ts, reduce.ts, the fused
// kernels). A mask (type b) is all ones or all zeros in a lane; in memory it is 0 or 1.

import type { Expr, Program, ScalarType } from '../../../../tensor/expr.js';
import { topological } from '../../../../tensor/expr.js';
import {
  i32x4Const,
  load,
  loadLane,
  op,
  type FunctionBuilder,
  type InstructionName,
  type Local,
  type Value,
} from './assembler.js';
import { acrossLanes, choose, div, hold, type LaneMath, splat, splatInt } from './lanes.js';

/** Programs whose masks are only compared, combined and chosen by; arithmetic on masks has no lanes here. */
export function emittable(program: Program): boolean {
  const logical = ['const', 'arg', 'uniform', 'lt', 'le', 'eq', 'ne', 'and', 'or', 'not', 'where', 'custom'];
  return program.order.every(e => e.type !== 'b' || logical.includes(e.op));
}

type Leaf = (e: Expr) => Value;

/** Code for every node that `outputs` need, each once; gives the outputs. `leaf` supplies arg, uniform and index. */
export function emitExpressions(math: LaneMath, outputs: readonly Expr[], leaf: Leaf): Value[] {
  const done = new Map<Expr, Value>();
  for (const e of topological(outputs)) {
    const args = e.args.map(a => done.get(a)!);
    const value = emitNode(math, e, args, leaf);
    done.set(e, e.op === 'const' || e.op === 'custom' || 'index' in value ? value : hold(math.f, value));
  }
  return outputs.map(o => done.get(o)!);
}

function emitNode(math: LaneMath, e: Expr, [x, y, z]: readonly Value[], leaf: Leaf): Value {
  const float = e.type === 'f';
  const operand: ScalarType | undefined = e.args[0]?.type;
  /** The instruction for the operand's type. */
  const typed = (onFloat: InstructionName, onSigned: InstructionName, onUnsigned = onSigned): Value =>
    op(operand === 'f' ? onFloat : operand === 'u' ? onUnsigned : onSigned, x, y);
  switch (e.op) {
    case 'const':
      return float ? splat(e.value) : splatInt(e.type === 'b' ? -Number(e.value !== 0) : e.value);
    case 'arg':
    case 'uniform':
    case 'index':
      return leaf(e);
    case 'add':
      return typed('f32x4.add', 'i32x4.add');
    case 'sub':
      return typed('f32x4.sub', 'i32x4.sub');
    case 'mul':
      return typed('f32x4.mul', 'i32x4.mul');
    case 'div':
      return div(x, y);
    case 'neg':
      return op(float ? 'f32x4.neg' : 'i32x4.neg', x);
    case 'min':
      return typed('f32x4.min', 'i32x4.min_s', 'i32x4.min_u');
    case 'max':
      return typed('f32x4.max', 'i32x4.max_s', 'i32x4.max_u');
    case 'abs':
      return float ? op('f32x4.abs', x) : e.type === 'u' ? x : op('i32x4.abs', x);
    case 'floor':
      return op('f32x4.floor', x);
    case 'exp':
      return math.exp(x);
    case 'log':
      return math.log(x);
    case 'sqrt':
      return op('f32x4.sqrt', x);
    case 'rsqrt':
      return div(splat(1), op('f32x4.sqrt', x));
    case 'tanh':
      return math.tanh(x);
    case 'erf':
      return math.erf(x);
    case 'sin':
      return math.sin(x);
    case 'cos':
      return math.cos(x);
    case 'lt':
      return operand === 'b' ? op('v128.andnot', y, x) : typed('f32x4.lt', 'i32x4.lt_s', 'i32x4.lt_u');
    case 'le':
      return operand === 'b' ? op('v128.or', y, op('v128.not', x)) : typed('f32x4.le', 'i32x4.le_s', 'i32x4.le_u');
    case 'eq':
      return typed('f32x4.eq', 'i32x4.eq');
    case 'ne':
      return typed('f32x4.ne', 'i32x4.ne');
    case 'and':
    case 'bitAnd':
      return op('v128.and', x, y);
    case 'or':
    case 'bitOr':
      return op('v128.or', x, y);
    case 'bitXor':
      return op('v128.xor', x, y);
    case 'not':
      return op('v128.not', x);
    case 'where':
      return choose(x, y, z);
    case 'shl':
      return op('i32x4.shl', x, e.args[1].value);
    case 'shr':
      return op(e.type === 'u' ? 'i32x4.shr_u' : 'i32x4.shr_s', x, e.args[1].value);
    case 'toF':
      return operand === 'b'
        ? op('v128.and', x, splat(1))
        : op(operand === 'u' ? 'f32x4.convert_i32x4_u' : 'f32x4.convert_i32x4_s', x);
    case 'toI':
      return operand === 'f' ? op('i32x4.trunc_sat_f32x4_s', x) : operand === 'b' ? op('v128.and', x, splatInt(1)) : x;
    case 'toU':
    case 'custom':
      return x;
  }
}

/** A loaded vector as an operand, and back. */
export const fromMemory = (type: ScalarType, value: Value): Value =>
  type === 'b' ? op('i32x4.ne', value, splatInt(0)) : value;
const toMemory = (type: ScalarType, value: Value): Value => (type === 'b' ? op('v128.and', value, splatInt(1)) : value);

/** How a row's elements follow each other: one repeated, densely, or `step` bytes apart. */
export type Spacing = 'repeated' | 'dense' | 'apart';

/** The elements of one operand along a row. The pointer (bytes) moves along; the row's code leaves it anywhere. */
export interface Stream {
  readonly pointer: Local;
  readonly spacing: Spacing;
  /** Bytes between elements; needed for 'apart' only. */
  readonly step?: Local;
}

/**
 * A running sum or maximum: several vectors, so that additions do not wait for each other and few terms meet in each.
 */
export interface Accumulator {
  readonly op: 'sum' | 'max';
  readonly type: 'f' | 'i';
  readonly parts: readonly Local[];
  /**
   * Float sums: takes the parts in every so often, so that no number is added to a sum of tens of thousands of others.
   */
  readonly outer: Local | undefined;
}

export function accumulator(
  f: FunctionBuilder,
  reduction: 'sum' | 'max',
  type: 'f' | 'i' = 'f',
  count = 4,
): Accumulator {
  return {
    op: reduction,
    type,
    parts: f.localArray('v128', count),
    outer: reduction === 'sum' && type === 'f' ? f.local('v128') : undefined,
  };
}

export function combineWith(acc: Accumulator): (a: Value, b: Value) => Value {
  const name =
    acc.type === 'f' ? (acc.op === 'sum' ? 'f32x4.add' : 'f32x4.max') : acc.op === 'sum' ? 'i32x4.add' : 'i32x4.max_s';
  return (a, b) => op(name, a, b);
}

export function startValue(acc: Accumulator): Value {
  if (acc.op === 'sum') return splatInt(0);
  return acc.type === 'f' ? splat(-Infinity) : splatInt(-0x80000000);
}

export function resetAccumulator(f: FunctionBuilder, acc: Accumulator): void {
  for (const part of acc.parts) f.set(part, startValue(acc));
  if (acc.outer) f.set(acc.outer, startValue(acc));
}

/** The parts combined into one vector. */
function combined(acc: Accumulator): Value {
  const combine = combineWith(acc);
  let parts: Value[] = [...acc.parts];
  while (parts.length > 1) {
    const half = parts.length / 2;
    parts = parts.slice(0, half).map((part, i) => combine(part, parts[half + i]));
  }
  return parts[0];
}

/** Moves the parts into the outer sum. */
function fold(f: FunctionBuilder, acc: Accumulator): void {
  if (!acc.outer) return;
  f.set(acc.outer, op('f32x4.add', acc.outer, combined(acc)));
  for (const part of acc.parts) f.set(part, startValue(acc));
}

/** Iterations between folds. */
const foldEvery = 64;

/** The total in every lane. */
export function totalOf(f: FunctionBuilder, acc: Accumulator): Local {
  const vector = combined(acc);
  return acrossLanes(f, acc.outer ? op('f32x4.add', acc.outer, vector) : vector, combineWith(acc));
}

/** One walk along a row. */
export interface Row {
  /** Elements in the row; 0 is allowed. */
  readonly count: Local;
  /** The stream of each argument; an argument that no expression uses may be missing. */
  readonly inputs: readonly (Stream | undefined)[];
  /** Splats that stand for the uniforms. */
  readonly uniforms?: readonly Value[];
  /** `pointer` counts elements, so does `step`. */
  readonly index?: { readonly pointer: Local; readonly step: Local };
  readonly outputs?: readonly { readonly stream: Stream; readonly value: Expr }[];
  /** Reductions over the row; the caller resets and totals them. */
  readonly sums?: readonly { readonly into: Accumulator; readonly value: Expr }[];
}

const costly: readonly string[] = ['exp', 'log', 'tanh', 'erf', 'sin', 'cos'];

/** Functions that take many instructions. */
export const isCostly = ({ op }: Expr): boolean => costly.includes(op);

/** Vectors an iteration: short expressions are held up by the loop and by memory, long ones fill the machine. */
export function unrolling(expressions: readonly Expr[]): number {
  const nodes = topological(expressions);
  if (nodes.some(isCostly)) return 1;
  return nodes.length <= 16 ? 4 : nodes.length <= 40 ? 2 : 1;
}

export function emitRow(math: LaneMath, row: Row): void {
  const { f } = math;
  const { outputs = [], sums = [], inputs, uniforms = [] } = row;
  const results = [...outputs.map(o => o.value), ...sums.map(s => s.value)];
  const used = new Set<number>();
  let needsIndex = false;
  for (const e of topological(results)) {
    if (e.op === 'arg') used.add(e.value);
    if (e.op === 'index') needsIndex = true;
  }
  const repeated = inputs.map((s, i) =>
    s?.spacing === 'repeated' && used.has(i) ? hold(f, load('v128.load32_splat', s.pointer)) : undefined,
  );
  const laneNumbers =
    needsIndex && row.index
      ? hold(f, op('i32x4.mul', op('i32x4.splat', row.index.step), i32x4Const(0, 1, 2, 3)))
      : undefined;
  const moving = [...inputs.filter((_, i) => used.has(i)), ...outputs.map(o => o.stream)].filter(s => s !== undefined);

  const next = (s: Stream, elements: number): void => {
    if (s.spacing === 'dense') f.add(s.pointer, 4 * elements);
    if (s.spacing === 'apart' && s.step) f.add(s.pointer, elements === 1 ? s.step : op('i32.mul', s.step, elements));
  };
  /** Evaluates four elements (vector number u of an iteration) or one, in lane 0. */
  const body = (u: number, single: boolean): void => {
    const leaf = (e: Expr): Value => {
      if (e.op === 'uniform') return uniforms[e.value];
      if (e.op === 'index') {
        if (!row.index || !laneNumbers) throw new Error('emitRow: no index in this row');
        return op('i32x4.add', op('i32x4.splat', row.index.pointer), laneNumbers);
      }
      const stream = inputs[e.value];
      if (!stream) throw new Error(`emitRow: argument ${e.value} has no stream`);
      if (stream.spacing === 'repeated') return fromMemory(e.type, repeated[e.value]!);
      if (single) return fromMemory(e.type, load('v128.load32_splat', stream.pointer));
      if (stream.spacing === 'dense') return fromMemory(e.type, load('v128.load', stream.pointer, 16 * u));
      const at = f.local('i32');
      let lanes: Value = load('v128.load32_zero', f.tee(at, stream.pointer));
      for (let lane = 1; lane < 4; lane++) {
        lanes = loadLane('v128.load32_lane', lane, f.tee(at, op('i32.add', at, stream.step!)), hold(f, lanes));
      }
      return fromMemory(e.type, lanes);
    };
    const values = emitExpressions(math, results, leaf);
    outputs.forEach(({ stream, value }, j) => {
      const stored = toMemory(value.type, values[j]);
      if (single) f.storeLane('v128.store32_lane', 0, stream.pointer, stored);
      else if (stream.spacing === 'dense') f.store('v128.store', stream.pointer, stored, 16 * u);
      else {
        const [at, lanes] = [f.local('i32'), hold(f, stored)];
        f.set(at, stream.pointer);
        for (let lane = 0; lane < 4; lane++) {
          f.storeLane('v128.store32_lane', lane, at, lanes);
          if (lane < 3) f.add(at, stream.step!);
        }
      }
    });
    sums.forEach(({ into }, j) => {
      let value = values[outputs.length + j];
      if (single && into.op === 'sum') value = op('v128.and', value, i32x4Const(-1, 0, 0, 0));
      const part = into.parts[u % into.parts.length];
      f.set(part, combineWith(into)(part, value));
    });
  };
  const advance = (elements: number, which: (s: Stream) => boolean): void => {
    for (const s of moving) if (which(s)) next(s, elements);
  };
  const advanceIndex = (elements: number): void => {
    if (laneNumbers && row.index) f.add(row.index.pointer, op('i32.mul', row.index.step, elements));
  };

  const done = f.local('i32');
  const folding = sums.filter(({ into }) => into.outer !== undefined);
  const stage = (elements: number, limit: Local, run: () => void): void => {
    if (folding.length === 0 || elements === 1) {
      f.loop(done, limit, elements, run);
      return;
    }
    const [chunk, end] = f.localArray('i32', 2);
    f.set(chunk, done);
    f.loop(chunk, limit, foldEvery * elements, () => {
      f.set(end, op('i32.add', done, foldEvery * elements));
      f.if(op('i32.gt_u', end, limit), () => f.set(end, limit));
      f.loop(done, end, elements, run);
      for (const { into } of folding) fold(f, into);
    });
  };
  const limitFor = (elements: number): Local => {
    const limit = f.local('i32');
    f.set(limit, op('i32.and', row.count, -elements));
    return limit;
  };
  const vectors = (count: number): void =>
    stage(4 * count, limitFor(4 * count), () => {
      for (let u = 0; u < count; u++) {
        body(u, false);
        advance(4, s => s.spacing === 'apart');
        advanceIndex(4);
      }
      advance(4 * count, s => s.spacing === 'dense');
    });
  f.set(done, 0); // the row may lie inside a loop
  const unroll = unrolling(results);
  if (unroll > 1) vectors(unroll);
  vectors(1);
  stage(1, row.count, () => {
    body(0, true);
    advance(1, s => s.spacing !== 'repeated');
    advanceIndex(1);
  });
}
