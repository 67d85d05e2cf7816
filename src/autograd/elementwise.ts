// Every scalar function the library knows, as an expression. Derivatives, JavaScript, WASM and WGSL all follow from
// these lines.

import * as e from '../tensor/expr.js';
import type { Expr } from '../tensor/expr.js';
import { isFloat, promote, type DType } from '../tensor/dtype.js';
import { broadcastShapes } from '../tensor/shape.js';
import { create } from '../tensor/create.js';
import type { Tensor } from '../tensor/tensor.js';
import { type TensorLike } from '../tensor/tensor.js';
import { apply, scalarType } from './primitives.js';
import { seedWords, threefry, type WordArithmetic } from '../tensor/threefry.js';

/**
 * Runs an expression over broadcast inputs: argument i is the element of inputs[i], uniform j the number uniforms[j].
 */
export function map(
  label: string,
  output: Expr,
  inputs: readonly Tensor[],
  uniforms: readonly number[] = [],
  dtype?: DType,
): Tensor {
  const shape = broadcastShapes(label, ...inputs.map(t => t.shape));
  return apply('map', inputs, {
    outputs: [output],
    shape,
    uniforms,
    dtypes: [dtype ?? resultType(output, inputs)],
    label,
  })[0];
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

/** Keeps the type of i32 for functions that make sense there; a bool counts as one. */
function unaryAny(label: string, f: (x: Expr) => Expr): (x: Tensor) => Tensor {
  const expression = remembering((dtype: DType) => f(isFloat(dtype) ? e.arg(0) : e.toI(e.arg(0, scalarType(dtype)))));
  return x => map(label, expression(x.dtype), [x]);
}

/**
 * An operand as far as the expression depends on it: a tensor's dtype, a whole number that an i32 can be or another
 * number.
 */
type OperandKind = DType | 'whole' | 'number';
const kindOf = (x: TensorLike): OperandKind => (typeof x !== 'number' ? x.dtype : x === (x | 0) ? 'whole' : 'number');
const isNumber = (kind: OperandKind): kind is 'whole' | 'number' => kind === 'whole' || kind === 'number';

interface BinaryOptions {
  /** False: of integers it gives floats. */
  readonly integers?: boolean;
  /** What it is of two bool tensors, which count as integers else. */
  readonly ofBools?: (x: Expr, y: Expr) => Expr;
}

/** A function of two tensors, or a tensor and a number; both meet in the larger type. */
function binary(
  label: string,
  f: (x: Expr, y: Expr) => Expr,
  { integers = true, ofBools }: BinaryOptions = {},
): (x: TensorLike, y: TensorLike) => Tensor {
  const known = remembering((...kinds: OperandKind[]) => {
    if (ofBools && kinds.every(k => k === 'bool'))
      return { output: ofBools(e.arg(0, 'b'), e.arg(1, 'b')), dtype: 'bool' as const };
    const tensors = kinds.filter((k): k is DType => !isNumber(k));
    let dtype = tensors.reduce(promote);
    if (dtype === 'bool') dtype = 'i32';
    if (dtype === 'i32' && (kinds.includes('number') || !integers)) dtype = 'f32';
    const convert = isFloat(dtype) ? e.toF : e.toI;
    let [nextTensor, nextNumber] = [0, 0];
    const [a, b] = kinds.map(k =>
      isNumber(k) ? e.uniform(nextNumber++, isFloat(dtype) ? 'f' : 'i') : convert(e.arg(nextTensor++, scalarType(k))),
    );
    const output = f(a, b);
    return { output, dtype: output.type === 'b' ? ('bool' as const) : dtype };
  });
  return (x, y) => {
    if (typeof x === 'number' && typeof y === 'number')
      throw new Error(`${label}: at least one operand must be a tensor`);
    const { output, dtype } = known(kindOf(x), kindOf(y));
    if (typeof y === 'number') return map(label, output, [x as Tensor], [y], dtype);
    return typeof x === 'number' ? map(label, output, [y], [x], dtype) : map(label, output, [x, y], [], dtype);
  };
}

export const add = binary('add', e.add, { ofBools: e.or });
export const sub = binary('sub', e.sub);
export const mul = binary('mul', e.mul, { ofBools: e.and });
export const div = binary('div', e.div, { integers: false });
export const maximum = binary('maximum', e.max, { ofBools: e.or });
export const minimum = binary('minimum', e.min, { ofBools: e.and });

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
export const floor = unaryAny('floor', x => (x.type === 'i' ? x : e.floor(x)));

const sigmoidRule = e.customRule((self, g) => e.mul(g, e.mul(self, e.sub(1, self))));
/**
 * 1 / (1 + exp(-x)), for negative x multiplied by exp(x): nothing overflows. Its derivative is taken through its value.
 */
export const sigmoidOf = (x: Expr): Expr => {
  const u = e.exp(e.neg(e.abs(x)));
  return e.custom(e.div(e.where(e.lt(x, 0), u, 1), e.add(1, u)), x, sigmoidRule);
};

/**
 * log(1 + u) for u from 0 to 1, to rounding also where u is small: 2 atanh(s) for s = u / (2 + u), whose series has
 * positive terms.
 */
function logOnePlus(u: Expr): Expr {
  const s = e.div(u, e.add(2, u));
  const square = e.mul(s, s);
  // s^2 is at most 1/9: these terms reach f64's precision.
  let series: Expr = e.constant(1 / 33);
  for (let n = 31; n >= 1; n -= 2) series = e.add(e.mul(series, square), 1 / n);
  return e.mul(e.mul(2, s), series);
}

const softplusRule = e.customRule((_, g, x) => e.mul(g, sigmoidOf(x)));
/** log(1 + exp(x)) without overflow, and without a sum that exp(x) vanishes in. */
export const softplusOf = (x: Expr): Expr =>
  e.custom(e.add(e.max(x, 0), logOnePlus(e.exp(e.neg(e.abs(x))))), x, softplusRule);
export const siluOf = (x: Expr): Expr => e.mul(x, sigmoidOf(x));

export const sigmoid = unary('sigmoid', sigmoidOf);
export const softplus = unary('softplus', softplusOf);
export const silu = unary('silu', siluOf);
const reluRule = e.customRule((_, g, x) => e.where(e.le(x, 0), 0, g));
/** 0 below 0, with derivative 0 at 0; NaN and -0 stay what they are. */
export const reluOf = (x: Expr): Expr => e.custom(e.where(e.lt(x, 0), 0, x), x, reluRule);
export const relu = unaryAny('relu', x => (x.type === 'i' ? e.max(x, 0) : reluOf(x)));
/**
 * Where a function saturates long before, its argument may stop: squares and cubes of it then stay finite, and so do
 * all derivatives.
 */
const within = (x: Expr, limit: number): Expr => e.min(e.max(x, -limit), limit);
/** exp(-40^2 / 2) is 0 in f64. */
export const geluOf = (x: Expr): Expr => e.mul(e.mul(0.5, x), e.add(1, e.erf(e.mul(within(x, 40), Math.SQRT1_2))));
export const gelu = unary('gelu', geluOf);
/** tanh is 1 in f64 long before the cubic's argument is 10. */
export const geluTanhOf = (x: Expr): Expr => {
  const near = within(x, 10);
  const cubic = e.add(near, e.mul(0.044715, e.mul(near, e.mul(near, near))));
  return e.mul(e.mul(0.5, x), e.add(1, e.tanh(e.mul(Math.sqrt(2 / Math.PI), cubic))));
};
export const geluTanh = unary('geluTanh', geluTanhOf);
/** silu(gate) * up, the gated unit of LLaMA's feed-forward (Shazeer 2020). */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return map('swiglu', swigluOf(gate.dtype, up.dtype), [gate, up]);
}
const swigluOf = remembering((gate: DType, up: DType) => e.mul(siluOf(float(gate, 0)), float(up, 1)));

/** The derivative of a power p of x is p x^(p - 1), at 0 as elsewhere. */
const powerRule = e.customRule((_, g, x, p) => e.mul(g, e.mul(p, powerOf(x, e.sub(p, 1)))));
const powerOf = (x: Expr, p: Expr): Expr =>
  p.op === 'const' && isConstantPower(p.value) ? constantPower(x, p.value) : variablePower(x, p);
/** Products for a whole exponent of at most 64 in size, roots for those of 1/2. */
const isConstantPower = (p: number): boolean => (Number.isInteger(p) && Math.abs(p) <= 64) || Math.abs(p) === 0.5;

/** The power as an expression that is compiled for this exponent. */
function constantPower(x: Expr, exponent: number): Expr {
  if (exponent === 0) return e.constant(1);
  if (exponent === 1) return x;
  const power = (b: Expr, n: number): Expr =>
    n === 1 ? b : n % 2 ? e.mul(b, power(b, n - 1)) : power(e.mul(b, b), n / 2);
  const size = Math.abs(exponent);
  const value =
    size === 0.5 ? (exponent > 0 ? e.sqrt(x) : e.rsqrt(x)) : exponent > 0 ? power(x, size) : e.div(1, power(x, size));
  return e.custom(value, x, powerRule, [e.constant(exponent)]);
}

/**
 * exp(p log|x|), with C's rules: 1 where x is 1, or -1 and p infinite; the sign of x for odd whole p; NaN for a
 * negative x and a p that is not whole (but for x = -Infinity, which is as good as whole).
 */
function variablePower(x: Expr, p: Expr): Expr {
  const [size, half] = [e.abs(x), e.mul(p, 0.5)];
  const whole = e.eq(e.floor(p), p);
  const value = e.exp(e.mul(p, e.log(e.where(e.or(whole, e.eq(x, -Infinity)), size, x))));
  const isOne = e.or(e.eq(x, 1), e.and(e.eq(x, -1), e.eq(e.abs(p), Infinity)));
  // 1 / x tells -0 from 0.
  const negative = e.or(e.lt(x, 0), e.lt(e.div(1, x), 0));
  const isOdd = e.and(whole, e.ne(e.floor(half), half));
  return e.custom(e.where(isOne, 1, e.where(e.and(isOdd, negative), e.neg(value), value)), x, powerRule, [p]);
}

/** x to a constant power, as C's pow. An i32 stays one for whole exponents from 0 on, and wraps. */
export function pow(x: Tensor, exponent: number): Tensor {
  if (!isConstantPower(exponent)) return map('pow', variablePower(float(x.dtype, 0), e.uniform(0)), [x], [exponent]);
  return (exponent >= 0 && Number.isInteger(exponent) ? unaryAny : unary)('pow', v =>
    v.type === 'i' ? integerPower(v, exponent) : constantPower(v, exponent),
  )(x);
}

function integerPower(x: Expr, n: number): Expr {
  if (n === 0) return e.constant(1, 'i');
  return n % 2 ? e.mul(x, integerPower(x, n - 1)) : integerPower(e.mul(x, x), n / 2);
}

const clampRule = e.customRule((_, g, x, low, high) => e.where(e.and(e.le(low, x), e.le(x, high)), g, 0));

/**
 * Between low and high, and high where low is above it. The gradient passes inside and at the bounds, and is 0 outside.
 */
export function clamp(x: Tensor, low: number, high: number): Tensor {
  const integer = x.dtype === 'i32' && kindOf(low) === 'whole' && kindOf(high) === 'whole';
  const type = integer ? 'i' : 'f';
  const v = integer ? e.arg(0, 'i') : float(x.dtype, 0);
  const [lo, hi] = [e.uniform(0, type), e.uniform(1, type)];
  const value = e.min(e.max(v, lo), hi);
  return map('clamp', integer ? value : e.custom(value, v, clampRule, [lo, hi]), [x], [low, high]);
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
  if (dtype === 'i32' && constants.some(n => kindOf(n) === 'number')) dtype = 'f32';
  const convert = isFloat(dtype) ? e.toF : dtype === 'i32' ? e.toI : (x: Expr): Expr => x;
  const numbers: number[] = [];
  let next = 1;
  const [x, y] = [a, b].map(t =>
    typeof t === 'number'
      ? e.uniform(numbers.push(t) - 1, scalarType(dtype))
      : convert(e.arg(next++, scalarType(t.dtype))),
  );
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
/**
 * The random u32 of an element: Threefry of its number, with uniforms `at`, `at + 1` the seed's words and `at + 2` the
 * stream.
 */
const randomWord = (at: number): Expr =>
  threefry(words, [e.uniform(at, 'u'), e.uniform(at + 1, 'u')], [e.index, e.uniform(at + 2, 'u')])[0];
/** Uniform in [0, 1), 24 bits: the same bits on every backend. */
const randomUniform = (at: number): Expr => e.mul(e.toF(e.toI(e.shr(randomWord(at), 8))), 2 ** -24);

/** Uniform in [0, 1) made inside a kernel; the same bits on every backend. */
export function randomLike(x: Tensor, seed: number, stream = 0): Tensor {
  const zero = create
    .zeros([1], { dtype: x.dtype, backend: x.backend })
    .reshape(x.shape.map(() => 1))
    .expand(x.shape);
  return map('random', e.add(e.mul(e.arg(0), 0), randomUniform(0)), [zero], [...seedWords(seed), stream]);
}

/**
 * Zeroes elements with probability p and scales the rest by 1 / (1 - p). The mask is made again, not stored, in
 * backward.
 */
export function dropout(x: Tensor, p: number, seed: number, stream = 0): Tensor {
  if (!(p >= 0 && p < 1)) throw new RangeError(`dropout: expected a probability from 0 up to 1, got ${p}`);
  if (p === 0) return x;
  const keep = e.le(e.uniform(3), randomUniform(0));
  return map(
    'dropout',
    e.where(keep, e.mul(float(x.dtype, 0), e.uniform(4)), 0),
    [x],
    [...seedWords(seed), stream, p, 1 / (1 - p)],
  );
}
