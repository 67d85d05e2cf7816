// Sums and maxima of a program's values. Each invocation (or workgroup, in a tree) makes one partial result; where
// there are few results and much to add, several make parts of one and a second reduction joins them. No atomics: the
// same bits every time. Floats are added in blocks of 32, so that rounding errors do not grow with the length.

import { arg, program as makeProgram, type Program, type ScalarType } from '../../tensor/expr.js';
import { contiguousStrides, sizeOf } from '../../tensor/shape.js';
import type { Primitives, View } from '../backend.js';
import type { KernelContext } from './context.js';
import { withTemporary } from './context.js';
import { addUniforms, emitProgram, factsOf } from './emitWgsl.js';
import { WebGPUError } from './errors.js';
import type { MapKernels } from './map.js';
import {
  Access,
  addAxes,
  bind,
  checkDtype,
  emitOffsets,
  grid,
  halves,
  operandOf,
  spaceOf,
  type Operand,
  type Space,
} from './operands.js';
import { floatBits, held, holdWords, Params } from './params.js';

const invocations = 64;
/** A part is at least this long. */
const leastPart = 128;
const block = 32;

export function createReduce(context: KernelContext, maps: MapKernels): (call: Primitives['reduce']) => void {
  const { queue, settings } = context;

  /** Operands: the inputs read, the output, and (without a buffer) the element's number. */
  interface Job {
    readonly op: 'sum' | 'max';
    readonly program: Program;
    readonly space: Space;
    readonly uniforms: readonly number[];
    readonly type: ScalarType;
    readonly indexOffset: number;
  }

  function run(job: Job): void {
    const { space } = job;
    const bound = bind(space, settings.bindingBytes);
    const kept = space.axes.filter(a => !a.reduced);
    const reduced = space.axes.filter(a => a.reduced);
    const [results, length] = [sizeOf(kept.map(a => a.size)), sizeOf(reduced.map(a => a.size))];
    if (!bound) {
      const d = space.axes.findIndex(a => !a.reduced && a.size > 1);
      return d >= 0 ? halve(job, d) : inParts(job, results, 2);
    }
    const together = settings.reduce === 'workgroup' && length >= 32;
    const share = together ? 8 * leastPart : leastPart;
    const parts = length < 4 * share ? 1 : Math.min(256, Math.floor(length / share), Math.floor(1024 / results));
    if (parts > 1) return inParts(job, results, parts);
    record(job, together, kept, reduced, results, length);
  }

  function halve(job: Job, d: number): void {
    const numbers = job.space.operands.length;
    const first = Math.ceil(job.space.axes[d].size / 2);
    const [a, b] = halves(job.space, d);
    run({ ...job, space: a });
    run({ ...job, space: b, indexOffset: job.indexOffset + first * job.space.axes[d].steps[numbers] });
  }

  /** Reduces pieces of the longest reduced axis into a temporary [pieces, results], and that into the output. */
  function inParts(job: Job, results: number, wanted: number): void {
    const { space, type, op } = job;
    const outputAt = space.operands.length - 1;
    let d = -1;
    space.axes.forEach((a, i) => {
      if (a.reduced && (d < 0 || a.size > space.axes[d].size)) d = i;
    });
    if (d < 0 || space.axes[d].size < 2)
      throw new WebGPUError('internal', 'reduce', 'one element reaches over more than may be bound');
    const axis = space.axes[d];
    const piece = Math.ceil(axis.size / wanted);
    const pieces = Math.floor(axis.size / piece);
    const rest = axis.size - pieces * piece;
    const total = pieces + (rest > 0 ? 1 : 0);
    const kept = space.axes.filter(a => !a.reduced);
    const dense = contiguousStrides(kept.map(a => a.size));
    withTemporary(context, [total, results], type === 'f' ? 'f32' : 'i32', temporary => {
      const part = (from: number, size: number, count: number): void => {
        let k = 0;
        const axes = space.axes.flatMap((a, i) => {
          const steps = a.steps.map((s, n) => (n === outputAt ? (a.reduced ? 0 : dense[k]) : s));
          if (!a.reduced) k++;
          if (i !== d) return [{ ...a, steps }];
          const across = {
            size: count,
            reduced: false,
            steps: steps.map((s, n) => (n === outputAt ? results : s * piece)),
          };
          return [across, { size, reduced: true, steps }];
        });
        const operands = space.operands.map((o, n): Operand =>
          n === outputAt
            ? { ...operandOf(temporary, type, true), offset: (from / piece) * results }
            : { ...o, offset: o.offset + from * axis.steps[n] },
        );
        run({
          ...job,
          space: { axes, operands },
          indexOffset: job.indexOffset + from * axis.steps[space.operands.length],
        });
      };
      part(0, piece, pieces);
      if (rest > 0) part(pieces * piece, rest, 1);
      const axes = [
        { size: total, reduced: true, steps: [results, 0, 0] },
        ...kept.map((a, n) => ({ size: a.size, reduced: false, steps: [dense[n], a.steps[outputAt], 0] })),
      ];
      const joined = makeProgram([arg(0, type)], 1);
      run({
        op,
        program: joined,
        space: { axes, operands: [operandOf(temporary, type), space.operands[outputAt]] },
        uniforms: [],
        type,
        indexOffset: 0,
      });
    });
  }

  function record(
    job: Job,
    together: boolean,
    kept: Space['axes'],
    reduced: Space['axes'],
    results: number,
    length: number,
  ): void {
    const { op, program, space, uniforms, type, indexOffset } = job;
    const { operands } = space;
    const bound = bind(space, settings.bindingBytes);
    if (!bound) throw new WebGPUError('internal', 'reduce', 'operands reach over more than may be bound');
    const facts = factsOf(program);
    const outputAt = operands.length - 1;
    const accumulator = type === 'f' ? 'f32' : type === 'i' ? 'i32' : 'u32';
    const params = new Params();
    const resultsAt = params.add(results);
    const lengthAt = params.add(length);
    const least = op === 'sum' ? 0 : type === 'f' ? floatBits(-Infinity) : type === 'i' ? 0x80000000 : 0;
    const leastAt = params.add(least);
    const offsetsAt = params.addAll([...bound.offsets, indexOffset]);
    const keptWords = addAxes(params, kept, operands.length + 1);
    const reducedWords = addAxes(params, reduced, operands.length + 1);
    const uniformWords = addUniforms(params, program, uniforms);
    const access = new Access(operands, bound);

    const source = (): string => {
      const combineOf = op === 'max' ? (type === 'f' ? 'largerOf' : 'max') : undefined;
      const emitted = emitProgram(
        program,
        uniformWords,
        n => access.load(facts.args.indexOf(n), `e${facts.args.indexOf(n)}`),
        `e${operands.length}`,
        combineOf === 'largerOf' ? [combineOf] : [],
      );
      const value = type === 'b' ? `u32(${emitted.outputs[0]})` : emitted.outputs[0];
      const combine = (x: string, y: string): string => (combineOf ? `${combineOf}(${x}, ${y})` : `${x} + ${y}`);
      const step = together ? invocations : 1;
      const result = (x: string): string => access.store(outputAt, `k${outputAt}`, type === 'b' ? `(${x} != 0u)` : x);
      const loop = `let least = bitcast<${accumulator}>(${held(leastAt)});
  var total = least;
  var j = ${together ? 'lane' : '0u'};
  while (j < ${held(lengthAt)}) {
    let end = min(j + ${block * step}u, ${held(lengthAt)});
    var part = least;
    while (j < end) {
      ${emitOffsets(
        'j',
        'e',
        offsetsAt.map((_, k) => `k${k}`),
        reducedWords,
        held,
      )}
      ${emitted.body}
      part = ${combine('part', value)};
      j += ${step}u;
    }
    total = ${combine('total', 'part')};
  }`;
      const tree = `shared_[lane] = total;
  for (var half = ${invocations / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { shared_[lane] = ${combine('shared_[lane]', 'shared_[lane + half]')}; }
  }
  if (lane == 0u) { ${result('shared_[0]')} }`;
      return `${access.declarations}
${emitted.functions}
${together ? `var<workgroup> shared_: array<${accumulator}, ${invocations}>;` : ''}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${holdWords(params.words.length)}
  let i = (group.y * groups.x + group.x)${together ? '' : ` * ${invocations}u + lane`};
  if (i >= ${held(resultsAt)}) { return; }
  ${emitOffsets('i', 'k', offsetsAt.map(held), keptWords, held)}
  ${loop}
  ${together ? tree : result('total')}
}`;
    };
    const key = `${op} ${program.key}|${kept.length}.${reduced.length}|${access.key}|${together}`;
    const pipeline = queue.pipeline(
      'reduce',
      key,
      bound.bindings.map(b => b.write),
      params.words.length,
      source,
    );
    queue.dispatch({
      pipeline,
      bindings: bound.bindings,
      params: params.words,
      groups: grid(together ? results : Math.ceil(results / invocations)),
    });
  }

  return call => {
    const { op, program, shape, axes, inputs, output, uniforms } = call;
    const { args } = factsOf(program);
    checkDtype('reduce', ...args.map(n => inputs[n].dtype), output.dtype);
    if (sizeOf(output.shape) === 0) return;
    if (sizeOf(shape) === 0) return maps.fill(output, op === 'sum' ? 0 : output.dtype === 'f32' ? -Infinity : 0);
    const type = program.outputs[0].type;
    const target: View = { ...output, shape, strides: output.strides.map((s, d) => (axes.includes(d) ? 0 : s)) };
    const numbers: View = { ...output, shape, strides: contiguousStrides(shape), offset: 0 };
    const views = [...args.map(n => inputs[n]), target, numbers];
    const operands = [...args.map(n => operandOf(inputs[n], program.argTypes[n])), operandOf(output, type, true)];
    const reduced = shape.map((_, d) => axes.includes(d));
    if (operands.length > settings.storageBuffers) {
      // Too many buffers for one kernel: the values first, then what they add up to.
      return withTemporary(context, shape, output.dtype, values => {
        maps.map({ program, shape, inputs, outputs: [values], uniforms }, 'reduce');
        const joined = makeProgram([arg(0, type)], 1);
        const single = [operandOf(values, type), operandOf(output, type, true)];
        const space = spaceOf(shape, [values, target, numbers], single, reduced);
        run({ op, program: joined, space, uniforms: [], type, indexOffset: 0 });
      });
    }
    run({ op, program, space: spaceOf(shape, views, operands, reduced), uniforms, type, indexOffset: 0 });
  };
}
