// A running batch: requests join and leave it at any step. A step computes the prompts of those that joined and one
// token of each that runs, samples, and drops those that ended, which cost nothing from then on. The tokens of a prompt
// before its first edit are kept as pages, which later prompts that begin alike take over (promptPages.ts).

import { noGrad } from '../../autograd/tape.js';
import { scope } from '../../autograd/scope.js';
import { checkIds } from '../../io/tokenIds.js';
import { nextMacrotask } from '../../tensor/macrotask.js';
import { roundedProducts } from '../../tensor/rounding.js';
import type { Tensor } from '../../tensor/tensor.js';
import { Random } from '../../tensor/threefry.js';
import type { CausalLM } from '../causalLM.js';
import { contextNote } from '../config.js';
import type { Kept } from '../kept.js';
import type { SiteEdit } from '../patch.js';
import { BatchCache } from './batchCache.js';
import { PromptPages } from './promptPages.js';
import { checkSampling, sample, type SamplingOptions } from './sampling.js';

/** Where the tokens of one pass lie: column `starts[b]` of row b is its sequence's first token. */
export interface StepLayout {
  readonly phase: 'prompt' | 'token';
  readonly batch: number;
  /** Columns of this pass. */
  readonly width: number;
  /** Column of each sequence's first token; negative where it lies before this pass. */
  readonly starts: Int32Array;
  readonly promptLengths: readonly number[];
  /** Tokens of each sequence so far, prompt and new ones. */
  readonly lengths: readonly number[];
  /** The ids of each sequence so far. */
  readonly ids: readonly (readonly number[])[];
  /** Which of the caller's rows each row of the batch is: rows that ended are gone. */
  readonly rowOf: Int32Array;
  /** How many rows the caller has; default: those of the batch. */
  readonly rowCount?: number;
  /** Rows of the batch that are meant; default all. */
  readonly only?: ReadonlySet<number>;
}

/** Edits for a pass of generation; what trained edits give. */
export interface GenerationEdits {
  editsFor(layout: StepLayout): readonly SiteEdit[];
  /** The first token of a prompt that an edit changes; absent: its first one. What comes before may be shared. */
  firstEdited?(ids: readonly number[]): number;
}

export interface EngineOptions {
  /** Most requests in the batch at a time; others wait. Default: no limit. */
  readonly maxBatch?: number;
  /** Bytes of prompts' pages that are kept for others that begin alike. Default 0: none. */
  readonly pageBytes?: number;
  /** Off recomputes everything each step: slow, for tests. */
  readonly useCache?: boolean;
  /** Products with quantised weights may round hidden states, see GenerateOptions. */
  readonly rounded?: boolean;
}

export interface RequestOptions {
  readonly ids: readonly number[];
  /** What errors call it. */
  readonly name?: string;
  readonly edits?: GenerationEdits;
  readonly sampling?: SamplingOptions;
  /** Default 64. */
  readonly maxNewTokens?: number;
  /** Default: the model's own ends. */
  readonly stopTokenIds?: readonly number[];
  readonly seed?: number;
  /** Which stream of the seed's random numbers; default: the number of the request. */
  readonly stream?: number;
  readonly onToken?: (id: number) => void;
}

export interface Generated {
  /** New tokens only, the end token included. */
  readonly ids: number[];
  readonly finish: 'stop' | 'length' | 'aborted';
  /** Seconds for the prompt, and for all later steps together. */
  readonly promptSeconds: number;
  readonly decodeSeconds: number;
}

export class Request {
  readonly number: number;
  readonly name: string;
  readonly prompt: readonly number[];
  readonly options: RequestOptions;
  /** Resolves when it has ended or was cancelled; rejects where a logit is not finite. */
  readonly result: Promise<Generated>;
  /** New tokens so far. */
  readonly newIds: number[] = [];
  readonly random: Random;
  readonly stops: ReadonlySet<number>;
  cancelled = false;
  private readonly begun = performance.now();
  private firstToken = 0;
  private settle: { resolve: (value: Generated) => void; reject: (error: unknown) => void } | null = null;

  constructor(number: number, options: RequestOptions, stops: readonly number[]) {
    const { ids, name = `request ${number}`, seed = 0, stream = number } = options;
    this.number = number;
    this.name = name;
    this.prompt = ids;
    this.options = options;
    this.random = new Random(seed, stream);
    this.stops = new Set(stops);
    this.result = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
  }

  /** Its prompt and new tokens. */
  get ids(): number[] {
    return [...this.prompt, ...this.newIds];
  }

  get length(): number {
    return this.prompt.length + this.newIds.length;
  }

  /** Ends it after the step that is being computed. */
  cancel(): void {
    this.cancelled = true;
  }

  /** Takes a new token. True where it was the last one. */
  take(id: number): boolean {
    if (this.newIds.length === 0) this.firstToken = performance.now();
    this.newIds.push(id);
    this.options.onToken?.(id);
    return this.stops.has(id) || this.newIds.length >= (this.options.maxNewTokens ?? 64);
  }

  end(): void {
    const ended = performance.now();
    const first = this.firstToken === 0 ? ended : this.firstToken;
    const last = this.newIds.at(-1);
    const finish =
      last !== undefined && this.stops.has(last) ? 'stop' : this.cancelled ? 'aborted' : ('length' as const);
    this.settle?.resolve({
      ids: this.newIds,
      finish,
      promptSeconds: (first - this.begun) / 1000,
      decodeSeconds: (ended - first) / 1000,
    });
  }

  fail(error: unknown): void {
    this.settle?.reject(error);
  }
}

export class Engine {
  readonly model: CausalLM;
  private readonly options: EngineOptions;
  private readonly waiting: Request[] = [];
  /** By their rows in the cache. */
  private readonly running: Request[] = [];
  private cache: BatchCache | null = null;
  private readonly pages: PromptPages | null;
  private added = 0;
  private stepping = false;

  constructor(model: CausalLM, options: EngineOptions = {}) {
    const { pageBytes = 0, maxBatch = Infinity } = options;
    if (!(maxBatch >= 1)) throw new RangeError(`maxBatch: expected a number from 1, got ${maxBatch}`);
    this.model = model;
    this.options = options;
    this.pages = pageBytes > 0 && model.keepsPrefixes ? new PromptPages(pageBytes) : null;
  }

  /** True while a request waits or runs. */
  get busy(): boolean {
    return this.waiting.length > 0 || this.running.length > 0;
  }

  /** What the engine holds. */
  get stats(): { waiting: number; running: number; pages: number; pageBytes: number } {
    const { pages, pageBytes } = this.pages?.stats ?? { pages: 0, pageBytes: 0 };
    return { waiting: this.waiting.length, running: this.running.length, pages, pageBytes };
  }

  /** @throws RangeError or TypeError naming the request and what in it does not fit the model */
  add(options: RequestOptions): Request {
    const { model } = this;
    const { ids, maxNewTokens = 64, sampling = {} } = options;
    const request = new Request(this.added, options, options.stopTokenIds ?? model.endTokenIds());
    if (!(Number.isInteger(maxNewTokens) && maxNewTokens > 0))
      throw new RangeError(`maxNewTokens: expected a whole number above 0, got ${maxNewTokens}`);
    checkSampling(sampling);
    checkIds(`generate: ${request.name}`, ids, model.config.vocabSize);
    if (ids.length === 0) throw new RangeError(`generate: ${request.name} is empty`);
    if (ids.length + maxNewTokens > model.config.maxPositions) {
      throw new RangeError(
        `generate: ${request.name} has ${ids.length} tokens and ${maxNewTokens} new ones were asked for; the model's context is ${model.config.maxPositions}${contextNote(model.config)}`,
      );
    }
    this.added++;
    this.waiting.push(request);
    return request;
  }

  cancelAll(): void {
    for (const request of [...this.waiting, ...this.running]) request.cancel();
  }

  /** One step. Signals and aborts are seen between two of them. What goes wrong on the device ends all requests. */
  async step(): Promise<void> {
    if (this.stepping) throw new Error('engine: a step is already being computed');
    this.stepping = true;
    try {
      this.dropCancelled();
      if (this.options.useCache === false) await this.stepWhole();
      else {
        const before = this.running.length;
        const joined = this.admit();
        if (before > 0) await this.stepTokens(this.running.slice(0, before));
        for (const group of joined) await this.stepPrompts(group);
        this.dropEnded();
      }
    } catch (error) {
      for (const request of [...this.waiting.splice(0), ...this.running.splice(0)]) request.fail(error);
      this.cache?.dispose();
      this.cache = null;
      throw error;
    } finally {
      this.stepping = false;
    }
    await nextMacrotask();
  }

  private readonly ended = new Set<Request>();

  private dropCancelled(): void {
    for (const request of this.waiting.filter(r => r.cancelled)) {
      this.waiting.splice(this.waiting.indexOf(request), 1);
      request.end();
    }
    for (const request of this.running) if (request.cancelled) this.ended.add(request);
    this.dropEnded();
  }

  private dropEnded(): void {
    for (const request of this.ended) {
      const row = this.running.indexOf(request);
      if (row < 0) continue;
      const last = this.running.length - 1;
      this.cache?.drop(row);
      this.running[row] = this.running[last];
      this.running.pop();
      request.end();
    }
    this.ended.clear();
    if (this.running.length === 0) {
      this.cache?.dispose();
      this.cache = null;
    }
  }

  /** Those that wait and have room, in groups that have as many tokens kept. */
  private admit(): { past: number; requests: Request[] }[] {
    const { maxBatch = Infinity } = this.options;
    const room = Math.max(0, maxBatch - this.running.length);
    const groups = new Map<number, Request[]>();
    for (const request of this.waiting.splice(0, room)) {
      // At least the last token is computed: its logits are what is sampled from.
      const shared = Math.min(this.shareable(request), request.prompt.length - 1);
      const past = this.pages?.find(request.prompt.slice(0, shared)) ?? 0;
      const group = groups.get(past);
      if (group) group.push(request);
      else groups.set(past, [request]);
    }
    return [...groups].map(([past, requests]) => ({ past, requests }));
  }

  /** Tokens of a prompt before its first edit. */
  private shareable({ prompt, options: { edits } }: Request): number {
    return edits ? Math.min(prompt.length, edits.firstEdited?.(prompt) ?? 0) : prompt.length;
  }

  private async stepPrompts({ past, requests }: { past: number; requests: Request[] }): Promise<void> {
    const lengths = requests.map(({ prompt }) => prompt.length - past);
    const longest = Math.max(...requests.map(({ prompt, options }) => prompt.length + newTokenRoom(options)));
    this.cache ??= new BatchCache(longest);
    const { cache } = this;
    const first = cache.rows;
    const kept = cache.prompts(lengths, past, longest - past);
    this.running.push(...requests);
    if (past > 0) requests.forEach(({ prompt }, i) => void this.pages?.put(prompt.slice(0, past), cache, first + i));
    const width = Math.max(...lengths);
    const inputIds = new Int32Array(requests.length * width).fill(this.filler);
    const mask = new Int32Array(requests.length * (past + width));
    requests.forEach(({ prompt }, b) => {
      inputIds.set(prompt.slice(past), b * width);
      mask.fill(1, b * (past + width), b * (past + width) + prompt.length);
    });
    const logits = await this.logits(
      requests,
      'prompt',
      width,
      -past,
      inputIds,
      kept,
      mask,
      b => b * width + lengths[b] - 1,
    );
    requests.forEach(request => {
      const { prompt } = request;
      this.pages?.keep(prompt.slice(0, this.shareable(request)), cache, this.running.indexOf(request));
    });
    this.sampled(requests, logits);
  }

  private async stepTokens(requests: readonly Request[]): Promise<void> {
    const { cache } = this;
    if (!cache) throw new Error('engine: nothing is kept of the requests that run');
    const inputIds = Int32Array.from(requests, ({ newIds }) => newIds[newIds.length - 1]);
    const logits = await this.logits(requests, 'token', 1, null, inputIds, cache.step(), undefined, b => b);
    this.sampled(requests, logits);
  }

  /** A step without a cache: every sequence as a whole. */
  private async stepWhole(): Promise<void> {
    this.running.push(...this.waiting.splice(0));
    const requests = [...this.running];
    if (requests.length === 0) return;
    const width = Math.max(...requests.map(r => r.length));
    const inputIds = new Int32Array(requests.length * width).fill(this.filler);
    const mask = new Int32Array(requests.length * width);
    requests.forEach(({ ids }, b) => {
      inputIds.set(ids, b * width);
      mask.fill(1, b * width, b * width + ids.length);
    });
    const last = (b: number): number => b * width + requests[b].length - 1;
    this.sampled(requests, await this.logits(requests, 'prompt', width, 0, inputIds, undefined, mask, last));
    this.dropEnded();
  }

  private get filler(): number {
    return this.model.config.padTokenId ?? 0;
  }

  /**
   * One forward pass: the logits of one token a row. `start`: the column of first tokens; null: before one new token.
   */
  private async logits(
    requests: readonly Request[],
    phase: StepLayout['phase'],
    width: number,
    start: number | null,
    inputIds: Int32Array,
    cache: Kept | undefined,
    attentionMask: Int32Array | undefined,
    row: (b: number) => number,
  ): Promise<Float32Array> {
    const { model } = this;
    const layout: StepLayout = {
      phase,
      batch: requests.length,
      width,
      starts: Int32Array.from(requests, r => start ?? -(r.length - 1)),
      promptLengths: requests.map(r => r.prompt.length),
      lengths: requests.map(r => r.length),
      ids: requests.map(r => r.ids),
      rowOf: Int32Array.from(requests, r => r.options.stream ?? r.number),
    };
    const logits = noGrad(() =>
      roundedProducts(
        () =>
          scope(
            () =>
              model.forward({
                inputIds,
                shape: [requests.length, width],
                ...(attentionMask ? { attentionMask } : {}),
                ...(cache ? { cache } : {}),
                edits: editsOf(requests, layout),
                logitsAt: Int32Array.from(requests, (_, b) => row(b)),
              }).logits,
          ),
        this.options.rounded ?? true,
      ),
    );
    return readAndFree(logits);
  }

  private sampled(requests: readonly Request[], logits: Float32Array): void {
    const { vocabSize } = this.model.config;
    requests.forEach((request, b) => {
      const place = `${this.model.name}: new token ${request.newIds.length} of ${request.name}`;
      const row = logits.subarray(b * vocabSize, (b + 1) * vocabSize);
      const id = sample(row, request.ids, request.options.sampling ?? {}, request.random, place);
      if (request.take(id)) this.ended.add(request);
    });
  }

  /** Frees what is kept; requests that are left end as if cancelled. */
  dispose(): void {
    this.cancelAll();
    this.dropCancelled();
    this.cache?.dispose();
    this.cache = null;
    this.pages?.dispose();
  }
}

/** New tokens that a row has room for from the start. */
const newTokenRoom = ({ maxNewTokens = 64 }: RequestOptions): number => Math.min(maxNewTokens, 256);

/** The edits of all requests of a pass; each adapter is asked once, for its rows. */
function editsOf(requests: readonly Request[], layout: StepLayout): SiteEdit[] {
  const rows = new Map<GenerationEdits, Set<number>>();
  requests.forEach(({ options: { edits } }, b) => {
    if (!edits) return;
    const before = rows.get(edits);
    if (before) before.add(b);
    else rows.set(edits, new Set([b]));
  });
  return [...rows].flatMap(([edits, only]) =>
    edits.editsFor(only.size === requests.length ? layout : { ...layout, only }),
  );
}

export async function readAndFree(tensor: Tensor): Promise<Float32Array> {
  const data = await tensor.data();
  tensor.storage.dispose();
  return data instanceof Float32Array ? data : Float32Array.from(data);
}
