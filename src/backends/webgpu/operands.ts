// From views to bindings: which buffers a kernel binds, how its operands are read and written in WGSL, and the
// iteration space they share. A buffer is bound once, read_write if any operand on it is written: one buffer may not be
// bound for reading and for writing at once.

import type { DType } from '../../tensor/dtype.js';
import type { ScalarType } from '../../tensor/expr.js';
import type { Shape } from '../../tensor/shape.js';
import type { View } from '../backend.js';
import { mergedAxes, type Axis } from '../iteration.js';
import { WebGPUError } from './errors.js';
import { word, type Params } from './params.js';
import type { Block } from './pool.js';
import type { Binding } from './queue.js';

/** A strided operand of an iteration space: `offset` and the steps of each axis count elements of 32 bits. */
export interface Operand {
  readonly block: Block;
  readonly type: ScalarType;
  readonly offset: number;
  readonly write: boolean;
}

/** Axes outermost first; `steps[k]` of an axis belongs to operand k. */
export interface Space {
  readonly axes: readonly Axis[];
  readonly operands: readonly Operand[];
}

export function checkDtype(op: string, ...dtypes: DType[]): void {
  if (dtypes.includes('f64'))
    throw new WebGPUError('unsupported', op, 'f64 tensors need the cpu device; WebGPU computes in f32');
}

export const operandOf = (view: View, type: ScalarType, write = false): Operand => ({
  block: view.allocation as Block,
  type,
  offset: view.offset,
  write,
});

export function spaceOf(
  shape: Shape,
  views: readonly View[],
  operands: readonly Operand[],
  reduced?: readonly boolean[],
): Space {
  return {
    axes: mergedAxes(
      shape,
      views.map(v => v.strides),
      reduced,
    ),
    operands,
  };
}

/** The elements an operand touches: first and last. */
export function reach({ axes, operands }: Space, k: number): [number, number] {
  let [low, high] = [operands[k].offset, operands[k].offset];
  for (const { size, steps } of axes) {
    const far = (size - 1) * steps[k];
    if (far < 0) low += far;
    else high += far;
  }
  return [low, high];
}

export interface Bound {
  readonly bindings: Binding[];
  /** For each operand, the number of its binding and its offset from the start of what is bound. */
  readonly slots: readonly number[];
  readonly offsets: readonly number[];
}

/** Bindings of the operands; undefined when what one buffer must give is more than `limit` bytes. */
export function bind(space: Space, limit: number): Bound | undefined {
  const { operands } = space;
  const slotOf = new Map<Block['buffer'], number>();
  const bindings: { buffer: Block['buffer']; byteOffset: number; byteLength: number; write: boolean }[] = [];
  const slots = operands.map(({ block: { buffer }, write }) => {
    let slot = slotOf.get(buffer);
    if (slot === undefined) {
      slot = bindings.push({ buffer, byteOffset: 0, byteLength: buffer.byteLength, write }) - 1;
      slotOf.set(buffer, slot);
    }
    bindings[slot].write ||= write;
    return slot;
  });
  for (let slot = 0; slot < bindings.length; slot++) {
    const b = bindings[slot];
    if (b.byteLength <= limit) continue;
    let [low, high] = [Infinity, 0];
    operands.forEach((_, k) => {
      if (slots[k] !== slot) return;
      const [from, to] = reach(space, k);
      [low, high] = [Math.min(low, from), Math.max(high, to)];
    });
    b.byteOffset = Math.floor((4 * low) / 256) * 256;
    b.byteLength = Math.min(limit - (limit % 4), b.byteLength - b.byteOffset);
    if (4 * (high + 1) > b.byteOffset + b.byteLength) return undefined;
  }
  return { bindings, slots, offsets: operands.map((o, k) => o.offset - bindings[slots[k]].byteOffset / 4) };
}

/**
 * How the bound operands look in WGSL. A binding is an array of f32 if all its operands are floats, of u32 bits
 * otherwise.
 */
export class Access {
  readonly declarations: string;
  /** Part of a pipeline's key: which operand lies in which binding, and its type. */
  readonly key: string;
  private readonly slots: readonly number[];
  private readonly types: readonly ScalarType[];
  private readonly floats: readonly boolean[];

  constructor(operands: readonly Operand[], { bindings, slots }: Bound) {
    this.slots = slots;
    this.types = operands.map(o => o.type);
    this.floats = bindings.map((_, s) => operands.every((o, k) => slots[k] !== s || o.type === 'f'));
    this.key = `${slots.join('.')}:${this.types.join('')}`;
    this.declarations = bindings
      .map(
        ({ write }, s) =>
          `@group(0) @binding(${s + 1}) var<storage, ${write ? 'read_write' : 'read'}> ` +
          `buffer${s}: array<${this.floats[s] ? 'f32' : 'u32'}>;`,
      )
      .join('\n');
  }

  load(k: number, at: string): string {
    const raw = `buffer${this.slots[k]}[${at}]`;
    if (this.floats[this.slots[k]]) return raw;
    const type = this.types[k];
    return type === 'f'
      ? `bitcast<f32>(${raw})`
      : type === 'i'
        ? `bitcast<i32>(${raw})`
        : type === 'b'
          ? `(${raw} != 0u)`
          : raw;
  }

  store(k: number, at: string, value: string): string {
    const target = `buffer${this.slots[k]}[${at}]`;
    if (this.floats[this.slots[k]]) return `${target} = ${value};`;
    const type = this.types[k];
    return `${target} = ${type === 'u' ? value : type === 'b' ? `select(0u, 1u, ${value})` : `bitcast<u32>(${value})`};`;
  }
}

/** Positions of the axes' sizes (none is needed of the outermost) and of every operand's steps. */
export interface AxisWords {
  readonly sizes: readonly number[];
  readonly steps: readonly (readonly number[])[];
}

export function addAxes(params: Params, axes: readonly Axis[], operands: number): AxisWords {
  return {
    sizes: axes.map((axis, d) => (d === 0 ? -1 : params.add(axis.size))),
    steps: axes.map(axis => Array.from({ length: operands }, (_, k) => params.add(axis.steps[k]))),
  };
}

/**
 * WGSL that splits the row-major number `from` into coordinates and adds each operand's steps to `starts`; the sums are
 * named `prefix`0, `prefix`1... `read` names a parameter.
 */
export function emitOffsets(
  from: string,
  prefix: string,
  starts: readonly string[],
  { sizes, steps }: AxisWords,
  read = word,
): string {
  const lines: string[] = [];
  let rest = from;
  const coordinates: string[] = [];
  for (let d = sizes.length - 1; d >= 0; d--) {
    if (d === 0) {
      coordinates[d] = rest;
      break;
    }
    lines.push(
      `let ${prefix}c${d} = ${rest} % ${read(sizes[d])};`,
      `let ${prefix}r${d} = ${rest} / ${read(sizes[d])};`,
    );
    coordinates[d] = `${prefix}c${d}`;
    rest = `${prefix}r${d}`;
  }
  starts.forEach((start, k) => {
    const terms = coordinates.map((c, d) => ` + ${c} * ${read(steps[d][k])}`).join('');
    lines.push(`let ${prefix}${k} = ${start}${terms};`);
  });
  return lines.join('\n  ');
}

/** Workgroups for `count` of them, as a grid when one side would be too long. */
export function grid(count: number): [number, number, number] {
  const most = 65535;
  if (count <= most) return [count, 1, 1];
  const rows = Math.ceil(count / most);
  return [Math.ceil(count / rows), rows, 1];
}

/** The two halves of a space along its outermost axis that has more than one element. */
export function halves(space: Space, d: number): [Space, Space] {
  const axis = space.axes[d];
  const first = Math.ceil(axis.size / 2);
  const part = (size: number): Axis[] => space.axes.map((a, i) => (i === d ? { ...a, size } : a));
  return [
    { axes: part(first), operands: space.operands },
    {
      axes: part(axis.size - first),
      operands: space.operands.map((o, k) => ({ ...o, offset: o.offset + first * axis.steps[k] })),
    },
  ];
}
