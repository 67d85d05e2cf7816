// Every scalar function the library knows, as an expression. Derivatives, JavaScript, WASM and WGSL all follow from these lines.

import * as e from '../tensor/expr.js';
import type { Expr } from '../tensor/expr.js';
import { isFloat, promote, type DType } from '../tensor/dtype.js';
import { broadcastShapes } from '../tensor/shape.js';
import { create } from '../tensor/create.js';
import type { Tensor} from '../tensor/tensor.js';
import { type TensorLike } from '../tensor/tensor.js';
import { apply, scalarType } from './primitives.js';
import { seedWords, threefry, type WordArithmetic } from '../tensor/threefry.js';

/** Runs an expression over broadcast inputs: argument i is the element of inputs[i], uniform j the number uniforms[j]. */
export function map(label: string, output: Expr, inputs: readonly Tensor[], uniforms: readonly number[] = [], dtype?: DType): Tensor {
  const shape = broadcastShapes(label, ...inputs.map(t => t.shape));
  return apply('map', inputs, { outputs: [output], shape, uniforms, dtypes: [dtype ?? resultType(output, inputs)], label })[0];
}

function resultType(output: Expr, inputs: readonly Tensor[]): DType {
  if (output.type === 'b') return 'bool';
  if (output.type !== 'f') return 'i32';
  return inputs.reduce<DType>((d, t) => promote(d, t.dtype), 'f32');
}

/** The element of input i as a float. */
const float = (dtype: DType, i: number): Expr => e.toF(e.arg(i, scalarType(dtype)));

/** What `make` gave for these keys before: an expression is built once, not with every call. */
function remembering<K extends string, T>(make: (...keys: K[]) => T): (...keys: K[]) => T {
  const known = new Map<string, T>();
  return (...keys) => {
    const key = keys.length === 1 ? keys[0] : keys.join();
    let found = known.get(key);
    if (found === undefined) known.set(key, (found = make(...keys)));
    return found;
  };
}

/** A float function of one tensor; integers and bools are converted. */
export function unary(label: string, f: (x: Expr) => Expr): (x: Tensor) => Tensor {
  const expression = remembering((dtype: DType) => f(float(dtype, 0)));
  return x => map(label, expression(x.dtype), [x]);
}

/** Keeps the type of i32 for functions that make sense there. */
function unaryAny(label: string, f: (x: Expr) => Expr): (x: Tensor) => Tensor {
  const expression = remembering((dtype: DType) => f(dtype === 'i32' ? e.arg(0, 'i') : float(dtype, 0)));
  return x => map(label, expression(x.dtype), [x]);
}

/** An operand as far as the expression depends on it: a tensor's dtype, a whole number or another one. */
type OperandKind = DType | 'whole' | 'number';
const kindOf = (x: TensorLike): OperandKind => (typeof x !== 'number' ? x.dtype : Number.isInteger(x) ? 'whole' : 'number');
const isNumber = (kind: OperandKind): kind is 'whole' | 'number' => kind === 'whole' || kind === 'number';

/** A function of two tensors, or a tensor and a number; both meet in the larger type. */
function binary(label: string, f: (x: Expr, y: Expr) => Expr, integers = true): (x: TensorLike, y: TensorLike) => Tensor {
  const known = remembering((...kinds: OperandKind[]) => {
    const tensors = kinds.filter((k): k is DType => !isNumber(k));
    let dtype = tensors.reduce(promote);
    if (dtype === 'bool') dtype = 'i32';
    if (dtype === 'i32' && (kinds.includes('number') || !integers)) dtype = 'f32';
    const convert = isFloat(dtype) ? e.toF : e.toI;
    let [nextTensor, nextNumber] = [0, 0];
    const [a, b] = kinds.map(k => (isNumber(k) ? e.uniform(nextNumber++, isFloat(dtype) ? 'f' : 'i') : convert(e.arg(nextTensor++, scalarType(k)))));
    const output = f(a, b);
    return { output, dtype: output.type === 'b' ? 'bool' as const : dtype };
  });
  return (x, y) => {
    if (typeof x === 'number' && typeof y === 'number') throw new Error(`${label}: at least one operand must be a tensor`);
    const { output, dtype } = known(kindOf(x), kindOf(y));
    if (typeof y === 'number') return map(label, output, [x as Tensor], [y], dtype);
    return typeof x === 'number' ? map(label, output, [y], [x], dtype) : map(label, output, [x, y], [], dtype);
  };
}

export const add = binary('add', e.add);
export const sub = binary('sub', e.sub);
export const mul = binary('mul', e.mul);
export const div = binary('div', e.div, false);
export const maximum = binary('maximum', e.max);
export const minimum = binary('minimum', e.min);

export const eq = binary('eq', e.eq);
export const ne = binary('ne', e.ne);
export const lt = binary('lt', e.lt);
export const le = binary('le', e.le);
export const gt = binary('gt', e.gt);
export const ge = binary('ge', e.ge);

export const neg = unaryAny('neg', e.neg);
export const abs = unaryAny('abs', e.abs);
export const square = unaryAny('square', x => e.mul(x, x));
export const exp = unary('exp', e.exp);
export const log = unary('log', e.log);
export const sqrt = unary('sqrt', e.sqrt);
export const rsqrt = unary('rsqrt', e.rsqrt);
export const sin = unary('sin', e.sin);
export const cos = unary('cos', e.cos);
export const tanh = unary('tanh', e.tanh);
export const erf = unary('erf', e.erf);
export const floor = unary('floor', e.floor);

/** 1 / (1 + exp(-x)); its derivative is taken through its value, which neither overflows nor cancels. */
export const sigmoidOf = (x: Expr): Expr => {
  const value = e.div(1, e.add(1, e.exp(e.neg(x))));
  return e.custom(value, x, e.mul(value, e.sub(1, value)));
};
/** log(1 + exp(x)) without overflow. */
export const softplusOf = (x: Expr): Expr => e.custom(e.add(e.max(x, 0), e.log(e.add(1, e.exp(e.neg(e.abs(x)))))), x, sigmoidOf(x));
export const siluOf = (x: Expr): Expr => e.mul(x, sigmoidOf(x));

export const sigmoid = unary('sigmoid', sigmoidOf);
export const softplus = unary('softplus', softplusOf);
export const silu = unary('silu', siluOf);
/** 0 below 0, with derivative 0 at 0. */
export const reluOf = (x: Expr): Expr => e.where(e.lt(0, x), x, 0);
export const relu = unary('relu', reluOf);
export const geluOf = (x: Expr): Expr => e.mul(e.mul(0.5, x), e.add(1, e.erf(e.mul(x, Math.SQRT1_2))));
export const gelu = unary('gelu', geluOf);
export const geluTanhOf = (x: Expr): Expr =>
  e.mul(e.mul(0.5, x), e.add(1, e.tanh(e.mul(Math.sqrt(2 / Math.PI), e.add(x, e.mul(0.044715, e.mul(x, e.mul(x, x))))))));
export const geluTanh = unary('geluTanh', geluTanhOf);
/** silu(gate) * up, the gated unit of LLaMA's feed-forward (Shazeer 2020). */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return map('swiglu', swigluOf(gate.dtype, up.dtype), [gate, up]);
}
const swigluOf = remembering((gate: DType, up: DType) => e.mul(siluOf(float(gate, 0)), float(up, 1)));

/** x to a constant power; whole exponents multiply, others need x > 0. */
export function pow(x: Tensor, exponent: number): Tensor {
  if (Number.isInteger(exponent) && Math.abs(exponent) <= 64) {
    const power = (b: Expr, n: number): Expr => (n === 0 ? e.constant(1) : n % 2 ? e.mul(b, power(b, n - 1)) : power(e.mul(b, b), n / 2));
    return unary('pow', b => (exponent < 0 ? e.div(1, power(b, -exponent)) : power(b, exponent)))(x);
  }
  return map('pow', e.exp(e.mul(e.uniform(0), e.log(float(x.dtype, 0)))), [x], [exponent]);
}

/** Between low and high; the gradient passes inside, and is 0 outside. */
export function clamp(x: Tensor, low: number, high: number): Tensor {
  const v = float(x.dtype, 0);
  const [lo, hi] = [e.uniform(0), e.uniform(1)];
  return map('clamp', e.where(e.lt(v, lo), lo, e.where(e.lt(hi, v), hi, v)), [x], [low, high]);
}

const bool = (op: string, t: Tensor, i: number): Expr => {
  if (t.dtype !== 'bool') throw new Error(`${op}: expected a bool tensor, got ${t.dtype}`);
  return e.arg(i, 'b');
};
export const and = (x: Tensor, y: Tensor): Tensor => map('and', e.and(bool('and', x, 0), bool('and', y, 1)), [x, y]);
export const or = (x: Tensor, y: Tensor): Tensor => map('or', e.or(bool('or', x, 0), bool('or', y, 1)), [x, y]);
export const not = (x: Tensor): Tensor => map('not', e.not(bool('not', x, 0)), [x]);

/** Where `condition` is true the element of `a`, else of `b`. */
export function where(condition: Tensor, a: TensorLike, b: TensorLike): Tensor {
  bool('where', condition, 0);
  const given = [a, b].filter((t): t is Tensor => typeof t !== 'number');
  const constants = [a, b].filter((t): t is number => typeof t === 'number');
  let dtype = given.map(t => t.dtype).reduce(promote, given.length === 0 ? 'f32' : 'bool');
  if (dtype === 'bool' && constants.some(n => n !== 0 && n !== 1)) dtype = 'i32';
  if (dtype === 'i32' && constants.some(n => !Number.isInteger(n))) dtype = 'f32';
  const convert = isFloat(dtype) ? e.toF : dtype === 'i32' ? e.toI : (x: Expr): Expr => x;
  const numbers: number[] = [];
  let next = 1;
  const [x, y] = [a, b].map(t => (typeof t === 'number' ? e.uniform(numbers.push(t) - 1, scalarType(dtype)) : convert(e.arg(next++, scalarType(t.dtype)))));
  return map('where', e.where(e.arg(0, 'b'), x, y), [condition, ...given], numbers, dtype);
}

export function cast(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x;
  const from = e.arg(0, scalarType(x.dtype));
  return map('cast', isFloat(dtype) ? e.toF(from) : dtype === 'i32' ? e.toI(from) : e.toB(from), [x], [], dtype);
}

const words: WordArithmetic<Expr> = {
  word: value => e.constant(value, 'u'),
  add: e.add,
  xor: e.bitXor,
  rotateLeft: (a, by) => e.bitOr(e.shl(a, by), e.shr(a, 32 - by)),
};
/** The random u32 of an element: Threefry of its number, with uniforms `at`, `at + 1` the seed's words and `at + 2` the stream. */
const randomWord = (at: number): Expr =>
  threefry(words, [e.uniform(at, 'u'), e.uniform(at + 1, 'u')], [e.index, e.uniform(at + 2, 'u')])[0];
/** Uniform in [0, 1), 24 bits: the same bits on every backend. */
const randomUniform = (at: number): Expr => e.mul(e.toF(e.toI(e.shr(randomWord(at), 8))), 2 ** -24);

/** Uniform in [0, 1) made inside a kernel; the same bits on every backend. */
export function randomLike(x: Tensor, seed: number, stream = 0): Tensor {
  const zero = create.zeros([1], { dtype: x.dtype, backend: x.backend }).reshape(x.shape.map(() => 1)).expand(x.shape);
  return map('random', e.add(e.mul(e.arg(0), 0), randomUniform(0)), [zero], [...seedWords(seed), stream]);
}

/** Zeroes elements with probability p and scales the rest by 1 / (1 - p). The mask is made again, not stored, in backward. */
export function dropout(x: Tensor, p: number, seed: number, stream = 0): Tensor {
  if (!(p >= 0 && p < 1)) throw new RangeError(`dropout: expected a probability from 0 up to 1, got ${p}`);
  if (p === 0) return x;
  const keep = e.le(e.uniform(3), randomUniform(0));
  return map('dropout', e.where(keep, e.mul(float(x.dtype, 0), e.uniform(4)), 0), [x], [...seedWords(seed), stream, p, 1 / (1 - p)]);
}

