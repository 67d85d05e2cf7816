// The conformance command on a few golden cases kept here: what it passes, what it must not pass, and its contract with
// callers.

import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { runConformance, type CaseResult } from '../scripts/conformance/run.js';
import { memorySource } from '../src/io/byteSource.js';
import { openSafetensors, writeSafetensors, type SafetensorsEntry } from '../src/io/safetensors.js';
import { viewStored, type PlainDType } from '../src/io/storedDType.js';
import { AutoModelForCausalLM } from '../src/models/auto.js';
import { writeTinyFolder, tinyEndToken } from './helpers/tinyFolder.js';

const golden = join(import.meta.dirname, 'fixtures', 'conformance');
let root: string;

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'conformance-'));
});
after(() => rm(root, { recursive: true }));

interface Outcome {
  code: number;
  out: string;
  error: string;
  results: CaseResult[];
}

async function run(...args: string[]): Promise<Outcome> {
  let [out, error] = ['', ''];
  const code = await runConformance(args, {
    out: text => {
      out += text;
    },
    error: text => {
      error += text;
    },
  });
  const lines = args.includes('--json')
    ? out
        .split('\n')
        .filter(line => line !== '')
        .map(line => JSON.parse(line) as CaseResult)
    : [];
  return { code, out, error, results: lines.filter(line => 'case' in line) };
}

/** The result of the one case chosen by `only`. */
async function resultOf(dir: string, only: string): Promise<CaseResult & { code: number; error: string }> {
  const { code, error, results } = await run(dir, '--json', '--only', only);
  assert.equal(results.length, 1, `${only}: ${error}`);
  return { ...results[0], code, error };
}

let copies = 0;
/** A copy of the golden cases that a test may damage. */
async function copy(): Promise<string> {
  const dir = join(root, `copy${copies++}`);
  await cp(golden, dir, { recursive: true });
  return dir;
}

/** Rewrites a safetensors file: `change` alters a tensor in place or says false to leave it out. */
async function rewrite(path: string, change: (entry: SafetensorsEntry) => false | undefined): Promise<void> {
  const file = await openSafetensors(memorySource(await readFile(path), path));
  const entries: SafetensorsEntry[] = [];
  for (const { name, dtype, shape } of file.tensors.values()) {
    const data = viewStored(dtype as PlainDType, await file.readBytes(name));
    const entry = { name, dtype: dtype as PlainDType, shape, data };
    if (change(entry) !== false) entries.push(entry);
  }
  await writeFile(path, writeSafetensors(entries));
}

async function editSettings(path: string, change: (settings: Record<string, unknown>) => void): Promise<void> {
  const settings = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  change(settings);
  await writeFile(path, JSON.stringify(settings));
}

test('every golden case passes, as JSON lines', async () => {
  const { code, out, error, results } = await run(golden, '--json');
  assert.equal(error, '');
  assert.equal(code, 0);
  const paths = [
    'reft/loreft-shared',
    'reft/loreft-shared-saved-by-pyreft',
    'reft/nodireft',
    'reft/positions',
    'tiny-llama/forward',
  ];
  assert.deepEqual(
    results.map(r => r.case),
    paths,
  );
  for (const result of results) {
    assert.deepEqual(Object.keys(result), ['case', 'device', 'status', 'maxAbs', 'maxRel', 'tolerance', 'tensor']);
    assert.equal(result.device, 'cpu');
    assert.equal(result.status, 'pass');
    assert.ok((result.maxRel as number) <= (result.tolerance as number), JSON.stringify(result));
  }
  const tolerances = Object.fromEntries(results.map(r => [r.case, r.tolerance]));
  assert.ok((tolerances['reft/nodireft'] as number) <= 2e-5, "(tolerances['reft/nodireft'] as number) <= 2e-5");
  assert.equal(tolerances['tiny-llama/forward'], 1e-5);
  assert.equal(tolerances['reft/loreft-shared-saved-by-pyreft'], 1e-2);
  assert.equal(out.trimEnd().split('\n').at(-1), '{"event":"done","passed":5,"failed":0,"unsupported":0}');
});

test('for people: a table and a summary', async () => {
  const { code, out } = await run(golden, '--only', 'tiny-llama,reft/positions');
  assert.equal(code, 0);
  assert.match(out, /^case +status +max abs +max rel +tolerance +tensor\nreft\/positions +pass +0 +0 +0 /);
  assert.match(
    out,
    /\ntiny-llama\/forward +pass +\S+e-\d +\S+e-\d +1\.0e-5 +\S+\n2 passed, 0 failed, 0 unsupported, on cpu\n$/,
  );
});

test('--only chooses by whole paths', async () => {
  const chosen = async (...only: string[]): Promise<string[]> =>
    (await run(golden, '--json', ...only.flatMap(o => ['--only', o]))).results.map(r => r.case);
  assert.deepEqual(await chosen('reft/loreft-shared'), ['reft/loreft-shared']);
  assert.deepEqual(await chosen('*-saved-by-pyreft,tiny-llama'), [
    'reft/loreft-shared-saved-by-pyreft',
    'tiny-llama/forward',
  ]);
  assert.deepEqual(await chosen('reft/pos*', '*/forward'), ['reft/positions', 'tiny-llama/forward']);
});

test('exit codes: nothing ran 1, bad usage 2, device absent 3', async () => {
  const nothing = await run(golden, '--json', '--only', 'reft/lor');
  assert.equal(nothing.code, 1);
  assert.match(nothing.error, /'reft\/lor' matches no case/);
  assert.equal(nothing.out, '{"event":"done","passed":0,"failed":0,"unsupported":0}\n');
  const bad = [
    [],
    [golden, golden],
    [golden, '--nope'],
    [golden, '--device', 'abacus'],
    [golden, '--only', ','],
    [join(golden, 'absent')],
    [join(golden, 'README.md')],
  ];
  for (const args of bad) {
    const { code, out, error } = await run(...args);
    assert.equal(code, 2, args.join(' '));
    assert.equal(out, '');
    assert.match(error, /Usage: npm run conformance/);
  }
  const absent = await run(golden, '--device', 'webgpu', '--json');
  assert.equal(absent.code, 3);
  assert.equal(absent.out, '');
  assert.match(absent.error, /^device 'webgpu': [^\n]+\n$/);
  assert.equal((await run('--help')).code, 0);
});

test('wrong values fail and are named; masked ones do not count', async () => {
  const dir = await copy();
  const path = join(dir, 'tiny-llama', 'forward.safetensors');
  await rewrite(path, ({ name, data }) => {
    // The last row of the batch is padded on the right.
    if (name === 'logits') data[data.length - 1] = 1e6;
    if (name === 'hidden_states.2') data[data.length - 1] = NaN;
    return undefined;
  });
  assert.equal((await resultOf(dir, 'tiny-llama')).status, 'pass');
  await rewrite(path, ({ name, data }) => {
    if (name === 'hidden_states.2') (data as Float32Array)[5] += 1e-3;
    return undefined;
  });
  const wrong = await resultOf(dir, 'tiny-llama');
  assert.deepEqual([wrong.status, wrong.tensor, wrong.code], ['fail', 'hidden_states.2', 1]);
  assert.ok(Math.abs((wrong.maxAbs as number) - 1e-3) < 1e-5, 'Math.abs((wrong.maxAbs as number) - 1e-3) < 1e-5');
  await rewrite(path, ({ name, data }) => {
    if (name === 'hidden_states.2') (data as Float32Array)[5] = NaN;
    return undefined;
  });
  const broken = await resultOf(dir, 'tiny-llama');
  assert.deepEqual([broken.status, broken.tensor, broken.maxAbs], ['fail', 'hidden_states.2', null]);
  await rewrite(path, ({ name, data }) => {
    if (name === 'generate.left_padded.greedy') (data as Int32Array)[data.length - 1] ^= 1;
    return name === 'hidden_states.2' ? false : undefined;
  });
  const ids = await resultOf(dir, 'tiny-llama');
  assert.deepEqual([ids.status, ids.tensor, ids.tolerance], ['fail', 'generate.left_padded.greedy', 0]);
});

test('files that cannot be read fail with a message, and the others still run', async () => {
  const dir = await copy();
  await truncate(join(dir, 'reft', 'nodireft.safetensors'), 5000);
  await writeFile(join(dir, 'reft', 'positions.json'), '[{"positions": "f1"');
  await writeFile(
    join(dir, 'reft', 'loreft-shared-saved-by-pyreft', 'config.json'),
    '{"sorted_keys": ["layer_1_comp_x#0"]}',
  );
  await writeFile(join(dir, 'reft', 'alone.json'), '{}');
  const { code, error, results } = await run(dir, '--json');
  assert.equal(code, 1);
  const status = Object.fromEntries(results.map(r => [r.case, r.status]));
  assert.deepEqual(status, {
    'reft/alone': 'fail',
    'reft/loreft-shared': 'pass',
    'reft/loreft-shared-saved-by-pyreft': 'fail',
    'reft/nodireft': 'fail',
    'reft/positions': 'fail',
    'tiny-llama/forward': 'pass',
  });
  for (const name of ['reft/alone', 'reft/loreft-shared-saved-by-pyreft', 'reft/nodireft', 'reft/positions'])
    assert.ok(error.includes(`${name}: `), error);
});

test('what is not supported says so', async () => {
  const dir = await copy();
  await editSettings(join(dir, 'tiny-llama', 'config.json'), config => {
    config.model_type = 'nonesuch';
  });
  await editSettings(join(dir, 'reft', 'nodireft.json'), settings => {
    settings.act_fn = 'mish';
  });
  const forward = await resultOf(dir, 'tiny-llama');
  assert.deepEqual([forward.status, forward.code, forward.tensor, forward.maxRel], ['unsupported', 1, null, null]);
  assert.match(forward.error, /^tiny-llama\/forward: .*'nonesuch'/);
  await editSettings(join(dir, 'tiny-llama', 'config.json'), config => {
    config.model_type = 'llama';
  });
  assert.equal((await resultOf(dir, 'reft/nodireft')).status, 'unsupported');
  const other = await copy();
  await editSettings(join(other, 'reft', 'nodireft.json'), settings => {
    settings.kind = 'subloreft';
  });
  await editSettings(join(other, 'reft', 'loreft-shared.json'), settings => {
    settings.optimizer = 'AdamW lr=1e-3, linear decay';
  });
  const { code, out } = await run(other, '--only', 'reft/nodireft,reft/loreft-shared');
  assert.equal(code, 1);
  assert.match(out, /0 passed, 0 failed, 2 unsupported/);
});

test('a case that does something unknown with a model elsewhere is unsupported, not failed', async () => {
  const dir = await copy();
  await cp(join(dir, 'tiny-llama', 'forward.safetensors'), join(dir, 'elsewhere', 'something.safetensors'));
  await writeFile(join(dir, 'elsewhere', 'something.json'), '{"model":"tiny-llama","what":"is not known here"}');
  const { status, error } = await resultOf(dir, 'elsewhere');
  assert.equal(status, 'unsupported', error);
});

test('a training run is taken from its settings and tensors, whatever is left out of them', async () => {
  const dir = await copy();
  const tensors = join(dir, 'reft', 'nodireft.safetensors');
  await rewrite(tensors, ({ name }) => (/^(final|losses|logits|loss$)/.test(name) ? false : undefined));
  const gradients = await resultOf(dir, 'reft/nodireft');
  assert.equal(gradients.status, 'pass');
  assert.match(gradients.tensor as string, /^grad\./);
  await rewrite(tensors, ({ name, data }) => {
    if (name === 'grad.1.proj_layer.weight') (data as Float32Array)[0] += 1e-5;
    return undefined;
  });
  assert.deepEqual([(await resultOf(dir, 'reft/nodireft')).tensor], ['grad.1.proj_layer.weight']);

  const failsWith = async (change: (settings: Record<string, unknown>) => void): Promise<CaseResult> => {
    const changed = await copy();
    await editSettings(join(changed, 'reft', 'loreft-shared.json'), change);
    const result = await resultOf(changed, 'reft/loreft-shared');
    assert.equal(result.status, 'fail');
    return result;
  };
  await failsWith(settings => {
    settings.optimizer = 'AdamW lr=6e-3 betas=(0.9,0.999) eps=1e-8 weight_decay=0, no clipping';
  });
  await failsWith(settings => {
    settings.optimizer = 'AdamW lr=5e-3 betas=(0.9,0.9999) eps=1e-8 weight_decay=0, no clipping';
  });
  await failsWith(settings => {
    settings.layers = [1, 3];
  });
  await failsWith(settings => {
    settings.act_fn = 'gelu';
  });
  await failsWith(settings => {
    settings.component = 'mlp_output';
  });
});

test('padding slots and repeated ones edit nothing more', async () => {
  const dir = await copy();
  await rewrite(join(dir, 'reft', 'loreft-shared.safetensors'), ({ name, data, shape }) => {
    // The shortest prompt's two padding slots, on column 0 of row 2, now repeat its first slot.
    if (name === 'unit_locations') {
      const slots = shape[2];
      for (let i = 0; i < shape[0]; i++) {
        const at = (i * shape[1] + 2) * slots;
        assert.deepEqual([data[at + 2], data[at + 3]], [0, 0]);
        data[at + 2] = data[at + 3] = data[at];
      }
    }
    return undefined;
  });
  assert.equal((await resultOf(dir, 'reft/loreft-shared')).status, 'pass');
});

test("pyreft's three styles of keys load, in any order", async () => {
  const styles: ((key: string) => string)[] = [
    key => key.replace('block_output', 'block!output').replaceAll('_', '.').replace('!', '_'),
    key => key.replace(/layer_(\d+)_comp_block_output/, 'comp_model_layers[$1]_output'),
  ];
  for (const style of styles) {
    const dir = await copy();
    const folder = join(dir, 'reft', 'loreft-shared-renamed-saved-by-pyreft');
    await rename(join(dir, 'reft', 'loreft-shared-saved-by-pyreft'), folder);
    for (const name of await readdir(folder)) {
      const key = /^intkey_(.+)\.bin$/.exec(name)?.[1];
      if (key) await rename(join(folder, name), join(folder, `intkey_${style(key)}.bin`));
    }
    await editSettings(join(folder, 'config.json'), config => {
      for (const field of ['sorted_keys', 'representations', 'intervention_types'])
        (config[field] as unknown[]).reverse();
      config.sorted_keys = (config.sorted_keys as string[]).map(style);
    });
    const result = await resultOf(dir, 'reft/*-saved-by-pyreft');
    assert.equal(result.status, 'pass', result.error);
  }
});

test('texts: ids, logits, likelihoods and answers of a model with a tokenizer', async () => {
  const dir = join(root, 'texts');
  await writeTinyFolder(join(dir, 'tiny'));
  const model = await AutoModelForCausalLM.fromPretrained(join(dir, 'tiny'), { device: 'cpu', dtype: 'f64' });
  const text = 'Rain, 7 days.';
  const ids = [...new TextEncoder().encode(text)];
  const input = { inputIds: Int32Array.from(ids), shape: [1, ids.length] };
  const logits = (await model.forward(input).logits.data()).subarray(-model.config.vocabSize);
  const rendered = `User: ${text}\nAssistant:`;
  const prompt = [...new TextEncoder().encode(rendered)];
  const [answer] = await model.generate(prompt, { maxNewTokens: 6, useCache: false, stopTokenIds: [tinyEndToken] });
  const top = [3, 100, 256];
  const settings = {
    model: 'tiny',
    texts: [
      {
        text,
        ids,
        decoded: text,
        mean_nll: await model.loss(input, input.inputIds).loss.item(),
        top_ids: top,
        top_logits: top.map(id => logits[id]),
      },
    ],
    chats: [{ messages: [{ role: 'user', content: text }], rendered, ids: prompt, greedy_ids: answer.ids }],
  };
  const write = (): Promise<void> => writeFile(join(dir, 'texts.json'), JSON.stringify(settings));
  await write();
  const right = await resultOf(dir, 'texts');
  assert.deepEqual([right.status, right.code], ['pass', 0], right.error);
  settings.chats[0].greedy_ids = answer.ids.with(-1, (answer.ids[answer.ids.length - 1] + 1) % tinyEndToken);
  await write();
  const other = await resultOf(dir, 'texts');
  assert.deepEqual([other.status, other.tensor], ['fail', 'chats.0.greedy_ids']);
  settings.chats = [];
  settings.texts[0].top_logits[1] += 2e-3;
  await write();
  const moved = await resultOf(dir, 'texts');
  assert.deepEqual([moved.status, moved.tensor, moved.tolerance], ['fail', 'texts.0.top_logits', 1e-3]);
  settings.texts[0].top_logits[1] -= 2e-3;
  settings.texts[0].mean_nll += 2e-4;
  await write();
  assert.equal((await resultOf(dir, 'texts')).tensor, 'texts.0.mean_nll');
});
