// What every thread does: take tiles of the current job until none is left, and, on workers, wait for the next. The
// text of these two functions is also the source of the workers, so they import nothing, define no functions inside,
// and use no syntax that a compiler turns into a call of a helper. How a job is described and started is threads.ts's
// business.

/**
 * Words of the control block, in shared memory. `alive` to `failed`, `left` and `done` are changed by all threads, the
 * rest only between jobs. What is changed while others look at it has a cache line of its own.
 */
export const word = {
  /** Workers that have come to their loop. */
  alive: 0,
  /** Workers that sleep, and whether the main thread does. */
  asleep: 1,
  mainAsleep: 2,
  stop: 3,
  failed: 4,
  /** Changes with every job; workers wait on it. */
  turn: 16,
  /**
   * Tiles that nobody has taken yet; below 0 once they are gone. Who takes one may rely on the description until the
   * tile is counted as done.
   */
  left: 32,
  done: 48,
  /**
   * The job: its number of tiles, a module (number, address and length of its bytes), a function (place among the
   * exports).
   */
  tiles: 64,
  module: 65,
  bytesAt: 66,
  bytesLength: 67,
  place: 68,
  /** Arguments of a tile, without the address of scratch that comes last: scratchAt + thread * scratchStride. */
  argCount: 69,
  scratchAt: 70,
  scratchStride: 71,
  /** Size of the memory in pages: a thread may hear of its growth late or never. */
  pages: 72,
  /** Number of the job. */
  job: 73,
} as const;

export type Words = typeof word;

/** A thread's place at the memory. */
export interface Seat {
  readonly memory: WebAssembly.Memory;
  readonly words: Int32Array;
  /** Arguments of the tiles, one after the other. */
  readonly args: Float64Array;
  /** 0 is the main thread. */
  readonly thread: number;
  /** Exports in order, by the number of the module. */
  readonly linked: ((...args: number[]) => unknown)[][];
  /** What a tile has thrown here. */
  error: unknown;
}

export function takeTiles(seat: Seat, word: Words): void {
  const words = seat.words;
  // What is the same for all tiles of a job.
  let job = -1;
  let run: ((...args: number[]) => unknown) | undefined;
  let args: number[] = [];
  let count = 0;
  for (;;) {
    // A look first: who only looks takes the line from nobody.
    if (Atomics.load(words, word.left) <= 0) return;
    const left = Atomics.sub(words, word.left, 1);
    if (left <= 0) return;
    try {
      if (words[word.job] !== job) {
        run = undefined;
        // A thread that starts while the memory grows may never hear of it; growing by nothing tells it.
        while (seat.memory.buffer.byteLength < words[word.pages] * 65536) seat.memory.grow(0);
        const number = words[word.module];
        if (!seat.linked[number]) {
          const bytes = new Uint8Array(seat.memory.buffer, words[word.bytesAt], words[word.bytesLength]).slice();
          const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: seat.memory } });
          seat.linked[number] = Object.values(instance.exports) as ((...args: number[]) => unknown)[];
        }
        count = words[word.argCount];
        args = new Array<number>(count + 1);
        args[count] = words[word.scratchAt] + seat.thread * words[word.scratchStride];
        run = seat.linked[number][words[word.place]];
        job = words[word.job];
      }
      for (let i = 0, at = (left - 1) * count; i < count; i++) args[i] = seat.args[at + i];
      (run as (...args: number[]) => unknown)(...args);
    } catch (error) {
      seat.error = error;
      Atomics.store(words, word.failed, 1);
    }
    Atomics.add(words, word.done, 1);
    if (Atomics.load(words, word.mainAsleep)) Atomics.notify(words, word.done);
  }
}

/** A worker's life, until it is told to stop. It looks for the next job `spins` times before it sleeps. */
export function attend(seat: Seat, word: Words, take: typeof takeTiles, spins: number): void {
  const words = seat.words;
  Atomics.add(words, word.alive, 1);
  while (!Atomics.load(words, word.stop)) {
    const turn = Atomics.load(words, word.turn);
    take(seat, word);
    let spun = 0;
    while (spun < spins && Atomics.load(words, word.turn) === turn) spun++;
    if (spun < spins) continue;
    Atomics.add(words, word.asleep, 1);
    Atomics.wait(words, word.turn, turn);
    Atomics.sub(words, word.asleep, 1);
  }
}
