// The conformance command on interchange cases: golden ones, ones of another layout made here, and what it must not
// pass.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { runConformance, type CaseResult } from '../scripts/conformance/run.js';
import { noGrad } from '../src/autograd/tape.js';
import { memorySource } from '../src/io/byteSource.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../src/io/safetensors.js';
import { AutoModelForCausalLM } from '../src/models/auto.js';
import { onBatch } from '../src/models/patch.js';
import { siteName } from '../src/models/sites.js';
import { create } from '../src/tensor/create.js';
import type { Tensor } from '../src/tensor/tensor.js';

const fixtures = join(import.meta.dirname, 'fixtures');
let dir: string;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'interchange-cases-'));
  await cp(join(fixtures, 'conformance', 'tiny-llama'), join(dir, 'tiny-llama'), { recursive: true });
  await cp(join(fixtures, 'interchange'), join(dir, 'interchange'), { recursive: true });
});
after(() => rm(dir, { recursive: true }));

async function resultOf(name: string): Promise<CaseResult & { error: string }> {
  let [out, error] = ['', ''];
  await runConformance([dir, '--json', '--only', `interchange/${name}`], {
    out: text => {
      out += text;
    },
    error: text => {
      error += text;
    },
  });
  const lines = out
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as CaseResult)
    .filter(line => 'case' in line);
  assert.equal(lines.length, 1, error);
  return { ...lines[0], error };
}

async function writeCase(name: string, settings: object, entries: SafetensorsEntry[]): Promise<void> {
  await writeFile(join(dir, 'interchange', `${name}.json`), JSON.stringify(settings));
  await writeFile(join(dir, 'interchange', `${name}.safetensors`), writeSafetensors(entries));
}

const ints = (name: string, shape: number[], data: readonly number[]): SafetensorsEntry => ({
  name,
  dtype: 'I32',
  shape,
  data: Int32Array.from(data),
});
const floats = (name: string, shape: number[], data: ArrayLike<number>): SafetensorsEntry => ({
  name,
  dtype: 'F32',
  shape,
  data: Float32Array.from(data),
});

/** A case's tensors, changed. */
async function changed(
  from: string,
  to: string,
  change: (entries: Map<string, SafetensorsEntry>) => void,
  settings = {},
): Promise<void> {
  const path = join(dir, 'interchange', from);
  const file = await openSafetensors(memorySource(await readFile(`${path}.safetensors`), from));
  const entries = new Map<string, SafetensorsEntry>();
  for (const { name, dtype, shape } of file.tensors.values()) {
    entries.set(
      name,
      dtype === 'I32'
        ? ints(name, [...shape], Array.from(await file.readInt32(name)))
        : floats(name, [...shape], await file.readFloat32(name)),
    );
  }
  change(entries);
  await writeCase(to, { ...(JSON.parse(await readFile(`${path}.json`, 'utf8')) as object), ...settings }, [
    ...entries.values(),
  ]);
}

test('the golden cases pass, and stop passing when anything in them is changed', async () => {
  for (const name of ['vanilla', 'low_rank_rotated']) {
    const { status, maxRel, tensor } = await resultOf(name);
    assert.deepEqual([status, tensor], ['pass', 'logits'], name);
    assert.ok((maxRel as number) < 1e-5, '(maxRel as number) < 1e-5');
    const bump =
      (which: string) =>
      (entries: Map<string, SafetensorsEntry>): void => {
        const { data, shape } = entries.get(which) as SafetensorsEntry;
        const list = Array.from(data as Int32Array);
        list[0] = (list[0] + 1) % 5;
        entries.set(which, ints(which, [...shape], list));
      };
    for (const which of ['base_positions', 'source_positions', 'source']) {
      await changed(name, 'damaged', bump(which));
      assert.equal((await resultOf('damaged')).status, 'fail', `${name}: ${which}`);
    }
    await changed(name, 'damaged', () => undefined, { layer: 2 });
    assert.equal((await resultOf('damaged')).status, 'fail', `${name}: layer`);
  }
});

test('several positions a row, masks, another component and the first coordinates alone', async () => {
  const model = await AutoModelForCausalLM.fromPretrained(join(dir, 'tiny-llama'), { dtype: 'f64' });
  const width = model.config.hiddenSize;
  const [base, source] = [
    [
      [0, 5, 9, 2, 7],
      [4, 1, 8, 3, 0],
    ],
    [
      [6, 2, 2, 9],
      [0, 3, 5, 1],
    ],
  ];
  const masks = {
    base: [
      [0, 1, 1, 1, 1],
      [1, 1, 1, 1, 0],
    ],
    source: [
      [1, 1, 1, 1],
      [0, 1, 1, 1],
    ],
  };
  const columns = {
    base: [
      [1, 4],
      [3, 0],
    ],
    source: [
      [3, 0],
      [1, 2],
    ],
  };
  const rank = 5;
  const site = { layer: 1, component: 'mlp_output' } as const;
  const batch = (rows: number[][], mask: number[][]) => ({
    inputIds: Int32Array.from(rows.flat()),
    attentionMask: Int32Array.from(mask.flat()),
    shape: [2, rows[0].length],
  });
  const read = noGrad(
    () => model.forward({ ...batch(source, masks.source), collect: [site] }).collected.get(siteName(site)) as Tensor,
  ).dataSync();
  const { logits } = noGrad(() =>
    model.forward({
      ...batch(base, masks.base),
      edits: [
        {
          site,
          apply: onBatch(h => {
            const data = Float64Array.from(h.dataSync());
            for (const b of [0, 1]) {
              columns.base[b].forEach((column, k) => {
                const from = (b * 4 + columns.source[b][k]) * width;
                data.set(read.slice(from, from + rank), (b * 5 + column) * width);
              });
            }
            return create.from(data, h.shape, { dtype: 'f64', backend: h.backend });
          }),
        },
      ],
    }),
  );
  const expected = Array.from(logits.dataSync());
  const entries = [
    ints('base', [2, 5], base.flat()),
    ints('source', [2, 4], source.flat()),
    floats('logits', [2, 5, model.config.vocabSize], expected),
    ints('base_attention_mask', [2, 5], masks.base.flat()),
    ints('source_attention_mask', [2, 4], masks.source.flat()),
    ints('base_positions', [2, 2], columns.base.flat()),
    ints('source_positions', [2, 2], columns.source.flat()),
  ];
  const settings = { model: 'tiny-llama', layer: 1, component: 'mlp_output', rank };
  await writeCase('other', settings, entries);
  const { status, error } = await resultOf('other');
  assert.equal(status, 'pass', error);
  await writeCase('whole', { ...settings, rank: undefined }, entries);
  assert.equal((await resultOf('whole')).status, 'fail', 'all coordinates are more than the first five');
  await writeCase('wide', { ...settings, rank: width + 1 }, entries);
  assert.match((await resultOf('wide')).error, /interchangeDim must be a whole number from 1 to 48, got 49/);
});

test('what a case holds beyond what is known is not supported; what does not fit fails', async () => {
  await changed('vanilla', 'more', entries => {
    entries.set('boundary', floats('boundary', [1], [0.5]));
  });
  const more = await resultOf('more');
  assert.deepEqual([more.status, more.maxRel], ['unsupported', null]);
  assert.match(more.error, /interchange cases with boundary are not supported/);
  await changed('vanilla', 'place', () => undefined, { component: 'crossattention_output' });
  assert.equal((await resultOf('place')).status, 'unsupported');
  await changed('low_rank_rotated', 'narrow', entries => {
    entries.set('R', floats('R', [3, 4], new Float32Array(12)));
  });
  assert.match((await resultOf('narrow')).error, /R: expected \[r, 48\], got \[3, 4\]/);
  await changed('vanilla', 'short', entries => {
    entries.set('base_positions', ints('base_positions', [1], [0]));
  });
  assert.match((await resultOf('short')).error, /base_positions: expected 2 rows, got 1/);
  await changed('vanilla', 'far', entries => {
    entries.set('source_positions', ints('source_positions', [2], [0, 70]));
  });
  assert.match((await resultOf('far')).error, /source, row 1: position 70 is out of range/);
});
