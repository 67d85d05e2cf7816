// The primitive operations of the tape, each with its forward and its VJP side by side. Everything else is composed of
// these, or fused. The table is total over the backend's kernels and the view operations: an operation without a VJP
// does not compile.

import type { Backend } from '../backends/backend.js';
import { allocate } from '../tensor/create.js';
import type { DType } from '../tensor/dtype.js';
import { isFloat } from '../tensor/dtype.js';
import {
  arg,
  argumentsOf,
  constant,
  program,
  substitute,
  type Expr,
  type Program,
  type ScalarType,
} from '../tensor/expr.js';
import {
  broadcastAxes,
  broadcastStrides,
  contiguousStrides,
  reshapeStrides,
  sameShape,
  sizeOf,
  type Shape,
} from '../tensor/shape.js';
import { mayRound } from '../tensor/rounding.js';
import { Tensor } from '../tensor/tensor.js';
import { vjpExpressions } from './derive.js';
import { record, shouldRecord } from './tape.js';

/** The parameters of each operation. */
interface Operations {
  /** outputs over `shape`, to which the inputs broadcast. */
  map: { outputs: readonly Expr[]; shape: Shape; uniforms: readonly number[]; dtypes: readonly DType[]; label: string };
  /** Sum over `axes` of an expression over `shape`; reduced axes stay as 1. */
  reduceSum: {
    output: Expr;
    shape: Shape;
    axes: readonly number[];
    uniforms: readonly number[];
    dtype: DType;
    label: string;
  };
  /** The largest element over `axes`, which stay as 1: a NaN if there is one, -Infinity where there is none at all. */
  reduceMax: { axes: readonly number[] };
  /**
   * [..., m, k] x [..., k, n] with equal leading axes. With an epilogue, `output` of the product and the inputs after
   * the first two, which broadcast to its shape: computed as the product is written.
   */
  matmul: { epilogue?: { output: Expr; label: string } };
  copy: object;
  gather: { indices: Int32Array };
  scatterAdd: { indices: Int32Array; rows: number };
  /** Packed weights [rows, columns] decoded. They are frozen: nothing flows back. */
  unpack: object;
  reshape: { shape: Shape };
  permute: { axes: readonly number[] };
  expand: { shape: Shape };
  /** Window of `shape` at `starts`. */
  slice: { starts: readonly number[]; shape: Shape };
  /** Zeros of `shape` with the inputs copied to their `starts`; inputs do not overlap. */
  assemble: { shape: Shape; starts: readonly (readonly number[])[]; covered: boolean };
}

export type OperationName = keyof Operations;

interface Call<P> {
  inputs: readonly Tensor[];
  outputs: readonly Tensor[];
  params: P;
  gradients: readonly (Tensor | null)[];
  needs: readonly boolean[];
}

interface Operation<P> {
  forward(inputs: readonly Tensor[], params: P): Tensor[];
  /** Which tensors the VJP reads the contents of. */
  saves(inputs: readonly Tensor[], outputs: readonly Tensor[], params: P, needs: readonly boolean[]): readonly Tensor[];
  vjp(call: Call<P>): (Tensor | null)[];
}

const one = <K extends OperationName>(name: K, inputs: readonly Tensor[], params: Operations[K]): Tensor =>
  apply(name, inputs, params)[0];
const nothing = (): Tensor[] => [];

const operations: { [K in OperationName]: Operation<Operations[K]> } = {
  map: {
    forward(inputs, { outputs, shape, uniforms, dtypes, label }) {
      const results = dtypes.map(dtype => allocate(label, shape, dtype, backendOf(label, inputs)));
      runMap(label, outputs, shape, inputs, results, uniforms);
      return results;
    },
    saves: (inputs, _, { outputs }, needs) => savedArguments(outputs, inputs, needs),
    vjp: ({ inputs, params: { outputs, shape, uniforms, label }, gradients, needs }) =>
      elementwiseVjp(`${label}.vjp`, outputs, shape, uniforms, inputs, gradients, needs),
  },

  reduceSum: {
    forward(inputs, { output, shape, axes, uniforms, dtype, label }) {
      const kept = shape.map((side, axis) => (axes.includes(axis) ? 1 : side));
      const backend = backendOf(label, inputs);
      const result = allocate(label, kept, dtype, backend);
      const packed = pack([output], inputs);
      backend.kernels.reduce({
        op: 'sum',
        program: programOf(label, packed, [dtype]),
        shape,
        axes,
        inputs: packed.inputs.map(t => broadcastView(label, t, shape)),
        output: result.view(label),
        uniforms,
      });
      return [result];
    },
    saves: (inputs, _, { output }, needs) => savedArguments([output], inputs, needs),
    vjp: ({ inputs, params: { output, shape, uniforms, label }, gradients, needs }) =>
      elementwiseVjp(`${label}.vjp`, [output], shape, uniforms, inputs, gradients, needs),
  },

  reduceMax: {
    forward([x], { axes }) {
      const result = allocate(
        'max',
        x.shape.map((side, axis) => (axes.includes(axis) ? 1 : side)),
        x.dtype,
        x.backend,
      );
      x.backend.kernels.reduce({
        op: 'max',
        program: program([arg(0, scalarType(x.dtype))], 1),
        shape: x.shape,
        axes,
        inputs: [x.view('max')],
        output: result.view('max'),
        uniforms: [],
      });
      return [result];
    },
    saves: ([x], [y]) => [x, y],
    // Ties share the gradient evenly, as torch.amax does, and so do NaNs, as in torch.max.
    vjp({ inputs: [x], outputs: [y], params: { axes }, gradients: [g] }) {
      const hit = x.eq(y.detach()).or(x.eq(x).not()).to(x.dtype);
      return [g && hit.mul(g.div(hit.sum(axes, { keepDims: true })))];
    },
  },

  matmul: {
    forward([a, b, ...operands], { epilogue }) {
      const rank = a.rank;
      const backend = backendOf('matmul', [a, b, ...operands]);
      const result = allocate('matmul', [...a.shape.slice(0, -1), b.shape[rank - 1]], a.dtype, backend);
      const rounded = b.packing !== null && mayRound() && !shouldRecord([a]);
      const then = epilogue && {
        epilogue: {
          program: program([epilogue.output], 1 + operands.length),
          operands: operands.map(t => broadcastView(epilogue.label, t, result.shape)),
        },
      };
      backend.kernels.matmul({
        a: a.view('matmul'),
        b: b.view('matmul', true),
        output: result.view('matmul'),
        ...(rounded && { rounded }),
        ...then,
      });
      return [result];
    },
    saves([a, b, ...operands], [y], { epilogue }, needs) {
      const factors = [...(needs[0] ? [b] : []), ...(needs[1] ? [a] : [])];
      if (!epilogue) return factors;
      // The output has the product's shape and type, and stands for it: whether it is read is what is asked.
      const read = savedArguments([epilogue.output], [y, ...operands], [needs[0] || needs[1], ...needs.slice(2)]);
      return read.includes(y) ? [a, b, ...read.filter(t => t !== y)] : [...factors, ...read];
    },
    vjp({ inputs: [a, b, ...operands], params: { epilogue }, gradients: [g], needs }) {
      if (!g) return needs.map(() => null);
      const factors = needs[0] || needs[1];
      let [own, rest]: [Tensor | null, (Tensor | null)[]] = [g, []];
      if (epilogue) {
        const [outputs, all] = [[epilogue.output], [factors, ...needs.slice(2)]];
        const readsProduct = argumentsOf(derivativesOf(outputs, all.length, indicesOf(all))).has(0);
        const product = readsProduct ? one('matmul', [a, b], {}) : g;
        [own, ...rest] = elementwiseVjp(
          `${epilogue.label}.vjp`,
          outputs,
          g.shape,
          [],
          [product, ...operands],
          [g],
          all,
        );
      }
      return [
        needs[0] && own ? one('matmul', [own, b.transpose()], {}) : null,
        needs[1] && own ? one('matmul', [a.transpose(), own], {}) : null,
        ...rest,
      ];
    },
  },

  copy: {
    forward([x]) {
      const result = allocate('copy', x.shape, x.dtype, x.backend);
      x.backend.kernels.copy({ input: x.view('copy'), output: result.view('copy') });
      return [result];
    },
    saves: nothing,
    vjp: ({ gradients }) => [gradients[0]],
  },

  gather: {
    forward([x], { indices }) {
      const result = allocate('gather', [indices.length, ...x.shape.slice(1)], x.dtype, x.backend);
      x.backend.kernels.gather({ input: x.view('gather', true), indices, output: result.view('gather') });
      return [result];
    },
    saves: nothing,
    vjp: ({ inputs: [x], params: { indices }, gradients: [g] }) => [
      g && one('scatterAdd', [g], { indices, rows: x.shape[0] }),
    ],
  },

  scatterAdd: {
    forward([x], { indices, rows }) {
      const result = allocate('scatterAdd', [rows, ...x.shape.slice(1)], x.dtype, x.backend);
      x.backend.kernels.scatterAdd({ input: x.view('scatterAdd'), indices, output: result.view('scatterAdd') });
      return [result];
    },
    saves: nothing,
    vjp: ({ params: { indices }, gradients: [g] }) => [g && one('gather', [g], { indices })],
  },

  unpack: {
    forward([x]) {
      const result = allocate('unpack', x.shape, x.dtype, x.backend);
      x.backend.kernels.unpack({ input: x.view('unpack', true), output: result.view('unpack') });
      return [result];
    },
    saves: nothing,
    vjp: () => [null],
  },

  // Views: the same storage, another window.
  reshape: {
    forward([x], { shape }) {
      const strides = reshapeStrides(x.shape, x.strides, shape);
      const from = strides ? x : operations.copy.forward([x], {})[0];
      return [new Tensor(from.storage, x.dtype, shape, strides ?? contiguousStrides(shape), from.offset)];
    },
    saves: nothing,
    vjp: ({ inputs: [x], gradients: [g] }) => [g && one('reshape', [g], { shape: x.shape })],
  },

  permute: {
    forward: ([x], { axes }) => [
      new Tensor(
        x.storage,
        x.dtype,
        axes.map(a => x.shape[a]),
        axes.map(a => x.strides[a]),
        x.offset,
        x.packing,
      ),
    ],
    saves: nothing,
    vjp({ params: { axes }, gradients: [g] }) {
      const inverse = axes.map((_, i) => axes.indexOf(i));
      return [g && one('permute', [g], { axes: inverse })];
    },
  },

  expand: {
    forward: ([x], { shape }) => [
      new Tensor(x.storage, x.dtype, shape, broadcastStrides(x.shape, x.strides, shape), x.offset, x.packing),
    ],
    saves: nothing,
    vjp: ({ inputs: [x], gradients: [g] }) => [g && sumTo(g, x.shape)],
  },

  slice: {
    forward([x], { starts, shape }) {
      // An empty window has no place: its strides may lead past the memory.
      const offset =
        sizeOf(shape) === 0 ? x.offset : starts.reduce((at, start, axis) => at + start * x.strides[axis], x.offset);
      return [new Tensor(x.storage, x.dtype, shape, x.strides, offset, x.packing)];
    },
    saves: nothing,
    vjp: ({ inputs: [x], params: { starts }, gradients: [g] }) => [
      g && one('assemble', [g], { shape: x.shape, starts: [starts], covered: false }),
    ],
  },

  assemble: {
    forward(inputs, { shape, starts, covered }) {
      const backend = backendOf('assemble', inputs);
      const result = allocate('assemble', shape, inputs[0].dtype, backend);
      if (!covered)
        backend.kernels.map({
          program: program([zeroOf(inputs[0].dtype)], 0),
          shape,
          inputs: [],
          outputs: [result.view('assemble')],
          uniforms: [],
        });
      inputs.forEach((input, i) => {
        if (input.size === 0) return;
        const offset = starts[i].reduce((at, start, axis) => at + start * result.strides[axis], 0);
        const window = new Tensor(result.storage, result.dtype, input.shape, result.strides, offset);
        backend.kernels.copy({ input: input.view('assemble'), output: window.view('assemble') });
      });
      return [result];
    },
    saves: nothing,
    vjp: ({ inputs, params: { starts }, gradients: [g], needs }) =>
      inputs.map((x, i) => (g && needs[i] ? one('slice', [g], { starts: starts[i], shape: x.shape }) : null)),
  },
};

/** Runs an operation and puts it on the tape. Shapes must have been checked. */
export function apply<K extends OperationName>(name: K, inputs: readonly Tensor[], params: Operations[K]): Tensor[] {
  const operation: Operation<Operations[K]> = operations[name];
  const outputs = operation.forward(inputs, params);
  const needs = inputs.map(t => t.needsGrad);
  if (needs.includes(true)) {
    const op = 'label' in params ? String(params.label) : name;
    record(
      {
        op,
        inputs,
        saves: operation.saves(inputs, outputs, params, needs),
        vjp: (gradients, wanted) => operation.vjp({ inputs, outputs, params, gradients, needs: wanted }),
      },
      outputs,
    );
  }
  return outputs;
}

/** The same data as another tensor: on the tape, a gradient of its own. */
export const aliasOf = (x: Tensor): Tensor => one('permute', [x], { axes: x.shape.map((_, axis) => axis) });

/** `x` summed over the axes along which `shape` was repeated to give it. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const axes = broadcastAxes(shape, x.shape);
  const sum = one('reduceSum', [x], {
    output: arg(0),
    shape: x.shape,
    axes,
    uniforms: [],
    dtype: x.dtype,
    label: 'sum',
  });
  return one('reshape', [sum], { shape });
}

/** Runs a map kernel straight into existing tensors, off the tape: creation, optimizers. Outputs may be inputs. */
export function mapInto(
  label: string,
  outputs: readonly Expr[],
  inputs: readonly Tensor[],
  targets: readonly Tensor[],
  uniforms: readonly number[] = [],
): void {
  for (const target of targets) target.storage.version++;
  runMap(label, outputs, targets[0].shape, inputs, targets, uniforms);
}

function runMap(
  label: string,
  outputs: readonly Expr[],
  shape: Shape,
  inputs: readonly Tensor[],
  targets: readonly Tensor[],
  uniforms: readonly number[],
): void {
  const packed = pack(outputs, inputs);
  targets[0].backend.kernels.map({
    program: programOf(
      label,
      packed,
      targets.map(t => t.dtype),
    ),
    shape,
    inputs: packed.inputs.map(t => broadcastView(label, t, shape)),
    outputs: targets.map(t => t.view(label)),
    uniforms,
  });
}

/** The program of expressions over inputs; each is read, and each result written, as what the tensor holds. */
function programOf(label: string, { outputs, inputs }: Packed, results: readonly DType[]): Program {
  const made = program(outputs, inputs.length);
  inputs.forEach(({ dtype }, i) => {
    if (made.argTypes[i] !== scalarType(dtype))
      throw new TypeError(`${label}: an expression reads a ${dtype} tensor as type ${made.argTypes[i]}`);
  });
  outputs.forEach(({ type }, j) => {
    if ((type === 'u' ? 'i' : type) !== scalarType(results[j]))
      throw new TypeError(`${label}: an expression of type ${type} makes no ${results[j]} tensor`);
  });
  return made;
}

function broadcastView(label: string, t: Tensor, shape: Shape) {
  return { ...t.view(label), shape, strides: broadcastStrides(t.shape, t.strides, shape) };
}

interface Packed {
  readonly outputs: readonly Expr[];
  readonly inputs: readonly Tensor[];
}

/** Drops inputs that no output uses and renumbers the rest: an unused input may be gone. */
function pack(outputs: readonly Expr[], inputs: readonly Tensor[]): Packed {
  const used = argumentsOf(outputs);
  if (used.size === inputs.length) return { outputs, inputs };
  const order = [...used].sort((a, b) => a - b);
  const done = new Map<Expr, Expr>();
  const renumber = (e: Expr): Expr => (e.op === 'arg' ? arg(order.indexOf(e.value), e.type) : e);
  return { outputs: outputs.map(o => substitute(o, renumber, done)), inputs: order.map(i => inputs[i]) };
}

const derivatives = new Map<string, Expr[]>();

function derivativesOf(outputs: readonly Expr[], argCount: number, wanted: readonly number[]): Expr[] {
  const key = `${outputs.map(o => o.id).join(',')}/${argCount}/${wanted.join(',')}`;
  let found = derivatives.get(key);
  if (!found) {
    found = vjpExpressions(outputs, argCount, wanted);
    derivatives.set(key, found);
  }
  return found;
}

const indicesOf = (needs: readonly boolean[]): number[] => needs.flatMap((need, i) => (need ? [i] : []));

/** The inputs whose values occur in the derivatives that may be asked for. */
function savedArguments(outputs: readonly Expr[], inputs: readonly Tensor[], needs: readonly boolean[]): Tensor[] {
  const used = argumentsOf(derivativesOf(outputs, inputs.length, indicesOf(needs)));
  return inputs.filter((_, i) => used.has(i));
}

/**
 * VJP of outputs = f(inputs) over `shape`: one map for the inputs of full shape, a reduction with f' in front for each
 * that was repeated.
 */
function elementwiseVjp(
  label: string,
  outputs: readonly Expr[],
  shape: Shape,
  uniforms: readonly number[],
  inputs: readonly Tensor[],
  gradients: readonly (Tensor | null)[],
  needs: readonly boolean[],
): (Tensor | null)[] {
  const wanted = indicesOf(needs);
  // A cotangent that did not come is zero: replace its argument by the constant.
  const absent = new Set(gradients.flatMap((g, j) => (g ? [] : [inputs.length + j])));
  const done = new Map<Expr, Expr>();
  const exprs = derivativesOf(outputs, inputs.length, wanted).map(e =>
    absent.size === 0
      ? e
      : substitute(e, leaf => (leaf.op === 'arg' && absent.has(leaf.value) ? zeroOf('f32') : leaf), done),
  );
  const operands = [...inputs, ...gradients.map(g => g ?? inputs[wanted[0]])];
  const results = new Array<Tensor | null>(inputs.length).fill(null);
  const full: number[] = [];
  wanted.forEach((i, k) => {
    const axes = broadcastAxes(inputs[i].shape, shape);
    if (exprs[k].op === 'const' && exprs[k].value === 0) return;
    if (axes.length === 0) full.push(k);
    else {
      const sum = one('reduceSum', operands, {
        output: exprs[k],
        shape,
        axes,
        uniforms,
        dtype: inputs[i].dtype,
        label,
      });
      results[i] = one('reshape', [sum], { shape: inputs[i].shape });
    }
  });
  // A gradient that is the cotangent itself, perhaps repeated, needs no kernel.
  const computed = full.filter(k => {
    const [i, e] = [wanted[k], exprs[k]];
    if (e.op !== 'arg' || operands[e.value].dtype !== inputs[i].dtype) return true;
    results[i] = sameShape(operands[e.value].shape, shape)
      ? operands[e.value]
      : one('expand', [operands[e.value]], { shape });
    return false;
  });
  if (computed.length > 0) {
    const made = apply('map', operands, {
      outputs: computed.map(k => exprs[k]),
      shape,
      uniforms,
      dtypes: computed.map(k => inputs[wanted[k]].dtype),
      label,
    });
    computed.forEach((k, j) => (results[wanted[k]] = made[j]));
  }
  return results;
}

function zeroOf(dtype: DType): Expr {
  return constant(0, scalarType(dtype));
}

/** The expression type of an element. */
export function scalarType(dtype: DType): ScalarType {
  return isFloat(dtype) ? 'f' : dtype === 'i32' ? 'i' : 'b';
}

/** The one backend the inputs live on. */
export function backendOf(op: string, inputs: readonly Tensor[]): Backend {
  const [first, ...rest] = inputs;
  if (!first) throw new Error(`${op}: needs at least one input`);
  for (const t of rest)
    if (t.backend !== first.backend)
      throw new Error(`${op}: inputs live on different backends (${first.backend.name}, ${t.backend.name})`);
  return first.backend;
}
