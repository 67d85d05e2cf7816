// The scalar expression language: what one element of an elementwise kernel computes. An expression is an immutable,
// hash-consed graph, so equal expressions are the same object and repeated parts are computed once. Backends emit it
// (JavaScript, WASM SIMD, WGSL) and autograd/derive.ts differentiates it; neither emission nor derivatives belong here.
// Values that change from call to call (a learning rate, a seed) are uniforms: as constants each would compile a new
// kernel.

/** f: the float width of the kernel (f32 or f64); i: i32; u: u32, wrapping; b: bool. */
export type ScalarType = 'f' | 'i' | 'u' | 'b';

export type ExprOp =
  | 'const'
  | 'arg'
  | 'uniform'
  | 'index'
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'neg'
  | 'min'
  | 'max'
  | 'abs'
  | 'floor'
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'rsqrt'
  | 'tanh'
  | 'erf'
  | 'sin'
  | 'cos'
  | 'lt'
  | 'le'
  | 'eq'
  | 'ne'
  | 'and'
  | 'or'
  | 'not'
  | 'where'
  | 'bitAnd'
  | 'bitOr'
  | 'bitXor'
  | 'shl'
  | 'shr'
  | 'toF'
  | 'toI'
  | 'toU'
  | 'custom';

export interface Expr {
  readonly id: number;
  readonly op: ExprOp;
  readonly type: ScalarType;
  readonly args: readonly Expr[];
  /** The constant, or the number of the argument, of the uniform or of the rule of a custom node. */
  readonly value: number;
}

export type Operand = Expr | number;

const table = new Map<string, Expr>();

function node(op: ExprOp, type: ScalarType, args: readonly Expr[], value = 0): Expr {
  const key = `${op}:${type}:${Object.is(value, -0) ? '-0' : value}:${args.map(a => a.id).join(',')}`;
  let found = table.get(key);
  if (!found) {
    found = Object.freeze({ id: table.size, op, type, args: Object.freeze([...args]), value });
    table.set(key, found);
  }
  return found;
}

export const constant = (value: number, type: ScalarType = 'f'): Expr => node('const', type, [], value);
/** The element of the n-th input. */
export const arg = (n: number, type: ScalarType = 'f'): Expr => node('arg', type, [], n);
/** The n-th number given with the call, the same for every element. */
export const uniform = (n: number, type: ScalarType = 'f'): Expr => node('uniform', type, [], n);
/** The row-major number of the element in the iteration space, as u32. */
export const index: Expr = node('index', 'u', []);

function lift(x: Operand, type: ScalarType): Expr {
  return typeof x === 'number' ? constant(x, type) : x;
}

/** Both operands as expressions of one type; numbers take the type of the other side. */
function pair(op: string, a: Operand, b: Operand): [Expr, Expr] {
  const type = typeof a !== 'number' ? a.type : typeof b !== 'number' ? b.type : 'f';
  const [x, y] = [lift(a, type), lift(b, type)];
  if (x.type !== y.type) throw new Error(`${op}: operands have types ${x.type} and ${y.type}`);
  return [x, y];
}

const isConst = (x: Expr, value?: number): boolean => x.op === 'const' && (value === undefined || x.value === value);
/** Constants fold in f64 for floats only: integer wrap-around is left to the kernel. */
const folds = (...xs: Expr[]): boolean => xs.every(x => x.op === 'const' && x.type === 'f');

export function add(a: Operand, b: Operand): Expr {
  const [x, y] = pair('add', a, b);
  if (folds(x, y)) return constant(x.value + y.value);
  if (isConst(x, 0)) return y;
  if (isConst(y, 0)) return x;
  return x.id <= y.id ? node('add', x.type, [x, y]) : node('add', x.type, [y, x]);
}

export function sub(a: Operand, b: Operand): Expr {
  const [x, y] = pair('sub', a, b);
  if (folds(x, y)) return constant(x.value - y.value);
  if (isConst(y, 0)) return x;
  if (isConst(x, 0) && x.type === 'f') return neg(y);
  return node('sub', x.type, [x, y]);
}

/** A product with the constant 0 is 0: gradients that vanish cost nothing. */
export function mul(a: Operand, b: Operand): Expr {
  const [x, y] = pair('mul', a, b);
  if (folds(x, y)) return constant(x.value * y.value);
  if (isConst(x, 0) || isConst(y, 1)) return x;
  if (isConst(y, 0) || isConst(x, 1)) return y;
  if (isConst(x, -1) && x.type === 'f') return neg(y);
  if (isConst(y, -1) && y.type === 'f') return neg(x);
  return x.id <= y.id ? node('mul', x.type, [x, y]) : node('mul', x.type, [y, x]);
}

export function div(a: Operand, b: Operand): Expr {
  const [x, y] = pair('div', a, b);
  if (x.type !== 'f') throw new Error(`div: only floats divide, not ${x.type}`);
  if (folds(x, y) && y.value !== 0) return constant(x.value / y.value);
  if (isConst(x, 0) || isConst(y, 1)) return x;
  return node('div', 'f', [x, y]);
}

export function neg(a: Operand): Expr {
  const x = lift(a, 'f');
  if (folds(x)) return constant(-x.value);
  return x.op === 'neg' ? x.args[0] : node('neg', x.type, [x]);
}

const unaryFloat =
  (op: ExprOp, fold?: (x: number) => number) =>
  (a: Operand): Expr => {
    const x = lift(a, 'f');
    if (x.type !== 'f') throw new Error(`${op}: takes a float, not ${x.type}`);
    return fold && folds(x) ? constant(fold(x.value)) : node(op, 'f', [x]);
  };

export const exp = unaryFloat('exp', Math.exp);
export const log = unaryFloat('log');
export const sqrt = unaryFloat('sqrt', Math.sqrt);
export const rsqrt = unaryFloat('rsqrt');
export const tanh = unaryFloat('tanh', Math.tanh);
export const erf = unaryFloat('erf');
export const sin = unaryFloat('sin', Math.sin);
export const cos = unaryFloat('cos', Math.cos);
export const floor = unaryFloat('floor', Math.floor);

export const abs = (a: Expr): Expr => node('abs', a.type, [a]);
export const min = (a: Operand, b: Operand): Expr => {
  const [x, y] = pair('min', a, b);
  return node('min', x.type, [x, y]);
};
export const max = (a: Operand, b: Operand): Expr => {
  const [x, y] = pair('max', a, b);
  return node('max', x.type, [x, y]);
};

const compare =
  (op: ExprOp) =>
  (a: Operand, b: Operand): Expr =>
    node(op, 'b', pair(op, a, b));
export const lt = compare('lt');
export const le = compare('le');
export const eq = compare('eq');
export const ne = compare('ne');
export const gt = (a: Operand, b: Operand): Expr => {
  const [x, y] = pair('gt', a, b);
  return lt(y, x);
};
export const ge = (a: Operand, b: Operand): Expr => {
  const [x, y] = pair('ge', a, b);
  return le(y, x);
};

export const and = (a: Expr, b: Expr): Expr => node('and', 'b', [a, b]);
export const or = (a: Expr, b: Expr): Expr => node('or', 'b', [a, b]);
export const not = (a: Expr): Expr => (a.op === 'not' ? a.args[0] : node('not', 'b', [a]));

export function where(condition: Expr, a: Operand, b: Operand): Expr {
  if (condition.type !== 'b') throw new Error(`where: the condition has type ${condition.type}, expected a bool`);
  const [x, y] = pair('where', a, b);
  return x === y ? x : node('where', x.type, [condition, x, y]);
}

const bits =
  (op: ExprOp) =>
  (a: Operand, b: Operand): Expr => {
    const [x, y] = pair(op, a, b);
    if (x.type !== 'i' && x.type !== 'u') throw new Error(`${op}: takes integers, not ${x.type}`);
    return node(op, x.type, [x, y]);
  };
export const bitAnd = bits('bitAnd');
export const bitOr = bits('bitOr');
export const bitXor = bits('bitXor');
/** Shifts are by a constant below 32; `shr` keeps the sign of an i32 and not of a u32. */
export const shl = (a: Expr, by: number): Expr => node('shl', a.type, [a, constant(by, a.type)]);
export const shr = (a: Expr, by: number): Expr => node('shr', a.type, [a, constant(by, a.type)]);

/** To float; a bool gives 0 or 1. */
export const toF = (a: Expr): Expr => (a.type === 'f' ? a : node('toF', 'f', [a]));
/** To i32: floats are cut toward zero and saturate, NaN gives 0; a u32 keeps its bits. */
export const toI = (a: Expr): Expr => (a.type === 'i' ? a : node('toI', 'i', [a]));
/** To u32: an i32 keeps its bits; floats and bools go through i32. */
export const toU = (a: Expr): Expr => (a.type === 'u' ? a : node('toU', 'u', [toI(a)]));
export const toB = (a: Expr): Expr => (a.type === 'b' ? a : ne(a, 0));

/**
 * The cotangent of the variable `x` of a custom node `self`, given that of the node; the parameters are what the node
 * was given.
 */
export type CustomRule = (self: Expr, g: Expr, x: Expr, ...parameters: Expr[]) => Expr;

const customRules: CustomRule[] = [];

/** Registers a rule, once for each function of the library: custom nodes are hash-consed by its number. */
export function customRule(rule: CustomRule): number {
  return customRules.push(rule) - 1;
}

/**
 * `value`, with its derivative with respect to `x` given by a rule rather than derived: for functions whose symbolic
 * derivative is numerically poor. Emitted as `value`. A rule that refers to the node itself is differentiated through
 * itself again, so that derivatives of every order are as good as the first. Nothing flows to the parameters.
 */
export const custom = (value: Expr, x: Expr, rule: number, parameters: readonly Expr[] = []): Expr =>
  node('custom', 'f', [value, x, ...parameters], rule);

/** The cotangent of a custom node's variable. */
export function customCotangent(e: Expr, g: Expr): Expr {
  const [, x, ...parameters] = e.args;
  return customRules[e.value](e, g, x, ...parameters);
}

/** What a map kernel computes: one expression for each output. */
export interface Program {
  /** Unique among programs: a cache key for compiled kernels. */
  readonly key: string;
  readonly outputs: readonly Expr[];
  /** Type of each argument; arguments that no output uses are 'f'. */
  readonly argTypes: readonly ScalarType[];
  /** Type of each uniform. */
  readonly uniformTypes: readonly ScalarType[];
  /** Every reachable node, arguments of a node before it ('custom' reaches its value only). */
  readonly order: readonly Expr[];
}

const programs = new Map<string, Program>();

/** The (cached) program of some outputs over `argCount` inputs. */
export function program(outputs: readonly Expr[], argCount: number): Program {
  const key = `${argCount}/${outputs.map(o => o.id).join(',')}`;
  let found = programs.get(key);
  if (!found) {
    const order = topological(outputs);
    const argTypes = new Array<ScalarType>(argCount).fill('f');
    const uniformTypes: ScalarType[] = [];
    for (const e of order) {
      if (e.op === 'arg') {
        if (e.value >= argCount) throw new Error(`program: argument ${e.value} of ${argCount}`);
        argTypes[e.value] = e.type;
      }
      if (e.op === 'uniform') uniformTypes[e.value] = e.type;
    }
    for (let i = 0; i < uniformTypes.length; i++) uniformTypes[i] ??= 'f';
    found = { key, outputs, argTypes, uniformTypes, order };
    programs.set(key, found);
  }
  return found;
}

/**
 * The nodes an evaluation needs, each after its arguments. Of a custom node only argument `customArgument` is followed:
 * its value (0, for evaluation) or its variable (1, for differentiation).
 */
export function topological(outputs: readonly Expr[], customArgument: 0 | 1 = 0): Expr[] {
  const seen = new Set<Expr>();
  const order: Expr[] = [];
  const visit = (e: Expr): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (e.op === 'custom') visit(e.args[customArgument]);
    else e.args.forEach(visit);
    order.push(e);
  };
  outputs.forEach(visit);
  return order;
}

/** `e` with every argument and uniform leaf replaced by what `leaf` gives. */
export function substitute(e: Expr, leaf: (e: Expr) => Expr, done = new Map<Expr, Expr>()): Expr {
  const known = done.get(e);
  if (known) return known;
  const args = e.args.map(a => substitute(a, leaf, done));
  const result = e.op === 'arg' || e.op === 'uniform' ? leaf(e) : rebuild(e, args);
  done.set(e, result);
  return result;
}

function rebuild(e: Expr, args: Expr[]): Expr {
  if (args.every((a, i) => a === e.args[i])) return e;
  switch (e.op) {
    case 'add':
      return add(args[0], args[1]);
    case 'sub':
      return sub(args[0], args[1]);
    case 'mul':
      return mul(args[0], args[1]);
    case 'div':
      return div(args[0], args[1]);
    case 'neg':
      return neg(args[0]);
    case 'where':
      return where(args[0], args[1], args[2]);
    default:
      return node(e.op, e.type, args, e.value);
  }
}

/** The numbers of the arguments that occur in `outputs`. */
export function argumentsOf(outputs: readonly Expr[]): ReadonlySet<number> {
  const key = outputs.map(o => o.id).join();
  let found = argumentSets.get(key);
  if (!found)
    argumentSets.set(
      key,
      (found = new Set(
        topological(outputs)
          .filter(e => e.op === 'arg')
          .map(e => e.value),
      )),
    );
  return found;
}
const argumentSets = new Map<string, ReadonlySet<number>>();
