// What a chat template may take: it comes with a model's files, from anybody, and Jinja can loop for ever and double a text again and again. The
// library's interpreter, told to count what it makes and to look at the clock; what a template means is the library's business.

import * as jinja from '@huggingface/jinja';
import { canGrow, growsBeyond, itemCharacters, type Value } from './chatTemplateGrowth.js';

/** What is used of the library. Spelt out, because its type files do not resolve under NodeNext. */
export interface Program { readonly type: string }
interface Expression { readonly type: string; readonly property?: { readonly type: string } }
/** `x.property` or `x[property]`. */
interface Member extends Expression {
  readonly object: Expression;
  readonly computed: boolean;
  readonly property: { readonly type: string; readonly value?: unknown };
}
/** A filter by its name, or called with arguments. */
interface Filter extends Expression {
  readonly value?: string;
  readonly callee?: { readonly value?: string };
  readonly args?: readonly Argument[];
}
/** An argument: an expression, `name=value` or `*list`. */
interface Argument extends Expression { readonly value?: unknown; readonly argument?: Expression }
/** An expression whose value is known. */
interface Evaluated extends Expression { readonly type: 'Evaluated'; readonly known: Value }
type Arguments = [positional: Value[], named: Map<string, Value>];
interface Environment { set(name: string, value: unknown): Value }
interface Interpreter {
  run(program: Program): Value;
  /** Of every statement and expression; an absent one is undefined. */
  evaluate(statement: Expression | undefined, environment: Environment): Value;
  evaluateArguments(args: readonly Argument[], environment: Environment): Arguments;
  evaluateMemberExpression(member: Member, environment: Environment): Value;
  applyFilter(operand: Value, filter: Filter, environment: Environment): Value;
}
const { Environment, Interpreter, Template } = jinja as unknown as {
  Environment: new () => Environment;
  Interpreter: new (environment: Environment) => Interpreter;
  Template: new (text: string) => { render(variables: object): string };
};
const { parse, tokenize } = jinja as unknown as { parse(tokens: unknown): Program; tokenize(text: string, options: object): unknown };

export interface RenderLimits {
  /** Milliseconds of one rendering. */
  readonly time: number;
  /** Characters of the text that comes out, and of any on the way. */
  readonly characters: number;
  /** Numbers of one `range`. */
  readonly range: number;
  /** Everything made on the way, kept or not: characters, 64 for an item of a list, 1 for an expression evaluated. */
  readonly work: number;
}

/** Far above any conversation that a model could read: a context of a million tokens is some four million characters. */
export const renderLimits: RenderLimits = { time: 5000, characters: 2 ** 25, range: 100_000, work: 2 ** 29 };

/** A template that takes too much. The message says what it did and what the limit is. */
export class RenderLimitError extends Error {
  override readonly name = 'RenderLimitError';
}

export const outOfTime = (limits: RenderLimits): RenderLimitError => new RenderLimitError(`rendering takes longer than ${limits.time / 1000} s`);

/** Between two looks at the clock. */
const evaluationsAtOnce = 256;
/** What makes new texts and lists; the others only name them. */
const making: ReadonlySet<string> = new Set([
  'BinaryExpression', 'CallExpression', 'CallStatement', 'FilterExpression', 'FilterStatement', 'For', 'If', 'Program', 'ArrayLiteral', 'TupleLiteral',
]);

class BoundedInterpreter extends Interpreter {
  private readonly limits: RenderLimits;
  private readonly deadline: number;
  private work = 0;
  private evaluations = 0;

  constructor(environment: Environment, limits: RenderLimits) {
    super(environment);
    this.limits = limits;
    this.deadline = performance.now() + limits.time;
  }

  override evaluate(statement: Expression | undefined, environment: Environment): Value {
    if (statement?.type === 'Evaluated') return (statement as Evaluated).known;
    // A loop without a body evaluates nothing.
    if (++this.evaluations % evaluationsAtOnce === 0 || statement?.type === 'For') {
      if (performance.now() > this.deadline) throw outOfTime(this.limits);
    }
    const made = super.evaluate(statement, environment);
    this.spend(1);
    // `x[1:]` copies, `x[1]` does not.
    if (statement && (making.has(statement.type) || statement.property?.type === 'SliceExpression')) this.count(made);
    return made;
  }

  /** A filter that may make far more than it is given is measured first. */
  override applyFilter(operand: Value, filter: Filter, environment: Environment): Value {
    const name = filter.value ?? filter.callee?.value ?? '';
    if (!canGrow(name)) return super.applyFilter(operand, filter, environment);
    const args = filter.args?.map(argument => this.knownArgument(argument, environment)) ?? [];
    this.checkGrowth(name, operand, this.evaluateArguments(args, environment));
    return super.applyFilter(operand, filter.args ? { ...filter, args } : filter, environment);
  }

  /** So is such a method, when it is called. */
  override evaluateMemberExpression(member: Member, environment: Environment): Value {
    const object = this.known(member.object, environment);
    const computed = member.computed && member.property.type !== 'SliceExpression';
    const property = computed ? this.known(member.property, environment) : member.property;
    const found = super.evaluateMemberExpression({ ...member, object, property }, environment);
    const name = String('known' in property ? property.known.value : property.value);
    if (found.type !== 'FunctionValue' || !canGrow(name)) return found;
    const method = found.value as (args: Value[], scope: Environment) => Value;
    const value: typeof method = (args, scope) => {
      this.checkGrowth(name, object.known, [args, new Map()]);
      return method(args, scope);
    };
    return Object.assign(Object.create(Object.getPrototypeOf(found) as object) as Value, found, { value });
  }

  /** An expression evaluated once, however often its value is asked for. */
  private known(expression: Expression, environment: Environment): Evaluated {
    return { type: 'Evaluated', known: this.evaluate(expression, environment) };
  }

  private knownArgument(argument: Argument, environment: Environment): Argument {
    const known = (expression: Expression): Evaluated => this.known(expression, environment);
    if (argument.type === 'KeywordArgumentExpression') return { ...argument, value: known(argument.value as Expression) };
    return argument.argument ? { ...argument, argument: known(argument.argument) } : known(argument);
  }

  private checkGrowth(name: string, operand: Value, [positional, named]: Arguments): void {
    const { characters } = this.limits;
    if (!growsBeyond({ name, operand, positional, named }, characters)) return;
    throw new RenderLimitError(`${name} would make more than ${characters} characters, the most that are allowed`);
  }

  private count({ value }: Value): void {
    if (typeof value === 'string') {
      const { characters } = this.limits;
      if (value.length > characters) throw new RenderLimitError(`makes a text of ${value.length} characters, at most ${characters} are allowed`);
      this.spend(value.length);
    } else if (Array.isArray(value)) this.spend(itemCharacters * value.length);
  }

  private spend(work: number): void {
    this.work += work;
    if (this.work > this.limits.work) throw new RenderLimitError(`makes more texts and lists on the way than the limit of ${this.limits.work} characters`);
  }
}

/** `range` as Python has it. */
function boundedRange(limit: number) {
  return (first: number, second?: number, step = 1): number[] => {
    const [start, stop] = second === undefined ? [0, first] : [first, second];
    if (step === 0) throw new Error('range() step must not be zero');
    const count = Math.max(0, Math.ceil((stop - start) / step));
    if (count > limit) throw new RenderLimitError(`asks for a range of ${count} numbers, at most ${limit} are allowed`);
    return Array.from({ length: count }, (_, i) => start + i * step);
  };
}

/** Reads a template as the library's `Template` does. @throws Error where it is none */
export const parseTemplate = (text: string): Program => parse(tokenize(text, { lstrip_blocks: true, trim_blocks: true }));

/** The text of a parsed template. @throws RenderLimitError, or what the template itself raises */
export function renderBounded(program: Program, variables: Readonly<Record<string, unknown>>, limits: RenderLimits): string {
  const environment = new Environment();
  const globals = {
    true: true, false: false, none: null, True: true, False: false, None: null,
    raise_exception: (message: string) => { throw new Error(message); },
    range: boundedRange(limits.range),
    // The library does not give its function away, only templates that know it.
    strftime_now: (format: string) => new Template('{{ strftime_now(format) }}').render({ format }),
  };
  for (const [name, value] of [...Object.entries(globals), ...Object.entries(variables)]) environment.set(name, value);
  return (new BoundedInterpreter(environment, limits).run(program) as { value: string }).value;
}
