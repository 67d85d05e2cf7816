// Four f32 or i32 lanes as values of the assembler: names for its SIMD instructions, sums across lanes, and the element
// functions (exp, log, tanh, erf, sin, cos) as instruction sequences. Loops and memory do not belong here.
// Errors against exact results, over all finite inputs: exp, log, tanh, erf, sin, cos below 2 ULP, power2 below 3.

import { f32x4Const, i32x4Const, op, shuffle32, type FunctionBuilder, type Local, type Value } from './assembler.js';

export const splat = (x: number): Value => f32x4Const(x);
export const splatInt = (x: number): Value => i32x4Const(x | 0);

export const add = (a: Value, b: Value): Value => op('f32x4.add', a, b);
export const sub = (a: Value, b: Value): Value => op('f32x4.sub', a, b);
export const mul = (a: Value, b: Value): Value => op('f32x4.mul', a, b);
export const div = (a: Value, b: Value): Value => op('f32x4.div', a, b);
export const choose = (mask: Value, a: Value, b: Value): Value => op('v128.bitselect', a, b, mask);

/** An unnamed v128 local that holds `value`. */
export function hold(f: FunctionBuilder, value: Value): Local {
  const local = f.local('v128');
  f.set(local, value);
  return local;
}

/** The sum, or another commutative operation, over the four lanes, in every lane. */
export function acrossLanes(f: FunctionBuilder, x: Value, combine: (a: Value, b: Value) => Value = add): Local {
  const a = hold(f, x);
  const b = hold(f, combine(a, shuffle32(a, a, [2, 3, 0, 1])));
  return hold(f, combine(b, shuffle32(b, b, [1, 0, 3, 2])));
}

/** Four vectors' lane sums as the lanes of one vector. */
export function sumsOfFour(f: FunctionBuilder, [a, b, c, d]: readonly Local[]): Value {
  const ab = add(shuffle32(a, b, [0, 4, 1, 5]), shuffle32(a, b, [2, 6, 3, 7])); // a b a b
  const cd = add(shuffle32(c, d, [0, 4, 1, 5]), shuffle32(c, d, [2, 6, 3, 7]));
  const [x, y] = [hold(f, ab), hold(f, cd)];
  return add(shuffle32(x, y, [0, 1, 4, 5]), shuffle32(x, y, [2, 3, 6, 7]));
}

/** Emits a * b + c: fused where the engine may, two roundings else. */
export type MultiplyAdd = (a: Value, b: Value, c: Value) => Value;

export const multiplyAdd =
  (relaxed: boolean): MultiplyAdd =>
  (a, b, c) =>
    relaxed ? op('f32x4.relaxed_madd', a, b, c) : add(mul(a, b), c);

/** The element functions over one function builder. */
export class LaneMath {
  readonly f: FunctionBuilder;
  readonly madd: MultiplyAdd;

  constructor(f: FunctionBuilder, relaxed: boolean) {
    this.f = f;
    this.madd = multiplyAdd(relaxed);
  }

  /** Horner, highest coefficient first. */
  private polynomial(x: Value, coefficients: readonly number[]): Value {
    return coefficients.slice(1).reduce<Value>((p, c) => this.madd(p, x, splat(c)), splat(coefficients[0]));
  }

  /**
   * Two-constant reduction and a polynomial (Cephes expf). The power of two is applied in two factors: overflow and
   * subnormals come out right.
   */
  exp(argument: Value): Value {
    const { f } = this;
    // pmin and pmax keep a NaN in their first operand.
    const x = hold(f, op('f32x4.pmax', op('f32x4.pmin', argument, splat(89)), splat(-104)));
    const shifter = 12582912; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const shifted = hold(f, this.madd(x, splat(Math.LOG2E), splat(shifter)));
    const n = hold(f, sub(shifted, splat(shifter)));
    const r = hold(f, this.madd(n, splat(2.1219444e-4), this.madd(n, splat(-0.693359375), x)));
    const p = this.polynomial(
      r,
      [1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1],
    );
    const series = hold(f, add(this.madd(p, mul(r, r), r), splat(1)));
    const bits = hold(f, op('i32x4.sub', shifted, splat(shifter)));
    const half = hold(f, op('i32x4.shr_s', bits, 1));
    const power = (k: Value): Value => op('i32x4.shl', op('i32x4.add', k, splatInt(127)), 23);
    return mul(mul(series, power(half)), power(op('i32x4.sub', bits, half)));
  }

  /**
   * 2 to the power of x up to 127; 0 below -126.5. A minimax polynomial, and a power whose bits are the exponent
   * shifted.
   */
  power2(argument: Value): Value {
    const { f } = this;
    const x = hold(f, op('f32x4.pmax', argument, splat(-127))); // keeps a NaN
    const shifter = 12582912 + 127; // 1.5 * 2^23, and the bias of exponents
    const shifted = hold(f, add(x, splat(shifter)));
    const r = hold(f, sub(x, sub(shifted, splat(shifter))));
    const series = this.polynomial(
      r,
      [1.3276472192e-3, 9.6755416162e-3, 5.5507132753e-2, 2.4022119719e-1, 6.9314696706e-1, 1.0000000717],
    );
    return mul(series, op('i32x4.shl', shifted, 23));
  }

  /** Cephes logf, with subnormal arguments scaled into range. */
  log(argument: Value): Value {
    const { f } = this;
    const x = hold(f, argument);
    const tiny = hold(f, op('f32x4.lt', x, splat(1.1754943508222875e-38)));
    const scaled = choose(tiny, mul(x, splat(8388608)), x);
    const start = 0x3f3504f3; // the bits of sqrt(1/2)
    const bits = hold(f, op('i32x4.sub', scaled, splatInt(start)));
    const exponent = op('i32x4.sub', op('i32x4.shr_s', bits, 23), op('v128.and', tiny, splatInt(23)));
    const e = hold(f, op('f32x4.convert_i32x4_s', exponent));
    const r = hold(f, sub(op('i32x4.add', op('v128.and', bits, splatInt(0x7fffff)), splatInt(start)), splat(1)));
    const z = hold(f, mul(r, r));
    const p = this.polynomial(
      r,
      [
        7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
      ],
    );
    const y = this.madd(z, splat(-0.5), this.madd(e, splat(-2.1219444e-4), mul(mul(p, r), z)));
    const finite = hold(f, this.madd(e, splat(0.693359375), add(r, y)));
    const atZero = choose(op('f32x4.eq', x, splat(0)), splat(-Infinity), finite);
    const positive = choose(op('f32x4.lt', x, splat(Infinity)), atZero, x); // infinity and NaN stay themselves
    return op('v128.or', positive, op('f32x4.lt', x, splat(0))); // all bits set is NaN
  }

  private withSignOf(x: Value, magnitude: Value): Value {
    return choose(splatInt(0x80000000), x, magnitude);
  }

  /** A polynomial near 0 (Cephes tanhf), elsewhere 1 - 2 / (exp(2|x|) + 1). */
  tanh(argument: Value): Value {
    const { f } = this;
    const x = hold(f, argument);
    const size = hold(f, op('f32x4.abs', x));
    const z = hold(f, mul(x, x));
    const p = this.polynomial(
      z,
      [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    );
    const near = hold(f, this.madd(mul(p, z), x, x));
    const far = sub(splat(1), div(splat(2), add(this.exp(add(size, size)), splat(1))));
    return this.withSignOf(x, choose(op('f32x4.lt', size, splat(0.625)), near, far)); // also of a zero
  }

  /** x P(x^2) near 0, elsewhere 1 - exp(Q(|x|)): N. Juffa's two minimax polynomials for erff. */
  erf(argument: Value): Value {
    const { f } = this;
    const x = hold(f, argument);
    const t = hold(f, op('f32x4.pmin', op('f32x4.abs', x), splat(4.5)));
    const s = hold(f, mul(x, x));
    const p = this.polynomial(
      s,
      [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1],
    );
    const near = hold(f, this.madd(p, x, x));
    const q = this.polynomial(
      t,
      [-1.7285347e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1],
    );
    const far = sub(splat(1), this.exp(sub(mul(q, t), t)));
    return this.withSignOf(x, choose(op('f32x4.le', t, splat(0.927734375)), near, far));
  }

  sin(argument: Value): Value {
    const x = hold(this.f, argument);
    return choose(op('f32x4.eq', x, splat(0)), x, this.sinCos(x, 0)); // -0 stays -0
  }

  cos(argument: Value): Value {
    return this.sinCos(hold(this.f, argument), 1);
  }

  /** Reduction to a quarter turn in f64, then Cephes sinf and cosf; `ahead` quarter turns are added. */
  private sinCos(x: Local, ahead: number): Value {
    const { f } = this;
    const far = hold(f, op('f32x4.gt', op('f32x4.abs', x), splat(2 ** 20)));
    const near = this.quarterTurns(x, nearestTurn);
    const [r, turns] = [hold(f, near.rest), hold(f, near.turns)];
    f.if(op('v128.any_true', far), () => {
      const exact = this.quarterTurns(x, exactTurn);
      f.set(r, choose(far, exact.rest, r));
      f.set(turns, choose(far, exact.turns, turns));
    });
    const quarter = hold(f, op('i32x4.add', turns, splatInt(ahead)));
    const z = hold(f, mul(r, r));
    const sine = this.madd(mul(this.polynomial(z, [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1]), z), r, r);
    const tail = mul(
      mul(this.polynomial(z, [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2]), z),
      z,
    );
    const cosine = add(this.madd(z, splat(-0.5), tail), splat(1));
    const odd = op('i32x4.ne', op('v128.and', quarter, splatInt(1)), splatInt(0));
    const sign = op('i32x4.shl', op('v128.and', quarter, splatInt(2)), 30);
    return op('v128.xor', choose(odd, cosine, sine), sign);
  }

  /** Quarter turns as whole numbers, and the rest as an angle, of four lanes. `reduce` does two in f64. */
  private quarterTurns(
    x: Local,
    reduce: (f: FunctionBuilder, wide: Local) => { turns: Value; rest: Value },
  ): { turns: Value; rest: Value } {
    const { f } = this;
    const halves = [x, shuffle32(x, x, [2, 3, 2, 3])].map(pair => {
      const { turns, rest } = reduce(f, hold(f, op('f64x2.promote_low_f32x4', pair)));
      // adding 1.5 * 2^52 leaves the integer in the low word
      return {
        turns: hold(f, op('f64x2.add', turns, wideSplat(6755399441055744))),
        rest: hold(f, op('f32x4.demote_f64x2_zero', rest)),
      };
    });
    const [low, high] = halves;
    return {
      turns: shuffle32(low.turns, high.turns, [0, 2, 4, 6]),
      rest: shuffle32(low.rest, high.rest, [0, 1, 4, 5]),
    };
  }
}

const wideSplat = (c: number): Value => op('f64x2.splat', c);

/** For |x| up to 2^20: pi / 2 as 33 bits, exact in a product with the quarter turns, and the rest. */
function nearestTurn(f: FunctionBuilder, wide: Local): { turns: Value; rest: Value } {
  const turns = hold(f, op('f64x2.nearest', op('f64x2.mul', wide, wideSplat(2 / Math.PI))));
  const rough = op('f64x2.sub', wide, op('f64x2.mul', turns, wideSplat(1.5707963267341256)));
  return { turns, rest: op('f64x2.sub', rough, op('f64x2.mul', turns, wideSplat(6.077100506506192e-11))) };
}

/** 2 / pi in digits of 24 bits: enough for the largest f32. */
const twoOverPi = [0xa2f983, 0x6e4e44, 0x1529fc, 0x2757d1, 0xf534dd, 0xc0db62, 0x95993c, 0x439041];

/**
 * For any x (Payne and Hanek 1983): a product of x with a digit is exact, and so is what it leaves modulo four quarter
 * turns. The sum of these is kept near 0 by taking whole turns out before the next digit, so it is rounded relative to
 * what is left.
 */
function exactTurn(f: FunctionBuilder, wide: Local): { turns: Value; rest: Value } {
  const [turns, rest] = [hold(f, wideSplat(0)), hold(f, wideSplat(0))];
  twoOverPi.forEach((digit, i) => {
    const product = hold(f, op('f64x2.mul', wide, wideSplat(digit * 2 ** (-24 * (i + 1)))));
    const fours = op('f64x2.mul', op('f64x2.nearest', op('f64x2.mul', product, wideSplat(0.25))), wideSplat(4));
    f.set(rest, op('f64x2.add', rest, op('f64x2.sub', product, fours)));
    const whole = hold(f, op('f64x2.nearest', rest));
    f.set(turns, op('f64x2.add', turns, whole));
    f.set(rest, op('f64x2.sub', rest, whole));
  });
  return { turns, rest: op('f64x2.mul', rest, wideSplat(Math.PI / 2)) };
}
