// Random programs of building, computing, walking back and freeing, held after every step to a naive scalar engine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { keep, noGrad, openScope, scope } from '../src/autograd/index.js';
import { concat, tensor, type Tensor } from '../src/tensor/index.js';
import { Draw, runs } from './helpers/draw.js';
import { broadcast, indicesOf, sizeOf } from './helpers/host.js';
import { machines, type Machine } from './helpers/machines.js';
import { naive, naiveBackward, Scalar } from './helpers/naive.js';

/** The same array twice: naive scalars, row-major, and a tensor. */
interface Pair {
  shape: readonly number[];
  scalars: Scalar[];
  tensor: Tensor;
  leaf: boolean;
}
/**
 * What the naive side knows: how many values there are, which are leaves. Enough to decide whether a command applies.
 */
interface Model {
  pairs: Pair[];
}
interface Real {
  machine: Machine;
  pairs: Pair[];
  scopes: { end: ReturnType<typeof openScope>; from: number }[];
  gradients: number;
}
type Command = fc.Command<Model, Real>;

const entry = (p: Pair, index: readonly number[]): Scalar => {
  const lead = index.length - p.shape.length;
  return p.scalars[p.shape.reduce((at, side, axis) => at * side + (side === 1 ? 0 : index[lead + axis]), 0)];
};
const listOf = (shape: readonly number[], f: (index: number[]) => Scalar): Scalar[] =>
  Array.from(indicesOf(shape), i => f([...i]));

function agree(p: Pair, machine: Machine, what: string): void {
  const data = p.tensor.dataSync();
  assert.deepEqual([...p.tensor.shape], [...p.shape], `${what}: shape`);
  same(
    data,
    p.scalars.map(s => s.value),
    machine,
    what,
  );
}
function same(actual: ArrayLike<number>, expected: readonly number[], machine: Machine, what: string): void {
  const largest = Math.max(1, ...expected.map(Math.abs));
  const tolerance = machine.dtype === 'f64' ? 1e-9 : 2e-3;
  expected.forEach((x, i) =>
    assert.ok(Math.abs(actual[i] - x) <= tolerance * largest, `${what}, entry ${i}: ${actual[i]}, expected ${x}`),
  );
}

/** Puts a new pair on both sides and compares every pair that is there. */
function commit(model: Model, real: Real, made: Pair, what: string): void {
  real.pairs.push(made);
  model.pairs = real.pairs;
  real.pairs.forEach((p, i) => agree(p, real.machine, `${what}, value ${i}`));
}

class Build implements Command {
  constructor(
    readonly sides: number[],
    readonly seed: number,
    readonly trained: boolean,
  ) {}
  check = (): boolean => true;
  run(model: Model, real: Real): void {
    const h = new Draw(
      { sides: [], extra: [1], seed: this.seed, scale: 1, kind: 'normal' },
      { smooth: true, cap: 99 },
    ).values(this.sides);
    const { backend, dtype } = real.machine;
    // Leaves outlive scopes, as parameters do.
    const t = keep(
      tensor(dtype === 'f64' ? h.data : Float32Array.from(h.data), h.shape as number[], { backend, dtype }),
    ).requireGrad(this.trained);
    commit(
      model,
      real,
      { shape: h.shape, scalars: [...h.data].map(x => new Scalar(x)), tensor: t, leaf: true },
      String(this),
    );
  }
  toString = (): string => `build([${this.sides}], ${this.seed}, ${this.trained ? 'trained' : 'frozen'})`;
}

const unaries = ['tanh', 'sin', 'sigmoid', 'square'] as const;
class Unary implements Command {
  constructor(
    readonly op: (typeof unaries)[number],
    readonly at: number,
  ) {}
  check = (m: Readonly<Model>): boolean => m.pairs.length > 0 && moderate(m.pairs[this.at % m.pairs.length]);
  run(model: Model, real: Real): void {
    const p = real.pairs[this.at % real.pairs.length];
    commit(
      model,
      real,
      { shape: p.shape, scalars: p.scalars.map(naive[this.op]), tensor: p.tensor[this.op](), leaf: false },
      String(this),
    );
  }
  toString = (): string => `${this.op}(${this.at})`;
}

const binaries = ['add', 'sub', 'mul'] as const;
class Binary implements Command {
  constructor(
    readonly op: (typeof binaries)[number],
    readonly a: number,
    readonly b: number,
  ) {}
  check(m: Readonly<Model>): boolean {
    if (m.pairs.length === 0) return false;
    const [p, q] = [m.pairs[this.a % m.pairs.length], m.pairs[this.b % m.pairs.length]];
    const shape = broadcast(p.shape, q.shape);
    const fits = [p, q].every(x => x.shape.every((s, i) => s === 1 || s === shape[shape.length - x.shape.length + i]));
    return fits && sizeOf(shape) <= 60 && moderate(p) && moderate(q);
  }
  run(model: Model, real: Real): void {
    const [p, q] = [real.pairs[this.a % real.pairs.length], real.pairs[this.b % real.pairs.length]];
    const shape = broadcast(p.shape, q.shape);
    commit(
      model,
      real,
      {
        shape,
        scalars: listOf(shape, i => naive[this.op](entry(p, i), entry(q, i))),
        tensor: p.tensor[this.op](q.tensor),
        leaf: false,
      },
      String(this),
    );
  }
  toString = (): string => `${this.op}(${this.a}, ${this.b})`;
}
/** Keeps squares and products from running away. */
const moderate = (p: Pair): boolean => p.scalars.every(s => Math.abs(s.value) < 30);

const moves = ['transpose', 'sumLast', 'sliceFirst', 'reshape', 'twice', 'matmulSelf', 'rows', 'detach'] as const;
class Move implements Command {
  constructor(
    readonly op: (typeof moves)[number],
    readonly at: number,
  ) {}
  check = (m: Readonly<Model>): boolean =>
    m.pairs.length > 0 &&
    m.pairs[this.at % m.pairs.length].shape.length === 2 &&
    moderate(m.pairs[this.at % m.pairs.length]);
  run(model: Model, real: Real): void {
    const p = real.pairs[this.at % real.pairs.length];
    const [m, n] = p.shape;
    const t = p.tensor;
    const result: [number[], (i: number[]) => Scalar, Tensor] = {
      transpose: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [n, m],
        ([i, j]) => entry(p, [j, i]),
        t.transpose(),
      ],
      sumLast: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [m, 1],
        ([i]) => naive.sum(Array.from({ length: n }, (_, j) => entry(p, [i, j]))),
        t.sum(-1, { keepDims: true }),
      ],
      sliceFirst: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [m, 1],
        ([i]) => entry(p, [i, 0]),
        t.slice(1, 0, 1),
      ],
      reshape: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [1, m * n],
        ([, j]) => p.scalars[j],
        t.reshape([1, -1]),
      ],
      twice: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [m, n],
        i => naive.add(entry(p, i), entry(p, i)),
        concat([t, t]).slice(0, 0, m).add(t),
      ],
      matmulSelf: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [m, m],
        ([i, j]) => naive.sum(Array.from({ length: n }, (_, k) => naive.mul(entry(p, [i, k]), entry(p, [j, k])))),
        t.matmulT(t),
      ],
      rows: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [3, n],
        ([i, j]) => (i === 1 ? new Scalar(0) : entry(p, [i === 0 ? m - 1 : 0, j])),
        t.takeRows([m - 1, -1, 0]),
      ],
      detach: (): [number[], (i: number[]) => Scalar, Tensor] => [
        [m, n],
        i => new Scalar(entry(p, i).value),
        t.detach(),
      ],
    }[this.op]();
    commit(
      model,
      real,
      { shape: result[0], scalars: listOf(result[0], result[1]), tensor: result[2], leaf: false },
      String(this),
    );
  }
  toString = (): string => `${this.op}(${this.at})`;
}

class Backward implements Command {
  constructor(
    readonly at: number,
    readonly seed: number,
  ) {}
  check = (m: Readonly<Model>): boolean => m.pairs.length > 0 && m.pairs[this.at % m.pairs.length].tensor.needsGrad;
  run(model: Model, real: Real): void {
    const p = real.pairs[this.at % real.pairs.length];
    const h = new Draw(
      { sides: [], extra: [1], seed: this.seed, scale: 1, kind: 'normal' },
      { smooth: true, cap: 99 },
    ).values(p.shape);
    naiveBackward(p.scalars, [...h.data]);
    const before = real.pairs.map(x => (x.tensor.grad ? Array.from(x.tensor.grad.dataSync()) : null));
    const { backend, dtype } = real.machine;
    scope(() =>
      p.tensor.backward({
        gradient: tensor(dtype === 'f64' ? h.data : Float32Array.from(h.data), h.shape as number[], { backend, dtype }),
        retainGraph: true,
      }),
    );
    const reached = new Set<Scalar>(below(p.scalars));
    real.pairs.forEach((x, i) => {
      if (!x.tensor.requiresGrad || !x.scalars.some(s => reached.has(s))) return;
      const expected = x.scalars.map((s, k) => (before[i]?.[k] ?? 0) + (reached.has(s) ? s.grad : 0));
      assert.ok(x.tensor.grad || expected.every(v => v === 0), `${String(this)}: value ${i} got no gradient`);
      if (x.tensor.grad) real.gradients++;
      if (x.tensor.grad)
        same(x.tensor.grad.dataSync(), expected, real.machine, `${String(this)}, gradient of value ${i}`);
    });
    noGrad(() => real.pairs.forEach((x, i) => agree(x, real.machine, `${String(this)}, value ${i}`)));
    void model;
  }
  toString = (): string => `backward(${this.at}, ${this.seed})`;
}
const below = (outputs: readonly Scalar[]): Scalar[] => {
  const seen = new Set<Scalar>();
  const stack = [...outputs];
  while (stack.length > 0) {
    const x = stack.pop() as Scalar;
    if (!seen.has(x)) {
      seen.add(x);
      stack.push(...x.parents);
    }
  }
  return [...seen];
};

class Open implements Command {
  check = (): boolean => true;
  run(_: Model, real: Real): void {
    real.scopes.push({ end: openScope(), from: real.pairs.length });
  }
  toString = (): string => 'open';
}
/**
 * Ends a scope: computed values made since are gone and say so, leaves stay, and what one kept value needs for backward
 * too.
 */
class Close implements Command {
  constructor(readonly kept: number) {}
  check = (): boolean => true;
  run(model: Model, real: Real): void {
    const last = real.scopes.pop();
    if (!last) return;
    const made = real.pairs.slice(last.from);
    const computed = made.filter(p => !p.leaf);
    const saved = computed.length > 0 ? computed[this.kept % computed.length] : undefined;
    if (saved) last.end.keep(saved.tensor);
    last.end[Symbol.dispose]();
    // A view of a leaf or of the kept value lives on with it.
    const storages = new Set(
      [...real.pairs.filter(p => p.leaf), ...(saved ? [saved] : []), ...real.pairs.slice(0, last.from)].map(
        p => p.tensor.storage,
      ),
    );
    for (const p of computed)
      if (p.tensor.storage.disposed) assert.throws(() => p.tensor.add(1), /was used after its scope ended/);
    for (const p of made) if (storages.has(p.tensor.storage)) assert.equal(p.tensor.storage.disposed, false);
    real.pairs = [
      ...real.pairs.slice(0, last.from),
      ...made.filter(p => (p.leaf && !p.tensor.storage.disposed) || p === saved),
    ];
    model.pairs = real.pairs;
    real.pairs.forEach((p, i) => agree(p, real.machine, `${String(this)}, value ${i}`));
  }
  toString = (): string => `close(${this.kept})`;
}

const number = fc.nat(30);
const commands = fc.commands(
  [
    fc
      .tuple(
        fc.array(fc.constantFrom(1, 2, 3, 4), { minLength: 0, maxLength: 2 }),
        fc.integer({ min: 1, max: 9999 }),
        fc.boolean(),
      )
      .map(([s, n, t]) => new Build(s, n, t)),
    fc
      .tuple(fc.constantFrom<number[]>([2, 3], [3, 1], [1, 4], [3, 3]), fc.integer({ min: 1, max: 9999 }))
      .map(([s, n]) => new Build(s, n, true)),
    fc.tuple(fc.constantFrom(...unaries), number).map(([op, a]) => new Unary(op, a)),
    fc.tuple(fc.constantFrom(...binaries), number, number).map(([op, a, b]) => new Binary(op, a, b)),
    fc.tuple(fc.constantFrom(...moves), number).map(([op, a]) => new Move(op, a)),
    fc.tuple(number, fc.integer({ min: 1, max: 9999 })).map(([a, s]) => new Backward(a, s)),
    fc.constant(new Open()),
    number.map(k => new Close(k)),
  ],
  { size: '+1', maxCommands: 30 },
);

for (const machine of machines) {
  test(`random graphs equal the naive engine (${machine.name})`, () => {
    let [values, gradients] = [0, 0];
    fc.assert(
      fc.property(commands, script => {
        const real: Real = { machine, pairs: [], scopes: [], gradients: 0 };
        try {
          fc.modelRun(() => ({ model: { pairs: real.pairs }, real }), script);
        } finally {
          while (real.scopes.length > 0) real.scopes.pop()?.end[Symbol.dispose]();
        }
        values += real.pairs.length;
        gradients += real.gradients;
      }),
      runs(120),
    );
    const { numRuns } = runs(120);
    assert.ok(
      values > numRuns && gradients > numRuns / 4,
      `only ${values} values and ${gradients} gradients were compared`,
    );
  });
}
