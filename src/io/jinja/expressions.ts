// What expressions mean.

import { made, spend, spendItems } from './budget.js';
import { TemplateError } from './errors.js';
import { filterNamed, type Environment } from './filters.js';
import { callableOf } from './globals.js';
import type { Arguments, Expression, FilterExpression } from './nodes.js';
import { attributeOf, binary, compares, itemOf, negative, positive, sliceOf } from './operators.js';
import type { Scope } from './scope.js';
import { testNamed } from './tests.js';
import { textOf } from './text.js';
import { Dict, itemsOf, none, truth, Tuple, Undefined, type Given, type Value } from './values.js';

const environment: Environment = {
  filter: (name, value, given) => filterNamed(name)(value, given, environment),
  test: (name, value, given) => testNamed(name)(value, given, environment),
};

export function evaluate(node: Expression, scope: Scope): Value {
  spend(1);
  switch (node.kind) {
    case 'constant':
      return node.value;
    case 'name':
      return scope.get(node.name) ?? new Undefined(`'${node.name}' is undefined`);
    case 'list':
      return evaluateAll(node.items, scope);
    case 'tuple':
      return new Tuple(evaluateAll(node.items, scope));
    case 'concat':
      return node.items.reduce((text, item) => made(text + textOf(evaluate(item, scope))), '');
    case 'dict':
      return Dict.of(node.items.map(([key, value]) => [evaluate(key, scope), evaluate(value, scope)]));
    case 'condition': {
      if (truth(evaluate(node.test, scope))) return evaluate(node.then, scope);
      if (node.otherwise) return evaluate(node.otherwise, scope);
      return new Undefined('the inline if-expression evaluated to false and no else section was defined.');
    }
    case 'and': {
      const left = evaluate(node.left, scope);
      return truth(left) ? evaluate(node.right, scope) : left;
    }
    case 'or': {
      const left = evaluate(node.left, scope);
      return truth(left) ? left : evaluate(node.right, scope);
    }
    case 'not':
      return !truth(evaluate(node.operand, scope));
    case 'negative':
      return negative(evaluate(node.operand, scope));
    case 'positive':
      return positive(evaluate(node.operand, scope));
    case 'binary':
      return binary(node.operator, evaluate(node.left, scope), evaluate(node.right, scope));
    case 'comparison': {
      let left = evaluate(node.first, scope);
      for (const [operator, operand] of node.rest) {
        const right = evaluate(operand, scope);
        if (!compares(operator, left, right)) return false;
        left = right;
      }
      return true;
    }
    case 'attribute':
      return attributeOf(evaluate(node.target, scope), node.name);
    case 'item':
      return itemOf(evaluate(node.target, scope), evaluate(node.index, scope));
    case 'slice':
      return sliceOf(
        evaluate(node.target, scope),
        node.bounds.map(bound => (bound ? evaluate(bound, scope) : none)),
      );
    case 'call':
      return callValue(evaluate(node.callee, scope), givenBy(node.arguments, scope));
    case 'filter':
      return applyFilter(node, undefined, scope);
    case 'test':
      return environment.test(node.name, evaluate(node.target, scope), givenBy(node.arguments, scope));
  }
}

function evaluateAll(items: readonly Expression[], scope: Scope): Value[] {
  spendItems(items.length);
  return items.map(item => evaluate(item, scope));
}

/** @param block the text of the block that the innermost filter is applied to */
export function applyFilter(node: FilterExpression, block: string | undefined, scope: Scope): Value {
  const { target } = node;
  const value =
    target?.kind === 'filter' && block !== undefined
      ? applyFilter(target, block, scope)
      : target
        ? evaluate(target, scope)
        : block!;
  return environment.filter(node.name, value, givenBy(node.arguments, scope));
}

export function callValue(callee: Value, given: Given): Value {
  if (callee instanceof Undefined) callee.fail();
  return callableOf(callee).call(given);
}

export function givenBy({ positional, named, rest, namedRest }: Arguments, scope: Scope): Given {
  const values = positional.map(value => evaluate(value, scope));
  const names = new Map(named.map(([name, value]) => [name, evaluate(value, scope)]));
  if (rest) values.push(...itemsOf(evaluate(rest, scope)));
  if (namedRest) {
    const mapping = evaluate(namedRest, scope);
    if (!(mapping instanceof Dict)) throw new TemplateError('argument after ** must be a mapping');
    for (const [key, value] of mapping.entries()) names.set(textOf(key), value);
  }
  return { positional: values, named: names };
}
