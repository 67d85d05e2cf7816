// Tokens become expressions, with Jinja's precedence: conditions, or, and, not, comparisons, sums, ~, products, powers,
// signs, then what follows a value (attributes, items, calls, filters, tests).

import { TemplateSyntaxError } from './errors.js';
import type { Token } from './lexer.js';
import { none, type None } from './values.js';
import type { Arguments, BinaryOperator, ComparisonOperator, Expression, FilterExpression } from './nodes.js';

const constants: Readonly<Record<string, boolean | None>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none,
  None: none,
};
const comparisons: readonly string[] = ['==', '!=', '<', '<=', '>', '>='];
const noArguments: Arguments = { positional: [], named: [] };

interface TupleOptions {
  /** In brackets, where nothing is a tuple too. */
  readonly explicit?: boolean;
  readonly withCondition?: boolean;
  /** Words that end it. */
  readonly endsAt?: readonly string[];
}

export class ExpressionParser {
  /** For each body that is being parsed, the names it looks up. */
  protected readonly reading: Set<string>[] = [];
  private readonly tokens: readonly Token[];
  private readonly source: string;
  private index = 0;

  constructor(tokens: readonly Token[], source: string) {
    this.tokens = tokens;
    this.source = source;
  }

  protected get current(): Token {
    return this.tokens[this.index]!;
  }

  protected next(): Token {
    const token = this.current;
    if (token.type !== 'end') this.index++;
    return token;
  }

  protected isOperator(...values: readonly string[]): boolean {
    return this.current.type === 'operator' && values.includes(this.current.value);
  }

  protected isName(...values: readonly string[]): boolean {
    return this.current.type === 'name' && values.includes(this.current.value);
  }

  /** Passes over an operator or a word if it comes next. */
  protected skipOperator(value: string): boolean {
    const comes = this.isOperator(value);
    if (comes) this.index++;
    return comes;
  }

  protected skipName(value: string): boolean {
    const comes = this.isName(value);
    if (comes) this.index++;
    return comes;
  }

  protected expectOperator(value: string): void {
    if (!this.skipOperator(value)) this.fail(`expected token '${value}', got '${this.describe()}'`);
  }

  protected expect(type: Token['type']): Token {
    if (this.current.type !== type) this.fail(`expected ${type.replace('_', ' ')}, got '${this.describe()}'`);
    return this.next();
  }

  protected fail(message: string): never {
    throw new TemplateSyntaxError(message, this.source, this.current.line);
  }

  private describe(): string {
    const { type, value } = this.current;
    return value === '' ? type.replace('_', ' ') : value;
  }

  expression(withCondition = true): Expression {
    return withCondition ? this.condition() : this.or();
  }

  private condition(): Expression {
    let then = this.or();
    while (this.skipName('if')) {
      const test = this.or();
      then = { kind: 'condition', test, then, otherwise: this.skipName('else') ? this.condition() : undefined };
    }
    return then;
  }

  private or(): Expression {
    let left = this.and();
    while (this.skipName('or')) left = { kind: 'or', left, right: this.and() };
    return left;
  }

  private and(): Expression {
    let left = this.not();
    while (this.skipName('and')) left = { kind: 'and', left, right: this.not() };
    return left;
  }

  private not(): Expression {
    return this.skipName('not') ? { kind: 'not', operand: this.not() } : this.comparison();
  }

  private comparison(): Expression {
    const first = this.sum();
    const rest: [ComparisonOperator, Expression][] = [];
    for (;;) {
      const operator = this.comparisonOperator();
      if (operator === undefined) break;
      rest.push([operator, this.sum()]);
    }
    return rest.length === 0 ? first : { kind: 'comparison', first, rest };
  }

  private comparisonOperator(): ComparisonOperator | undefined {
    if (this.isOperator(...comparisons)) return this.next().value as ComparisonOperator;
    if (this.skipName('in')) return 'in';
    const after = this.tokens[this.index + 1];
    if (!this.isName('not') || after?.type !== 'name' || after.value !== 'in') return undefined;
    this.index += 2;
    return 'not in';
  }

  private binary(operators: readonly BinaryOperator[], operand: () => Expression): Expression {
    let left = operand();
    while (this.isOperator(...operators))
      left = { kind: 'binary', operator: this.next().value as BinaryOperator, left, right: operand() };
    return left;
  }

  private sum(): Expression {
    return this.binary(['+', '-'], () => this.concatenation());
  }

  private concatenation(): Expression {
    const items = [this.product()];
    while (this.skipOperator('~')) items.push(this.product());
    return items.length === 1 ? items[0]! : { kind: 'concat', items };
  }

  private product(): Expression {
    return this.binary(['*', '/', '//', '%'], () => this.binary(['**'], () => this.signed()));
  }

  private signed(withFilters = true): Expression {
    let value: Expression;
    if (this.skipOperator('-')) value = { kind: 'negative', operand: this.signed(false) };
    else if (this.skipOperator('+')) value = { kind: 'positive', operand: this.signed(false) };
    else value = this.primary();
    value = this.postfix(value);
    return withFilters ? this.filtersAndTests(value) : value;
  }

  protected primary(): Expression {
    const token = this.next();
    switch (token.type) {
      case 'name':
        if (Object.hasOwn(constants, token.value)) return { kind: 'constant', value: constants[token.value]! };
        for (const names of this.reading) names.add(token.value);
        return { kind: 'name', name: token.value };
      case 'string': {
        let value = token.value;
        while (this.current.type === 'string') value += this.next().value;
        return { kind: 'constant', value };
      }
      case 'integer':
        return { kind: 'constant', value: BigInt(token.value.replaceAll('_', '').replace(/^0+(?=0$)/, '')) };
      case 'float':
        return { kind: 'constant', value: Number(token.value.replaceAll('_', '')) };
      case 'operator':
        if (token.value === '(') {
          const value = this.tuple({ explicit: true });
          this.expectOperator(')');
          return value;
        }
        if (token.value === '[') return { kind: 'list', items: this.until(']', () => this.expression()) };
        if (token.value === '{') return { kind: 'dict', items: this.until('}', () => this.dictItem()) };
    }
    this.index--;
    return this.fail(`unexpected '${this.describe()}'`);
  }

  private dictItem(): [Expression, Expression] {
    const key = this.expression();
    this.expectOperator(':');
    return [key, this.expression()];
  }

  /** Items with commas between them, and maybe one behind the last. */
  private until<T>(close: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.isOperator(close)) {
      if (items.length > 0) this.expectOperator(',');
      if (this.isOperator(close)) break;
      items.push(item());
    }
    this.expectOperator(close);
    return items;
  }

  /** One expression, or several with commas between them, which are a tuple. */
  protected tuple({ explicit = false, withCondition = true, endsAt = [] }: TupleOptions = {}): Expression {
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) this.expectOperator(',');
      if (
        this.current.type === 'variable_end' ||
        this.current.type === 'block_end' ||
        this.isOperator(')') ||
        this.isName(...endsAt)
      )
        break;
      items.push(this.expression(withCondition));
      if (!this.isOperator(',')) break;
      isTuple = true;
    }
    if (!isTuple && items.length === 1) return items[0]!;
    if (!isTuple && !explicit) this.fail(`Expected an expression, got '${this.describe()}'`);
    return { kind: 'tuple', items };
  }

  private postfix(value: Expression): Expression {
    let target = value;
    for (;;) {
      if (this.skipOperator('.')) target = this.attribute(target);
      else if (this.skipOperator('[')) target = this.subscript(target);
      else if (this.isOperator('(')) target = { kind: 'call', callee: target, arguments: this.arguments() };
      else return target;
    }
  }

  private attribute(target: Expression): Expression {
    const token = this.next();
    if (token.type === 'name') return { kind: 'attribute', target, name: token.value };
    if (token.type === 'integer')
      return { kind: 'item', target, index: { kind: 'constant', value: BigInt(token.value) } };
    this.index--;
    return this.fail('expected name or number');
  }

  private subscript(target: Expression): Expression {
    const indices: (Expression | { bounds: (Expression | undefined)[] })[] = [];
    while (!this.isOperator(']')) {
      if (indices.length > 0) this.expectOperator(',');
      indices.push(this.indexOrSlice());
    }
    this.expectOperator(']');
    const [only] = indices;
    if (only === undefined) this.fail('expected an index');
    if (indices.length === 1)
      return 'bounds' in only ? { kind: 'slice', target, bounds: only.bounds } : { kind: 'item', target, index: only };
    const items = indices.map(index =>
      'bounds' in index ? this.fail('a slice cannot be one of several indices') : index,
    );
    return { kind: 'item', target, index: { kind: 'tuple', items } };
  }

  private indexOrSlice(): Expression | { bounds: (Expression | undefined)[] } {
    const bounds: (Expression | undefined)[] = [undefined, undefined, undefined];
    let place = 0;
    for (; ; place++) {
      if (!this.isOperator(':', ']', ',')) bounds[place] = this.expression();
      if (place === 2 || !this.skipOperator(':')) break;
    }
    return place === 0 ? (bounds[0] ?? this.fail('expected an index')) : { bounds };
  }

  protected filtersAndTests(value: Expression): Expression {
    let target = value;
    for (;;) {
      if (this.isOperator('|')) target = this.filters(target)!;
      else if (this.skipName('is')) target = this.test(target);
      else if (this.isOperator('(')) target = { kind: 'call', callee: target, arguments: this.arguments() };
      else return target;
    }
  }

  /** `| a | b(1)`; within a block the first one has no bar. */
  protected filters(target: Expression | undefined, startsInline = false): FilterExpression | undefined {
    let filtered = target;
    for (let inline = startsInline; inline || this.skipOperator('|'); inline = false) {
      const name = this.dottedName();
      filtered = {
        kind: 'filter',
        target: filtered,
        name,
        arguments: this.isOperator('(') ? this.arguments() : noArguments,
      };
    }
    return filtered as FilterExpression | undefined;
  }

  private test(target: Expression): Expression {
    const negated = this.skipName('not');
    const name = this.dottedName();
    let given = noArguments;
    const { type } = this.current;
    if (this.isOperator('(')) given = this.arguments();
    else if (
      (type === 'name' && !this.isName('else', 'or', 'and')) ||
      type === 'string' ||
      type === 'integer' ||
      type === 'float' ||
      this.isOperator('[', '{')
    ) {
      if (this.isName('is')) this.fail('You cannot chain multiple tests with is');
      given = { positional: [this.postfix(this.primary())], named: [] };
    }
    const test: Expression = { kind: 'test', target, name, arguments: given };
    return negated ? { kind: 'not', operand: test } : test;
  }

  private dottedName(): string {
    let name = this.expect('name').value;
    while (this.skipOperator('.')) name += `.${this.expect('name').value}`;
    return name;
  }

  protected arguments(): Arguments {
    const positional: Expression[] = [];
    const named: [string, Expression][] = [];
    let rest: Expression | undefined;
    let namedRest: Expression | undefined;
    this.expectOperator('(');
    this.until(')', () => {
      if (this.skipOperator('*')) {
        if (rest || namedRest) this.fail('invalid syntax for function call expression');
        rest = this.expression();
      } else if (this.skipOperator('**')) {
        if (namedRest) this.fail('invalid syntax for function call expression');
        namedRest = this.expression();
      } else if (
        this.current.type === 'name' &&
        this.tokens[this.index + 1]?.type === 'operator' &&
        this.tokens[this.index + 1]?.value === '='
      ) {
        if (namedRest) this.fail('invalid syntax for function call expression');
        const name = this.next().value;
        this.index++;
        named.push([name, this.expression()]);
      } else {
        if (rest || namedRest || named.length > 0) this.fail('invalid syntax for function call expression');
        positional.push(this.expression());
      }
    });
    return { positional, named, rest, namedRest };
  }
}
