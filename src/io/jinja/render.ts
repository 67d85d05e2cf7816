// What statements do: the text of a template, and which parts of it stand in `generation` blocks.

import { checkLength, made, renderLimits, spend, withBudget, type RenderLimits } from './budget.js';
import { TemplateError } from './errors.js';
import { applyFilter, callValue, evaluate, givenBy } from './expressions.js';
import { globals } from './globals.js';
import { loopVariable, type Place } from './loop.js';
import type { Callable as CallableNode, Loop, Statement, Target } from './nodes.js';
import { Scope } from './scope.js';
import { textOf } from './text.js';
import {
  Callable,
  Dict,
  itemsOf,
  Namespace,
  none,
  toValue,
  truth,
  Tuple,
  typeName,
  Undefined,
  type Given,
  type Value,
} from './values.js';

export interface Rendered {
  readonly text: string;
  /** What the template itself marks as the assistant's: places in the text, from and to. */
  readonly generated: readonly (readonly [from: number, to: number])[];
}

/**
 * Renders a parsed template.
 * @param variables JavaScript values, or Maps, bigints and `JsonFloat`s where they would lose something; undefined
 * counts as not given
 * @throws TemplateError for what Python would raise; RenderLimitError for what takes too much
 */
export function render(
  template: readonly Statement[],
  variables: Readonly<Record<string, unknown>>,
  limits: RenderLimits = renderLimits,
): Rendered {
  return withBudget(limits, () => {
    const scope = new Scope();
    for (const [name, value] of globals) scope.set(name, value);
    for (const [name, value] of Object.entries(variables)) if (value !== undefined) scope.set(name, toValue(value));
    const out = new Output();
    run(template, new Scope(scope), out);
    return { text: out.text, generated: out.generated };
  });
}

class Output {
  text = '';
  readonly generated: [number, number][] = [];

  write(text: string): void {
    spend(text.length);
    checkLength(this.text.length + text.length);
    this.text += text;
  }
}

/** How a body ended. */
type End = 'done' | 'break' | 'continue';

function run(statements: readonly Statement[], scope: Scope, out: Output): End {
  for (const statement of statements) {
    spend(1);
    const end = runOne(statement, scope, out);
    if (end !== 'done') return end;
  }
  return 'done';
}

function runOne(statement: Statement, scope: Scope, out: Output): End {
  switch (statement.kind) {
    case 'text':
      out.write(statement.text);
      return 'done';
    case 'print':
      for (const value of statement.values) out.write(textOf(evaluate(value, scope)));
      return 'done';
    case 'if': {
      const branch = statement.branches.find(([test]) => truth(evaluate(test, scope)));
      return run(branch ? branch[1] : statement.otherwise, scope, out);
    }
    case 'for':
      return runLoop(statement, evaluate(statement.over, scope), scope, out, 1);
    case 'set':
      assign(statement.target, evaluate(statement.value, scope), scope);
      return 'done';
    case 'set block': {
      const text = textOfBody(statement.body, new Scope(scope));
      assign(statement.target, statement.filter ? applyFilter(statement.filter, text, scope) : text, scope);
      return 'done';
    }
    case 'with': {
      const inner = new Scope(scope);
      const values = statement.values.map(([, value]) => evaluate(value, scope));
      statement.values.forEach(([target], i) => {
        assign(target, values[i]!, inner);
      });
      return run(statement.body, inner, out);
    }
    case 'macro':
      scope.set(statement.macro.name, macro(statement.macro, scope));
      return 'done';
    case 'call block': {
      const given = givenBy(statement.call.arguments, scope);
      const named = new Map([...given.named, ['caller', macro(statement.caller, scope)] as const]);
      out.write(textOf(callValue(evaluate(statement.call.callee, scope), { positional: given.positional, named })));
      return 'done';
    }
    case 'filter block':
      out.write(textOf(applyFilter(statement.filter, textOfBody(statement.body, new Scope(scope)), scope)));
      return 'done';
    case 'generation': {
      const from = out.text.length;
      const end = run(statement.body, new Scope(scope), out);
      out.generated.push([from, out.text.length]);
      return end;
    }
    case 'break':
    case 'continue':
      return statement.kind;
  }
}

function textOfBody(body: readonly Statement[], scope: Scope): string {
  const out = new Output();
  run(body, scope, out);
  return made(out.text);
}

function runLoop(loop: Loop, over: Value, scope: Scope, out: Output, depth: number): End {
  const items = chosen(loop, itemsOf(over), scope);
  const place: Place = { index: 0, items, depth };
  const recurse = loop.recursive
    ? ({ positional }: Given): Value => {
        const inner = new Output();
        runLoop(loop, positional[0] ?? none, scope, inner, depth + 1);
        return inner.text;
      }
    : undefined;
  const variable = loopVariable(place, recurse);
  // As Jinja has it, a turn that continues or breaks does not count as one for `else`.
  let completed = false;
  for (; place.index < items.length; place.index++) {
    spend(1);
    const inner = new Scope(scope);
    inner.set('loop', variable);
    assign(loop.target, items[place.index]!, inner);
    const end = run(loop.body, inner, out);
    if (end === 'break') break;
    completed ||= end === 'done';
  }
  return completed ? 'done' : run(loop.otherwise, new Scope(scope), out);
}

function chosen({ test, target }: Loop, items: Value[], scope: Scope): Value[] {
  if (!test) return items;
  return items.filter(item => {
    const inner = new Scope(scope);
    assign(target, item, inner);
    return truth(evaluate(test, inner));
  });
}

function assign(target: Target, value: Value, scope: Scope): void {
  if (target.kind === 'name') {
    scope.set(target.name, value);
  } else if (target.kind === 'namespace') {
    const space = scope.get(target.name);
    if (!(space instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object');
    space.attributes.set(target.attribute, value);
  } else {
    if (value instanceof Undefined || value === none || typeof value === 'bigint')
      throw new TemplateError(`cannot unpack non-iterable ${typeName(value)} object`);
    const items = itemsOf(value);
    const { length } = target.items;
    if (items.length > length) throw new TemplateError(`too many values to unpack (expected ${length})`);
    if (items.length < length)
      throw new TemplateError(`not enough values to unpack (expected ${length}, got ${items.length})`);
    target.items.forEach((one, i) => {
      assign(one, items[i]!, scope);
    });
  }
}

/** A macro sees what stands around its definition, not around its call. */
function macro(node: CallableNode, defined: Scope): Callable {
  return new Callable(node.name, ({ positional, named }) => {
    const scope = new Scope(defined);
    const rest = new Map(named);
    const takes = (name: string): boolean => node.reads.has(name);
    if (!takes('kwargs')) checkNames(node, positional.length, rest);
    if (positional.length > node.parameters.length && !takes('varargs')) {
      throw new TemplateError(`macro '${node.name}' takes not more than ${node.parameters.length} argument(s)`);
    }
    for (const [i, { name, otherwise }] of node.parameters.entries()) {
      const value = i < positional.length ? positional[i] : rest.get(name);
      if (i >= positional.length) rest.delete(name);
      if (value !== undefined) scope.set(name, value);
      else
        scope.set(name, otherwise ? evaluate(otherwise, scope) : new Undefined(`parameter '${name}' was not provided`));
    }
    scope.set('caller', rest.get('caller') ?? new Undefined('No caller defined'));
    rest.delete('caller');
    if (takes('varargs')) scope.set('varargs', new Tuple(positional.slice(node.parameters.length)));
    if (takes('kwargs')) scope.set('kwargs', Dict.of(rest));
    return textOfBody(node.body, scope);
  });
}

/** @param placed how many of the parameters are given by position */
function checkNames(
  { name, parameters, reads }: CallableNode,
  placed: number,
  named: ReadonlyMap<string, Value>,
): void {
  const open = parameters.slice(placed);
  for (const key of named.keys()) {
    if (open.some(parameter => parameter.name === key) || (key === 'caller' && reads.has('caller'))) continue;
    throw new TemplateError(`macro '${name}' takes no keyword argument '${key}'`);
  }
}
