// Examples: a row as the ids and labels a model is trained on. Prompt and answer are tokenised apart, so that the same
// prompt gives the same ids in training and in generation. Batching is collate.ts's work.

import { isEmpty, type ChatMessage } from '../io/chatMessages.js';
import { FormatError } from '../io/errors.js';
import { checkIds, checkLabels, checkPromptLength, shownValue } from '../io/tokenIds.js';
import type { Tokenizer } from '../io/tokenizer.js';
import type { ChatRow, Row } from './rows.js';

/** The label of a position that is not learned. */
export const ignoreLabel = -100;

export interface Example {
  /** The ids [T]: prompt, answer, end token. */
  readonly ids: Int32Array;
  /**
   * How many of the ids are the prompt. 0 for a `{"text"}` row: it has no last prompt position, `lN` and `fN` do not
   * apply.
   */
  readonly promptLength: number;
  /** The labels [T]: the id itself, or -100 on the prompt. Not shifted. */
  readonly labels: Int32Array;
  /**
   * How many tokens were cut to fit `maxLength`: from the left of a prompt, behind its special start; from the right of
   * a `{"text"}`.
   */
  readonly truncated: number;
  /** Where its row stands, for errors: "rows.jsonl:3". */
  readonly where: string;
}

/**
 * Checks an example that may have been made by hand; `what` names one that does not say where it stands.
 * @throws TypeError or RangeError naming the example and what is wrong with it
 */
export function checkExample(
  example: Pick<Example, 'ids' | 'labels' | 'promptLength'>,
  what: string,
  vocabSize?: number,
): void {
  if (typeof example !== 'object' || example === null) {
    throw new TypeError(`${what}: expected an example, got ${shownValue(example)}`);
  }
  const { ids, labels, promptLength } = example;
  const where = 'where' in example && typeof example.where === 'string' ? example.where : what;
  checkIds(`${where}: ids`, ids, vocabSize);
  checkLabels(`${where}: labels`, labels, vocabSize);
  for (const [name, list] of Object.entries({ ids, labels })) {
    if (list instanceof Int32Array) continue;
    throw new TypeError(`${where}: ${name}: expected an Int32Array, got ${shownValue(list)}`);
  }
  if (labels.length !== ids.length) throw new RangeError(`${where}: ${labels.length} labels for ${ids.length} tokens`);
  checkPromptLength(where, promptLength, ids.length);
}

export interface TokenizeOptions {
  /** The most ids of an example, end token included. Default: no limit. */
  maxLength?: number | undefined;
}

/** What comes before an answer. */
type Prompt = { readonly prompt: string } | Pick<ChatRow, 'before' | 'variables'>;

/**
 * The ids of a prompt as training and generation use it: verbatim text after the tokenizer's own start (BOS or
 * nothing), or a conversation through the chat template.
 * @throws Error for a conversation that the template refuses, or of which it would drop a field
 */
export function promptIds(row: Prompt, tokenizer: Tokenizer): number[] {
  if ('prompt' in row) return tokenizer.encodePrompt(row.prompt);
  const { before, variables = {} } = row;
  checkFieldsAreRead(before, variables, tokenizer);
  return tokenizer.chat(before, { variables }).ids;
}

/**
 * Tools, calls and variables that the template never names would be lost. Other fields of a turn are its own business:
 * few templates read a name.
 */
function checkFieldsAreRead(
  messages: readonly ChatMessage[],
  variables: Readonly<Record<string, unknown>>,
  tokenizer: Tokenizer,
): void {
  const template =
    tokenizer.chatTemplate === undefined
      ? 'the plain chat template of a model that has none'
      : `the chat template of ${tokenizer.source}`;
  const name = tokenizer.notInTemplate(Object.keys(variables));
  if (name !== undefined)
    throw new RangeError(`${name}: ${template} does not read it; what only describes a row goes under "metadata"`);
  const calling = messages.findIndex(message => !isEmpty(message['tool_calls']));
  if (calling >= 0 && tokenizer.notInTemplate(['tool_calls']) !== undefined)
    throw new RangeError(`messages.${calling}.tool_calls: ${template} does not read it`);
}

/**
 * A row as ids and labels. The end token (eos, or what the chat template puts behind an answer) is appended and
 * labelled.
 * @throws FormatError naming the row: a prompt without tokens, a conversation that the chat template refuses or would
 * drop something of, or a completion
 *   that leaves no room for its prompt within `maxLength`
 */
export function tokenizeRow(row: Row, tokenizer: Tokenizer, { maxLength = Infinity }: TokenizeOptions = {}): Example {
  if (!(maxLength >= 2)) throw new RangeError(`maxLength: expected at least 2, got ${maxLength}`);
  try {
    return row.kind === 'text'
      ? textExample(row.text, row.where, tokenizer, maxLength)
      : answerExample(row, tokenizer, maxLength);
  } catch (error) {
    if (error instanceof FormatError) throw error;
    throw new FormatError(row.where, (error as Error).message, { cause: error });
  }
}

function textExample(text: string, where: string, tokenizer: Tokenizer, maxLength: number): Example {
  const ids = [...tokenizer.encodePrompt(text), tokenizer.requireEos()];
  const kept = Int32Array.from(ids.slice(0, maxLength));
  return { ids: kept, promptLength: 0, labels: kept.slice(), truncated: ids.length - kept.length, where };
}

function answerExample(row: Exclude<Row, { kind: 'text' }>, tokenizer: Tokenizer, maxLength: number): Example {
  const prompt = promptIds(row, tokenizer);
  if (prompt.length === 0) throw new Error('the prompt has no tokens; use {"text"} to learn a text without a prompt');
  const continued = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false, continuation: true });
  const { lead, text, endTokenId } =
    row.kind === 'chat'
      ? chatAnswer(row, tokenizer)
      : { lead: '', text: row.completion, endTokenId: tokenizer.requireEos() };
  const before = lead === '' ? [] : continued(lead);
  const answer = [...before, ...continued(text), endTokenId];
  const truncated = Math.max(0, prompt.length + answer.length - maxLength);
  // The special tokens that every prompt starts with stay.
  const start = truncated === 0 ? 0 : tokenizer.startLength(prompt);
  const promptLength = prompt.length - truncated;
  if (promptLength <= start) {
    throw new Error(
      `the completion has ${answer.length} tokens with its end token, which leaves no prompt within ${maxLength}`,
    );
  }
  const ids = Int32Array.from([...prompt.slice(0, start), ...prompt.slice(start + truncated), ...answer]);
  const labels = ids.slice().fill(ignoreLabel, 0, promptLength + before.length);
  return { ids, promptLength, labels, truncated, where: row.where };
}

function chatAnswer(
  { before, answer, turn, variables = {} }: ChatRow,
  tokenizer: Tokenizer,
): { lead: string; text: string; endTokenId: number } {
  const found = tokenizer.chatAnswer(before, turn ?? answer, { variables });
  if (found.text.trim() === '') throw new Error("the chat template writes nothing for the assistant's last turn");
  return found;
}
