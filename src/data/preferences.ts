// Rows that say which of two answers is better: JSONL text becomes pairs of examples. The answers are tokenised as those of training rows are.

import { z } from 'zod';
import { FormatError } from '../io/errors.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { tokenizeRow, type Example, type TokenizeOptions } from './examples.js';

export interface PreferencePair {
  readonly chosen: Example;
  readonly rejected: Example;
}

const answers = { chosen: z.string().min(1, 'is empty'), rejected: z.string().min(1, 'is empty') };
const verbatim = z.object({ prompt: z.string(), ...answers });
const conversation = z.object({ messages: z.array(z.object({ role: z.string().min(1), content: z.string() })).min(1), ...answers });

/**
 * The pairs of a JSONL text, one JSON object a line: `{"prompt","chosen","rejected"}` verbatim, or `{"messages":[..],"chosen","rejected"}` with the
 * conversation before the answer, through the chat template.
 * @throws FormatError for the first bad line, as "pairs.jsonl:3: ..."
 */
export function parsePreferences(text: string, fileName: string, tokenizer: Tokenizer, options: TokenizeOptions = {}): PreferencePair[] {
  const pairs = text.replace(/^\uFEFF/, '').split('\n').flatMap((line, i) => (line.trim() === '' ? [] : [pairOf(line, `${fileName}:${i + 1}`, tokenizer, options)]));
  if (pairs.length === 0) throw new FormatError(fileName, 'has no rows; expected JSON lines of {"prompt","chosen","rejected"} or {"messages","chosen","rejected"}');
  return pairs;
}

function pairOf(line: string, where: string, tokenizer: Tokenizer, options: TokenizeOptions): PreferencePair {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(where, `is not JSON: ${(cause as Error).message}`, { cause });
  }
  const chat = typeof json === 'object' && json !== null && 'messages' in json;
  const parsed = (chat ? conversation : verbatim).safeParse(json);
  if (!parsed.success) throw new FormatError(where, parsed.error.issues.map(i => `${i.path.join('.') || 'the row'}: ${i.message}`).join('; '));
  const row = parsed.data;
  const example = (answer: string): Example => tokenizeRow('messages' in row
    ? { kind: 'chat', where, before: row.messages, answer }
    : { kind: 'completion', where, prompt: row.prompt, completion: answer }, tokenizer, options);
  return { chosen: example(row.chosen), rejected: example(row.rejected) };
}
