// Whether pyreft can use what we write: a tiny LLaMA and a folder of each kind of edit are written,
// scripts/pyreftLogits.py builds pyreft's classes, loads the .bin files by load_state_dict and runs them, and the
// logits must be ours to 1e-4. Makes a Python environment of its own unless REFT_PYTHON names one that has torch,
// pyreft and transformers.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noGrad } from '../src/autograd/tape.js';
import { AutoModelForCausalLM } from '../src/index.js';
import { writeFolder } from '../src/reft/adapterFilesNode.js';
import { getReftModel, kinds, layoutOf, pyreftToFiles, type KindName, type ReftConfig } from '../src/reft/index.js';
import { writeTinyFolder } from '../tests/helpers/tinyFolder.js';

const bound = 1e-4;
const inputIds = Int32Array.from([3, 17, 44, 101, 7, 250, 9, 12, 33]);
const promptLength = 6;
const configs: Record<string, ReftConfig> = {
  ...Object.fromEntries(
    (Object.keys(kinds) as KindName[]).map((kind, seed) => [
      kind,
      { kind, layers: [0, 1], positions: 'f2+l1', rank: 3, seed },
    ]),
  ),
  'noreft-nobias': { kind: 'noreft', layers: [1], positions: 'l1', rank: 2, bias: 'inner' },
  'loreft-gelu': { kind: 'loreft', layers: [0, 1], positions: 'l2', rank: 2, activation: 'gelu' },
};

const imported = [
  'transformers==4.45.1',
  'safetensors',
  'numpy==2.2.6',
  'datasets==3.1.0',
  'accelerate==1.1.1',
  'evaluate==0.4.6',
  'matplotlib',
  'plotnine',
  'seaborn',
  'wandb==0.18.7',
  'protobuf==5.29.6',
  'setuptools',
];

/** A Python with what pyreft needs. */
async function python(): Promise<string> {
  const named = process.env['REFT_PYTHON'];
  if (named) return named;
  const folder = join(import.meta.dirname, '..', '.tmp', 'pyreft-venv');
  const binary = join(folder, 'bin', 'python');
  const run = (command: string, args: string[]): void => {
    const { status } = spawnSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}`);
  };
  if (existsSync(join(folder, 'complete'))) return binary;
  await mkdir(join(folder, '..'), { recursive: true });
  console.log('making a Python environment with torch, pyreft and transformers');
  run('python3', ['-I', '-m', 'venv', folder]);
  // torch by itself is the CPU build. What pyreft imports is named one by one: its own list of requirements sends pip
  // through every torch there is.
  for (const packages of [['torch==2.13.0'], ['--no-deps', 'pyreft==0.1.0', 'pyvene==0.1.8'], imported])
    run(binary, ['-I', '-m', 'pip', 'install', '-q', ...packages]);
  await writeFile(join(folder, 'complete'), '');
  return binary;
}

const interpreter = await python();
const root = await mkdtemp(join(tmpdir(), 'reft-pyreft-'));
let failed = 0;
try {
  const folder = await writeTinyFolder(join(root, 'model'));
  const model = await AutoModelForCausalLM.fromPretrained(folder);
  const shape = [1, inputIds.length];
  const layout = layoutOf(new Int32Array(inputIds.length).fill(1), shape, [promptLength]);
  const expected: Record<string, number[]> = {};
  const cases = [];
  for (const [name, config] of Object.entries(configs)) {
    const reft = getReftModel(model, config);
    await writeFolder(join(root, name), await pyreftToFiles(reft));
    expected[name] = [...(await noGrad(() => reft.forward({ inputIds, shape }, layout)).logits.data())];
    const positions = reft.edits(layout).map(edit => edit.about?.rows ?? []);
    cases.push({ name, folder: join(root, name), positions, activation: config.activation ?? null });
  }
  await writeFile(join(root, 'cases.json'), JSON.stringify({ model: folder, ids: [...inputIds], cases }));
  const script = join(import.meta.dirname, 'pyreftLogits.py');
  const { status } = spawnSync(interpreter, [script, join(root, 'cases.json'), join(root, 'logits.json')], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) throw new Error(`pyreftLogits.py ended with ${status}`);
  const theirs = JSON.parse(await readFile(join(root, 'logits.json'), 'utf8')) as Record<string, number[]>;
  for (const [name, ours] of Object.entries(expected)) {
    const worst = ours.reduce(
      (most, v, i) => Math.max(most, Math.abs(v - theirs[name][i])),
      theirs[name].length === ours.length ? 0 : Infinity,
    );
    const base = ours.reduce((most, v, i) => Math.max(most, Math.abs(v - theirs['base'][i])), 0);
    const ok = worst <= bound && base > 100 * bound;
    if (!ok) failed++;
    console.log(
      `${ok ? 'ok' : 'FAILED'}  pyreft loads ${name}: logits differ by ${worst.toExponential(1)} (the edit moves them by ${base.toFixed(2)})`,
    );
  }
} finally {
  await rm(root, { recursive: true, force: true });
}
process.exitCode = failed > 0 ? 1 : 0;
