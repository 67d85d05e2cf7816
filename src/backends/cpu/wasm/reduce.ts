// The reduce kernel: sums and maxima of a program over any axes of strided operands, one WASM call each. Two patterns:
// along the rows, when the innermost loop is a reduced axis (four vector accumulators, then across lanes), and down the
// columns, when it is a kept one (a strip of columns at a time, each lane its own total). Descriptor, in words: row
// length, column length, address of the end of the kept loops, of the start and the end of the reduced loops, pointers,
// row steps, column steps, uniforms, kept loops, reduced loops.

import { constant, program as makeProgram, type Program } from '../../../tensor/expr.js';
import { contiguousStrides, sizeOf } from '../../../tensor/shape.js';
import type { Primitives } from '../../backend.js';
import {
  i32x4Const,
  load,
  loadLane,
  ModuleBuilder,
  op,
  type FunctionBuilder,
  type Local,
  type Value,
} from './emit/assembler.js';
import { mergedAxes, type Axis } from '../../iteration.js';
import { isShared, KernelCache, type Kernel, type WasmContext } from './context.js';
import {
  accumulator,
  combineWith,
  emitExpressions,
  emitRow,
  fromMemory,
  resetAccumulator,
  totalOf,
  unrolling,
  type Accumulator,
} from './emit/emitMap.js';
import { bestInner, cutAxes, emitLoops, loopWords, spacingOf, writeLoops } from './emit/iteration.js';
import { hold, LaneMath } from './emit/lanes.js';
import { byteSteps, lanesFit, loadUniforms, usesIndex, workOf, writeUniforms } from './map.js';

const headWords = 5;

/**
 * Everything about a call that its code depends on. Operands: the inputs, the output, and the element number if it is
 * used.
 */
interface Structure {
  readonly op: 'sum' | 'max';
  readonly program: Program;
  readonly inputs: number;
  readonly indexed: boolean;
  readonly inner: Axis;
}

interface Frame {
  readonly f: FunctionBuilder;
  readonly math: LaneMath;
  readonly count: Local;
  readonly depth: Local;
  readonly reducedStart: Local;
  readonly reducedEnd: Local;
  readonly steps: readonly Local[];
  readonly columnSteps: readonly Local[];
  readonly uniforms: readonly Value[];
}

function compile(structure: Structure, context: WasmContext): Kernel {
  const { program, inputs, indexed } = structure;
  const operands = inputs + 1 + Number(indexed);
  const m = new ModuleBuilder({ memory: { shared: isShared(context.memory) } });
  const f = m.function('run', { params: ['i32'], results: [] });
  const [descriptor] = f.params;
  const word = (i: number): Local => {
    const local = f.local('i32');
    f.set(local, load('i32.load', descriptor, 4 * i));
    return local;
  };
  const words = (from: number): Local[] => Array.from({ length: operands }, (_, k) => word(from + k));
  const [count, depth, keptEnd, reducedStart, reducedEnd] = [0, 1, 2, 3, 4].map(word);
  const bases = words(headWords);
  const uniformsAt = headWords + 3 * operands;
  const frame: Frame = {
    f,
    math: new LaneMath(f, context.relaxed),
    count,
    depth,
    reducedStart,
    reducedEnd,
    steps: words(headWords + operands),
    columnSteps: words(headWords + 2 * operands),
    uniforms: loadUniforms(f, program, descriptor, 4 * uniformsAt),
  };
  const keptStart = f.local('i32');
  f.set(keptStart, op('i32.add', descriptor, 4 * (uniformsAt + program.uniformTypes.length)));
  emitLoops(f, keptStart, keptEnd, bases, () => {
    if (structure.inner.reduced) alongRow(structure, frame, bases);
    else downColumns(structure, frame, bases);
  });
  return context.threads.link(m.bytes()).run;
}

const resultType = (program: Program): 'f' | 'i' => (program.outputs[0].type === 'f' ? 'f' : 'i');

/** One output element: all reduced loops, the innermost as a row. */
function alongRow(
  { op: reduction, program, inputs, indexed, inner }: Structure,
  frame: Frame,
  bases: readonly Local[],
): void {
  const { f, math, steps, uniforms } = frame;
  const acc = accumulator(f, reduction, resultType(program));
  resetAccumulator(f, acc);
  const outer = f.localArray('i32', bases.length);
  const pointers = f.localArray('i32', bases.length);
  bases.forEach((base, k) => f.set(outer[k], base));
  emitLoops(f, frame.reducedStart, frame.reducedEnd, outer, () => {
    outer.forEach((from, k) => f.set(pointers[k], from));
    emitRow(math, {
      count: frame.count,
      uniforms,
      inputs: pointers
        .slice(0, inputs)
        .map((pointer, k) => ({ pointer, spacing: spacingOf(inner.steps[k]), step: steps[k] })),
      index: indexed ? { pointer: pointers[inputs + 1], step: steps[inputs + 1] } : undefined,
      sums: [{ into: acc, value: program.outputs[0] }],
    });
  });
  f.storeLane('v128.store32_lane', 0, bases[inputs], totalOf(f, acc));
}

/** All outputs along the innermost, kept axis, a strip of columns at a time. */
function downColumns(structure: Structure, frame: Frame, bases: readonly Local[]): void {
  const { f } = frame;
  const columns = f.localArray('i32', bases.length);
  bases.forEach((base, k) => f.set(columns[k], base));
  const done = f.local('i32');
  f.set(done, 0);
  const strips = (vectors: number, width: number): void => {
    const limit = f.local('i32');
    f.set(limit, op('i32.and', frame.count, -width));
    f.loop(done, limit, width, () => {
      strip(structure, frame, columns, vectors, width === 1);
      columns.forEach((column, k) => f.add(column, op('i32.mul', frame.steps[k], width)));
    });
  };
  const most = unrolling(structure.program.outputs);
  if (most > 1) strips(most, 4 * most);
  strips(1, 4);
  strips(1, 1);
}

/** The totals of neighbouring columns: `vectors` times four, or a single one in lane 0. */
function strip(
  { op: reduction, program, inputs, indexed, inner }: Structure,
  frame: Frame,
  columns: readonly Local[],
  vectors: number,
  single: boolean,
): void {
  const { f, math, steps } = frame;
  const acc: Accumulator = accumulator(f, reduction, resultType(program), vectors);
  resetAccumulator(f, acc);
  const outer = f.localArray('i32', columns.length);
  const pointers = f.localArray('i32', columns.length);
  columns.forEach((column, k) => f.set(outer[k], column));
  const row = f.local('i32');
  const lanesOf = (k: number, u: number): Value => {
    const spacing = spacingOf(inner.steps[k]);
    if (single || spacing === 'repeated') return load('v128.load32_splat', pointers[k]);
    if (spacing === 'dense') return load('v128.load', pointers[k], 16 * u);
    const at = f.local('i32');
    let lanes: Value = load('v128.load32_zero', f.tee(at, op('i32.add', pointers[k], op('i32.mul', steps[k], 4 * u))));
    for (let lane = 1; lane < 4; lane++)
      lanes = loadLane('v128.load32_lane', lane, f.tee(at, op('i32.add', at, steps[k])), hold(f, lanes));
    return lanes;
  };
  const number = inputs + 1; // the operand that counts elements
  const numbersOf = (u: number): Value => {
    const lanes = op('i32x4.mul', op('i32x4.splat', steps[number]), i32x4Const(4 * u, 4 * u + 1, 4 * u + 2, 4 * u + 3));
    return op('i32x4.add', op('i32x4.splat', pointers[number]), lanes);
  };
  emitLoops(f, frame.reducedStart, frame.reducedEnd, outer, () => {
    outer.forEach((from, k) => f.set(pointers[k], from));
    f.set(row, 0);
    f.loop(row, frame.depth, 1, () => {
      for (let u = 0; u < vectors; u++) {
        const [value] = emitExpressions(math, [program.outputs[0]], e => {
          if (e.op === 'uniform') return frame.uniforms[e.value];
          return e.op === 'index' ? numbersOf(u) : fromMemory(e.type, lanesOf(e.value, u));
        });
        f.set(acc.parts[u], combineWith(acc)(acc.parts[u], value));
      }
      pointers.forEach((pointer, k) => {
        if (k < inputs || (indexed && k === number)) f.add(pointer, frame.columnSteps[k]);
      });
    });
  });
  const out = columns[inputs];
  acc.parts.forEach((part, u) => {
    if (single) f.storeLane('v128.store32_lane', 0, out, part);
    else if (spacingOf(inner.steps[inputs]) === 'dense') f.store('v128.store', out, part, 16 * u);
    else {
      const at = f.local('i32');
      f.set(at, op('i32.add', out, op('i32.mul', steps[inputs], 4 * u)));
      for (let lane = 0; lane < 4; lane++) {
        f.storeLane('v128.store32_lane', lane, at, part);
        f.add(at, steps[inputs]);
      }
    }
  });
}

export function createReduce(
  context: WasmContext,
  map: (call: Primitives['map']) => boolean,
): (call: Primitives['reduce']) => boolean {
  const cache = { sum: new KernelCache(), max: new KernelCache() };
  return ({ op: reduction, program, shape, axes: over, inputs, output, uniforms }) => {
    const type = program.outputs[0].type;
    if ((type !== 'f' && type !== 'i') || !lanesFit(program, inputs, [output])) return false;
    const isReduced = shape.map((_, d) => over.includes(d));
    const size = sizeOf(shape);
    if (size > 0x7fffffff) return false;
    if (size === 0) {
      if (reduction === 'max' && type === 'i') return false;
      const empty = makeProgram([constant(reduction === 'sum' ? 0 : -Infinity, type)], 0);
      return map({
        program: empty,
        shape: shape.map((side, d) => (isReduced[d] ? 1 : side)),
        inputs: [],
        outputs: [output],
        uniforms: [],
      });
    }
    const indexed = usesIndex(program);
    const steps = [...inputs.map(byteSteps), byteSteps(output).map((step, d) => (isReduced[d] ? 0 : step))];
    if (indexed) steps.push(contiguousStrides(shape));
    const operands = steps.length;
    const nothing = (reduced: boolean): Axis => ({ size: 1, reduced, steps: new Array<number>(operands).fill(4) });
    const axes = mergedAxes(shape, steps, isReduced);
    const inner = axes.length > 0 ? axes.splice(bestInner(axes, inputs.length), 1)[0] : nothing(true);
    const kept = axes.filter(a => !a.reduced);
    const reduced = axes.filter(a => a.reduced);
    // Down the columns the innermost reduced axis is a plain loop.
    const column = inner.reduced ? nothing(true) : (reduced.pop() ?? nothing(true));
    const pattern = `${inner.reduced ? 'row' : 'column'},${inner.steps
      .slice(0, inputs.length + 1)
      .map(spacingOf)
      .join()}`;
    const kernel = cache[reduction].get(program, pattern, () =>
      compile({ op: reduction, program, inputs: inputs.length, indexed, inner }, context),
    );

    const uniformsAt = headWords + 3 * operands;
    const keptAt = uniformsAt + program.uniformTypes.length;
    const length = keptAt + (kept.length + reduced.length) * loopWords(operands);
    const { threads, memory } = context;
    const parts = cutAxes([...kept, inner], threads.parts(size * workOf(program)));
    const descriptors = context.scratch(4 * length * parts.length);
    const bases = [...inputs, output].map(context.byteOffsetOf);
    threads.run(
      kernel,
      parts.map((part, i) => {
        const descriptor = descriptors + 4 * length * i;
        const words = new Int32Array(memory.buffer, descriptor, length);
        const keptEnd = writeLoops(words, keptAt, part.axes.slice(0, -1), operands);
        words[0] = part.axes[kept.length].size;
        words[1] = column.size;
        words[2] = words[3] = descriptor + 4 * keptEnd;
        words[4] = descriptor + 4 * writeLoops(words, keptEnd, reduced, operands);
        for (let k = 0; k < operands; k++) {
          words[headWords + k] = (k < bases.length ? bases[k] : 0) + part.start[k];
          words[headWords + operands + k] = inner.steps[k];
          words[headWords + 2 * operands + k] = column.steps[k];
        }
        writeUniforms(memory.buffer, descriptor + 4 * uniformsAt, program, uniforms);
        return [descriptor];
      }),
    );
    return true;
  };
}
