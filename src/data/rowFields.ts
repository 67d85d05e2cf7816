// Fields of a row beside the text that is learned: those that say where a row comes from, and those that a chat
// template reads. One that is neither is an error, so that nothing of a row is lost without a word.

import { isEmpty, kindOf, plainObject } from '../io/chatMessages.js';
import { FormatError } from '../io/errors.js';
import { parseJson } from '../io/orderedJson.js';

/** Columns of published data sets that say nothing to a model; they are passed over. */
export const describingFields: readonly string[] = [
  'id',
  'idx',
  'index',
  'prompt_id',
  'conversation_id',
  'source',
  'dataset',
  'split',
  'category',
  'task',
  'topic',
  'language',
  'lang',
  'model',
  'license',
  'url',
  'metadata',
  'meta',
  'created',
  'timestamp',
  'score',
  'score_chosen',
  'score_rejected',
];
/** What the tokenizer tells a template itself. */
const reserved = ['messages', 'add_generation_prompt', 'bos_token', 'eos_token', 'pad_token', 'unk_token'];

/** The JSON object in a line. @throws FormatError */
export function rowObject(line: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseJson(line);
  } catch (error) {
    throw new FormatError(where, `is not JSON: ${(error as Error).message}`, { cause: error });
  }
  return plainObject(value) ?? fail(where, 'expected a JSON object');
}

/** The text in a field. @throws FormatError */
export function textField(row: Readonly<Record<string, unknown>>, name: string, where: string): string {
  const value = row[name];
  return typeof value === 'string' ? value : fail(where, `${name}: expected a text (string), got ${kindOf(value)}`);
}

/** The text in a field, which must say something. `space` counts where a text is verbatim. @throws FormatError */
export function filledField(
  row: Readonly<Record<string, unknown>>,
  name: string,
  where: string,
  space: 'is empty' | 'counts' = 'is empty',
): string {
  const text = textField(row, name, where);
  return (space === 'counts' ? text : text.trim()) === '' ? fail(where, `${name}: is empty`) : text;
}

/** The fields that are neither of the form, nor describing, nor null. */
export function furtherFields(
  row: Readonly<Record<string, unknown>>,
  form: readonly string[],
): [name: string, value: unknown][] {
  return Object.entries(row).filter(
    ([name, value]) => !form.includes(name) && !describingFields.includes(name) && value !== null,
  );
}

/** @throws FormatError for a row that has further fields, naming the first */
export function refuseFurtherFields(
  row: Readonly<Record<string, unknown>>,
  form: readonly string[],
  where: string,
): void {
  const [first] = furtherFields(row, form);
  if (first)
    throw new FormatError(
      where,
      `${first[0]}: is not known beside ${form.join(', ')}; what only describes a row goes under "metadata"`,
    );
}

/**
 * What a conversation's row tells the chat template: `tools`, `documents`, the entries of `chat_template_kwargs`, and
 * any further field. Whether the template reads it is seen when the row is rendered.
 * @throws FormatError for one that is not what it should be
 */
export function templateVariables(
  row: Readonly<Record<string, unknown>>,
  form: readonly string[],
  where: string,
): Record<string, unknown> {
  const variables: Record<string, unknown> = {};
  for (const [name, value] of furtherFields(row, form)) {
    if (name === 'chat_template_kwargs') {
      Object.assign(variables, plainObject(value) ?? fail(where, `${name}: expected an object, got ${kindOf(value)}`));
    } else {
      variables[name] = name === 'tools' || name === 'documents' ? listOf(value, name, where) : value;
    }
  }
  for (const name of Object.keys(variables))
    if (reserved.includes(name)) fail(where, `${name}: is set by the tokenizer and cannot be given by a row`);
  return Object.fromEntries(Object.entries(variables).filter(([, value]) => !isEmpty(value)));
}

/** Data sets hold lists of tools also as JSON texts. */
function listOf(value: unknown, name: string, where: string): unknown[] {
  if (typeof value !== 'string')
    return Array.isArray(value) ? value : fail(where, `${name}: expected a list, got ${kindOf(value)}`);
  if (value.trim() === '') return [];
  let parsed: unknown;
  try {
    parsed = parseJson(value);
  } catch (error) {
    throw new FormatError(where, `${name}: is a text that is not JSON: ${(error as Error).message}`, { cause: error });
  }
  return Array.isArray(parsed) ? parsed : fail(where, `${name}: expected a list, got a text of ${kindOf(parsed)}`);
}

function fail(where: string, message: string): never {
  throw new FormatError(where, message);
}
