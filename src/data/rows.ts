// Training rows: JSONL text becomes checked rows. One row is a prompt with its completion, a conversation, or bare
// text. Text only; turning rows into ids is examples.ts's work, reading files rowsNode.ts's.

import { checkMessages, hasMoreThanText, isEmpty, textOf, type ChatMessage } from '../io/chatMessages.js';
import { FormatError } from '../io/errors.js';
import { filledField, refuseFurtherFields, rowObject, textField, templateVariables } from './rowFields.js';
import { shareGptMessages } from './shareGpt.js';

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

/** A conversation up to its last assistant turn, and that turn. */
export interface ChatRow extends RowPlace {
  readonly kind: 'chat';
  readonly before: readonly ChatMessage[];
  /** What the last turn says. */
  readonly answer: string;
  /** The last turn itself, where it is more than a text: with tool calls, say. */
  readonly turn?: ChatMessage;
  /** What else the chat template is told: tools, documents, variables of its own. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** Text to learn whole. */
export interface TextRow extends RowPlace {
  readonly kind: 'text';
  readonly text: string;
}

export type Row = CompletionRow | ChatRow | TextRow;

type Form = 'completion' | 'messages' | 'conversations' | 'instruction' | 'text';
/** The fields of each form. */
const fieldsOf: Readonly<Record<Form, readonly string[]>> = {
  completion: ['prompt', 'completion'],
  messages: ['messages'],
  conversations: ['conversations', 'system'],
  // Alpaca's text is the other three, written out.
  instruction: ['instruction', 'input', 'output', 'text'],
  text: ['text'],
};
/** The keys that tell the forms apart. */
const formOfKey: Readonly<Record<string, Form>> = {
  prompt: 'completion',
  completion: 'completion',
  messages: 'messages',
  conversations: 'conversations',
  instruction: 'instruction',
  output: 'instruction',
  text: 'text',
};
const formsText =
  '{"prompt","completion"}, {"messages"}, {"conversations"}, {"instruction","input","output"} or {"text"}';

/**
 * The rows of a JSONL text, one JSON object a line; blank lines are passed over. The forms, told apart by their keys:
 * - `{"prompt","completion"}`: verbatim;
 * - `{"messages":[{"role","content"},...]}`: ends with the assistant's turn that is learned, a text or tool calls.
 *   Further fields of turns and of the
 *   row (`tools`, `documents`, those in `chat_template_kwargs`, others) are the chat template's;
 * - `{"conversations":[{"from","value"},...]}`: the same as ShareGPT has it, with an optional `system`;
 * - `{"instruction","input"?,"output"}`: one user turn, instruction and input with an empty line between them, and its
 *   answer. Alpaca's column `text`
 *   is passed over;
 * - `{"text"}`: learned whole.
 * `describingFields` (id, source, metadata, ...) and null are passed over; any other field is an error.
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
  const row = rowObject(line, where);
  const form = formOf(row, where);
  const fields = fieldsOf[form];
  const filled = (name: string): string => filledField(row, name, where);
  if (form === 'messages' || form === 'conversations') {
    const messages =
      form === 'messages' ? checkMessages(row['messages'], where) : shareGptMessages(row['conversations'], where);
    if (form === 'conversations' && !isEmpty(row['system']))
      messages.unshift({ role: 'system', content: textField(row, 'system', where) });
    return chatRow(messages, form, templateVariables(row, fields, where), where);
  }
  refuseFurtherFields(row, fields, where);
  if (form === 'completion') {
    return {
      kind: 'completion',
      where,
      prompt: textField(row, 'prompt', where),
      completion: filledField(row, 'completion', where, 'counts'),
    };
  }
  if (form === 'text') return { kind: 'text', where, text: filled('text') };
  const instruction = filled('instruction');
  const input = isEmpty(row['input']) ? '' : textField(row, 'input', where);
  const content = input.trim() === '' ? instruction : `${instruction}\n\n${input}`;
  return { kind: 'chat', where, before: [{ role: 'user', content }], answer: filled('output') };
}

function formOf(row: Readonly<Record<string, unknown>>, where: string): Form {
  const keys = Object.keys(row);
  const forms = new Set(
    keys.filter(key => Object.hasOwn(formOfKey, key) && row[key] !== null).map(key => formOfKey[key]!),
  );
  if (forms.has('instruction')) forms.delete('text');
  const [form] = forms;
  if (form !== undefined && forms.size === 1) return form;
  throw new FormatError(
    where,
    `expected one of ${formsText}; got ${keys.length === 0 ? 'no keys' : `the keys ${keys.slice(0, 8).join(', ')}`}`,
  );
}

function chatRow(messages: ChatMessage[], field: string, variables: Record<string, unknown>, where: string): ChatRow {
  const turn = messages.at(-1);
  if (messages.length < 2 || !turn)
    throw new FormatError(where, `${field}: expected a turn and the assistant's answer to it`);
  if (turn.role !== 'assistant')
    throw new FormatError(where, `${field}: expected the last turn to be the assistant's, got "${turn.role}"`);
  const more = hasMoreThanText(turn);
  const answer = textOf(turn);
  if (answer.trim() === '' && !more) throw new FormatError(where, `${field}: the last turn is empty`);
  return {
    kind: 'chat',
    where,
    before: messages.slice(0, -1),
    answer,
    ...(Object.keys(turn).length > 2 || typeof turn.content !== 'string' ? { turn } : {}),
    ...(Object.keys(variables).length > 0 ? { variables } : {}),
  };
}
