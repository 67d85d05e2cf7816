// Generated mutants: every place of a source file where one small change makes another program. What only words a
// message, a type or a name for people is left out. Nothing here runs anything.

import ts from 'typescript';

export interface Mutation {
  /** The change in a few words, as `a < b` to `a <= b`. */
  readonly name: string;
  /** Characters of the file that are replaced. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
  /** Line of the change, from 1. */
  readonly line: number;
  /** Where the body of the innermost function around it begins, or null at the top level of the file. */
  readonly body: number | null;
}

const swaps: Readonly<Record<string, readonly string[]>> = {
  '+': ['-'],
  '-': ['+'],
  '*': ['/'],
  '/': ['*'],
  '%': ['*'],
  '<': ['<=', '>='],
  '<=': ['<', '>'],
  '>': ['>=', '<='],
  '>=': ['>', '<'],
  '===': ['!=='],
  '!==': ['==='],
  '&&': ['||'],
  '||': ['&&'],
  '??': ['&&'],
  '+=': ['-='],
  '-=': ['+='],
  '*=': ['/='],
};
const calls: Readonly<Record<string, string>> = {
  min: 'max',
  max: 'min',
  floor: 'ceil',
  ceil: 'floor',
  some: 'every',
  every: 'some',
  startsWith: 'endsWith',
  endsWith: 'startsWith',
  push: 'unshift',
  indexOf: 'lastIndexOf',
  trimStart: 'trimEnd',
  find: 'findLast',
};
/** Calls whose result or effect can be left out: x.slice(1) becomes x. */
const dropped = new Set([
  'slice',
  'filter',
  'sort',
  'toSorted',
  'reverse',
  'trim',
  'concat',
  'toLowerCase',
  'clone',
  'detach',
]);

/** Where a text is only read by people: the arguments of an error or of what is shown. */
function isMessage(node: ts.Node): boolean {
  for (let up: ts.Node = node; ; up = up.parent) {
    if (ts.isThrowStatement(up)) return true;
    if (ts.isNewExpression(up) && /Error$|Interrupted$/.test(up.expression.getText())) return true;
    if (
      ts.isCallExpression(up) &&
      /\.(note|say|description|summary|requiredOption|option|argument|addHelpText)$/.test(up.expression.getText())
    )
      return true;
    if (!up.parent || ts.isSourceFile(up.parent) || ts.isBlock(up.parent) || ts.isFunctionLike(up.parent)) return false;
  }
}

/** All mutations of a file, in the order of the text. */
export function mutationsOf(fileName: string, code: string): Mutation[] {
  const source = ts.createSourceFile(fileName, code, ts.ScriptTarget.Latest, true);
  const list: Mutation[] = [];
  const shown = (text: string): string => text.replace(/\s+/g, ' ').slice(0, 70);

  const bodyAround = (node: ts.Node): number | null => {
    for (let up = node.parent; up && !ts.isSourceFile(up); up = up.parent) {
      if (ts.isFunctionLike(up) && 'body' in up && up.body && ts.isBlock(up.body)) {
        // A default value of a parameter stands outside of the body it belongs to, but runs when the body does.
        return up.body.getStart(source) + 1;
      }
    }
    return null;
  };
  const add = (node: ts.Node, start: number, end: number, text: string): void => {
    const line = source.getLineAndCharacterOfPosition(start).line + 1;
    list.push({
      name: `${shown(code.slice(start, end))} -> ${shown(text) || '(nothing)'}`,
      start,
      end,
      text,
      line,
      body: bodyAround(node),
    });
  };
  const replace = (node: ts.Node, text: string): void => {
    add(node, node.getStart(source), node.end, text);
  };

  const visit = (node: ts.Node): void => {
    if (
      ts.isTypeNode(node) ||
      ts.isInterfaceDeclaration(node) ||
      ts.isTypeAliasDeclaration(node) ||
      ts.isImportDeclaration(node)
    )
      return;
    if (ts.isExportDeclaration(node) || (isMessage(node) && !ts.isThrowStatement(node))) return;
    if (ts.isBinaryExpression(node)) {
      const { operatorToken } = node;
      for (const other of swaps[operatorToken.getText(source)] ?? []) {
        const text = operatorToken.getText(source);
        const joinsText =
          text === '+' &&
          (ts.isStringLiteralLike(node.left) ||
            ts.isStringLiteralLike(node.right) ||
            ts.isTemplateExpression(node.left) ||
            ts.isTemplateExpression(node.right));
        if (joinsText) continue;
        const line = source.getLineAndCharacterOfPosition(operatorToken.getStart(source)).line + 1;
        const name = `${shown(node.getText(source))}: ${text} -> ${other}`;
        list.push({
          name,
          start: operatorToken.getStart(source),
          end: operatorToken.end,
          text: other,
          line,
          body: bodyAround(node),
        });
      }
    } else if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken)
      replace(node, node.operand.getText(source));
    else if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.MinusToken)
      replace(node, `(${node.operand.getText(source)})`);
    else if (ts.isConditionalExpression(node)) {
      replace(node, `(${node.whenTrue.getText(source)})`);
      replace(node, `(${node.whenFalse.getText(source)})`);
    } else if (ts.isIfStatement(node)) {
      // A refusal is left out, another condition turned round.
      const { thenStatement } = node;
      const only =
        ts.isBlock(thenStatement) && thenStatement.statements.length === 1
          ? thenStatement.statements[0]
          : thenStatement;
      if (ts.isThrowStatement(only) && !node.elseStatement) replace(node, ';');
      else add(node, node.expression.getStart(source), node.expression.end, `!(${node.expression.getText(source)})`);
    } else if (ts.isNumericLiteral(node) && !ts.isPropertyAssignment(node.parent.parent ?? node.parent)) {
      replace(node, node.text === '0' ? '1' : node.text === '1' ? '2' : `(${node.getText(source)} + 1)`);
    } else if (node.kind === ts.SyntaxKind.TrueKeyword) replace(node, 'false');
    else if (node.kind === ts.SyntaxKind.FalseKeyword) replace(node, 'true');
    else if (ts.isExpressionStatement(node) && !ts.isStringLiteral(node.expression)) {
      if (!/^super\(/.test(node.getText(source))) replace(node, ';');
    } else if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
      const { name, expression } = node.expression;
      if (Object.hasOwn(calls, name.text)) add(node, name.getStart(source), name.end, calls[name.text]);
      if (dropped.has(name.text)) replace(node, expression.getText(source));
    }
    // An option that is not passed on.
    if (ts.isObjectLiteralExpression(node) && ts.isCallOrNewExpression(node.parent)) {
      for (const property of node.properties) {
        if (ts.isSpreadAssignment(property) || ts.isMethodDeclaration(property)) continue;
        const { end } = property;
        add(node, property.getStart(source), code[end] === ',' ? end + 1 : end, '');
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return list.sort((a, b) => a.start - b.start || a.end - b.end);
}

export function mutated(code: string, { start, end, text }: Mutation): string {
  return code.slice(0, start) + text + code.slice(end);
}
