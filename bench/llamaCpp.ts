// llama.cpp on the same GGUF file through node-llama-cpp's prebuilt binary (`npm ci --prefix bench/peers
// --ignore-scripts`), on the CPU: a prompt of 512 tokens, and one stream of 128 new ones. Only what the bench needs of
// the package is typed here.

import { readFileSync } from 'node:fs';
import { resolveModel } from '../src/io/resolve.js';
import { tokens } from './modelJobs.js';

interface Sequence {
  clearHistory(): Promise<void>;
  evaluateWithoutGeneratingNewTokens(ids: readonly number[]): Promise<void>;
  evaluate(ids: readonly number[], options: { temperature: number }): AsyncGenerator<number>;
}

interface LlamaCpp {
  getLlama(options: {
    gpu: false;
    build: 'never';
    skipDownload: true;
    logLevel: 'error';
  }): Promise<{
    llamaCppRelease: { release: string };
    loadModel(options: {
      modelPath: string;
    }): Promise<{
      createContext(options: {
        contextSize: number;
        batchSize: number;
        threads: number;
        sequences: number;
      }): Promise<{ getSequence(): Sequence }>;
    }>;
  }>;
}

export interface LlamaCppResult {
  /** Tokens a second. */
  readonly prefill: number;
  readonly decode: number;
  readonly version: string;
}

const folder = new URL('./peers/node_modules/node-llama-cpp/', import.meta.url);

/** @throws Error where the package, or its binary for this machine, is not installed */
export async function measureLlamaCpp(threads: number, quick: boolean): Promise<LlamaCppResult> {
  const { version } = JSON.parse(readFileSync(new URL('package.json', folder), 'utf8')) as { version: string };
  const { getLlama } = (await import(new URL('dist/index.js', folder).href)) as LlamaCpp;
  const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'error' });
  const { path } = await resolveModel('smollm2-135m');
  const model = await llama.loadModel({ modelPath: path });
  const sequence = (
    await model.createContext({ contextSize: 1024, batchSize: 512, threads, sequences: 1 })
  ).getSequence();
  const prompt = [...tokens(512, 0)];
  let [prefill, decode] = [0, 0];
  for (let i = 0; i < (quick ? 2 : 6); i++) {
    await sequence.clearHistory();
    const begin = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(prompt);
    prefill = Math.max(prefill, 512_000 / (performance.now() - begin));
  }
  const length = quick ? 16 : 128;
  for (let i = 0; i < (quick ? 1 : 4); i++) {
    await sequence.clearHistory();
    let [count, begin] = [0, 0];
    // From the first new token on, as ours is taken.
    for await (const _ of sequence.evaluate(prompt.slice(0, 64), { temperature: 0 })) {
      if (count++ === 0) begin = performance.now();
      if (count === length) break;
    }
    decode = Math.max(decode, (1000 * (count - 1)) / (performance.now() - begin));
  }
  return { prefill, decode, version: `${version} (llama.cpp ${llama.llamaCppRelease.release})` };
}
