// Where an answer stands in what a chat template writes. Nothing is searched by the answer's own letters: the template
// writes the conversation once more with a marker for an answer, and what stands behind the marker is what it puts
// behind every answer.

import { textOf, type ChatMessage } from './chatMessages.js';
import type { Rendered } from './jinja/render.js';

/** How a conversation is written, and which texts can end a turn. */
export interface AnswerTemplate {
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): Rendered;
  /** Special and stop tokens by their text. */
  readonly special: ReadonlyMap<string, number>;
  readonly stopTokenIds: readonly number[];
}

/** What follows the prompt. */
export interface ChatAnswer {
  /** What a template with `generation` blocks writes before the one that holds the answer: it is read, not learned. */
  readonly lead: string;
  /** What is learned. */
  readonly text: string;
  /** The token that ends the turn; undefined where the template writes none. */
  readonly endTokenId: number | undefined;
}

/** Digits, which no template trims, escapes or changes the case of. */
const digits = '90817263544536271809';

/**
 * The text that follows the prompt of `before` (with its opening of the answer) when `turn` answers it, up to the token
 * that ends the turn. All that the template writes there belongs to it: white space, an empty block of reasoning, a
 * header that the prompt does not open.
 * @throws Error when the template leaves the turn out, or when the answer cannot be told from what stands before it
 */
export function findAnswer(template: AnswerTemplate, before: readonly ChatMessage[], turn: ChatMessage): ChatAnswer {
  const prompt = template.render(before, true).text;
  const { text: whole, generated } = template.render([...before, turn], false);
  const marked = markedAnswer(template, before, turn.role);
  checkWritten(template, before, turn, whole, marked !== undefined);
  const start = answerStart(template, before, { prompt, whole, marked });
  const end = answerEnd(template, whole, marked?.tail, start);
  const block = generated.find(([from, to]) => to > start && from < end.at);
  const from = block ? Math.max(start, block[0]) : start;
  return { lead: whole.slice(start, from), text: whole.slice(from, end.at), endTokenId: end.tokenId };
}

interface MarkedAnswer {
  /** What the template writes up to an answer, and what behind it. */
  readonly head: string;
  readonly tail: string;
}

/** undefined where the template does not write what a turn says. */
function markedAnswer(
  template: AnswerTemplate,
  before: readonly ChatMessage[],
  role: string,
): MarkedAnswer | undefined {
  let marker = digits;
  const known = JSON.stringify(before);
  while (known.includes(marker)) marker += digits;
  const { text } = template.render([...before, { role, content: marker }], false);
  const at = text.lastIndexOf(marker);
  return at < 0 ? undefined : { head: text.slice(0, at), tail: text.slice(at + marker.length) };
}

function checkWritten(
  template: AnswerTemplate,
  before: readonly ChatMessage[],
  turn: ChatMessage,
  whole: string,
  writesText: boolean,
): void {
  if (textOf(turn).trim() !== '') {
    if (!writesText) throw new Error("the chat template leaves out what the assistant's last turn says");
  } else if (whole === template.render([...before, { role: turn.role, content: '' }], false).text) {
    const fields = Object.keys(turn).filter(field => field !== 'role' && field !== 'content');
    throw new Error(`the chat template writes nothing for the assistant's last turn (${fields.join(', ')})`);
  }
}

interface Renderings {
  readonly prompt: string;
  readonly whole: string;
  readonly marked: MarkedAnswer | undefined;
}

function answerStart(
  template: AnswerTemplate,
  before: readonly ChatMessage[],
  { prompt, whole, marked }: Renderings,
): number {
  if (whole.startsWith(prompt)) return prompt.length;
  // The prompt opens the answer in a way of its own, with "<think>" say: what both have of the opening is not written
  // twice.
  const closed = template.render(before, false).text;
  if (marked?.head.startsWith(closed) && prompt.startsWith(closed)) {
    let shared = closed.length;
    while (shared < marked.head.length && prompt[shared] === marked.head[shared]) shared++;
    if (whole.startsWith(prompt.slice(0, shared))) return shared;
  }
  if (marked && whole.startsWith(marked.head)) return marked.head.length;
  throw new Error(
    'the chat template writes the conversation in another way once it is answered, so that the answer cannot be told from it',
  );
}

/** Where the turn ends in `whole`, and the token that ends it. */
function answerEnd(
  template: AnswerTemplate,
  whole: string,
  tail: string | undefined,
  start: number,
): { at: number; tokenId: number | undefined } {
  const usual = tail === undefined ? undefined : ending(template, tokensIn(template, tail));
  const tailStart = whole.length - (tail?.length ?? 0);
  if (tail !== undefined && whole.endsWith(tail) && tailStart >= start)
    return { at: tailStart + (usual?.at ?? 0), tokenId: usual?.id };
  // Another end than behind a text: a tool call, say. It is among the special tokens that the turn ends with.
  const last: PlacedToken[] = [];
  for (let end = whole.trimEnd().length; end > start;) {
    const token = [...template.special].find(([text]) => whole.endsWith(text, end) && end - text.length >= start);
    if (!token) break;
    last.unshift({ at: end - token[0].length, id: token[1] });
    end = whole.slice(0, end - token[0].length).trimEnd().length;
  }
  const found = last.find(({ id }) => id === usual?.id) ?? ending(template, last);
  return found
    ? { at: found.at, tokenId: found.id }
    : { at: Math.max(start, whole.trimEnd().length), tokenId: undefined };
}

interface PlacedToken {
  readonly at: number;
  readonly id: number;
}

/** The special tokens of a text, from the left. */
function tokensIn({ special }: AnswerTemplate, text: string): PlacedToken[] {
  const tokens: PlacedToken[] = [];
  for (let at = 0; at < text.length;) {
    const [longest] = [...special]
      .filter(([token]) => text.startsWith(token, at))
      .sort(([a], [b]) => b.length - a.length);
    if (longest) tokens.push({ at, id: longest[1] });
    at += longest?.[0].length ?? 1;
  }
  return tokens;
}

/** Of the tokens behind an answer, the one that ends it: the first that generation stops at, or the first of all. */
function ending({ stopTokenIds }: AnswerTemplate, tokens: readonly PlacedToken[]): PlacedToken | undefined {
  return tokens.find(({ id }) => stopTokenIds.includes(id)) ?? tokens[0];
}
