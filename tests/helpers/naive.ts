// The smallest engine there is: one number a value, one closure a derivative. Random graphs are held to it.

export class Scalar {
  grad = 0;
  readonly value: number;
  readonly parents: readonly Scalar[];
  /** d value / d parent. */
  readonly slopes: readonly number[];

  constructor(value: number, parents: readonly Scalar[] = [], slopes: readonly number[] = []) {
    this.value = value;
    this.parents = parents;
    this.slopes = slopes;
  }
}

const unary =
  (f: (x: number) => number, slope: (x: number) => number) =>
  (x: Scalar): Scalar =>
    new Scalar(f(x.value), [x], [slope(x.value)]);

export const naive = {
  add: (x: Scalar, y: Scalar): Scalar => new Scalar(x.value + y.value, [x, y], [1, 1]),
  sub: (x: Scalar, y: Scalar): Scalar => new Scalar(x.value - y.value, [x, y], [1, -1]),
  mul: (x: Scalar, y: Scalar): Scalar => new Scalar(x.value * y.value, [x, y], [y.value, x.value]),
  tanh: unary(Math.tanh, x => 1 - Math.tanh(x) ** 2),
  sin: unary(Math.sin, Math.cos),
  sigmoid: unary(
    x => 1 / (1 + Math.exp(-x)),
    x => Math.exp(-x) / (1 + Math.exp(-x)) ** 2,
  ),
  square: unary(
    x => x * x,
    x => 2 * x,
  ),
  sum: (xs: readonly Scalar[]): Scalar => xs.reduce((s, x) => naive.add(s, x), new Scalar(0)),
};

/**
 * d (sum of seeds[i] * outputs[i]) added to `grad` of everything below; `grad` of what was walked before is cleared
 * first.
 */
export function naiveBackward(outputs: readonly Scalar[], seeds: readonly number[]): void {
  const order: Scalar[] = [];
  const seen = new Set<Scalar>();
  const stack = outputs.map(x => ({ x, done: false }));
  while (stack.length > 0) {
    const { x, done } = stack.pop() as { x: Scalar; done: boolean };
    if (done) order.push(x);
    else if (!seen.has(x)) {
      seen.add(x);
      stack.push({ x, done: true }, ...x.parents.map(p => ({ x: p, done: false })));
    }
  }
  for (const x of order) x.grad = 0;
  outputs.forEach((x, i) => (x.grad += seeds[i]));
  for (const x of order.reverse()) x.parents.forEach((p, i) => (p.grad += x.slopes[i] * x.grad));
}
