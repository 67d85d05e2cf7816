// Generation for people: all prompts at once, until none is left. The work is the engine's (engine.ts).

import { checkIds } from '../../io/tokenIds.js';
import { checkOptionKeys, type OptionKeys } from '../../optionKeys.js';
import type { CausalLM } from '../causalLM.js';
import { Engine, type Generated, type GenerationEdits } from './engine.js';

export type { Generated, GenerationEdits, StepLayout } from './engine.js';
import type { SamplingOptions } from './sampling.js';

/** Token ids, or what `tokenizer.chat` gives, which says what ends its answer. */
export type Prompt =
  | readonly number[]
  | Int32Array
  | { readonly ids: readonly number[] | Int32Array; readonly stopTokenIds?: readonly number[] };

export interface GenerateOptions extends SamplingOptions {
  /** Default 64. */
  readonly maxNewTokens?: number;
  /**
   * Generation of a row ends after one of these. Default: the end tokens of the model's configuration and
   * generation_config.json, those that the prompt brings along (as one of `tokenizer.chat` does), and the tokenizer's.
   */
  readonly stopTokenIds?: readonly number[];
  /** The tokenizer whose ends of a turn stop a generation, where prompts are bare ids. */
  readonly tokenizer?: { readonly stopTokenIds: readonly number[] } | undefined;
  /**
   * 'model' takes what is not given here (sampling, maxNewTokens) from the model's generation_config.json. Default
   * 'reft': greedy, 64 tokens.
   */
  readonly defaults?: 'reft' | 'model';
  readonly seed?: number;
  readonly edits?: GenerationEdits;
  readonly signal?: AbortSignal;
  /** Off recomputes everything each step: slow, for tests. */
  readonly useCache?: boolean;
  /**
   * Products with quantised weights may round hidden states to 16 bits (tensor/rounding.ts), which moves logits by some
   * 1e-5 of the largest and makes decoding about 1.5 times as fast on the CPU. Default true.
   */
  readonly rounded?: boolean;
  /** Called with each new token of each row. */
  readonly onToken?: (row: number, id: number) => void;
}

export const generateKeys: OptionKeys<GenerateOptions> = {
  temperature: true,
  topK: true,
  topP: true,
  repetitionPenalty: true,
  maxNewTokens: true,
  stopTokenIds: true,
  tokenizer: true,
  defaults: true,
  seed: true,
  edits: true,
  signal: true,
  useCache: true,
  rounded: true,
  onToken: true,
};

export async function generate(
  model: CausalLM,
  prompts: Prompt | readonly Prompt[],
  given: GenerateOptions,
): Promise<Generated[]> {
  checkOptionKeys('generate', given, generateKeys);
  const options = withDefaults(model, given);
  const { maxNewTokens = 64, seed = 0, useCache = true, rounded = true, signal, edits, onToken } = options;
  const { temperature, topK, topP, repetitionPenalty } = options;
  const list = promptList(prompts);
  const rows = promptRows(list, model.config.vocabSize);
  const engine = new Engine(model, { useCache, rounded });
  const cancel = (): void => {
    engine.cancelAll();
  };
  signal?.addEventListener('abort', cancel);
  try {
    const requests = rows.map((ids, row) => {
      const prompt = list[row];
      return engine.add({
        ids,
        name: `prompt ${row}`,
        maxNewTokens,
        sampling: withoutUndefined({ temperature, topK, topP, repetitionPenalty }),
        stopTokenIds:
          options.stopTokenIds ?? model.endTokenIds(options.tokenizer, 'ids' in prompt ? prompt : undefined),
        seed,
        stream: row,
        ...(edits ? { edits } : {}),
        ...(onToken
          ? {
              onToken: id => {
                onToken(row, id);
              },
            }
          : {}),
      });
    });
    const results = Promise.all(requests.map(request => request.result));
    // What goes wrong is thrown below; a request that fails before the others are awaited is no surprise.
    results.catch(() => undefined);
    if (signal?.aborted) engine.cancelAll();
    while (engine.busy) await engine.step();
    return await results;
  } finally {
    signal?.removeEventListener('abort', cancel);
    engine.dispose();
  }
}

const withoutUndefined = (options: { [K in keyof SamplingOptions]: SamplingOptions[K] | undefined }): SamplingOptions =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));

/** Prompts as a list, whether one or several were given. */
export function promptList(prompts: Prompt | readonly Prompt[]): readonly Prompt[] {
  const isOne = !Array.isArray(prompts) || typeof prompts[0] === 'number';
  const list = (isOne ? [prompts] : prompts) as readonly Prompt[];
  if (list.length === 0) throw new RangeError('generate: no prompt was given');
  return list;
}

/** What the caller gave, and with `defaults: 'model'` what the model's files say of the rest. */
export function withDefaults<Options extends Pick<GenerateOptions, 'defaults'>>(
  { generation, name }: Pick<CausalLM, 'generation' | 'name'>,
  options: Options,
): Options {
  const { defaults = 'reft' } = options;
  if (defaults !== 'reft' && defaults !== 'model')
    throw new RangeError(`defaults: expected 'reft' or 'model', got ${String(defaults)}`);
  if (defaults === 'reft') return options;
  const [missing] = generation.unsupported;
  if (missing !== undefined)
    throw new Error(
      `generate: ${name}'s generation_config.json sets ${missing}, which is not supported; give options in place of defaults: 'model'`,
    );
  const { sampling, maxNewTokens } = generation;
  const said = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return { ...sampling, ...(maxNewTokens === undefined ? {} : { maxNewTokens }), ...said } as Options;
}

/** The ids of each prompt. @throws TypeError or RangeError naming the prompt and what in it is no token id */
export function promptRows(list: readonly Prompt[], vocabSize: number): number[][] {
  return list.map((prompt: unknown, b) => {
    const chat = typeof prompt === 'object' && prompt !== null && 'ids' in prompt;
    const ids = chat ? prompt.ids : prompt;
    checkIds(`generate: prompt ${b}`, ids, vocabSize);
    return Array.from(ids);
  });
}
