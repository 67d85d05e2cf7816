// Generation: one pass over the prompts, their ends aligned, then a token a step from the key/value cache. Yields a
// macrotask every step, so that signals and aborts are seen. Sampling of one token is in sampling.ts.

import { noGrad } from '../autograd/tape.js';
import { scope } from '../autograd/scope.js';
import { nextMacrotask } from '../tensor/macrotask.js';
import { Random } from '../tensor/threefry.js';
import { roundedProducts } from '../tensor/rounding.js';
import type { Tensor } from '../tensor/tensor.js';
import { KVCache } from './cache.js';
import type { CausalLM } from './causalLM.js';
import { contextNote } from './config.js';
import type { SiteEdit } from './patch.js';
import { checkIds } from '../io/tokenIds.js';
import { checkSampling, sample, type SamplingOptions } from './sampling.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';

/** Token ids, or what `tokenizer.chat` gives, which says what ends its answer. */
export type Prompt =
  | readonly number[]
  | Int32Array
  | { readonly ids: readonly number[] | Int32Array; readonly stopTokenIds?: readonly number[] };

/** Where the tokens of one step lie: row b's prompt occupies columns `starts[b]` .. `width - 1`. */
export interface StepLayout {
  readonly phase: 'prompt' | 'token';
  readonly batch: number;
  /** Columns of this step's input. */
  readonly width: number;
  /** First real column of each row. */
  readonly starts: Int32Array;
  readonly promptLengths: readonly number[];
  /** New tokens before this step. */
  readonly generated: number;
  /** The ids of each row so far, prompt and new tokens. */
  readonly ids: readonly (readonly number[])[];
}

/** Edits for a step of generation; what trained edits give. */
export interface GenerationEdits {
  editsFor(layout: StepLayout): readonly SiteEdit[];
}

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

const generateKeys: OptionKeys<GenerateOptions> = {
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

export interface Generated {
  /** New tokens only, the end token included. */
  readonly ids: number[];
  readonly finish: 'stop' | 'length' | 'aborted';
  /** Seconds for the prompts, and for all later steps together. */
  readonly promptSeconds: number;
  readonly decodeSeconds: number;
}

export async function generate(
  model: CausalLM,
  prompts: Prompt | readonly Prompt[],
  given: GenerateOptions,
): Promise<Generated[]> {
  checkOptionKeys('generate', given, generateKeys);
  const options = withDefaults(model, given);
  const { maxNewTokens = 64, seed = 0, useCache = true, rounded = true, signal } = options;
  const list = promptList(prompts);
  const rows = promptRows(list, model.config.vocabSize);
  if (!(Number.isInteger(maxNewTokens) && maxNewTokens > 0))
    throw new RangeError(`maxNewTokens: expected a whole number above 0, got ${maxNewTokens}`);
  checkSampling(options);
  const longest = Math.max(...rows.map(r => r.length));
  rows.forEach((row, b) => {
    if (row.length === 0) throw new RangeError(`generate: prompt ${b} is empty`);
    if (row.length + maxNewTokens > model.config.maxPositions) {
      const context = `${model.config.maxPositions}${contextNote(model.config)}`;
      throw new RangeError(
        `generate: prompt ${b} has ${row.length} tokens and ${maxNewTokens} new ones were asked for; the model's context is ${context}`,
      );
    }
  });
  const stops = list.map(
    p => new Set(options.stopTokenIds ?? model.endTokenIds(options.tokenizer, 'ids' in p ? p : undefined)),
  );
  const randoms = rows.map((_, b) => new Random(seed, b));
  const promptLengths = rows.map(r => r.length);
  const starts = Int32Array.from(promptLengths, n => longest - n);
  const results = rows.map(() => [] as number[]);
  const finished = rows.map(() => false);
  const cache = useCache ? new KVCache(longest + Math.min(maxNewTokens, 256)) : undefined;
  const filler = model.config.padTokenId ?? 0;
  let promptSeconds = 0;
  const begin = performance.now();
  let aborted = false;

  try {
    for (let step = 0; step < maxNewTokens && finished.includes(false); step++) {
      if (signal?.aborted) {
        aborted = true;
        break;
      }
      const whole = step === 0 || !cache;
      const width = whole ? longest + step : 1;
      const inputIds = new Int32Array(rows.length * width).fill(filler);
      rows.forEach((row, b) => {
        if (!whole) inputIds[b] = results[b][step - 1] ?? filler;
        else inputIds.set([...row, ...padded(results[b], step, filler)], b * width + starts[b]);
      });
      const total = longest + step;
      const attentionMask = new Int32Array(rows.length * total);
      for (let b = 0; b < rows.length; b++) attentionMask.fill(1, b * total + starts[b], (b + 1) * total);
      const layout: StepLayout = {
        phase: whole ? 'prompt' : 'token',
        batch: rows.length,
        width,
        starts,
        promptLengths,
        generated: step,
        ids: rows.map((row, b) => [...row, ...padded(results[b], step, filler)]),
      };
      // The caller owns what `read` still needs; the step's scope everything else.
      const read = noGrad(() =>
        roundedProducts(
          () =>
            scope(() => {
              const output = model.forward({
                inputIds,
                shape: [rows.length, width],
                attentionMask,
                ...(cache ? { cache } : {}),
                edits: options.edits?.editsFor(layout) ?? [],
                logitsAt: Int32Array.from(rows, (_, b) => (b + 1) * width - 1),
              });
              return output.logits;
            }),
          rounded,
        ),
      );
      const logits = await readAndFree(read);
      const vocabulary = model.config.vocabSize;
      rows.forEach((row, b) => {
        if (finished[b]) return;
        const place = `${model.name}: new token ${step} of prompt ${b}`;
        const id = sample(
          logits.subarray(b * vocabulary, (b + 1) * vocabulary),
          [...row, ...results[b]],
          options,
          randoms[b],
          place,
        );
        results[b].push(id);
        options.onToken?.(b, id);
        if (stops[b].has(id)) finished[b] = true;
      });
      if (step === 0) promptSeconds = (performance.now() - begin) / 1000;
      await nextMacrotask();
    }
  } finally {
    cache?.dispose();
  }
  const decodeSeconds = (performance.now() - begin) / 1000 - promptSeconds;
  return results.map((ids, b) => ({
    ids,
    finish: finished[b] ? 'stop' : aborted ? 'aborted' : 'length',
    promptSeconds,
    decodeSeconds,
  }));
}

/** Prompts as a list, whether one or several were given. */
export function promptList(prompts: Prompt | readonly Prompt[]): readonly Prompt[] {
  const isOne = !Array.isArray(prompts) || typeof prompts[0] === 'number';
  const list = (isOne ? [prompts] : prompts) as readonly Prompt[];
  if (list.length === 0) throw new RangeError('generate: no prompt was given');
  return list;
}

/** What the caller gave, and with `defaults: 'model'` what the model's files say of the rest. */
function withDefaults({ generation, name }: CausalLM, options: GenerateOptions): GenerateOptions {
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
  return { ...sampling, ...(maxNewTokens === undefined ? {} : { maxNewTokens }), ...said };
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

/** Rows that ended early are filled up; what they say no longer matters. */
function padded(ids: readonly number[], length: number, filler: number): number[] {
  return Array.from({ length }, (_, i) => ids[i] ?? filler);
}

async function readAndFree(tensor: Tensor): Promise<Float32Array> {
  const data = await tensor.data();
  tensor.storage.dispose();
  return data instanceof Float32Array ? data : Float32Array.from(data);
}
