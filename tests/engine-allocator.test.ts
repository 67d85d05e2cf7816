// The CPU's allocator: blocks never overlap, are used again, neighbours merge before memory runs out, the books are
// right.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Allocator, type Block } from '../src/backends/cpu/allocator.js';
import { sizeClass } from '../src/backends/sizeClass.js';
import { createCpuBackend, OutOfMemoryError } from '../src/backends/index.js';
import { scope } from '../src/autograd/index.js';
import { tensor } from '../src/tensor/index.js';
import { runs } from './helpers/draw.js';

const page = 65536;
const make = (pages: number, first = 64): Allocator =>
  new Allocator(new WebAssembly.Memory({ initial: 1, maximum: pages }), first, pages * page);

test('size classes hold what is asked, waste at most an eighth, and are aligned', () => {
  fc.assert(
    fc.property(fc.oneof(fc.nat(5000), fc.nat(2 ** 31)), bytes => {
      const size = sizeClass(bytes);
      assert.ok(size >= bytes && size % 64 === 0, `${bytes} -> ${size}`);
      assert.ok(size <= Math.max(bytes + 64, bytes * 1.125 + 1), `${bytes} -> ${size}`);
      assert.equal(sizeClass(size), size);
    }),
    runs(300),
  );
});

type Step = { bytes: number } | { release: number };
const steps = fc.array(
  fc.oneof(
    fc.record({ bytes: fc.oneof(fc.nat(300), fc.nat(40_000), fc.nat(300_000)) }),
    fc.record({ release: fc.nat(1000) }),
  ),
  { maxLength: 120 },
);

test('blocks do not overlap and stay inside the memory; the books add up', () => {
  fc.assert(
    fc.property(steps, (script: Step[]) => {
      const allocator = make(32);
      const live: Block[] = [];
      for (const step of script) {
        if ('release' in step) {
          if (live.length > 0) allocator.release(live.splice(step.release % live.length, 1)[0]);
        } else {
          try {
            live.push(allocator.allocate(step.bytes));
          } catch (error) {
            assert.ok(
              error instanceof OutOfMemoryError && error.requestedBytes === step.bytes,
              'error instanceof OutOfMemoryError && error.requestedBytes === step....',
            );
          }
        }
        const sorted = [...live].sort((a, b) => a.byteOffset - b.byteOffset);
        sorted.forEach((block, i) => {
          assert.ok(
            block.capacity >= block.byteLength && block.byteOffset % 64 === 0 && block.byteOffset >= 64,
            'block.capacity >= block.byteLength && block.byteOffset % 64 === 0 &...',
          );
          assert.ok(block.byteOffset + block.capacity <= allocator.memory.buffer.byteLength, 'inside the memory');
          if (i > 0) assert.ok(sorted[i - 1].byteOffset + sorted[i - 1].capacity <= block.byteOffset, 'no overlap');
        });
        const { liveBytes, pooledBytes, peakBytes, liveAllocations } = allocator.stats();
        assert.equal(
          liveBytes,
          live.reduce((sum, b) => sum + b.capacity, 0),
        );
        assert.equal(liveAllocations, live.length);
        assert.ok(
          pooledBytes >= 0 && liveBytes + pooledBytes <= peakBytes && peakBytes <= 32 * page,
          'pooledBytes >= 0 && liveBytes + pooledBytes <= peakBytes && peakByt...',
        );
      }
      // Everything back: the whole must be there again, whatever it was cut into.
      for (const block of live) allocator.release(block);
      const whole = allocator.allocate(28 * page);
      assert.equal(whole.byteOffset % 64, 0);
      assert.equal(allocator.stats().liveBytes, whole.capacity);
    }),
    runs(150),
  );
});

test('a freed block is used again, a larger one is cut', () => {
  const allocator = make(16);
  const first = allocator.allocate(1000);
  const fence = allocator.allocate(64);
  allocator.release(first);
  assert.equal(allocator.allocate(1000).byteOffset, first.byteOffset);
  const large = allocator.allocate(2048);
  allocator.release(large);
  const cut = allocator.allocate(1100);
  assert.equal(cut.byteOffset, large.byteOffset);
  assert.equal(allocator.stats().pooledBytes, large.capacity - cut.capacity);
  assert.ok(fence.byteOffset > first.byteOffset, 'fence.byteOffset > first.byteOffset');
});

test('memory grows only when it must', () => {
  const allocator = make(64);
  for (let i = 0; i < 200; i++) allocator.release(allocator.allocate(50_000));
  assert.equal(allocator.memory.buffer.byteLength, page);
});

test('out of memory names the op that asked and the largest that hold on', () => {
  const backend = createCpuBackend({ limitBytes: 4 * 2 ** 20 });
  scope(() => {
    const big = tensor.normal([2 ** 19], { seed: 1, backend });
    const small = tensor.ones([1000], { backend });
    assert.throws(
      () => big.exp(),
      (error: unknown) => {
        assert.ok(error instanceof OutOfMemoryError, 'error instanceof OutOfMemoryError');
        assert.equal(error.requestedBytes, 2 ** 21);
        assert.match(
          error.message,
          /^out of memory: 2097152 bytes asked for, \d+ in use, limit 4194304, in exp\. Largest live tensors by op: normal 2\.0 MiB in 1, ones 0\.0 MiB in 1\.$/,
        );
        return true;
      },
    );
    assert.equal(small.sum().dataSync()[0], 1000);
  });
  // After the scope the room is there again.
  assert.equal(
    scope(
      () =>
        tensor
          .ones([2 ** 19], { backend })
          .sum()
          .dataSync()[0],
    ),
    2 ** 19,
  );
});

test('a backend needs two pages, and is unusable once closed', async () => {
  assert.throws(
    () => createCpuBackend({ limitBytes: 1000 }),
    /^RangeError: limitBytes: expected at least 131072, got 1000$/,
  );
  const backend = createCpuBackend();
  const x = tensor.ones([2], { backend });
  await backend.close();
  assert.throws(() => x.dataSync(), /^Error: cpu: this backend was closed$/);
  assert.throws(() => tensor.ones([2], { backend }), /^Error: cpu: this backend was closed$/);
});
