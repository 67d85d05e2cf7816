// Conversations as ShareGPT has them, `{"from","value"}` a turn, become turns with role and content.

import { checkMessages, kindOf, plainObject, type ChatMessage } from '../io/chatMessages.js';
import { FormatError } from '../io/errors.js';
import { parseJson } from '../io/orderedJson.js';

/** Who speaks, as published data sets call them. */
const roles: Readonly<Record<string, string>> = {
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  chatgpt: 'assistant',
  bing: 'assistant',
  bard: 'assistant',
  model: 'assistant',
  system: 'system',
  tool: 'tool',
  observation: 'tool',
  function_response: 'tool',
};

/**
 * The turns of a `conversations` list. Turns that have role and content already are taken as they are; "function_call"
 * is an assistant's turn whose value is the call, or a list of calls, as JSON.
 * @throws FormatError for the first bad turn
 */
export function shareGptMessages(value: unknown, where: string): ChatMessage[] {
  if (!Array.isArray(value))
    throw new FormatError(where, `conversations: expected a list of turns, got ${kindOf(value)}`);
  return checkMessages(
    value.map((turn, i) => messageOf(turn, where, `conversations.${i}`)),
    where,
    'conversations',
  );
}

function messageOf(value: unknown, where: string, field: string): unknown {
  const turn = plainObject(value);
  if (!turn || !('from' in turn)) return value;
  const { from, value: said, ...rest } = turn;
  if (from === 'function_call')
    return { role: 'assistant', content: null, tool_calls: callsOf(said, where, field), ...rest };
  const role = typeof from === 'string' && Object.hasOwn(roles, from) ? roles[from] : undefined;
  if (role === undefined)
    throw new FormatError(
      where,
      `${field}.from: ${JSON.stringify(from)} is not known; known: ${Object.keys(roles).join(', ')}, function_call`,
    );
  if (typeof said !== 'string') throw new FormatError(where, `${field}.value: expected a text, got ${kindOf(said)}`);
  return { role, content: said, ...rest };
}

function callsOf(said: unknown, where: string, field: string): unknown[] {
  let parsed: unknown;
  try {
    parsed = typeof said === 'string' ? parseJson(said) : said;
  } catch (error) {
    throw new FormatError(where, `${field}.value: a function call must be JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return (Array.isArray(parsed) ? parsed : [parsed]).map(call => {
    const given = plainObject(call);
    if (typeof given?.['name'] !== 'string')
      throw new FormatError(where, `${field}.value: a function call must have a "name"`);
    return { type: 'function', function: given };
  });
}
