// The threads themselves: every tile is computed once, by whoever comes; workers may come late, the memory may grow, a
// tile may fail; workers end with their backend and never hold the process.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { subscribe } from 'node:diagnostics_channel';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { createCpuBackend } from '../src/backends/index.js';
import { coreCount, oneThread, openThreads, threadsBytes, type Threads } from '../src/backends/cpu/threads.js';
import { takeTiles, word } from '../src/backends/cpu/threadsLoop.js';
import { load, ModuleBuilder, op } from '../src/backends/cpu/wasm/emit/assembler.js';
import { create } from '../src/tensor/create.js';
import { runs } from './helpers/draw.js';
import { untilPresent } from './helpers/threaded.js';

const workers: Worker[] = [];
subscribe('worker_threads', message => workers.push((message as { worker: Worker }).worker));

const data = threadsBytes;

/** count(at, by, scratch): adds `by` to the word at `at`, writes scratch into the next. fail(at, ...) is a trap. */
function codeFor(shared: boolean): Uint8Array<ArrayBuffer> {
  const m = new ModuleBuilder({ memory: { shared } });
  const fail = m.function('fail', { params: ['i32', 'i32'], results: [] });
  fail.store('i32.store', -4, load('i32.load', fail.params[0]));
  const count = m.function('count', { params: ['i32', 'i32', 'i32'], results: [] });
  const [at, by, scratch] = count.params;
  count.store('i32.store', at, op('i32.add', load('i32.load', at), by));
  count.store('i32.store', at, scratch, 4);
  const fill = m.function('fill', { params: ['i32', 'i32', 'i32'], results: [] });
  fill.fill(fill.params[0], fill.params[1], fill.params[2]);
  return m.bytes();
}

function open(seats: number): { memory: WebAssembly.Memory; threads: Threads; code: ReturnType<Threads['link']> } {
  const shared = seats > 1;
  const memory = new WebAssembly.Memory({ initial: threadsBytes / 65536 + 64, maximum: 4096, shared });
  const threads = shared ? openThreads(memory, seats) : oneThread(memory);
  return { memory, threads, code: threads.link(codeFor(shared)) };
}

/** Runs empty tiles until all threads have come. */
function gather(threads: Threads, fill: ReturnType<Threads['link']>['fill']): void {
  const end = Date.now() + 60_000;
  while (threads.present() < threads.seats && Date.now() < end)
    threads.run(fill, [
      [data, 0, 0],
      [data, 0, 0],
    ]);
  assert.equal(threads.present(), threads.seats);
}

for (const seats of [1, 2, 3, 5]) {
  test(`each tile is computed once, ${seats} threads`, async () => {
    const { memory, threads, code } = open(seats);
    const words = (): Int32Array => new Int32Array(memory.buffer, data, 2 * 9000);
    const check = (tiles: number, by: number): void => {
      words().fill(0);
      threads.run(
        code.count,
        Array.from({ length: tiles }, (_, i) => [data + 8 * i, by + i]),
        1000,
        16,
      );
      words()
        .subarray(0, 2 * tiles)
        .forEach((value, i) => {
          if (i % 2 === 0) assert.equal(value, by + i / 2, `tile ${i / 2} of ${tiles}`);
          else assert.ok(value >= 1000 && value < 1000 + 16 * seats && value % 16 === 1000 % 16, `scratch at ${value}`);
        });
      assert.ok(
        words()
          .subarray(2 * tiles)
          .every(value => value === 0),
        'nothing else was written',
      );
    };
    check(50, 1); // whoever is there by now
    gather(threads, code.fill);
    check(9000, 3); // more arguments than fit one job
    fc.assert(fc.property(fc.nat(300), fc.integer({ min: -1000, max: 1000 }), check), runs(60));
    await threads.close();
  });
}

test('a thread works in memory that has just grown', async () => {
  const { memory, threads, code } = open(3);
  gather(threads, code.fill);
  for (let round = 1; round < 60; round++) {
    const from = memory.buffer.byteLength;
    memory.grow(2);
    threads.run(
      code.fill,
      Array.from({ length: 32 }, (_, i) => [from + 4096 * i, round, 4096]),
    );
    assert.ok(
      new Uint8Array(memory.buffer, from).every(byte => byte === round),
      `round ${round}`,
    );
  }
  await threads.close();
});

test('a thread that has not heard of a growth, and never will, asks for it', () => {
  // V8 tells threads of a growth, but not one that is just being given the memory: about one in a thousand that start
  // while it grows.
  const grown: number[] = [];
  let pages = 1;
  const memory = {
    get buffer() {
      return { byteLength: pages * 65536 };
    },
    grow(by: number) {
      grown.push(by);
      return (pages = 3);
    },
  };
  const words = new Int32Array(new SharedArrayBuffer(4 * 96));
  const ran: number[][] = [];
  Object.assign(words, {
    [word.left]: 1,
    [word.pages]: 3,
    [word.argCount]: 1,
    [word.scratchAt]: 40,
    [word.scratchStride]: 8,
  });
  const linked = [[(...args: number[]) => ran.push(args)]];
  takeTiles(
    { memory: memory as WebAssembly.Memory, words, args: Float64Array.of(7), thread: 2, linked, error: undefined },
    word,
  );
  assert.deepEqual([grown, ran, words[word.done], words[word.failed]], [[0], [[7, 56]], 1, 0]);
});

test('a tile that fails is an error, once, and the others are still computed', async () => {
  const { memory, threads, code } = open(3);
  gather(threads, code.fill);
  for (let round = 0; round < 20; round++) {
    assert.throws(
      () =>
        threads.run(
          code.fail,
          Array.from({ length: 8 }, () => [data, 0]),
        ),
      /out of bounds|kernel failed/,
    );
    threads.run(
      code.fill,
      Array.from({ length: 8 }, (_, i) => [data + i, round, 1]),
    );
    assert.deepEqual([...new Uint8Array(memory.buffer, data, 8)], new Array(8).fill(round));
  }
  await threads.close();
});

test('close ends the workers, and several backends have their own', async () => {
  const before = workers.length;
  const backends = [2, 3, 2].map(threads => createCpuBackend({ threads, leastWork: 0 }));
  assert.equal(workers.length, before, 'no worker without work');
  for (const backend of backends) untilPresent(backend);
  assert.equal(workers.length, before + 4);
  const products = backends.map((backend, i) => {
    const x = create.full([33, 40], i + 1, { backend });
    return x.matmul(create.ones([40, 21], { backend }));
  });
  products.forEach((y, i) =>
    assert.ok(
      y.dataSync().every(value => value === 40 * (i + 1)),
      'y.dataSync().every(value => value === 40 * (i + 1))',
    ),
  );
  await backends[1].close();
  assert.deepEqual(
    workers.slice(before).map(w => w.threadId === -1),
    [false, true, true, false],
  );
  assert.ok(
    products[2]
      .add(1)
      .dataSync()
      .every(value => value === 121),
    'the others go on',
  );
  await backends[0].close();
  await backends[2].close();
  assert.ok(
    workers.slice(before).every(w => w.threadId === -1),
    'workers.slice(before).every(w => w.threadId === -1)',
  );
  assert.throws(() => products[0].add(1), /closed/);
});

test('threads: numbers of at least 1', () => {
  for (const threads of [0, -1, 1.5, NaN, Infinity]) {
    assert.throws(() => createCpuBackend({ threads }), {
      name: 'RangeError',
      message: `threads: expected a whole number of at least 1, or 'cores', got ${threads}`,
    });
  }
  assert.equal(createCpuBackend().threads, 1);
  assert.equal(createCpuBackend({ threads: 'cores' }).threads, coreCount());
  assert.equal(createCpuBackend({ threads: 4, simd: false }).threads, 1, 'the reference kernels are not cut');
  assert.equal(createCpuBackend({ threads: 4, limitBytes: 2 ** 20 }).threads, 1, 'a memory too small to share');
});

test('what is read from shared memory is a copy of its own', async () => {
  const backend = createCpuBackend({ threads: 2 });
  const x = create.ones([5], { backend });
  for (const copy of [x.dataSync(), await x.data()]) {
    assert.ok(copy.buffer instanceof ArrayBuffer, 'copy.buffer instanceof ArrayBuffer');
    copy[0] = 7;
    assert.equal(x.dataSync()[0], 1);
  }
  await backend.close();
});

test('the process ends by itself while workers sleep or wait for work', () => {
  const script = `
    import { createCpuBackend } from './src/backends/index.js';
    import { create } from './src/tensor/create.js';
    import { scope } from './src/autograd/index.js';
    const backend = createCpuBackend({ threads: 3, leastWork: 0 });
    const x = create.ones([64, 64], { backend });
    while (backend.presentThreads() < 3) scope(() => void x.matmul(x)); // for as long as workers take to start: nothing may pile up
    console.log(x.matmul(x).dataSync()[0]);`;
  const cwd = fileURLToPath(new URL('..', import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '-e', script],
    { cwd, encoding: 'utf8', timeout: 120_000 },
  );
  assert.equal(status, 0, `ended by ${signal ?? `code ${status}`}: ${stdout}${stderr}`);
  assert.equal(stdout.trim(), '64');
});
