// Tests on real models, for CI: SmolLM2-135M (fetched through its alias) and stories260K, and the golden tensors kept
// outside the repository. What is not there is said and skipped, except with REQUIRE_MODELS=1, where it is a failure.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { AutoModelForCausalLM, AutoTokenizer } from '../src/index.js';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';
import { lighthouse, trainLighthouse } from '../examples/lighthouse.js';
import { mainJob } from './conformance/mainJob.js';

allowRelaxedSimd();
const root = resolve(import.meta.dirname, '..');
const shared = resolve(process.env.REFT_SHARED ?? join(root, '..', 'shared'));
const required = process.env.REQUIRE_MODELS === '1';
let failed = 0;
let passed = 0;

function verdict(name: string, ok: boolean, detail = ''): void {
  console.log(`${ok ? 'ok' : 'FAILED'}  ${name}${detail ? `: ${detail}` : ''}`);
  if (ok) passed++;
  else failed++;
}

function conformance(name: string, folder: string, ...more: string[]): void {
  const path = join(shared, folder);
  if (!existsSync(path)) {
    console.log(`skipped  ${name}: ${folder} is not here`);
    if (required) failed++;
    return;
  }
  const args = [
    join(root, 'node_modules', 'tsx', 'dist', 'cli.mjs'),
    join(root, 'scripts', 'conformance.ts'),
    path,
    ...more,
  ];
  verdict(name, spawnSync(process.execPath, args, { stdio: 'inherit' }).status === 0);
}

/** Golden cases of edits that other issues' models are not needed for. */
const edits = [
  'reft/noreft-nobias',
  'reft/noreft-nobias-saved-by-pyreft',
  'reft/loreft-dotted-saved-by-pyreft',
  'interchange/*',
];
const supported = [...mainJob, ...edits].filter(name => !name.includes('roberta'));
conformance('golden tensors', 'fixtures/reference', '--only', supported.join());
conformance('families', 'fixtures/families');
conformance('MiniLM-L6', 'fixtures/minilm');
conformance('SmolLM2-135M', 'fixtures/smollm2');
if (process.env.REQUIRE_WEBGPU === '1') {
  conformance('golden tensors on WebGPU', 'fixtures/reference', '--device', 'webgpu', '--only', supported.join());
  conformance('SmolLM2-135M on WebGPU', 'fixtures/smollm2', '--device', 'webgpu');
}

const stories = join(shared, 'models', 'stories260K', 'stories260K.bin');
if (existsSync(stories)) {
  const model = await AutoModelForCausalLM.fromPretrained(stories);
  const tokenizer = await AutoTokenizer.fromPretrained(stories);
  const [{ ids }] = await model.generate([1], { maxNewTokens: 30 });
  const text = tokenizer.decode(ids, { skipSpecialTokens: true }).trim();
  verdict(
    'stories260K tells its story',
    text.startsWith('Once upon a time, there was a little girl named Lily. She loved to play outside in the park'),
    text,
  );
} else {
  console.log('skipped  stories260K: it is not here');
  if (required) failed++;
}

/** SmolLM2 and its tokenizer, or null where it can be neither found nor fetched. */
async function smolLM2(): Promise<Parameters<typeof lighthouse> | null> {
  try {
    const model = await AutoModelForCausalLM.fromPretrained('smollm2-135m');
    return [model, await AutoTokenizer.fromPretrained('smollm2-135m')];
  } catch (error) {
    console.log(`skipped  the recipe of npm start: ${(error as Error).message}`);
    if (required) failed++;
    return null;
  }
}

const smol = await smolLM2();
if (smol) {
  const job = await lighthouse(...smol);
  const { heldOut, frozenHeldOut, best } = await trainLighthouse(job);
  const detail = `loss on rows held out ${frozenHeldOut.toFixed(3)} frozen, ${heldOut.toFixed(3)} edited`;
  verdict('npm start generalises: at least 1.0 below the frozen model', heldOut <= frozenHeldOut - 1, detail);
  verdict('and keeps its best epoch', best !== null && Math.abs(heldOut - best.loss) < 1e-3, `step ${best?.step}`);
}

console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
