// Programs as WGSL statements over one element. Only expressions become code. What is not finite (a constant -Infinity)
// is no WGSL literal: its bits travel with the call, after the uniforms. Loops, bindings and indices belong to the
// kernels.

import type { Expr, Program, ScalarType } from '../../tensor/expr.js';
import { functionTexts, literal } from './mathWgsl.js';
import { floatBits, held, type Params } from './params.js';

/** What a kernel needs to know of a program before it emits it. */
export interface Facts {
  /** Numbers of the arguments that are read, rising. */
  readonly args: readonly number[];
  readonly usesIndex: boolean;
  /** Constants that are no f32 literal. */
  readonly specials: readonly Expr[];
}

const known = new WeakMap<Program, Facts>();

export function factsOf(program: Program): Facts {
  let found = known.get(program);
  if (!found) {
    const { order } = program;
    found = {
      args: [...new Set(order.filter(e => e.op === 'arg').map(e => e.value))].sort((a, b) => a - b),
      usesIndex: order.some(e => e.op === 'index'),
      specials: order.filter(e => e.op === 'const' && e.type === 'f' && !Number.isFinite(Math.fround(e.value))),
    };
    known.set(program, found);
  }
  return found;
}

/** Positions of the uniforms and of the special constants among the parameters. */
export interface UniformWords {
  readonly uniforms: readonly number[];
  readonly specials: readonly number[];
}

export function addUniforms(params: Params, program: Program, values: readonly number[]): UniformWords {
  return {
    uniforms: program.uniformTypes.map((type, n) =>
      type === 'f' ? params.addFloat(values[n]) : params.add(values[n]),
    ),
    specials: factsOf(program).specials.map(e => params.add(floatBits(e.value))),
  };
}

export const wgslType: Readonly<Record<ScalarType, string>> = { f: 'f32', i: 'i32', u: 'u32', b: 'bool' };

export interface Emitted {
  /** Statements, one a line. */
  readonly body: string;
  /** The name of each output's value. */
  readonly outputs: readonly string[];
  /** The functions that the statements call. */
  readonly functions: string;
}

/**
 * The kernel has named its parameters with `holdWords`; `also` are functions that it calls itself. WGSL lets a device
 * assume that no number is a NaN: what a NaN decides is asked of its bits.
 */
export function emitProgram(
  program: Program,
  words: UniformWords,
  load: (argument: number) => string,
  index: string,
  also: readonly string[] = [],
): Emitted {
  const { specials } = factsOf(program);
  const calls = new Set<string>(also);
  const call = (name: string, x: string): string => {
    calls.add(name);
    return `${name}(${x})`;
  };
  const name = (e: Expr): string => `v${e.id}`;

  const constant = (e: Expr): string => {
    if (e.type === 'b') return e.value ? 'true' : 'false';
    if (e.type === 'u') return `${e.value >>> 0}u`;
    if (e.type === 'i') return `bitcast<i32>(${e.value >>> 0}u)`;
    const special = specials.indexOf(e);
    return special >= 0 ? `bitcast<f32>(${held(words.specials[special])})` : literal(e.value);
  };
  const typed = (type: ScalarType, bits: string): string =>
    type === 'f'
      ? `bitcast<f32>(${bits})`
      : type === 'i'
        ? `bitcast<i32>(${bits})`
        : type === 'b'
          ? `(${bits} != 0u)`
          : bits;

  const mayBeNan = (args: readonly Expr[]): Expr[] =>
    [...new Set(args)].filter(a => a.type === 'f' && a.op !== 'toF' && !(a.op === 'const' && !Number.isNaN(a.value)));
  /** A comparison that a NaN makes false, or true. */
  const compared = (e: Expr, plain: string, withNan = false): string => {
    const tests = mayBeNan(e.args).map(a => call('isNan', name(a)));
    return withNan ? [plain, ...tests].join(' || ') : [plain, ...tests.map(test => `!${test}`)].join(' && ');
  };
  /** min or max of floats: a NaN if either is one. */
  const extremum = (e: Expr): string =>
    mayBeNan(e.args).reduce(
      (rest, a) => `select(${rest}, ${name(a)}, ${call('isNan', name(a))})`,
      `${e.op}(${e.args.map(name).join(', ')})`,
    );

  const code = (e: Expr): string => {
    const [x, y, z] = e.args.map(name);
    const bools = e.args[0]?.type === 'b';
    switch (e.op) {
      case 'const':
        return constant(e);
      case 'arg':
        return load(e.value);
      case 'uniform':
        return typed(e.type, held(words.uniforms[e.value]));
      case 'index':
        return index;
      case 'add':
        return `${x} + ${y}`;
      case 'sub':
        return `${x} - ${y}`;
      case 'mul':
        return `${x} * ${y}`;
      case 'div':
        return `${x} / ${y}`;
      case 'neg':
        return e.type === 'u' ? `0u - ${x}` : `-${x}`;
      case 'min':
        return bools ? `${x} && ${y}` : extremum(e);
      case 'max':
        return bools ? `${x} || ${y}` : extremum(e);
      case 'abs':
        return e.type === 'f' || e.type === 'i' ? `abs(${x})` : x;
      case 'floor':
        return `floor(${x})`;
      case 'sqrt':
        return `sqrt(${x})`;
      case 'rsqrt':
        return `inverseSqrt(${x})`;
      case 'exp':
      case 'log':
      case 'tanh':
      case 'erf':
      case 'sin':
      case 'cos':
        return call(`${e.op}Of`, x);
      case 'lt':
        return bools ? `!${x} && ${y}` : compared(e, `${x} < ${y}`);
      case 'le':
        return bools ? `!${x} || ${y}` : compared(e, `${x} <= ${y}`);
      case 'eq':
        return compared(e, `${x} == ${y}`);
      case 'ne':
        return compared(e, `${x} != ${y}`, true);
      case 'and':
        return `${x} && ${y}`;
      case 'or':
        return `${x} || ${y}`;
      case 'not':
        return `!${x}`;
      case 'where':
        return `select(${z}, ${y}, ${x})`;
      case 'bitAnd':
        return `${x} & ${y}`;
      case 'bitOr':
        return `${x} | ${y}`;
      case 'bitXor':
        return `${x} ^ ${y}`;
      case 'shl':
        return `${x} << ${e.args[1].value}u`;
      case 'shr':
        return `${x} >> ${e.args[1].value}u`;
      case 'toF':
        return `f32(${x})`;
      case 'toI':
        return e.args[0].type === 'f' ? call('toInt', x) : `i32(${x})`;
      case 'toU':
        return `u32(${x})`;
      case 'custom':
        return x;
    }
  };
  const body = program.order.map(e => `let ${name(e)}: ${wgslType[e.type]} = ${code(e)};`).join('\n  ');
  return { body, outputs: program.outputs.map(name), functions: functionTexts(calls) };
}
