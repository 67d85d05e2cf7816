// Rows that say which of two answers is better: JSONL text becomes pairs of examples. The answers are tokenised as
// those of training rows are.

import { checkMessage, checkMessages, hasMoreThanText, textOf, type ChatMessage } from '../io/chatMessages.js';
import { FormatError } from '../io/errors.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { tokenizeRow, type Example, type TokenizeOptions } from './examples.js';
import { filledField, refuseFurtherFields, rowObject, templateVariables, textField } from './rowFields.js';

export interface PreferencePair {
  readonly chosen: Example;
  readonly rejected: Example;
}

/**
 * The pairs of a JSONL text, one JSON object a line: `{"prompt","chosen","rejected"}` verbatim, or
 * `{"messages":[..],"chosen","rejected"}` with the conversation before the answer, through the chat template. There an
 * answer may also be the assistant's turn, `{"role","content",...}`, alone or in a list, and the further fields of a
 * row are as in `parseRows`.
 * @throws FormatError for the first bad line, as "pairs.jsonl:3: ..."
 */
export function parsePreferences(
  text: string,
  fileName: string,
  tokenizer: Tokenizer,
  options: TokenizeOptions = {},
): PreferencePair[] {
  const pairs = text
    .replace(/^\uFEFF/, '')
    .split('\n')
    .flatMap((line, i) => (line.trim() === '' ? [] : [pairOf(line, `${fileName}:${i + 1}`, tokenizer, options)]));
  if (pairs.length === 0)
    throw new FormatError(
      fileName,
      'has no rows; expected JSON lines of {"prompt","chosen","rejected"} or {"messages","chosen","rejected"}',
    );
  return pairs;
}

function pairOf(line: string, where: string, tokenizer: Tokenizer, options: TokenizeOptions): PreferencePair {
  const row = rowObject(line, where);
  if (row['messages'] !== undefined && row['messages'] !== null) {
    const form = ['messages', 'chosen', 'rejected'];
    const before = checkMessages(row['messages'], where);
    if (before.length === 0) throw new FormatError(where, 'messages: has no turns');
    const variables = templateVariables(row, form, where);
    const example = (name: string): Example => {
      const turn = answerTurn(row, name, where);
      return tokenizeRow({ kind: 'chat', where, before, answer: textOf(turn), turn, variables }, tokenizer, options);
    };
    return { chosen: example('chosen'), rejected: example('rejected') };
  }
  refuseFurtherFields(row, ['prompt', 'chosen', 'rejected'], where);
  const prompt = textField(row, 'prompt', where);
  const example = (name: string): Example => {
    return tokenizeRow(
      { kind: 'completion', where, prompt, completion: filledField(row, name, where, 'counts') },
      tokenizer,
      options,
    );
  };
  return { chosen: example('chosen'), rejected: example('rejected') };
}

function answerTurn(row: Readonly<Record<string, unknown>>, name: string, where: string): ChatMessage {
  const value = row[name];
  if (typeof value !== 'object' || value === null)
    return { role: 'assistant', content: filledField(row, name, where, 'counts') };
  if (Array.isArray(value) && value.length !== 1)
    throw new FormatError(where, `${name}: expected one turn, got ${value.length}`);
  const turn = checkMessage(Array.isArray(value) ? value[0] : value, where, name);
  if (turn.role !== 'assistant')
    throw new FormatError(where, `${name}: expected the assistant's turn, got "${turn.role}"`);
  if (textOf(turn).trim() === '' && !hasMoreThanText(turn)) throw new FormatError(where, `${name}: is empty`);
  return turn;
}
