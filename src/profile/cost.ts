// What a kernel call costs on paper: floating-point operations and bytes that must move, from shapes alone, and what to
// call it in a table. Each operand counts once, however often a kernel really reads it; a repeated axis (stride 0) is
// not memory. No timing here.

import type { FusedKernel, Kernels, Primitives, View } from '../backends/backend.js';
import { bytesPerElement } from '../tensor/dtype.js';
import type { ExprOp, Program } from '../tensor/expr.js';
import { packedMatrix, packedRowBytes } from '../tensor/packing.js';
import { sizeOf } from '../tensor/shape.js';

export interface Cost {
  /** Null where no formula is known. */
  readonly flop: number | null;
  /** Read and written. */
  readonly bytes: number;
}

/** Bytes of the memory that a view covers. */
export function viewBytes(view: View): number {
  const { shape, strides, dtype } = view;
  if (sizeOf(shape) === 0) return 0;
  if (view.packing) {
    const { rows, rowBytes } = packedMatrix(view);
    return rows * rowBytes;
  }
  return shape.reduce((n, size, axis) => (strides[axis] === 0 ? n : n * size), 1) * bytesPerElement[dtype];
}

const bytesOf = (...views: (View | null)[]): number => views.reduce((n, view) => n + (view ? viewBytes(view) : 0), 0);

const free: ReadonlySet<ExprOp> = new Set(['const', 'arg', 'uniform', 'index', 'toF', 'toI', 'toU', 'custom']);
const countOf = new WeakMap<Program, number>();

/**
 * Operations for one element: each function of an expression counts as one, an exponential too; conversions are free.
 */
export function programFlop(program: Program): number {
  let count = countOf.get(program);
  if (count === undefined) countOf.set(program, (count = program.order.filter(e => !free.has(e.op)).length));
  return count;
}

type Costs = { [K in keyof Primitives]: (call: Primitives[K]) => Cost };

const costs: Costs = {
  map: ({ program, shape, inputs, outputs }) => ({
    flop: programFlop(program) * sizeOf(shape),
    bytes: bytesOf(...inputs, ...outputs),
  }),
  reduce: ({ program, shape, inputs, output }) => ({
    flop: (programFlop(program) + 1) * sizeOf(shape),
    bytes: bytesOf(...inputs, output),
  }),
  matmul: ({ a, b, output, epilogue }) => ({
    flop: (2 * a.shape[a.shape.length - 1] + (epilogue ? programFlop(epilogue.program) : 0)) * sizeOf(output.shape),
    bytes: bytesOf(a, b, output, ...(epilogue?.operands ?? [])),
  }),
  copy: ({ input, output }) => ({ flop: 0, bytes: bytesOf(input, output) }),
  gather({ input, indices, output }) {
    const row = input.packing
      ? packedRowBytes(input.packing, input.shape[1])
      : sizeOf(input.shape.slice(1)) * bytesPerElement[input.dtype];
    return { flop: 0, bytes: indices.reduce((n, i) => (i < 0 ? n : n + row), 0) + bytesOf(output) };
  },
  scatterAdd: ({ input, output }) => ({ flop: sizeOf(input.shape), bytes: bytesOf(input, output) }),
  unpack: ({ input, output }) => ({ flop: 0, bytes: bytesOf(input, output) }),
};

/** What a primitive's call costs: 2 m n k for a product. */
export const kernelCost = <K extends keyof Kernels>(kernel: K, call: Primitives[K]): Cost => costs[kernel](call);

type FusedCall = Parameters<FusedKernel>[0];

/** Operations for each element of the first input. */
const perElement: Readonly<Record<string, number>> = {
  softmax: 5,
  'softmax.vjp': 4,
  rmsNorm: 4,
  'rmsNorm.vjp': 6,
  layerNorm: 7,
  'layerNorm.vjp': 10,
  rope: 3,
  linearScan: 2,
  'linearScan.vjp': 2,
  crossEntropy: 4,
  'crossEntropy.vjp': 4,
};

/** Pairs of a query and a key it sees; padding is not looked at. */
function visiblePairs(queries: number, keys: number, { causalOffset, behind, ahead }: FusedCall['attributes']): number {
  let pairs = 0;
  for (let t = 0; t < queries; t++) {
    const position = t + causalOffset;
    pairs += Math.max(0, Math.min(keys, position + ahead + 1) - Math.max(0, position - behind));
  }
  return pairs;
}

/** Two products a pair, 2 D each; the VJP has five. The softmax between them is left out, as is usual. */
function attentionFlop({ inputs: [q, k], attributes }: FusedCall, products: number): number | null {
  if (!q || !k) return null;
  const [batch, heads, queries, width] = q.shape;
  return products * 2 * width * batch * heads * visiblePairs(queries, k.shape[2], attributes);
}

/** Products of the edited rows with A, C and P (2 r d each), sums of the four terms of u, and c P^T u added to h. */
function editFlop({ inputs: [, , A, b, C, e, P], indices }: FusedCall): number | null {
  if (!P || !indices) return null;
  const [, r, d] = P.shape;
  const terms = [A, b, C, e].filter(Boolean).length;
  return indices.length * (2 * r * d * (1 + Number(Boolean(A)) + Number(Boolean(C))) + (terms - 1) * r + 2 * d);
}

/**
 * P g and u g^T, for each of A and C a product for h and one for the matrix; a sum for each bias; c g and its sum with
 * the rest.
 */
function editVjpFlop({ inputs: [, , A, b, C, e, P], indices }: FusedCall): number | null {
  if (!P || !indices) return null;
  const [, r, d] = P.shape;
  const [matrices, biases] = [
    [A, C],
    [b, e],
  ].map(list => list.filter(Boolean).length);
  return indices.length * (2 * r * d * (2 + 2 * matrices) + biases * r + 2 * d);
}

/** So many operations for each number of each state, of which every token has one a channel, and for each channel. */
function selectiveScanFlop({ inputs: [x, , A] }: FusedCall, number: number, channel: number): number | null {
  return x && A && sizeOf(x.shape) * (number * A.shape[1] + channel);
}

function fusedFlop(name: string, call: FusedCall): number | null {
  if (Object.hasOwn(perElement, name)) return perElement[name] * sizeOf(call.inputs[0]?.shape ?? [0]);
  switch (name) {
    case 'attention':
      return attentionFlop(call, 2);
    case 'attention.vjp':
      return attentionFlop(call, 5);
    case 'edit':
      return editFlop(call);
    case 'edit.vjp':
      return editVjpFlop(call);
    case 'selectiveScan':
      return selectiveScanFlop(call, 7, 3);
    // The states once more; sums for dt, x, A, B and C.
    case 'selectiveScan.vjp':
      return selectiveScanFlop(call, 21, 6);
    default:
      return null;
  }
}

/** What a fused kernel's call costs. */
export const fusedCost = (name: string, call: FusedCall): Cost => ({
  flop: fusedFlop(name, call),
  bytes: bytesOf(...call.inputs, ...call.outputs),
});

/** 't' for a matrix that lies transposed in memory, 'n' for one that does not. */
const orientation = ({ shape, strides }: View): string => {
  const last = shape.length - 1;
  return strides[last] !== 1 && strides[last - 1] === 1 && shape[last] > 1 ? 't' : 'n';
};

/**
 * "matmul 520x576x1536 nt": m x k x n, how a and b lie, the packing of b; a batch in front, "matmul 30 of 64x64x52 nn".
 */
export function matmulName({ a, b, output }: Primitives['matmul']): string {
  const [m, n] = output.shape.slice(-2);
  const k = a.shape[a.shape.length - 1];
  const batch = sizeOf(output.shape.slice(0, -2));
  return `matmul ${batch === 1 ? '' : `${batch} of `}${m}x${k}x${n} ${orientation(a)}${orientation(b)}${b.packing ? ` ${b.packing}` : ''}`;
}
