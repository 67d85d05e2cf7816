// Threads over one shared WebAssembly memory. A kernel call that is cut in tiles becomes a job: the arguments of every
// tile are written to shared memory, and the main thread and the resident workers take tiles until none is left
// (threadsLoop.ts). Nothing is sent: a worker compiles a module when it first meets it, from bytes in the memory. Tiles
// write to different places, so results do not depend on who computes what. Which calls are cut, and where, is each
// kernel's own business.

import { instantiate, type WasmFunction } from './wasm/emit/assembler.js';
import { attend, takeTiles, word, type Seat } from './threadsLoop.js';

export interface Threads {
  /** Threads that may compute, the main thread among them. */
  readonly seats: number;
  /**
   * How many tiles a call of so much work, counted in multiply-adds of two numbers near at hand, should be cut in: 1
   * where it is not worth sharing; for much work several a thread, so that what they wait for at its end is a small
   * part.
   */
  parts(work: number): number;
  /** Threads that are there by now. */
  present(): number;
  /** Compiles a module for this memory; the exported functions by name. */
  link(bytes: Uint8Array<ArrayBuffer>): Record<string, WasmFunction>;
  /**
   * Calls a linked function once with each list of arguments (all equally long), in any order and on any thread, and
   * returns when all have returned. The calls must not depend on each other. After its arguments the function is given
   * scratchAt + thread * scratchStride.
   */
  run(f: WasmFunction, calls: readonly (readonly number[])[], scratchAt?: number, scratchStride?: number): void;
  /** Ends the workers. */
  close(): Promise<void>;
}

/** The main thread alone, on any memory. */
export function oneThread(memory: WebAssembly.Memory): Threads {
  return {
    seats: 1,
    parts: () => 1,
    present: () => 1,
    link: bytes => instantiate(bytes, memory),
    run: (f, calls, scratchAt = 0) => {
      for (const args of calls) f(...args, scratchAt);
    },
    close: async () => undefined,
  };
}

/** Node's own modules, without an import that a bundler would follow; undefined in a browser. */
function fromNode<T>(module: string): T | undefined {
  if (typeof process === 'undefined' || !process.versions?.node) return undefined;
  return (process as { getBuiltinModule?: (name: string) => T }).getBuiltinModule?.(module);
}

/** Whether memory can be shared with workers here: a page must be isolated from other origins. */
export function canShareMemory(): boolean {
  if (typeof SharedArrayBuffer === 'undefined') return false;
  return (
    fromNode('node:worker_threads') !== undefined || (typeof Worker !== 'undefined' && globalThis.crossOriginIsolated)
  );
}

/** Cores that this process may use. */
export function coreCount(): number {
  const os = fromNode<typeof import('node:os')>('node:os');
  return os ? os.availableParallelism() : (globalThis.navigator?.hardwareConcurrency ?? 1);
}

/**
 * Bytes at the start of the memory that threads need: control block, arguments, and code that has been run on several
 * threads.
 */
export const threadsBytes = 2 ** 22;
const controlAt = 64;
const controlWords = 96;
const argsAt = 1024;
const mostArgs = 2 ** 14;
const codeAt = argsAt + 8 * mostArgs;

/** Multiply-adds that take about five times as long as starting a job and ending it. Measured. */
const worthCutting = 2 ** 18;

/** Tiles of a call with much work, for each thread. Measured. */
const tilesOfThread = 8;

/** Looks at a word in memory before sleeping: a fraction of a millisecond. */
const workerSpins = 20_000;
const mainSpins = 5_000;

/** What workers are, apart from the memory: this outlives an abandoned backend until its workers have been stopped. */
interface Crew {
  readonly words: Int32Array;
  ends: (() => Promise<unknown>)[];
}

async function stop(crew: Crew): Promise<void> {
  Atomics.store(crew.words, word.stop, 1);
  Atomics.add(crew.words, word.turn, 1);
  Atomics.notify(crew.words, word.turn);
  const ends = crew.ends;
  crew.ends = [];
  await Promise.all(ends.map(end => end()));
}

const abandoned = new FinalizationRegistry<Crew>(crew => void stop(crew));

/** Starts the workers. What a worker fails with means one thread less. */
function hire(crew: Crew, memory: WebAssembly.Memory, seats: number): void {
  const source = `const { memory, thread, controlAt, controlWords, argsAt, mostArgs, word, spins } = start;
const seat = { memory, thread, linked: [], error: undefined,
  words: new Int32Array(memory.buffer, controlAt, controlWords), args: new Float64Array(memory.buffer, argsAt, mostArgs) };
(${attend.toString()})(seat, word, ${takeTiles.toString()}, spins);`;
  const node = fromNode<typeof import('node:worker_threads')>('node:worker_threads');
  for (let thread = 1; thread < seats; thread++) {
    const start = { memory, thread, controlAt, controlWords, argsAt, mostArgs, word, spins: workerSpins };
    crew.ends.push(node ? openInNode(node, source, start) : openInPage(source, start));
  }
}

/** A worker that the process does not wait for; gives what ends it. */
function openInNode(
  { Worker }: typeof import('node:worker_threads'),
  source: string,
  start: unknown,
): () => Promise<unknown> {
  const worker = new Worker(`const start = process.getBuiltinModule('node:worker_threads').workerData;\n${source}`, {
    eval: true,
    workerData: start,
    execArgv: [],
    env: {},
  });
  worker.unref();
  worker.on('error', () => undefined);
  return () => worker.terminate();
}

/** From a Blob, so that a bundler has nothing to find. */
function openInPage(source: string, start: unknown): () => Promise<unknown> {
  const url = URL.createObjectURL(
    new Blob([`onmessage = ({ data: start }) => {\n${source}\nclose();\n};`], { type: 'text/javascript' }),
  );
  const worker = new Worker(url);
  worker.onerror = event => {
    event.preventDefault();
  };
  worker.postMessage(start);
  return async () => {
    worker.terminate();
    URL.revokeObjectURL(url);
  };
}

interface Place {
  readonly code: Code;
  readonly index: number;
}

/** A module; numbered and copied to shared memory when first run on several threads. */
interface Code {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly functions: WasmFunction[];
  number: number;
  at: number;
}

/**
 * `seats` threads over a shared memory whose first `threadsBytes` are theirs. Workers start with the first call that is
 * cut; until they are there, and where they cannot be had, the main thread computes alone. A call of less than
 * `leastWork` is not cut.
 */
export function openThreads(memory: WebAssembly.Memory, seats: number, leastWork = worthCutting): Threads {
  const words = new Int32Array(memory.buffer, controlAt, controlWords);
  const args = new Float64Array(memory.buffer, argsAt, mostArgs);
  const crew: Crew = { words, ends: [] };
  const seat: Seat = { memory, words, args, thread: 0, linked: [], error: undefined };
  const places = new WeakMap<WasmFunction, Place>();
  let hired = false;
  let codeEnd = codeAt;

  /** Gives the module a number and a place in memory; false if there is no room left. */
  const publish = (code: Code): boolean => {
    if (code.number >= 0) return true;
    if (codeEnd + code.bytes.length > threadsBytes) return false;
    code.at = codeEnd;
    new Uint8Array(memory.buffer).set(code.bytes, codeEnd);
    codeEnd += code.bytes.length;
    code.number = seat.linked.push(code.functions) - 1;
    return true;
  };

  /** One job of as many tiles as its arguments have room for. */
  const runTiles = (
    { code, index }: Place,
    calls: readonly (readonly number[])[],
    scratchAt: number,
    scratchStride: number,
  ): void => {
    const argCount = calls[0].length;
    let at = 0;
    for (const call of calls) for (let i = 0; i < argCount; i++) args[at++] = call[i];
    words[word.tiles] = calls.length;
    words[word.module] = code.number;
    words[word.bytesAt] = code.at;
    words[word.bytesLength] = code.bytes.length;
    words[word.place] = index;
    words[word.argCount] = argCount;
    words[word.scratchAt] = scratchAt;
    words[word.scratchStride] = scratchStride;
    words[word.pages] = memory.buffer.byteLength / 65536;
    words[word.job]++;
    Atomics.store(words, word.done, 0);
    Atomics.store(words, word.left, calls.length);
    Atomics.add(words, word.turn, 1);
    if (Atomics.load(words, word.asleep) > 0) Atomics.notify(words, word.turn, calls.length - 1);
    takeTiles(seat, word);
    awaitDone(words, calls.length);
    if (Atomics.exchange(words, word.failed, 0)) {
      const error = seat.error ?? new Error('cpu: a kernel failed on a worker thread');
      seat.error = undefined;
      throw error;
    }
  };

  const threads: Threads = {
    seats,
    parts: work =>
      work < leastWork
        ? 1
        : Math.max(seats, Math.min(tilesOfThread * seats, Math.floor(work / leastWork) || tilesOfThread * seats)),
    present: () => 1 + Atomics.load(words, word.alive),
    link: bytes => {
      const exported = instantiate(bytes, memory);
      const code: Code = { bytes, functions: Object.values(exported), number: -1, at: 0 };
      code.functions.forEach((f, index) => places.set(f, { code, index }));
      return exported;
    },
    run: (f, calls, scratchAt = 0, scratchStride = 0) => {
      if (calls.length > 1 && !hired) {
        hired = true;
        try {
          hire(crew, memory, seats);
        } catch {
          // No workers here (a policy forbids them): the main thread computes alone.
        }
      }
      const place = places.get(f);
      if (calls.length < 2 || !place || Atomics.load(words, word.alive) === 0 || !publish(place.code)) {
        for (const call of calls) f(...call, scratchAt);
        return;
      }
      const most = Math.floor(mostArgs / Math.max(1, calls[0].length));
      if (calls.length <= most) runTiles(place, calls, scratchAt, scratchStride);
      else
        for (let i = 0; i < calls.length; i += most)
          runTiles(place, calls.slice(i, i + most), scratchAt, scratchStride);
    },
    close: () => stop(crew),
  };
  abandoned.register(threads, crew);
  return threads;
}

/** Looks for the last tiles to be done; where this thread may sleep, not for long. */
function awaitDone(words: Int32Array, tiles: number): void {
  for (let spun = 0; spun < mainSpins; spun++) if (Atomics.load(words, word.done) === tiles) return;
  if (!maySleep()) while (Atomics.load(words, word.done) !== tiles);
  Atomics.store(words, word.mainAsleep, 1);
  for (;;) {
    const done = Atomics.load(words, word.done);
    if (done === tiles) break;
    Atomics.wait(words, word.done, done);
  }
  Atomics.store(words, word.mainAsleep, 0);
}

let sleeps: boolean | undefined;

/** A page's own thread may not wait. */
function maySleep(): boolean {
  if (sleeps === undefined) {
    try {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0);
      sleeps = true;
    } catch {
      sleeps = false;
    }
  }
  return sleeps;
}
