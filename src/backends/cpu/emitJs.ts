// Programs as plain JavaScript: a generated function where the page allows it, an interpreter where a content security
// policy forbids `new Function`. Floats are computed in f64 whatever they are stored in. Only expressions become code:
// no text from outside.

import type { Expr, Program } from '../../tensor/expr.js';
import { erf } from './erf.js';

/** One element: argument values, uniforms, the element's number; writes the outputs. */
export type Evaluate = (args: Float64Array, uniforms: readonly number[], index: number, out: Float64Array) => void;

const helpers = {
  erf,
  /** Float to i32: toward zero, saturating, NaN to 0, as in WASM and WGSL. */
  truncate: (x: number): number => (Number.isNaN(x) ? 0 : Math.max(-2147483648, Math.min(2147483647, Math.trunc(x)))),
};

const wrap = (e: Expr, code: string): string =>
  e.type === 'i' ? `(${code}) | 0` : e.type === 'u' ? `(${code}) >>> 0` : code;
const multiply = (e: Expr, x: string, y: string): string =>
  e.type === 'f' ? `${x} * ${y}` : wrap(e, `Math.imul(${x}, ${y})`);

function code(e: Expr, v: (e: Expr) => string): string {
  const [x, y, z] = e.args.map(v);
  switch (e.op) {
    case 'const':
      return e.type === 'b' ? String(e.value ? 1 : 0) : Object.is(e.value, -0) ? '-0' : String(e.value);
    case 'arg':
      return e.type === 'u' ? `args[${e.value}] >>> 0` : `args[${e.value}]`;
    case 'uniform':
      return wrap(e, `uniforms[${e.value}]`);
    case 'index':
      return 'index >>> 0';
    case 'add':
      return wrap(e, `${x} + ${y}`);
    case 'sub':
      return wrap(e, `${x} - ${y}`);
    case 'mul':
      return multiply(e, x, y);
    case 'div':
      return `${x} / ${y}`;
    case 'neg':
      return wrap(e, `-${x}`);
    case 'min':
      return `Math.min(${x}, ${y})`;
    case 'max':
      return `Math.max(${x}, ${y})`;
    case 'abs':
      return wrap(e, `Math.abs(${x})`);
    case 'floor':
    case 'exp':
    case 'log':
    case 'sqrt':
    case 'tanh':
    case 'sin':
    case 'cos':
      return `Math.${e.op}(${x})`;
    case 'rsqrt':
      return `1 / Math.sqrt(${x})`;
    case 'erf':
      return `helpers.erf(${x})`;
    case 'lt':
      return `${x} < ${y} ? 1 : 0`;
    case 'le':
      return `${x} <= ${y} ? 1 : 0`;
    case 'eq':
      return `${x} === ${y} ? 1 : 0`;
    case 'ne':
      return `${x} !== ${y} ? 1 : 0`;
    case 'and':
      return `${x} & ${y}`;
    case 'or':
      return `${x} | ${y}`;
    case 'not':
      return `1 - ${x}`;
    case 'where':
      return `${x} ? ${y} : ${z}`;
    case 'bitAnd':
      return wrap(e, `${x} & ${y}`);
    case 'bitOr':
      return wrap(e, `${x} | ${y}`);
    case 'bitXor':
      return wrap(e, `${x} ^ ${y}`);
    case 'shl':
      return wrap(e, `${x} << ${y}`);
    case 'shr':
      return e.type === 'u' ? `${x} >>> ${y}` : `${x} >> ${y}`;
    case 'toF':
      return x;
    case 'toI':
      return e.args[0].type === 'f' ? `helpers.truncate(${x})` : `${x} | 0`;
    case 'toU':
      return `${x} >>> 0`;
    case 'custom':
      return x;
  }
}

function generate(program: Program): Evaluate {
  const name = (e: Expr): string => `v${e.id}`;
  const lines = program.order.map(e => `const ${name(e)} = ${code(e, name)};`);
  program.outputs.forEach((o, j) => lines.push(`out[${j}] = ${name(o)};`));
  const build = new Function('helpers', `return (args, uniforms, index, out) => {\n${lines.join('\n')}\n};`) as (
    h: typeof helpers,
  ) => Evaluate;
  return build(helpers);
}

/** The same semantics, node by node: slow, needs no code generation. */
export function interpret(program: Program): Evaluate {
  const slot = new Map(program.order.map((e, i) => [e, i]));
  const values = new Float64Array(program.order.length);
  const steps = program.order.map(e => {
    const at = e.args.map(a => slot.get(a) ?? -1);
    const get = (k: number): number => values[at[k]];
    const int = (n: number): number => (e.type === 'i' ? n | 0 : e.type === 'u' ? n >>> 0 : n);
    const table: Record<Expr['op'], (args: Float64Array, uniforms: readonly number[], index: number) => number> = {
      const: () => (e.type === 'b' ? Number(e.value !== 0) : e.value),
      arg: args => (e.type === 'u' ? args[e.value] >>> 0 : args[e.value]),
      uniform: (_, uniforms) => int(uniforms[e.value]),
      index: (_, __, index) => index >>> 0,
      add: () => int(get(0) + get(1)),
      sub: () => int(get(0) - get(1)),
      mul: () => (e.type === 'f' ? get(0) * get(1) : int(Math.imul(get(0), get(1)))),
      div: () => get(0) / get(1),
      neg: () => int(-get(0)),
      min: () => Math.min(get(0), get(1)),
      max: () => Math.max(get(0), get(1)),
      abs: () => int(Math.abs(get(0))),
      floor: () => Math.floor(get(0)),
      exp: () => Math.exp(get(0)),
      log: () => Math.log(get(0)),
      sqrt: () => Math.sqrt(get(0)),
      rsqrt: () => 1 / Math.sqrt(get(0)),
      tanh: () => Math.tanh(get(0)),
      erf: () => erf(get(0)),
      sin: () => Math.sin(get(0)),
      cos: () => Math.cos(get(0)),
      lt: () => Number(get(0) < get(1)),
      le: () => Number(get(0) <= get(1)),
      eq: () => Number(get(0) === get(1)),
      ne: () => Number(get(0) !== get(1)),
      and: () => get(0) & get(1),
      or: () => get(0) | get(1),
      not: () => 1 - get(0),
      where: () => (get(0) ? get(1) : get(2)),
      bitAnd: () => int(get(0) & get(1)),
      bitOr: () => int(get(0) | get(1)),
      bitXor: () => int(get(0) ^ get(1)),
      shl: () => int(get(0) << get(1)),
      shr: () => (e.type === 'u' ? get(0) >>> get(1) : get(0) >> get(1)),
      toF: () => get(0),
      toI: () => (e.args[0].type === 'f' ? helpers.truncate(get(0)) : get(0) | 0),
      toU: () => get(0) >>> 0,
      custom: () => get(0),
    };
    return table[e.op];
  });
  const outputs = program.outputs.map(o => slot.get(o) ?? -1);
  return (args, uniforms, index, out) => {
    for (let i = 0; i < steps.length; i++) values[i] = steps[i](args, uniforms, index);
    outputs.forEach((at, j) => (out[j] = values[at]));
  };
}

const compiled = new Map<string, Evaluate>();
let mayGenerate: boolean | undefined;

export function evaluator(program: Program): Evaluate {
  let found = compiled.get(program.key);
  if (!found) {
    if (mayGenerate === undefined) {
      try {
        new Function('return 0');
        mayGenerate = true;
      } catch {
        mayGenerate = false;
      }
    }
    found = mayGenerate ? generate(program) : interpret(program);
    compiled.set(program.key, found);
  }
  return found;
}
