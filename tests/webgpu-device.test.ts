// The device below the kernels: what is recorded and submitted when, memory that stays flat, errors that come at the
// next await and name their operation, a device that goes away in the middle of a run, and a process that ends.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as E from '../src/tensor/expr.js';
import { OutOfMemoryError, type Allocation, type Primitives, type View } from '../src/backends/backend.js';
import { createWebGpuBackend, WebGPUError, type WebGpuBackend } from '../src/backends/webgpu/index.js';
import { Mirror, openForTests, quarters } from './helpers/webgpu.js';

const backend = await openForTests();
if (backend) tests(backend);

const next = E.program([E.add(E.arg(0), E.uniform(0))], 1);
const line = (allocation: Allocation, n: number): View => ({
  allocation,
  dtype: 'f32',
  shape: [n],
  strides: [1],
  offset: 0,
});

function step(from: View, to: View, by: number): Primitives['map'] {
  return { program: next, shape: from.shape, inputs: [from], outputs: [to], uniforms: [by] };
}

test('without a GPU object, an adapter or a device the error says what is missing', async () => {
  const none = { requestAdapter: async () => null } as unknown as GPU;
  await assert.rejects(
    createWebGpuBackend({ gpu: none }),
    (e: Error) =>
      e instanceof WebGPUError && e.kind === 'unavailable' && /no adapter.*VK_ICD_FILENAMES/.test(e.message),
  );
  const empty = {
    requestAdapter: async () => ({
      limits: { maxStorageBufferBindingSize: 1, maxBufferSize: 1 },
      requestDevice: async () => Promise.reject(new Error('busy')),
    }),
  } as unknown as GPU;
  await assert.rejects(
    createWebGpuBackend({ gpu: empty }),
    (e: Error) => e instanceof WebGPUError && e.kind === 'unavailable' && /gives no device: busy/.test(e.message),
  );
});

function tests(gpu: WebGpuBackend): void {
  test('many dispatches go in one submit, one pipeline serves all shapes and uniforms', async () => {
    const a = gpu.allocate(400);
    const b = gpu.allocate(400);
    gpu.write(a, 0, new Float32Array(100));
    await gpu.flush();
    gpu.kernels.map(step(line(a, 1), line(b, 1), 0));
    await gpu.flush();
    const before = { ...gpu.counters };
    for (let i = 0; i < 100; i++) gpu.kernels.map(step(line(i % 2 ? b : a, i + 1), line(i % 2 ? a : b, i + 1), i));
    assert.equal(gpu.counters.submits, before.submits);
    assert.equal(gpu.counters.dispatches, before.dispatches + 100);
    await gpu.flush();
    assert.equal(gpu.counters.submits, before.submits + 1);
    assert.equal(gpu.counters.pipelines, before.pipelines);
    assert.equal(gpu.counters.bindGroups, before.bindGroups + 1, 'only b to a is new');
    assert.equal(gpu.counters.reads, before.reads);
    gpu.free(a);
    gpu.free(b);
  });

  test('a batch that is full is submitted of itself; parameters of a thousand calls stay their own', async () => {
    const n = 1000;
    const source = gpu.allocate(4);
    const targets = Array.from({ length: n }, () => gpu.allocate(4));
    gpu.write(source, 0, Float32Array.of(0.5));
    const before = gpu.counters.submits;
    targets.forEach((t, i) => gpu.kernels.map(step(line(source, 1), line(t, 1), i)));
    assert.ok(gpu.counters.submits > before + 5, 'gpu.counters.submits > before + 5');
    for (const i of [0, 1, 127, 128, 129, 500, 998, 999])
      assert.equal((await gpu.read(targets[i], 'f32', 0, 1))[0], i + 0.5);
    [source, ...targets].forEach(t => gpu.free(t));
  });

  test('a write waits for what is recorded before it, and reused memory is safe', async () => {
    const source = gpu.allocate(4);
    const target = gpu.allocate(4);
    gpu.write(source, 0, Float32Array.of(1));
    gpu.kernels.map(step(line(source, 1), line(target, 1), 10));
    gpu.write(source, 0, Float32Array.of(2)); // must not reach the call above
    gpu.free(source);
    const again = gpu.allocate(4); // the same buffer
    gpu.write(again, 0, Float32Array.of(3));
    assert.equal((await gpu.read(target, 'f32', 0, 1))[0], 11);
    assert.equal((await gpu.read(again, 'f32', 0, 1))[0], 3);
    gpu.write(target, 0, Int32Array.of(7));
    assert.equal((await gpu.read(target, 'i32', 0, 1))[0], 7);
    gpu.free(again);
    gpu.free(target);
  });

  test('numbers of rows beyond the first room for them', async () => {
    const mirror = new Mirror(gpu);
    for (const count of [3, 20000, 9000, 9000]) {
      const input = mirror.view([50], { value: quarters(count) });
      mirror.run('gather', {
        input,
        indices: Int32Array.from({ length: count }, (_, i) => ((i * 31) % 51) - 1),
        output: mirror.view([count]),
      });
    }
    await mirror.compare('uploads');
  });

  test('three hundred rounds leave memory as it was', async () => {
    const round = async (): Promise<void> => {
      const mirror = new Mirror(gpu);
      const a = mirror.view([20, 30], { value: quarters(1) });
      const b = mirror.view([30, 10], { value: quarters(2) });
      const c = mirror.view([20, 10]);
      mirror.run('matmul', { a, b, output: c });
      mirror.run('reduce', {
        op: 'sum',
        program: E.program([E.arg(0)], 1),
        shape: [20, 10],
        axes: [0],
        inputs: [c],
        output: mirror.view([1, 10]),
        uniforms: [],
      });
      await mirror.compare('round');
    };
    await round();
    const [memory, counters] = [gpu.stats(), { ...gpu.counters }];
    for (let i = 0; i < 300; i++) await round();
    assert.deepEqual(gpu.stats(), memory);
    for (const key of ['pipelines', 'buffers'] as const) assert.equal(gpu.counters[key], counters[key], key);
  });

  test('f64 is refused with a message', async () => {
    const allocation = gpu.allocate(64);
    const view: View = { allocation, dtype: 'f64', shape: [2], strides: [1], offset: 0 };
    const refused = { name: 'WebGPUError', message: /f64 tensors need the cpu device/ };
    assert.throws(() => gpu.write(allocation, 0, new Float64Array(2)), refused);
    assert.throws(() => gpu.kernels.copy({ input: view, output: view }), refused);
    assert.throws(() => gpu.kernels.matmul({ a: view, b: view, output: view }), refused);
    await assert.rejects(gpu.read(allocation, 'f64', 0, 2), refused);
    assert.throws(() => gpu.write(allocation, 60, new Float32Array(2)), RangeError);
    gpu.free(allocation);
  });

  test('memory: limits are kept and named, the pool is given up before an allocation fails', async () => {
    const small = await createWebGpuBackend({ limitBytes: 65536 });
    const all = Array.from({ length: 4 }, () => small.allocate(16384));
    assert.throws(
      () => small.allocate(16384),
      (e: Error) => e instanceof OutOfMemoryError && e.requestedBytes === 16384 && /limit 65536/.test(e.message),
    );
    assert.equal(small.stats().liveBytes, 65536);
    all.forEach(a => small.free(a));
    assert.equal(small.stats().pooledBytes, 65536);
    small.free(small.allocate(40000));
    assert.ok(small.stats().peakBytes <= 65536, 'small.stats().peakBytes <= 65536');
    assert.throws(() => small.allocate(2 ** 45), OutOfMemoryError);
    await small.close();
  });

  test('what the device finds wrong is thrown at the next await, names the op, and is thrown once', async () => {
    const other = await createWebGpuBackend();
    const allocation = other.allocate(16);
    other.write(allocation, 0, Float32Array.of(1, 2, 3, 4));
    other.kernels.map(step(line(allocation, 4), line(allocation, 4), 1));
    // A buffer destroyed behind the backend's back is only noticed when the batch is submitted.
    const bad = other.allocate(16);
    (bad as unknown as { buffer: { gpu: GPUBuffer } }).buffer.gpu.destroy();
    other.kernels.copy({ input: line(bad, 4), output: line(allocation, 4) });
    await assert.rejects(
      other.flush(),
      (e: Error) => e instanceof WebGPUError && e.kind === 'validation' && /copy/.test(e.op),
    );
    await other.flush();
    assert.equal((await other.read(allocation, 'f32', 0, 1))[0], 1, 'the refused batch did nothing');
    await other.close();
  });

  test('a device lost in the middle of a run is one clear error, everywhere', async () => {
    const other = await createWebGpuBackend();
    const allocation = other.allocate(4);
    other.write(allocation, 0, Float32Array.of(1));
    const reading = other.read(allocation, 'f32', 0, 1);
    other.kernels.map(step(line(allocation, 1), line(allocation, 1), 1));
    const flushing = other.flush();
    other.device.destroy();
    const lost = (e: Error): boolean =>
      e instanceof WebGPUError && e.kind === 'lost' && /device was lost/.test(e.message);
    const results = await Promise.allSettled([reading, flushing]);
    for (const r of results) if (r.status === 'rejected') assert.ok(lost(r.reason as Error), String(r.reason));
    await assert.rejects(other.flush(), lost);
    await assert.rejects(other.read(allocation, 'f32', 0, 1), lost);
    assert.throws(() => other.kernels.map(step(line(allocation, 1), line(allocation, 1), 1)), lost);
    assert.throws(() => other.allocate(4), lost);
    await other.close();
  });

  test('a closed backend says so', async () => {
    const other = await createWebGpuBackend();
    const allocation = other.allocate(4);
    await other.close();
    const closed = { name: 'WebGPUError', message: /was closed/ };
    await assert.rejects(other.flush(), closed);
    assert.throws(() => other.write(allocation, 0, new Float32Array(1)), closed);
    await other.close();
  });

  test('a process with an open device, and work done on it, ends', async () => {
    const module = fileURLToPath(new URL('../src/backends/webgpu/index.ts', import.meta.url));
    const code = `import { createWebGpuBackend } from ${JSON.stringify(module)};
      createWebGpuBackend().then(async b => {
        const a = b.allocate(4);
        b.write(a, 0, Float32Array.of(41));
        const view = { allocation: a, dtype: 'f32', shape: [1], strides: [1], offset: 0 };
        b.kernels.copy({ input: view, output: { ...view, allocation: b.allocate(4) } });
        console.log('read ' + (await b.read(a, 'f32', 0, 1))[0]);
      });`;
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const ended = await new Promise<number | null>(resolve => {
      const timer = setTimeout(() => child.kill(), 120_000);
      child.on('close', exit => {
        clearTimeout(timer);
        resolve(exit);
      });
    });
    assert.equal(ended, 0, output);
    assert.match(output, /read 41/);
  });
}
