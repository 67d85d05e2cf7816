// Tokens become statements: what transformers' environment knows, with its `generation` blocks and the loop controls,
// and no loading of other templates.

import { tokenize, type Token } from './lexer.js';
import type { Callable, Expression, Parameter, Statement, Target } from './nodes.js';
import { ExpressionParser } from './parseExpression.js';

/** The statements of a template. @throws TemplateSyntaxError naming the line */
export function parseTemplate(source: string): readonly Statement[] {
  return new Parser(tokenize(source), source).template();
}

class Parser extends ExpressionParser {
  private loops = 0;

  template(): Statement[] {
    const statements = this.statements([]);
    if (this.current.type !== 'end') this.fail(`unexpected '${this.current.value}'`);
    return statements;
  }

  /** Up to a tag that begins with one of these words, which is left to be read. */
  private statements(ends: readonly string[]): Statement[] {
    const out: Statement[] = [];
    for (;;) {
      const token: Token = this.current;
      if (token.type === 'data') out.push({ kind: 'text', text: this.next().value });
      else if (token.type === 'variable_begin') {
        this.next();
        out.push({ kind: 'print', values: [this.tuple()] });
        this.expect('variable_end');
      } else if (token.type === 'block_begin') {
        this.next();
        if (this.isName(...ends)) return out;
        const statement = this.statement(this.expect('name').value);
        if (statement) out.push(statement);
        this.expect('block_end');
      } else if (ends.length > 0)
        this.fail(`Unexpected end of template. Jinja was looking for the following tags: '${ends.join("' or '")}'`);
      else return out;
    }
  }

  /** The body of a block up to its end, which is read but for the closing of its tag. */
  private body(end: string): Statement[] {
    this.expect('block_end');
    const body = this.statements([end]);
    this.next();
    return body;
  }

  private statement(word: string): Statement {
    switch (word) {
      case 'if':
        return this.if();
      case 'for':
        return this.for();
      case 'set':
        return this.set();
      case 'with':
        return this.with();
      case 'macro':
        return { kind: 'macro', macro: this.callable(this.expect('name').value, 'endmacro') };
      case 'call':
        return this.callBlock();
      case 'filter':
        return { kind: 'filter block', filter: this.filters(undefined, true)!, body: this.body('endfilter') };
      case 'generation':
        return { kind: 'generation', body: this.body('endgeneration') };
      case 'print':
        return this.print();
      case 'break':
      case 'continue':
        if (this.loops === 0) this.fail(`'${word}' outside of a loop`);
        return { kind: word };
      case 'extends':
      case 'include':
      case 'import':
      case 'from':
      case 'block':
        return this.fail(`{% ${word} %} is not supported: a chat template stands alone`);
      default:
        return this.fail(`Encountered unknown tag '${word}'.`);
    }
  }

  private print(): Statement {
    const values: Expression[] = [];
    while (this.current.type !== 'block_end') {
      if (values.length > 0) this.expectOperator(',');
      values.push(this.expression());
    }
    return { kind: 'print', values };
  }

  private if(): Statement {
    const branches: [Expression, Statement[]][] = [];
    for (;;) {
      const test = this.tuple({ withCondition: false });
      this.expect('block_end');
      branches.push([test, this.statements(['elif', 'else', 'endif'])]);
      const { value } = this.next();
      if (value === 'elif') continue;
      return { kind: 'if', branches, otherwise: value === 'else' ? this.body('endif') : [] };
    }
  }

  private for(): Statement {
    const target = this.target(['in']);
    if (!this.skipName('in')) this.fail("expected 'in'");
    const over = this.tuple({ withCondition: false, endsAt: ['recursive'] });
    const test = this.skipName('if') ? this.expression() : undefined;
    const recursive = this.skipName('recursive');
    this.expect('block_end');
    this.loops++;
    const body = this.statements(['endfor', 'else']);
    this.loops--;
    const otherwise = this.next().value === 'else' ? this.body('endfor') : [];
    return { kind: 'for', target, over, test, recursive, body, otherwise };
  }

  private set(): Statement {
    const target = this.target([]);
    if (this.skipOperator('=')) return { kind: 'set', target, value: this.tuple() };
    return { kind: 'set block', target, filter: this.filters(undefined), body: this.body('endset') };
  }

  private with(): Statement {
    const values: [Target, Expression][] = [];
    while (this.current.type !== 'block_end') {
      if (values.length > 0) this.expectOperator(',');
      const target = this.singleTarget();
      this.expectOperator('=');
      values.push([target, this.expression()]);
    }
    return { kind: 'with', values, body: this.body('endwith') };
  }

  private callBlock(): Statement {
    const parameters = this.isOperator('(') ? this.parameters() : [];
    const call = this.expression();
    if (call.kind !== 'call') return this.fail('expected call');
    return { kind: 'call block', call, caller: this.callable('caller', 'endcall', parameters) };
  }

  private callable(name: string, end: string, given?: readonly Parameter[]): Callable {
    const reads = new Set<string>();
    this.reading.push(reads);
    const outerLoops = this.loops;
    this.loops = 0;
    const parameters = given ?? this.parameters();
    const body = this.body(end);
    this.loops = outerLoops;
    this.reading.pop();
    return { name, parameters, body, reads };
  }

  private parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.expectOperator('(');
    while (!this.isOperator(')')) {
      if (parameters.length > 0) this.expectOperator(',');
      const name = this.expect('name').value;
      const otherwise = this.skipOperator('=') ? this.expression() : undefined;
      if (!otherwise && parameters.at(-1)?.otherwise) this.fail('non-default argument follows default argument');
      parameters.push({ name, otherwise });
    }
    this.expectOperator(')');
    return parameters;
  }

  /** What a loop or a set assigns to: a name, an attribute of a namespace, or several with commas between them. */
  private target(endsAt: readonly string[]): Target {
    const first = this.singleTarget();
    if (!this.isOperator(',')) return first;
    const items = [first];
    while (this.skipOperator(',')) {
      if (this.isOperator('=') || this.isName(...endsAt) || this.current.type === 'block_end') break;
      items.push(this.singleTarget());
    }
    return { kind: 'tuple', items };
  }

  private singleTarget(): Target {
    if (this.skipOperator('(')) {
      const inner = this.target([]);
      this.expectOperator(')');
      return inner;
    }
    const name = this.expect('name').value;
    if (['true', 'false', 'none', 'True', 'False', 'None'].includes(name)) this.fail(`can't assign to '${name}'`);
    return this.skipOperator('.')
      ? { kind: 'namespace', name, attribute: this.expect('name').value }
      : { kind: 'name', name };
  }
}
