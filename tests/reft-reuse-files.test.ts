// Reuse in a folder: the bits of reuse in memory, for later runs too; what is damaged or belongs to another model is
// computed; the folder keeps to its bound.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createCpuBackend } from '../src/backends/cpu/cpu.js';
import { supportsRelaxedSimd } from '../src/backends/cpu/wasm/emit/assembler.js';
import type { Backend } from '../src/backends/index.js';
import type { Example } from '../src/data/examples.js';
import { openBoundedFolder } from '../src/io/boundedFolderNode.js';
import { getReftModel, ReftTrainer, type ReftConfig, type TrainerOptions } from '../src/reft/index.js';
import { computationFingerprint } from '../src/train/fingerprint.js';
import { ReuseFiles } from '../src/train/reuseFiles.js';
import { cpu, cpuPlain } from './helpers/machines.js';
import { tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel, type TinyModelOptions } from './helpers/tinyModel.js';

let folder: string;
let next = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-reuse-'));
});
after(() => rm(folder, { recursive: true, force: true }));
const fresh = (): string => join(folder, String(next++));

const config: ReftConfig = { layers: [1, 2], positions: 'l1', rank: 2 };

/** Losses and gradients of a run, and how many examples it computed from their first token on. */
async function run(
  options: Partial<TrainerOptions>,
  {
    examples = tinyExamples(6),
    model = {},
    edits = config,
  }: { examples?: readonly Example[]; model?: TinyModelOptions; edits?: ReftConfig } = {},
) {
  const base = await tinyModel({ seed: 1, ...model });
  const forward = base.forward.bind(base);
  let computed = 0;
  base.forward = call => {
    if (call.cache && !call.from) computed++;
    return forward(call);
  };
  const reft = getReftModel(base, edits);
  const data = options.preferences ? {} : { examples };
  const trainer = new ReftTrainer(reft, { ...data, steps: 4, batchSize: 2, learningRate: 1e-2, ...options });
  const steps: number[] = [];
  for await (const { loss, gradNorm } of trainer.steps()) steps.push(loss, gradNorm);
  return { result: [steps, reft.trained().map(t => [...t.tensor.dataSync()])], computed };
}

describe('reuse in a folder', () => {
  test('gives the bits of memory, whatever is in memory beside it; a later run reads and computes nothing', async () => {
    for (const model of [{ dtype: 'f32' }, { dtype: 'f64' }] as const) {
      const { result } = await run({}, { model });
      for (const reuseBudgetBytes of [0, 3000, 2 ** 30]) {
        const options = { reuseDirectory: fresh(), reuseBudgetBytes };
        const first = await run(options, { model });
        assert.deepEqual(first, { result, computed: 6 });
        assert.deepEqual(await run(options, { model }), { result, computed: 0 });
        const names = await readdir(options.reuseDirectory);
        assert.equal(names.length, 6);
        assert.ok(
          names.every(name => /^[0-9a-f]{64}\.reuse\.safetensors$/.test(name)),
          names.join(),
        );
      }
    }
  });

  test('at the embeddings, behind a block, without a prefix, with evaluation rows and preferences', async () => {
    const rows = tinyExamples(6);
    const pairs = [0, 2, 4].map(i => ({ chosen: rows[i], rejected: rows[i + 1] }));
    const runs: [ReftConfig, Partial<TrainerOptions>][] = [
      [{ layers: [0], component: 'embeddings', positions: 'l1', rank: 2 }, {}],
      [{ layers: [2], positions: 'l1', rank: 2 }, {}],
      [
        { layers: [1], component: 'mlp_output', positions: 'f1+l1', rank: 2 },
        { evaluation: { examples: tinyExamples(9).slice(6), every: 2 } },
      ],
      [config, { preferences: { pairs } }],
    ];
    for (const [edits, options] of runs) {
      const { result } = await run(options, { edits });
      const directory = { reuseDirectory: fresh(), reuseBudgetBytes: 0 };
      const first = await run({ ...options, ...directory }, { edits });
      assert.deepEqual(first.result, result);
      assert.ok(first.computed > 0, 'first.computed > 0');
      assert.deepEqual(await run({ ...options, ...directory }, { edits }), { result, computed: 0 });
    }
  });

  test('what is damaged, cut off or empty is computed and written again', async () => {
    const reuseDirectory = fresh();
    const options = { reuseDirectory, reuseBudgetBytes: 0 };
    const { result } = await run(options);
    const names = (await readdir(reuseDirectory)).sort();
    const whole = await Promise.all(names.map(name => readFile(join(reuseDirectory, name))));
    const flipped = (bytes: Buffer, at: number): Buffer => {
      const copy = Buffer.from(bytes);
      copy[at] ^= 1;
      return copy;
    };
    const damage = [
      (bytes: Buffer) => flipped(bytes, bytes.length - 1),
      (bytes: Buffer) => flipped(bytes, bytes.length - 100),
      (bytes: Buffer) => flipped(bytes, 3),
      (bytes: Buffer) => bytes.subarray(0, bytes.length - 4),
      () => Buffer.alloc(0),
      () => whole[0],
    ];
    await Promise.all(names.map((name, i) => writeFile(join(reuseDirectory, name), damage[i](whole[i]))));
    assert.deepEqual(await run(options), { result, computed: 6 });
    await Promise.all(
      names.map(async (name, i) => {
        assert.deepEqual(await readFile(join(reuseDirectory, name)), whole[i]);
      }),
    );
  });

  test('is found by what decides it: weights, ids, window, site, dtype', async () => {
    const reuseDirectory = fresh();
    const options = { reuseDirectory };
    assert.equal((await run(options)).computed, 6);
    assert.equal((await run(options, { model: { seed: 2 } })).computed, 6);
    assert.equal((await run(options, { model: { dtype: 'f64' } })).computed, 6);
    assert.equal((await run(options, { edits: { ...config, layers: [2] } })).computed, 6);
    assert.equal((await run(options, { edits: { ...config, positions: 'l2' } })).computed, 6);
    const other = tinyExamples(6).map((e, i) =>
      i === 0 ? { ...e, ids: e.ids.map((id, t) => (t === 0 ? (id + 1) % 23 : id)) } : e,
    );
    assert.equal((await run(options, { examples: other })).computed, 1);
    // Rank, kind and learning rate decide nothing of it.
    assert.equal(
      (await run({ ...options, learningRate: 1 }, { edits: { ...config, rank: 1, kind: 'direft' } })).computed,
      0,
    );
    const printOf = async (device: Backend): Promise<string> =>
      computationFingerprint(await tinyModel({ device, hidden: 64, vocabulary: 50 }));
    const [relaxed, plain] = [await printOf(cpu.backend), await printOf(cpuPlain.backend)];
    // An engine without relaxed SIMD computes the same with both.
    assert.equal(relaxed !== plain, supportsRelaxedSimd());
    assert.equal(relaxed, await printOf(createCpuBackend({ threads: 2 })));
  });

  test('keeps to its bound: what was used longest ago goes, what does not fit is computed in full', async () => {
    const sizes = async (directory: string): Promise<number[]> =>
      Promise.all((await readdir(directory)).map(async name => (await stat(join(directory, name))).size));
    const reuseDirectory = fresh();
    await run({ reuseDirectory });
    const all = (await sizes(reuseDirectory)).reduce((a, b) => a + b, 0);
    const reuseDirectoryBudgetBytes = 2 * all;
    for (const seed of [2, 3, 4]) {
      await run({ reuseDirectory, reuseDirectoryBudgetBytes }, { model: { seed } });
      assert.ok(
        (await sizes(reuseDirectory)).reduce((a, b) => a + b, 0) <= reuseDirectoryBudgetBytes,
        '(await sizes(reuseDirectory)).reduce((a, b) => a + b, 0) <= reuseDi...',
      );
    }
    assert.equal((await run({ reuseDirectory, reuseDirectoryBudgetBytes }, { model: { seed: 4 } })).computed, 0);

    const half = { reuseDirectory: fresh(), reuseDirectoryBudgetBytes: all / 2, reuseBudgetBytes: 0 };
    const { result, computed } = await run(half);
    assert.ok(computed > 0 && computed < 6, 'computed > 0 && computed < 6');
    assert.ok(
      (await sizes(half.reuseDirectory)).reduce((a, b) => a + b, 0) <= all / 2,
      '(await sizes(half.reuseDirectory)).reduce((a, b) => a + b, 0) <= al...',
    );
    const off = await run({ reuse: false });
    (result[0] as number[]).forEach((x, i) => {
      assert.ok(
        Math.abs(x - (off.result[0] as number[])[i]) < 1e-4 * Math.max(1, x),
        'Math.abs(x - (off.result[0] as number[])[i]) < 1e-4 * Math.max(1, x)',
      );
    });
    const none = await run({ ...half, reuseDirectory: fresh(), reuseDirectoryBudgetBytes: 0 });
    assert.deepEqual([none.result, none.computed], [off.result, 0]);
  });

  test('holds no more in memory than a step needs, and gives it back', async () => {
    const backend = createCpuBackend();
    const reft = getReftModel(await tinyModel({ device: backend }), config);
    const most = async (options: Partial<TrainerOptions>): Promise<number> => {
      const trainer = new ReftTrainer(reft, { examples: tinyExamples(12), steps: 6, batchSize: 2, ...options });
      let held = 0;
      for await (const _ of trainer.steps()) held = backend.stats().liveBytes;
      const end = backend.stats().liveBytes;
      trainer.dispose();
      assert.ok(backend.stats().liveBytes <= end, 'backend.stats().liveBytes <= end');
      return held - end;
    };
    await most({ reuse: false });
    const reuseDirectory = fresh();
    assert.ok((await most({ reuseDirectory })) > 1000, 'await most({ reuseDirectory }) > 1000');
    assert.equal(await most({ reuseDirectory, reuseBudgetBytes: 0 }), 0);
  });

  /**
   * Runs `body` and logs the reading of files and the forwards of steps in their order; `open` counts what is still
   * being read.
   */
  async function watched(body: (log: string[], open: () => number) => Promise<void>): Promise<void> {
    const log: string[] = [];
    let open = 0;
    const { begin } = ReuseFiles.prototype;
    ReuseFiles.prototype.begin = function (window, firstLayer) {
      log.push(`read ${window.example.where}`);
      open++;
      const reading = begin.call(this, window, firstLayer);
      const settled = (): void => {
        open--;
      };
      reading.states.then(settled, settled);
      return reading;
    };
    try {
      await body(log, () => open);
    } finally {
      ReuseFiles.prototype.begin = begin;
    }
  }

  async function trainerOver(
    reuseDirectory: string,
    log: string[],
    options: Partial<TrainerOptions> = {},
  ): Promise<ReftTrainer> {
    const base = await tinyModel({ seed: 1 });
    const forward = base.forward.bind(base);
    base.forward = call => {
      if (call.from) log.push('step');
      return forward(call);
    };
    return new ReftTrainer(getReftModel(base, config), {
      examples: tinyExamples(6),
      steps: 4,
      batchSize: 2,
      reuseDirectory,
      reuseBudgetBytes: 0,
      ...options,
    });
  }

  test('a step begins to read what the next one needs; each row is read once a step, and nothing is read past the end', async () => {
    const reuseDirectory = fresh();
    await run({ reuseDirectory });
    await watched(async log => {
      const at: number[] = [];
      for await (const { index } of (await trainerOver(reuseDirectory, log)).steps())
        at[index] = log.filter(what => what !== 'step').length;
      // The first step reads its own rows and those of the second, the last one nothing.
      assert.deepEqual(at.slice(1), [4, 6, 8, 8]);
      assert.deepEqual(
        log.map((what, i) => (what === 'step' ? i : -1)).filter(i => i >= 0),
        [4, 7, 10, 11],
      );
      const evaluation = { examples: tinyExamples(9).slice(2), every: 2 };
      const { result } = await run({ evaluation });
      for (const _ of [0, 1])
        assert.deepEqual((await run({ evaluation, reuseDirectory, reuseBudgetBytes: 0 })).result, result);
    });
  });

  test('a run that ends early leaves nothing being read; what it did not need is no error of its own', async () => {
    const reuseDirectory = fresh();
    await run({ reuseDirectory });
    const unhandled: unknown[] = [];
    const listen = (error: unknown): void => void unhandled.push(error);
    process.on('unhandledRejection', listen);
    await watched(async (log, open) => {
      for await (const _ of (await trainerOver(reuseDirectory, log)).steps()) break;
      assert.deepEqual([log.filter(what => what !== 'step').length, open()], [4, 0]);
      const abort = new AbortController();
      for await (const _ of (await trainerOver(reuseDirectory, log, { signal: abort.signal })).steps()) abort.abort();
      assert.equal(open(), 0);

      // A folder in the place of every file that only the second step reads.
      const others = new Set(await readdir(reuseDirectory));
      const keepsFirst = fresh();
      for await (const _ of (await trainerOver(keepsFirst, log, { steps: 1 })).steps());
      for (const name of await readdir(keepsFirst)) others.delete(name);
      for (const name of others) {
        await rm(join(reuseDirectory, name));
        await mkdir(join(reuseDirectory, name));
      }
      for await (const _ of (await trainerOver(reuseDirectory, log)).steps()) break;
      let steps = 0;
      const all = async (): Promise<void> => {
        for await (const _ of (await trainerOver(reuseDirectory, log)).steps()) steps++;
      };
      await assert.rejects(
        all(),
        new RegExp(
          `^Error: ${reuseDirectory}: [0-9a-f]{64}\\.reuse\\.safetensors cannot be read: .*expected a file, it is a folder`,
        ),
      );
      assert.deepEqual([steps, open()], [1, 0]);
    });
    await new Promise(resolve => setTimeout(resolve, 20));
    process.off('unhandledRejection', listen);
    assert.deepEqual(unhandled, []);
  });

  test('what cannot be is refused', async () => {
    const file = fresh();
    await writeFile(file, 'a file');
    await assert.rejects(run({ reuseDirectory: file }), new RegExp(`${file}: cannot be opened`));
    await assert.rejects(
      run({ reuseDirectory: fresh(), reuse: false }),
      /reuseDirectory: has no meaning without reuse/,
    );
    await assert.rejects(
      run({ reuseDirectoryBudgetBytes: -1 }),
      /reuseDirectoryBudgetBytes: expected a number from 0 on/,
    );
  });
});

test('a bounded folder removes the oldest first, never what is needed, and only files of its own', async () => {
  const directory = fresh();
  const bytes = new Uint8Array(10);
  const none: ReadonlySet<string> = new Set();
  let bounded = await openBoundedFolder(directory, '.x', 35);
  for (const name of ['a.x', 'b.x', 'c.x']) assert.equal(await bounded.write(name, bytes, none), true);
  await writeFile(join(directory, 'other'), 'y');
  await writeFile(join(directory, '.a.x.1.tmp'), 'y');
  await writeFile(join(directory, '.a.x.2.tmp'), 'y');
  for (const [name, seconds] of [
    ['a.x', 300],
    ['b.x', 200],
    ['c.x', 100],
    ['.a.x.1.tmp', 9000],
    ['.a.x.2.tmp', 9],
  ] as const) {
    const then = new Date(Date.now() - 1000 * seconds);
    await utimes(join(directory, name), then, then);
  }
  bounded = await openBoundedFolder(directory, '.x', 35);
  assert.equal(await bounded.write('d.x', bytes, new Set(['a.x'])), true);
  assert.deepEqual((await readdir(directory)).sort(), ['.a.x.2.tmp', 'a.x', 'c.x', 'd.x', 'other']);
  assert.equal(await bounded.write('e.x', new Uint8Array(20), new Set(['a.x', 'c.x', 'd.x'])), false);
  assert.equal(await bounded.begin('e.x'), null);
  assert.deepEqual(await (await bounded.begin('a.x'))?.(), bytes);
  assert.equal(await bounded.write('a.x', new Uint8Array(12), none), true);
});
