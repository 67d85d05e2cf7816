// The turns of a conversation as they come from outside, checked. What a turn holds beside its role and its text (tool
// calls, names, reasoning) is the chat template's business and stays as it is.

import { FormatError } from './errors.js';

/** A piece of a turn's content. Only text is understood. */
export interface ContentPart {
  readonly type: 'text';
  readonly text: string;
}

/**
 * One turn of a conversation. Further fields (tool_calls, name, reasoning_content, ...) reach the chat template as they
 * are.
 */
export interface ChatMessage {
  /** Usually "system", "user", "assistant" or "tool". */
  readonly role: string;
  /** Text, or text in parts; null or absent in a turn that is only a tool call. A tool may answer with an object. */
  readonly content?: string | readonly ContentPart[] | Readonly<Record<string, unknown>> | null | undefined;
  readonly [field: string]: unknown;
}

/**
 * A list of turns.
 * @param field what the list is called where it stands: "messages"
 * @throws FormatError for the first bad turn, as "rows.jsonl:3: messages.0.content: ..."
 */
export function checkMessages(value: unknown, where: string, field = 'messages'): ChatMessage[] {
  if (!Array.isArray(value)) throw new FormatError(where, `${field}: expected a list of turns, got ${kindOf(value)}`);
  return value.map((turn, i) => checkMessage(turn, where, `${field}.${i}`));
}

/** One turn. @throws FormatError */
export function checkMessage(value: unknown, where: string, field: string): ChatMessage {
  const fail = (name: string, message: string): never => {
    throw new FormatError(where, `${field}${name}: ${message}`);
  };
  const turn = plainObject(value) ?? fail('', `expected an object with "role" and "content", got ${kindOf(value)}`);
  const { role, content, tool_calls: calls } = turn;
  if (typeof role !== 'string') fail('.role', `expected a text, got ${kindOf(role)}`);
  if (role === '') fail('.role', 'is empty');
  if (calls !== undefined && calls !== null && !Array.isArray(calls))
    fail('.tool_calls', `expected a list, got ${kindOf(calls)}`);
  if (content === undefined || content === null) {
    if (!hasMoreThanText(turn)) fail('.content', `expected a text, got ${kindOf(content)}`);
  } else if (Array.isArray(content)) {
    turn['content'] = content.map((part, j) => checkPart(part, `.content.${j}`, fail));
  } else if (typeof content !== 'string' && !(role === 'tool' && plainObject(content))) {
    fail('.content', `expected a text or a list of text parts, got ${kindOf(content)}`);
  }
  return turn as unknown as ChatMessage;
}

function checkPart(value: unknown, name: string, fail: (name: string, message: string) => never): ContentPart {
  const part = plainObject(value) ?? fail(name, `expected a part {"type":"text","text"}, got ${kindOf(value)}`);
  if (part['type'] !== 'text')
    fail(name, `a part of type ${JSON.stringify(part['type'])} is not understood, only of type "text"`);
  if (typeof part['text'] !== 'string') fail(`${name}.text`, `expected a text, got ${kindOf(part['text'])}`);
  return part as unknown as ContentPart;
}

/** Whether a turn has a field that is not empty beside its role, its name and its content: a tool call, reasoning. */
export function hasMoreThanText(turn: object): boolean {
  return Object.entries(turn).some(([name, value]) => !['role', 'name', 'content'].includes(name) && !isEmpty(value));
}

/** The text of a turn; parts are joined with nothing between them, as templates do that read parts. */
export function textOf({ content }: ChatMessage): string {
  if (typeof content === 'string') return content;
  return Array.isArray(content) ? (content as readonly ContentPart[]).map(part => part.text).join('') : '';
}

/** null, undefined, "", [] or an object without keys: what says as much as no value. */
export function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === '') return true;
  if (Array.isArray(value)) return value.length === 0;
  const object = plainObject(value);
  return object !== undefined && Object.keys(object).length === 0;
}

/** A shallow copy of a JSON object; `parseJson` makes some of them Maps. undefined for anything else. */
export function plainObject(value: unknown): Record<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  if (value instanceof Map) return Object.fromEntries(value as Map<string, unknown>);
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null ? { ...value } : undefined;
}

/** "nothing", "null", "a list", "an object", "a number", ...: a value's kind, for errors. */
export function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'string') return 'a text';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
