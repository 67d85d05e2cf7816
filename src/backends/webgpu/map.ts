// Elementwise kernels and strided copies: one invocation for one or more elements. Calls that would bind too many
// buffers go through a packed temporary; spaces that reach over more than may be bound are halved until they do not.

import { arg, constant, program as makeProgram, type Program, type ScalarType } from '../../tensor/expr.js';
import { contiguousStrides, sizeOf } from '../../tensor/shape.js';
import type { Primitives, View } from '../backend.js';
import type { KernelContext } from './context.js';
import { addUniforms, emitProgram, factsOf } from './emitWgsl.js';
import { WebGPUError } from './errors.js';
import {
  Access,
  addAxes,
  bind,
  checkDtype,
  emitOffsets,
  halves,
  operandOf,
  spaceOf,
  type Bound,
  type Operand,
  type Space,
} from './operands.js';
import { held, holdWords, Params } from './params.js';
import type { Block } from './pool.js';

const invocations = 64;

export interface MapKernels {
  map(call: Primitives['map'], label?: string): void;
  copy(call: Primitives['copy'], label?: string): void;
  /** Every element becomes `value`. */
  fill(output: View, value: number): void;
}

const storedType = (view: View): ScalarType => (view.dtype === 'f32' ? 'f' : view.dtype === 'bool' ? 'b' : 'i');
/** Bits, whatever they mean. */
const identity = makeProgram([arg(0, 'u')], 1);

export function createMap(context: KernelContext): MapKernels {
  const { queue, settings } = context;

  function run(label: string, program: Program, space: Space, uniforms: readonly number[], indexBase: number): void {
    const bound = bind(space, settings.bindingBytes);
    if (bound) return record(label, program, space, bound, uniforms, indexBase);
    const d = space.axes.findIndex(axis => axis.size > 1);
    if (d < 0) throw new WebGPUError('internal', label, 'one element reaches over more than may be bound');
    const [first, second] = halves(space, d);
    const size = sizeOf(first.axes.map(a => a.size));
    run(label, program, first, uniforms, indexBase);
    run(label, program, second, uniforms, indexBase + size);
  }

  function record(
    label: string,
    program: Program,
    space: Space,
    bound: Bound,
    uniforms: readonly number[],
    indexBase: number,
  ): void {
    const { operands } = space;
    // One element is a row of one: the same pipeline.
    const axes = space.axes.length > 0 ? space.axes : [{ size: 1, reduced: false, steps: operands.map(() => 0) }];
    const facts = factsOf(program);
    const params = new Params();
    const size = sizeOf(axes.map(a => a.size));
    const sizeAt = params.add(size);
    const groups = Math.min(Math.ceil(size / invocations), settings.groups);
    const strideAt = params.add(groups * invocations);
    const baseAt = params.add(indexBase);
    const offsetsAt = params.addAll(bound.offsets);
    const axisWords = addAxes(params, axes, operands.length);
    const uniformWords = addUniforms(params, program, uniforms);
    const access = new Access(operands, bound);
    const source = (): string => {
      const emitted = emitProgram(
        program,
        uniformWords,
        n => access.load(facts.args.indexOf(n), `a${facts.args.indexOf(n)}`),
        'index',
      );
      const stores = emitted.outputs.map((value, j) =>
        access.store(facts.args.length + j, `a${facts.args.length + j}`, value),
      );
      return `${access.declarations}
${emitted.functions}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${holdWords(params.words.length)}
  for (var i = group.x * ${invocations}u + lane; i < ${held(sizeAt)}; i += ${held(strideAt)}) {
  let index = i + ${held(baseAt)};
  ${emitOffsets('i', 'a', offsetsAt.map(held), axisWords, held)}
  ${emitted.body}
  ${stores.join('\n  ')}
  }
}`;
    };
    const key = `map ${program.key}|${axes.length}|${access.key}`;
    const pipeline = queue.pipeline(
      label,
      key,
      bound.bindings.map(b => b.write),
      params.words.length,
      source,
    );
    queue.dispatch({ pipeline, bindings: bound.bindings, params: params.words, groups: [groups, 1, 1] });
  }

  /**
   * The call with some of its buffers replaced by one temporary: inputs on them are copied in, outputs on them copied
   * out. Fewer buffers are bound then, each element is still read and written where it was.
   */
  function packed(label: string, call: Primitives['map'], used: readonly number[]): void {
    const { inputs, outputs } = call;
    const bufferOf = (view: View) => (view.allocation as Block).buffer;
    const written = new Set(outputs.map(bufferOf));
    const read = new Set(used.map(n => bufferOf(inputs[n])).filter(b => !written.has(b)));
    const need = written.size + read.size - settings.storageBuffers + 1;
    const moved = new Set([...read, ...written].slice(0, need));
    const places: { view: View; at: number; shape: number[]; strides: number[]; isOutput: boolean }[] = [];
    let length = 0;
    const place = (view: View, isOutput: boolean): void => {
      if (!moved.has(bufferOf(view)) || find(view)) return;
      // What is repeated is packed once.
      const shape = view.shape.map((side, d) => (view.strides[d] === 0 && !isOutput ? 1 : side));
      const strides = contiguousStrides(shape).map((s, d) => (shape[d] === 1 ? 0 : s));
      places.push({ view, at: length, shape, strides, isOutput });
      length += sizeOf(shape);
    };
    const find = (view: View) =>
      places.find(
        p =>
          p.view.allocation === view.allocation &&
          p.view.offset === view.offset &&
          p.view.dtype === view.dtype &&
          p.view.shape.every((side, d) => side === view.shape[d]) &&
          p.view.strides.every((s, d) => s === view.strides[d]),
      );
    outputs.forEach(view => place(view, true));
    used.forEach(n => place(inputs[n], false));
    const block = context.allocate(4 * length);
    const there = (p: (typeof places)[number], shape: readonly number[]): View => ({
      allocation: block,
      dtype: p.view.dtype,
      shape,
      strides: p.strides,
      offset: p.at,
    });
    const isRead = (p: (typeof places)[number]): boolean => used.some(n => find(inputs[n]) === p);
    for (const p of places)
      if (isRead(p)) copy({ input: { ...p.view, shape: p.shape }, output: there(p, p.shape) }, label);
    const swap = (view: View): View => {
      const p = find(view);
      return p ? there(p, view.shape) : view;
    };
    map(
      { ...call, inputs: inputs.map((view, n) => (used.includes(n) ? swap(view) : view)), outputs: outputs.map(swap) },
      label,
    );
    for (const p of places) if (p.isOutput) copy({ input: there(p, p.shape), output: p.view }, label);
    context.free(block);
  }

  function map(call: Primitives['map'], label = 'map'): void {
    const { program, shape, inputs, outputs, uniforms } = call;
    const { args } = factsOf(program);
    checkDtype(label, ...args.map(n => inputs[n].dtype), ...outputs.map(v => v.dtype));
    if (sizeOf(shape) === 0 || outputs.length === 0) return;
    const views = [...args.map(n => inputs[n]), ...outputs];
    if (new Set(views.map(v => (v.allocation as Block).buffer)).size > settings.storageBuffers)
      return packed(label, call, args);
    const operands: Operand[] = [
      ...args.map(n => operandOf(inputs[n], program.argTypes[n])),
      ...outputs.map((view, j) => operandOf(view, program.outputs[j].type, true)),
    ];
    run(label, program, spaceOf(shape, views, operands), uniforms, 0);
  }

  function copy({ input, output }: Primitives['copy'], label = 'copy'): void {
    map({ program: identity, shape: output.shape, inputs: [input], outputs: [output], uniforms: [] }, label);
  }

  function fill(output: View, value: number): void {
    const program = makeProgram([constant(value, storedType(output))], 0);
    map({ program, shape: output.shape, inputs: [], outputs: [output], uniforms: [] }, 'fill');
  }

  return { map, copy, fill };
}
