// Symbolic reverse-mode derivatives of scalar expressions: the VJP of a map kernel is itself a map kernel.
// One rule for each operation of tensor/expr.ts; nothing else may be put here.

import {
  add,
  arg,
  constant,
  cos,
  customCotangent,
  div,
  eq,
  exp,
  lt,
  mul,
  neg,
  sin,
  sub,
  where,
  topological,
  type Expr,
  type ExprOp,
} from '../tensor/expr.js';

/** Cotangents of the arguments of `e`, given that of its value; null where nothing flows. */
type Rule = (e: Expr, g: Expr) => (Expr | null)[];

const twoOverSqrtPi = 2 / Math.sqrt(Math.PI);
const zero: Rule = e => e.args.map(() => null);
/**
 * As in PyTorch: halves at a tie of min and max, 0 at the kink of abs. What is not the extremum gets nothing; a NaN is
 * no smaller and no larger than the other, so both get all.
 */
const extremum =
  (loses: (x: Expr, y: Expr) => Expr): Rule =>
  (e, g) => {
    const [x, y] = e.args;
    const shared = mul(g, where(eq(x, y), 0.5, 1));
    return [where(loses(x, y), 0, shared), where(loses(y, x), 0, shared)];
  };

const rules: Record<ExprOp, Rule> = {
  const: zero,
  arg: zero,
  uniform: zero,
  index: zero,
  floor: zero,
  add: (_, g) => [g, g],
  sub: (_, g) => [g, neg(g)],
  mul: (e, g) => [mul(g, e.args[1]), mul(g, e.args[0])],
  div: (e, g) => [div(g, e.args[1]), neg(div(mul(g, e), e.args[1]))],
  neg: (_, g) => [neg(g)],
  min: extremum((x, y) => lt(y, x)),
  max: extremum((x, y) => lt(x, y)),
  abs: (e, g) => [where(lt(0, e.args[0]), g, where(lt(e.args[0], 0), neg(g), 0))],
  exp: (e, g) => [mul(g, e)],
  log: (e, g) => [div(g, e.args[0])],
  sqrt: (e, g) => [div(mul(g, 0.5), e)],
  rsqrt: (e, g) => [mul(mul(g, -0.5), mul(e, mul(e, e)))],
  tanh: (e, g) => [mul(g, sub(1, mul(e, e)))],
  erf: (e, g) => [mul(g, mul(twoOverSqrtPi, exp(neg(mul(e.args[0], e.args[0])))))],
  sin: (e, g) => [mul(g, cos(e.args[0]))],
  cos: (e, g) => [neg(mul(g, sin(e.args[0])))],
  lt: zero,
  le: zero,
  eq: zero,
  ne: zero,
  and: zero,
  or: zero,
  not: zero,
  where: (e, g) => [null, where(e.args[0], g, 0), where(e.args[0], 0, g)],
  bitAnd: zero,
  bitOr: zero,
  bitXor: zero,
  shl: zero,
  shr: zero,
  toF: zero,
  toI: zero,
  toU: zero,
  custom: (e, g) => [null, customCotangent(e, g)],
};

/**
 * For outputs over arguments 0 .. n-1, the gradients of the arguments in `wanted`, as expressions over the same
 * arguments and the cotangents, which are arguments n, n+1, ...; the constant 0 where nothing flows.
 */
export function vjpExpressions(outputs: readonly Expr[], argCount: number, wanted: readonly number[]): Expr[] {
  const cotangents = new Map<Expr, Expr>();
  const accumulate = (e: Expr, g: Expr): void => {
    const before = cotangents.get(e);
    cotangents.set(e, before ? add(before, g) : g);
  };
  // A custom node is differentiated by its variable, not through the insides of its value.
  const order = topological(outputs, 1);
  outputs.forEach((output, j) => {
    if (output.type === 'f') accumulate(output, arg(argCount + j));
  });
  for (let i = order.length - 1; i >= 0; i--) {
    const e = order[i];
    const g = cotangents.get(e);
    if (!g || (g.op === 'const' && g.value === 0)) continue;
    rules[e.op](e, g).forEach((ga, k) => {
      if (ga && e.args[k].type === 'f') accumulate(e.args[k], ga);
    });
  }
  return wanted.map(i => {
    let sum: Expr = constant(0);
    for (const e of order)
      if (e.op === 'arg' && e.value === i && e.type === 'f') sum = add(sum, cotangents.get(e) ?? 0);
    return sum;
  });
}
