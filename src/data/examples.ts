// Examples: a row as the ids and labels a model is trained on. Prompt and answer are tokenised apart, so that the same prompt
// gives the same ids in training and in generation. Batching is collate.ts's work.

import type { Tokenizer } from '../io/tokenizer.js';
import type { Row } from './rows.js';

/** The label of a position that is not learned. */
export const ignoreLabel = -100;

export interface Example {
  /** The ids [T]: prompt, answer, end token. */
  readonly ids: Int32Array;
  /** How many of the ids are the prompt. 0 for a `{"text"}` row: it has no last prompt position, `lN` and `fN` do not apply. */
  readonly promptLength: number;
  /** The labels [T]: the id itself, or -100 on the prompt. Not shifted. */
  readonly labels: Int32Array;
  /** How many tokens were cut to fit `maxLength`: from the left of a prompt, from the right of a `{"text"}`. */
  readonly truncated: number;
  /** Where its row stands, for errors: "rows.jsonl:3". */
  readonly where: string;
}

export interface TokenizeOptions {
  /** The most ids of an example, end token included. Default: no limit. */
  maxLength?: number | undefined;
}

/**
 * The ids of a prompt as training and generation use it: verbatim text after the tokenizer's own start (BOS or nothing), or a
 * conversation through the chat template.
 */
export function promptIds(
  row: { prompt: string } | { before: Parameters<Tokenizer['applyChatTemplate']>[0] },
  tokenizer: Tokenizer,
): number[] {
  return 'prompt' in row ? tokenizer.encodePrompt(row.prompt) : tokenizer.chat(row.before).ids;
}

/**
 * A row as ids and labels. The end token (eos, or what the chat template puts behind an answer) is appended and labelled.
 * @throws Error naming the row: a prompt without tokens, or a completion that leaves no room for its prompt within `maxLength`
 */
export function tokenizeRow(row: Row, tokenizer: Tokenizer, { maxLength = Infinity }: TokenizeOptions = {}): Example {
  if (!(maxLength >= 2)) throw new RangeError(`maxLength: expected at least 2, got ${maxLength}`);
  if (row.kind === 'text') {
    const ids = [...tokenizer.encodePrompt(row.text), tokenizer.requireEos()];
    const kept = Int32Array.from(ids.slice(0, maxLength));
    return { ids: kept, promptLength: 0, labels: kept.slice(), truncated: ids.length - kept.length, where: row.where };
  }
  const prompt = promptIds(row, tokenizer);
  if (prompt.length === 0) throw new Error(`${row.where}: the prompt has no tokens; use {"text"} to learn a text without a prompt`);
  const { text, endTokenId } =
    row.kind === 'chat' ? tokenizer.chatAnswer(row.before, row.answer) : { text: row.completion, endTokenId: tokenizer.requireEos() };
  const answer = [...tokenizer.encode(text, { addSpecialTokens: false, continuation: true }), endTokenId];
  if (answer.length >= maxLength) {
    throw new Error(
      `${row.where}: the completion has ${answer.length} tokens with its end token, which leaves no prompt within ${maxLength}`,
    );
  }
  const truncated = Math.max(0, prompt.length + answer.length - maxLength);
  const promptLength = prompt.length - truncated;
  const ids = Int32Array.from([...prompt.slice(truncated), ...answer]);
  const labels = ids.slice().fill(ignoreLabel, 0, promptLength);
  return { ids, promptLength, labels, truncated, where: row.where };
}
