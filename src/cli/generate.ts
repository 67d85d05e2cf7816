// `reft generate`: continues one prompt, with or without an adapter. The text comes out as it is made. `answer` is what
// chat.ts shares.

import type { Command } from 'commander';
import { promptIds } from '../data/index.js';
import { templateVariables } from '../data/rowFields.js';
import { checkMessages, plainObject, type ChatMessage } from '../io/chatMessages.js';
import { parseJson } from '../io/orderedJson.js';
import type { Tokenizer } from '../io/tokenizer.js';
import { TextStreamer } from '../io/tokenizerStream.js';
import type { Generated } from '../models/generation/generate.js';
import type { ReftModel } from '../reft/reftModel.js';
import { blamingInput, Interrupted, UsageError } from './errors.js';
import { onInterrupt } from './interrupt.js';
import { loadAdapter, loadModel, type LoadedModel } from './model.js';
import {
  addAdapterOption,
  addJsonOption,
  addModelOptions,
  addSamplingOptions,
  type ModelFlags,
  type SamplingFlags,
} from './options.js';
import { Output } from './output.js';
import { addProfileOption, Profiling, type ProfileFlags } from './profile.js';

interface GenerateFlags extends ModelFlags, SamplingFlags, ProfileFlags {
  prompt?: string;
  chat?: string;
  system?: string;
  messages?: string;
  stop?: string;
  adapter?: string;
  scale?: number;
  json: boolean;
}

export function addGenerateCommand(program: Command): void {
  const command = program.command('generate').description('Continue a prompt, or answer a message.');
  addModelOptions(command)
    .option('--prompt <text>', 'verbatim text to continue')
    .option('--chat <text>', "a user's message, through the model's chat template")
    .option('--system <text>', 'a system message in front of --chat')
    .option('--messages <json>', 'a whole conversation: [{"role","content"}, ...], or {"messages","tools", ...}')
    .option('--stop <text>', 'end before this text');
  addAdapterOption(command);
  addSamplingOptions(command);
  addProfileOption(command, 'profile.json');
  addJsonOption(command).action(run);
}

async function run(flags: GenerateFlags): Promise<void> {
  const output = new Output(flags.json);
  const toIds = promptReader(flags);
  const interruption = onInterrupt(output, 'ending after this token');
  try {
    const loaded = await loadModel(flags, output, interruption.signal);
    const reft = await loadAdapter(loaded, flags, output);
    const ids = await blamingInput(() => toIds(loaded.tokenizer));
    const profiling = new Profiling(flags, 'profile.json', loaded.model.backend, output);
    const result = await profiling.run(async () => {
      const answered = await answer(loaded, reft, ids, flags, {
        signal: interruption.signal,
        onToken: count => {
          profiling.mark(count === 1 ? 'prompt' : `token ${count}`);
        },
        onText: text => {
          output.stream(text);
          output.event('text', { text });
        },
      });
      output.stream('\n');
      return answered;
    });
    if (result.finish === 'aborted' && interruption.signal.aborted)
      throw new Interrupted(`interrupted after ${result.ids.length} tokens`);
    output.note(`${result.ids.length} tokens, ${result.tokensPerSecond.toFixed(1)} tokens/s`);
    output.event('done', { text: result.text, ids: result.ids, tokensPerSecond: result.tokensPerSecond });
  } catch (error) {
    if (interruption.signal.aborted && !(error instanceof Interrupted))
      throw new Interrupted('interrupted', { cause: error });
    throw error;
  } finally {
    await interruption.dispose();
  }
}

/** How this command line's prompt becomes ids, checked before any model is loaded. */
function promptReader({ prompt, chat, system, messages }: GenerateFlags): (tokenizer: Tokenizer) => number[] {
  if ([prompt, chat, messages].filter(given => given !== undefined).length !== 1)
    throw new UsageError('give one of --prompt, --chat and --messages');
  if (system !== undefined && chat === undefined) throw new UsageError('--system: goes with --chat');
  if (prompt !== undefined) return tokenizer => tokenizer.encodePrompt(prompt);
  if (chat !== undefined) return tokenizer => tokenizer.chat(chat, { system }).ids;
  const { before, variables } = conversationOf(messages as string);
  return tokenizer => {
    try {
      return promptIds({ before, variables }, tokenizer);
    } catch (cause) {
      throw new UsageError(`--messages: ${(cause as Error).message}`, { cause });
    }
  };
}

/** A list of turns, or a row with one: `{"messages":[...],"tools":[...]}`. */
function conversationOf(text: string): { before: ChatMessage[]; variables: Record<string, unknown> } {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (cause) {
    throw new UsageError(`--messages: is not JSON: ${(cause as Error).message}`, { cause });
  }
  const row = plainObject(value) ?? { messages: value };
  const before = checkMessages(row['messages'], '--messages');
  if (before.length === 0) throw new UsageError('--messages: has no turns');
  return { before, variables: templateVariables(row, ['messages'], '--messages') };
}

export interface Answer {
  readonly text: string;
  /** New tokens only, the end token included. */
  readonly ids: number[];
  readonly finish: Generated['finish'];
  /** Of decoding alone: the prompt and the first token are not counted. 0 for a single token. */
  readonly tokensPerSecond: number;
}

/** Continues `ids`, handing text on as soon as it is whole. */
export async function answer(
  { model, tokenizer }: LoadedModel,
  reft: ReftModel | null,
  ids: number[],
  flags: SamplingFlags & { stop?: string },
  {
    signal,
    onText,
    onToken,
  }: { signal: AbortSignal; onText: (text: string) => void; onToken?: (count: number) => void },
): Promise<Answer> {
  const streamer = new TextStreamer(tokenizer);
  const stopTokenIds = model.endTokenIds(tokenizer);
  const found = new AbortController();
  const held = new HeldText(flags.stop);
  let count = 0;
  const show = (text: string): void => {
    if (text !== '') onText(text);
  };
  const [result] = await (reft ?? model).generate(ids, {
    maxNewTokens: flags.maxNewTokens ?? Math.max(1, Math.min(128, model.config.maxPositions - ids.length)),
    temperature: flags.temperature,
    seed: flags.seed,
    stopTokenIds,
    signal: AbortSignal.any([signal, found.signal]),
    ...(flags.topK !== undefined ? { topK: flags.topK } : {}),
    ...(flags.topP !== undefined ? { topP: flags.topP } : {}),
    ...(flags.repetitionPenalty !== undefined ? { repetitionPenalty: flags.repetitionPenalty } : {}),
    onToken: (_, id) => {
      onToken?.(++count);
      if (stopTokenIds.includes(id)) return;
      show(held.push(streamer.push(id)));
      if (held.stopped) found.abort();
    },
  });
  show(held.push(streamer.end()) + held.end());
  return {
    text: held.text,
    ids: result.ids,
    finish: held.stopped ? 'stop' : result.finish,
    tokensPerSecond: result.ids.length > 1 ? (result.ids.length - 1) / result.decodeSeconds : 0,
  };
}

/** Text up to a stop text; holds back an end that may yet turn out to be its beginning. */
class HeldText {
  text = '';
  stopped = false;
  private pending = '';
  private readonly stop: string | undefined;

  constructor(stop: string | undefined) {
    this.stop = stop;
  }

  /** What may be shown now. */
  push(piece: string): string {
    if (this.stopped) return '';
    this.pending += piece;
    if (!this.stop) return this.release(this.pending.length);
    const at = this.pending.indexOf(this.stop);
    if (at >= 0) {
      this.stopped = true;
      return this.release(at);
    }
    let keep = Math.min(this.stop.length - 1, this.pending.length);
    while (keep > 0 && !this.stop.startsWith(this.pending.slice(-keep))) keep--;
    return this.release(this.pending.length - keep);
  }

  end(): string {
    return this.stopped ? '' : this.release(this.pending.length);
  }

  private release(length: number): string {
    const shown = this.pending.slice(0, length);
    this.pending = this.pending.slice(length);
    this.text += shown;
    return shown;
  }
}
