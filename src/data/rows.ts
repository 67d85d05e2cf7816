// Training rows: JSONL text becomes checked rows. One row is a prompt with its completion, a conversation, or bare text.
// Text only; turning rows into ids is examples.ts's work, reading files rowsNode.ts's.

import { z } from 'zod';
import type { ChatMessage } from '../io/chatTemplate.js';
import { FormatError } from '../io/errors.js';

/** Where a row stands, for errors: "rows.jsonl:3". */
interface RowPlace {
  readonly where: string;
}

/** Verbatim prompt and completion. */
export interface CompletionRow extends RowPlace {
  readonly kind: 'completion';
  readonly prompt: string;
  readonly completion: string;
}

/** A conversation up to its last assistant turn, and that turn's content. */
export interface ChatRow extends RowPlace {
  readonly kind: 'chat';
  readonly before: readonly ChatMessage[];
  readonly answer: string;
}

/** Text to learn whole. */
export interface TextRow extends RowPlace {
  readonly kind: 'text';
  readonly text: string;
}

export type Row = CompletionRow | ChatRow | TextRow;

const filled = z.string().refine(text => text.trim() !== '', { error: 'is empty' });
const message = z.object({ role: z.string().min(1, 'is empty'), content: z.string() });
const forms = {
  completion: z.object({ prompt: z.string(), completion: z.string().min(1, 'is empty') }),
  messages: z.object({ messages: z.array(message).min(2, "expected a turn and the assistant's answer to it") }),
  instruction: z.object({ instruction: filled, input: z.string().optional(), output: filled }),
  text: z.object({ text: filled }),
};
/** The keys that tell the forms apart. */
const formOfKey: Record<string, keyof typeof forms> = {
  prompt: 'completion',
  completion: 'completion',
  messages: 'messages',
  instruction: 'instruction',
  output: 'instruction',
  text: 'text',
};
const formsText = '{"prompt","completion"}, {"messages"}, {"instruction","input","output"} or {"text"}';

/**
 * The rows of a JSONL text, one JSON object a line; blank lines are passed over. The forms, told apart by their keys:
 * - `{"prompt","completion"}`: verbatim;
 * - `{"messages":[{"role","content"},...]}`: ends with the assistant's turn that is learned;
 * - `{"instruction","input"?,"output"}`: one user turn, instruction and input with an empty line between them, and its answer;
 * - `{"text"}`: learned whole.
 * Further keys are passed over.
 * @throws FormatError for the first bad line, as "rows.jsonl:3: ...", and for a text without rows
 */
export function parseRows(text: string, fileName: string): Row[] {
  return rowsOf(text.replace(/^\uFEFF/, '').split('\n'), fileName);
}

/** `parseRows` for the bytes of a file. @throws FormatError also for a line that is not UTF-8 */
export function parseRowBytes(bytes: Uint8Array, fileName: string): Row[] {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const lines: string[] = [];
  for (let start = 0; start <= bytes.length;) {
    const newline = bytes.indexOf(10, start);
    const end = newline < 0 ? bytes.length : newline;
    try {
      lines.push(decoder.decode(bytes.subarray(start, end)));
    } catch (error) {
      throw new FormatError(`${fileName}:${lines.length + 1}`, 'is not UTF-8', { cause: error });
    }
    start = end + 1;
  }
  return rowsOf(lines, fileName);
}

function rowsOf(lines: readonly string[], fileName: string): Row[] {
  const rows = lines.flatMap((line, i) => (line.trim() === '' ? [] : [parseRow(line, `${fileName}:${i + 1}`)]));
  if (rows.length === 0) throw new FormatError(fileName, `has no rows; expected JSON lines of ${formsText}`);
  return rows;
}

function parseRow(line: string, where: string): Row {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new FormatError(where, `is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new FormatError(where, 'expected a JSON object');
  const keys = Object.keys(value);
  const found = [...new Set(keys.filter(key => Object.hasOwn(formOfKey, key)).map(key => formOfKey[key]!))];
  if (found.length !== 1) {
    throw new FormatError(
      where,
      `expected one of ${formsText}; got ${keys.length === 0 ? 'no keys' : `the keys ${keys.slice(0, 8).join(', ')}`}`,
    );
  }
  const check = <T>(schema: z.ZodType<T>): T => {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    const [issue] = result.error.issues;
    throw new FormatError(where, `${issue!.path.join('.')}: ${issue!.message}`);
  };
  switch (found[0]!) {
    case 'completion':
      return { kind: 'completion', where, ...check(forms.completion) };
    case 'text':
      return { kind: 'text', where, text: check(forms.text).text };
    case 'instruction': {
      const { instruction, input, output } = check(forms.instruction);
      const content = input === undefined || input.trim() === '' ? instruction : `${instruction}\n\n${input}`;
      return { kind: 'chat', where, before: [{ role: 'user', content }], answer: output };
    }
    case 'messages': {
      const { messages } = check(forms.messages);
      const last = messages.at(-1)!;
      if (last.role !== 'assistant') {
        throw new FormatError(where, `messages: expected the last turn to be the assistant's, got "${last.role}"`);
      }
      if (last.content.trim() === '') throw new FormatError(where, 'messages: the last turn is empty');
      return { kind: 'chat', where, before: messages.slice(0, -1), answer: last.content };
    }
  }
}
