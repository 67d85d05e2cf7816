// The scalar expression language: equal expressions are one object, derivatives stay small, generated code and
// interpreter agree, integers wrap, and nothing needs `new Function`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { vjpExpressions } from '../src/autograd/derive.js';
import { erf } from '../src/backends/cpu/erf.js';
import { evaluator, interpret } from '../src/backends/cpu/emitJs.js';
import * as e from '../src/tensor/expr.js';
import type { Expr } from '../src/tensor/expr.js';
import { runs } from './helpers/draw.js';
import { seededRandom } from './helpers/mutate.js';

const run = (outputs: Expr[], args: number[], uniforms: number[] = [], index = 0, how = evaluator): number[] => {
  const out = new Float64Array(outputs.length);
  how(e.program(outputs, args.length))(Float64Array.from(args), uniforms, index, out);
  return [...out];
};
const x = e.arg(0);
const geluOf = (v: Expr): Expr => e.mul(e.mul(0.5, v), e.add(1, e.erf(e.mul(v, Math.SQRT1_2))));
/** d/dx with cotangent 1. */
const derivative = (f: Expr): Expr =>
  e.substitute(vjpExpressions([f], 1, [0])[0], leaf => (leaf.op === 'arg' && leaf.value === 1 ? e.constant(1) : leaf));

test('equal expressions are the same object, whatever the order of a sum or product', () => {
  assert.equal(e.add(x, e.exp(x)), e.add(e.exp(e.arg(0)), e.arg(0)));
  assert.equal(e.mul(x, 3), e.mul(3, x));
  assert.notEqual(e.sub(x, 1), e.sub(1, x));
  assert.notEqual(e.constant(0), e.constant(-0));
  assert.notEqual(e.arg(0), e.arg(0, 'i'));
});

test('what needs no kernel is folded', () => {
  assert.equal(e.add(x, 0), x);
  assert.equal(e.mul(1, x), x);
  assert.equal(e.mul(0, x), e.constant(0));
  assert.equal(e.neg(e.neg(x)), x);
  assert.equal(e.mul(e.constant(2), 3), e.constant(6));
  assert.equal(e.where(e.lt(x, 0), x, x), x);
  assert.equal(e.div(x, 1), x);
});

test('types that do not meet are refused', () => {
  assert.throws(() => e.add(x, e.arg(1, 'i')), /^Error: add: operands have types f and i$/);
  assert.throws(() => e.exp(e.arg(0, 'i')), /^Error: exp: takes a float, not i$/);
  assert.throws(() => e.div(e.arg(0, 'i'), 2), /^Error: div: only floats divide, not i$/);
  assert.throws(() => e.bitAnd(x, x), /^Error: bitAnd: takes integers, not f$/);
  assert.throws(() => e.where(x, x, x), /^Error: where: the condition has type f, expected a bool$/);
  assert.throws(() => e.program([e.arg(2)], 2), /^Error: program: argument 2 of 2$/);
});

test("gelu's third derivative is a small graph with the right values", () => {
  const third = derivative(derivative(derivative(geluOf(x))));
  assert.ok(e.topological([third]).length < 300, `${e.topological([third]).length} nodes`);
  // gelu = x cdf(x): gelu''' = x pdf'' + 3 pdf' with pdf' = -x pdf, pdf'' = (x^2 - 1) pdf.
  for (const at of [-3, -1.2, 0, 0.4, 2.5]) {
    const pdf = Math.exp((-at * at) / 2) / Math.sqrt(2 * Math.PI);
    const expected = at * (at * at - 1) * pdf - 3 * at * pdf;
    assert.ok(
      Math.abs(run([third], [at])[0] - expected) < 1e-13,
      `at ${at}: ${run([third], [at])[0]}, expected ${expected}`,
    );
  }
});

test('each derivative rule equals a difference', () => {
  const y = e.arg(1);
  const functions: Record<string, Expr> = {
    add: e.add(x, y),
    sub: e.sub(x, y),
    mul: e.mul(x, y),
    div: e.div(x, y),
    neg: e.neg(x),
    min: e.min(x, y),
    max: e.max(x, y),
    abs: e.abs(x),
    exp: e.exp(x),
    log: e.log(y),
    sqrt: e.sqrt(y),
    rsqrt: e.rsqrt(y),
    tanh: e.tanh(x),
    erf: e.erf(x),
    sin: e.sin(x),
    cos: e.cos(x),
    where: e.where(e.lt(x, y), e.mul(x, x), e.mul(y, x)),
    floor: e.floor(x),
    custom: e.custom(
      e.mul(x, x),
      x,
      e.customRule((_, g, v) => e.mul(g, e.mul(2, v))),
    ),
    'custom, through itself': e.custom(
      e.exp(x),
      x,
      e.customRule((self, g) => e.mul(g, self)),
    ),
    shared: e.mul(e.exp(x), e.add(e.exp(x), y)),
  };
  for (const [name, f] of Object.entries(functions)) {
    const gradients = vjpExpressions([f], 2, [0, 1]);
    for (const at of [
      [0.3, 1.7],
      [-0.8, 0.6],
      [2.4, 1.1],
    ]) {
      const analytic = run(gradients, [...at, 1]);
      analytic.forEach((g, i) => {
        const shifted = (t: number): number =>
          run(
            [f],
            at.map((v, k) => (k === i ? v + t : v)),
          )[0];
        const h = 1e-3;
        const numeric = (8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h);
        assert.ok(
          Math.abs(g - numeric) < 1e-9 * Math.max(1, Math.abs(g)),
          `${name} at ${at}: d/d${i} is ${g}, differences give ${numeric}`,
        );
      });
    }
  }
});

/** A random typed expression over args 0, 1 (f), 2 (i), 3 (u), 4 (b), a uniform of each type and the index. */
function randomExpr(next: () => number, type: 'f' | 'i' | 'u' | 'b', depth: number): Expr {
  const pick = <T>(...items: T[]): T => items[Math.floor(next() * items.length)];
  const sub = (t: 'f' | 'i' | 'u' | 'b'): Expr => randomExpr(next, t, depth - 1);
  if (depth === 0) {
    if (type === 'f') return pick(e.arg(0), e.arg(1), e.uniform(0), e.constant(1.5), e.constant(-2));
    if (type === 'i') return pick(e.arg(2, 'i'), e.uniform(1, 'i'), e.constant(-7, 'i'), e.constant(2147483647, 'i'));
    if (type === 'u') return pick(e.arg(3, 'u'), e.uniform(2, 'u'), e.constant(4294967295, 'u'), e.index);
    return pick(e.arg(4, 'b'), e.lt(e.arg(0), e.arg(1)));
  }
  if (type === 'b') {
    const kind = pick('f', 'i', 'u') as 'f';
    return pick(
      () => e.lt(sub(kind), sub(kind)),
      () => e.le(sub(kind), sub(kind)),
      () => e.eq(sub(kind), sub(kind)),
      () => e.ne(sub(kind), sub(kind)),
      () => e.and(sub('b'), sub('b')),
      () => e.or(sub('b'), sub('b')),
      () => e.not(sub('b')),
      () => e.toB(sub('f')),
    )();
  }
  const shared = [
    () => e.add(sub(type), sub(type)),
    () => e.sub(sub(type), sub(type)),
    () => e.mul(sub(type), sub(type)),
    () => e.min(sub(type), sub(type)),
    () => e.max(sub(type), sub(type)),
    () => e.where(sub('b'), sub(type), sub(type)),
  ];
  if (type === 'f') {
    return pick(
      ...shared,
      () => e.div(sub('f'), sub('f')),
      () => e.neg(sub('f')),
      () => e.abs(sub('f')),
      () => e.floor(sub('f')),
      () => e.exp(sub('f')),
      () => e.log(sub('f')),
      () => e.sqrt(sub('f')),
      () => e.rsqrt(sub('f')),
      () => e.tanh(sub('f')),
      () => e.erf(sub('f')),
      () => e.sin(sub('f')),
      () => e.cos(sub('f')),
      () => e.toF(sub('i')),
      () => e.toF(sub('b')),
      () => e.toF(sub('u')),
    )();
  }
  const shift = Math.floor(next() * 32);
  const whole = [
    ...shared,
    () => e.bitAnd(sub(type), sub(type)),
    () => e.bitOr(sub(type), sub(type)),
    () => e.bitXor(sub(type), sub(type)),
    () => e.shl(sub(type), shift),
    () => e.shr(sub(type), shift),
  ];
  return type === 'i'
    ? pick(
        ...whole,
        () => e.neg(sub('i')),
        () => e.toI(sub('f')),
        () => e.toI(sub('u')),
        () => e.toI(sub('b')),
      )()
    : pick(...whole, () => e.toU(sub('i')))();
}

test('the interpreter equals generated code on random expressions', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.constantFrom('f' as const, 'i' as const, 'u' as const, 'b' as const),
      fc.integer({ min: 1, max: 6 }),
      (seed, type, depth) => {
        const next = seededRandom(seed);
        const expression = randomExpr(next, type, depth);
        const args = [
          next() * 8 - 4,
          next() * 2,
          Math.floor(next() * 2 ** 32) | 0,
          Math.floor(next() * 2 ** 32),
          Number(next() < 0.5),
        ];
        const uniforms = [next() * 6 - 3, Math.floor(next() * 2 ** 32) | 0, Math.floor(next() * 2 ** 32)];
        const at = Math.floor(next() * 1000);
        const [generated] = run([expression], args, uniforms, at);
        const [interpreted] = run([expression], args, uniforms, at, interpret);
        assert.ok(Object.is(generated, interpreted), `${generated} and ${interpreted}`);
        if (type === 'i')
          assert.ok(Number.isInteger(generated) && Math.abs(generated) <= 2 ** 31, `i32 is ${generated}`);
        if (type === 'u')
          assert.ok(Number.isInteger(generated) && generated >= 0 && generated < 2 ** 32, `u32 is ${generated}`);
      },
    ),
    runs(400),
  );
});

test('integers wrap, shift and convert as in WASM and WGSL', () => {
  const [i, j] = [e.arg(0, 'i'), e.arg(1, 'i')];
  const [u, w] = [e.arg(0, 'u'), e.arg(1, 'u')];
  for (const how of [evaluator, interpret]) {
    const at = (f: Expr, ...args: number[]): number => run([f], args, [], 0, how)[0];
    assert.equal(at(e.add(i, j), 2147483647, 1), -2147483648);
    assert.equal(at(e.mul(i, j), 123456789, 987654321), Math.imul(123456789, 987654321));
    assert.equal(at(e.neg(i), -2147483648), -2147483648);
    assert.equal(at(e.sub(u, w), 0, 1), 4294967295);
    assert.equal(at(e.mul(u, w), 4294967295, 4294967295), 1);
    assert.equal(at(e.shr(i, 4), -256), -16);
    assert.equal(at(e.shr(u, 28), 4294967040), 15);
    assert.equal(at(e.shl(u, 31), 3), 2147483648);
    assert.equal(at(e.bitXor(u, w), 4294967295, 1), 4294967294);
    assert.equal(at(e.lt(u, w), 4294967295, 1), 0);
    assert.equal(at(e.toI(u), 4294967295), -1);
    assert.equal(at(e.toI(e.arg(0)), -3.99), -3);
    assert.equal(at(e.toI(e.arg(0)), 1e20), 2147483647);
    assert.equal(at(e.toI(e.arg(0)), NaN), 0);
  }
});

test('a page without code generation gets the same numbers', () => {
  const script = fileURLToPath(new URL('helpers/sameNumbers.ts', import.meta.url));
  const output = (...flags: string[]): string =>
    execFileSync(process.execPath, [...flags, '--import', 'tsx', script], { encoding: 'utf8' });
  const strict = JSON.parse(output('--disallow-code-generation-from-strings')) as { generates: boolean; bits: string };
  const usual = JSON.parse(output()) as typeof strict;
  assert.equal(strict.generates, false);
  assert.equal(usual.generates, true);
  assert.ok(usual.bits.length > 100, 'usual.bits.length > 100');
  assert.equal(strict.bits, usual.bits);
});

test('erf is exact to 1e-15', () => {
  const known: [number, number][] = [
    [1e-10, 1.1283791670955126e-10],
    [0.01, 0.011283415555849618],
    [0.1, 0.11246291601828488],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [1.5, 0.9661051464753108],
    [2, 0.9953222650189527],
    [2.5, 0.999593047982555],
    [3, 0.9999779095030014],
    [4, 0.9999999845827421],
    [5, 0.9999999999984626],
    [7, 1],
  ];
  for (const [at, value] of known) {
    assert.ok(Math.abs(erf(at) - value) <= 1e-15 * value, `erf(${at}) = ${erf(at)}, expected ${value}`);
    assert.equal(erf(-at), -erf(at));
  }
  assert.equal(erf(0), 0);
  assert.equal(erf(Infinity), 1);
  assert.ok(Number.isNaN(erf(NaN)), 'Number.isNaN(erf(NaN))');
  // Where the two formulas meet there is no step.
  assert.ok(
    Math.abs(erf(2.5 + 1e-9) - erf(2.5 - 1e-9) - 2e-9 * (2 / Math.sqrt(Math.PI)) * Math.exp(-6.25)) < 1e-15,
    'Math.abs(erf(2.5 + 1e-9) - erf(2.5 - 1e-9) - 2e-9 * (2 / Math.sqrt(...',
  );
});
