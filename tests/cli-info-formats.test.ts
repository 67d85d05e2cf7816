// `reft info` describes every folder of edits that `convert` reads, and peft's; `convert` needs no tokenizer.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { writeSafetensors, type SafetensorsEntry } from '../src/io/safetensors.js';
import { writeTorchBin } from '../src/io/torchBinWrite.js';
import { AutoModelForCausalLM } from '../src/models/index.js';
import { writeFolder } from '../src/reft/adapterFilesNode.js';
import { getReftModel, loadReft, pyreftToFiles } from '../src/reft/index.js';
import { writeTinyFolder } from './helpers/tinyFolder.js';

const several = fileURLToPath(new URL('helpers/runCommands.ts', import.meta.url));
let folder: string;
let model: string;

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}
type Facts = Record<string, unknown>;

async function reftEach(commands: string[][]): Promise<Run[]> {
  const child = spawn(process.execPath, ['--import', 'tsx', several], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(JSON.stringify(commands));
  return JSON.parse(await text(child.stdout)) as Run[];
}

/** What `reft info --json` says of each of these folders. */
async function infoOf(...names: string[]): Promise<Facts[]> {
  const runs = await reftEach(names.map(name => ['info', join(folder, name), '--json']));
  return runs.map(({ code, stdout, stderr }) => {
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as Facts;
  });
}

async function write(name: string, files: Record<string, unknown>): Promise<void> {
  await mkdir(join(folder, name), { recursive: true });
  for (const [file, content] of Object.entries(files)) {
    await writeFile(join(folder, name, file), content instanceof Uint8Array ? content : JSON.stringify(content));
  }
}

const zeros = (name: string, ...shape: number[]): SafetensorsEntry & { dtype: 'F32'; data: Float32Array } => ({
  name,
  dtype: 'F32',
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
});

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reft-info-'));
  model = await writeTinyFolder(join(folder, 'model'));
});
after(() => rm(folder, { recursive: true, force: true }));

describe('reft info', () => {
  test('of a pyreft folder', async () => {
    const base = await AutoModelForCausalLM.fromPretrained(model);
    const reft = getReftModel(base, [
      { layers: [0, 1], rank: 3 },
      { kind: 'direft', layers: [1], rank: 2, component: 'mlp_output' },
    ]);
    await writeFolder(join(folder, 'pyreft'), await pyreftToFiles(reft));
    const [facts] = await infoOf('pyreft');
    assert.deepEqual([facts.kind, facts.format, facts.path], ['adapter', 'pyreft', join(folder, 'pyreft')]);
    assert.deepEqual(facts.interventions, [
      { kind: 'loreft', layer: 0, component: 'block_output', rank: 3 },
      { kind: 'loreft', layer: 1, component: 'block_output', rank: 3 },
      { kind: 'direft', layer: 1, component: 'mlp_output', rank: 2 },
    ]);
    // pyreft's direft has a bias of rank numbers that it does not use.
    assert.equal(facts.parameters, 2 * (2 * 16 * 3 + 3) + (2 * 16 * 2 + 2) + 2);
    const tensors = facts.tensors as Record<string, string>;
    assert.equal(tensors['layer_0_comp_block_output_unit_pos_nunit_1#0: rotate_layer'], 'F32 [16,3]');
  });

  test("of AdapterHub's folders, with either kind of weights", async () => {
    const config = {
      model_type: 'llama',
      hidden_size: 16,
      name: 'mine',
      config: {
        architecture: 'reft',
        layers: [1],
        prefix_positions: 1,
        suffix_positions: 0,
        r: 2,
        orthogonality: false,
        tied_weights: false,
      },
    };
    const entries = [zeros('model.layers.1.reft_layer.refts.mine.units.0.learned_source.weight', 2, 16)];
    await write('hub', { 'adapter_config.json': config, 'adapter.safetensors': writeSafetensors(entries) });
    await write('hub-bin', { 'adapter_config.json': config, 'pytorch_adapter.bin': writeTorchBin(entries) });
    for (const facts of await infoOf('hub', 'hub-bin')) {
      assert.deepEqual(
        [facts.kind, facts.format, facts.parameters, facts.dtypes],
        ['adapter', 'adapterhub', 32, { F32: 32 }],
      );
      assert.deepEqual(
        [facts.architecture, facts.layers, facts.r, facts.prefix_positions, facts.name],
        ['reft', [1], 2, 1, 'mine'],
      );
      assert.deepEqual(facts.tensors, { [entries[0].name]: 'F32 [2,16]' });
    }
  });

  test("of peft's folders: kind, rank and target modules", async () => {
    const lora = {
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      r: 4,
      lora_alpha: 8,
      target_modules: ['q_proj', 'v_proj'],
      base_model_name_or_path: 'some/base',
      inference_mode: true,
      use_dora: true,
    };
    const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';
    await write('lora', {
      'adapter_config.json': lora,
      'adapter_model.safetensors': writeSafetensors([zeros(name, 4, 16)]),
    });
    const bin = { ...lora, peft_type: 'IA3', r: undefined, target_modules: null, use_dora: undefined };
    await write('ia3', { 'adapter_config.json': bin, 'adapter_model.bin': writeTorchBin([zeros('x', 3)]) });
    const [first, second] = await infoOf('lora', 'ia3');
    assert.deepEqual(
      { ...first, event: undefined },
      {
        event: undefined,
        kind: 'adapter',
        format: 'peft',
        path: join(folder, 'lora'),
        peftType: 'LORA',
        rank: 4,
        alpha: 8,
        targetModules: ['q_proj', 'v_proj'],
        parameters: 64,
        bytes: first.bytes,
        dtypes: { F32: 64 },
        tensors: { [name]: 'F32 [4,16]' },
        baseModel: 'some/base',
        taskType: 'CAUSAL_LM',
        dora: true,
        rankStabilised: false,
        layers: 'all',
        modulesToSave: [],
      },
    );
    assert.deepEqual([second.peftType, second.targetModules, second.parameters, second.dora], ['IA3', null, 3, false]);
  });

  test('a folder without its weights, and a pyreft folder that is wrong, are errors that name the file', async () => {
    await write('no-weights', { 'adapter_config.json': { peft_type: 'LORA', r: 4 } });
    await write('wrong', { 'config.json': { intervention_types: ['x'] } });
    const runs = await reftEach(['no-weights', 'wrong'].map(name => ['info', join(folder, name)]));
    assert.deepEqual(
      runs.map(run => run.code),
      [2, 2],
    );
    assert.match(runs[0].stderr, /no-weights: has neither adapter_model\.safetensors nor adapter_model\.bin/);
    assert.match(runs[1].stderr, /wrong\/config\.json: representations: .*; sorted_keys: /);
  });
});

test('a LoRA of peft given as an adapter is an error that says what it is', async () => {
  const base = await AutoModelForCausalLM.fromPretrained(model);
  const config = { peft_type: 'LORA', r: 4, target_modules: ['q_proj'] };
  await write('peft', { 'adapter_config.json': config, 'adapter_model.safetensors': writeSafetensors([]) });
  await assert.rejects(
    loadReft(base, join(folder, 'peft')),
    /^FormatError: .*adapter_config\.json: is of a LoRA of peft \(r 4, q_proj\), which changes weights, not hidden states: not loaded$/,
  );
});

test('reft convert needs no tokenizer', async () => {
  const bare = await writeTinyFolder(join(folder, 'bare'));
  await Promise.all(['tokenizer.json', 'tokenizer_config.json'].map(name => rm(join(bare, name))));
  const reft = getReftModel(await AutoModelForCausalLM.fromPretrained(bare), { layers: [1], rank: 2, seed: 5 });
  await writeFolder(join(folder, 'from'), await pyreftToFiles(reft));
  const out = join(folder, 'converted');
  const [run, refused] = await reftEach([
    ['convert', '--model', bare, '--from', join(folder, 'from'), '--to', 'reft', '--out', out],
    ['generate', '--model', bare, '--prompt', 'x'],
  ]);
  assert.equal(run.code, 0, run.stderr);
  const read = await loadReft(reft.base, out);
  assert.deepEqual(read.interventions[0].parameters().W.dataSync(), reft.interventions[0].parameters().W.dataSync());
  assert.equal(refused.code, 2, 'what does need one still says so');
  assert.match(refused.stderr, /tokenizer\.json/);
});
