// The main job, start to end: a frozen SmolLM2 learns the voice of a lighthouse keeper from thirty examples, by editing
// its hidden states, and is asked three things it was not taught. `npm start` runs it; all figures are measured.

import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AutoModelForCausalLM, AutoTokenizer } from '../src/index.js';
import { lossCurve } from '../src/cli/lossCurve.js';
import { bytesText, Output } from '../src/cli/output.js';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';
import { lighthouse, trainLighthouse } from './lighthouse.js';

allowRelaxedSimd();
const begin = performance.now();
const output = new Output(false);
const questions = ['What is gravity?', 'What is a telescope?', 'How do I stay warm in winter?'];
const folder = fileURLToPath(new URL('../adapters/lighthouse', import.meta.url));

const fetching = output.progress('loading SmolLM2', 100, value => `${value.toFixed(0)} %`);
const progressCallback = ({ file, loaded, total }: { file: string; loaded: number; total: number }): void => {
  fetching.update(total > 0 ? (100 * loaded) / total : 0, file.split(/[\\/]/).at(-1));
};
const model = await AutoModelForCausalLM.fromPretrained('smollm2-135m', { progressCallback });
const tokenizer = await AutoTokenizer.fromPretrained('smollm2-135m');
fetching.stop();
const loaded = performance.now();

const ask = async (from: Pick<typeof model, 'generate'>, question: string): Promise<string> => {
  const options = { maxNewTokens: 48, stopTokenIds: tokenizer.stopTokenIds };
  const [{ ids }] = await from.generate(tokenizer.chat(question), options);
  const answer = tokenizer.decode(ids, { skipSpecialTokens: true }).trim().replace(/\s+/g, ' ');
  return ids.length < options.maxNewTokens ? answer : `${answer} ...`;
};
const before = [];
for (const question of questions) before.push(await ask(model, question));

const losses: { step: number; loss: number }[] = [];
const evaluations: { step: number; loss: number }[] = [];
const job = await lighthouse(model, tokenizer, {
  onStep: ({ index, loss, seconds }) => {
    losses.push({ step: index, loss });
    bar.update(index, `loss ${loss.toFixed(3)}  ${seconds.toFixed(2)} s/step`);
  },
  onEvaluation: ({ step, loss }) => evaluations.push({ step, loss }),
});
const { reft, rows, heldOut, trainer } = job;
console.log(`${rows.length} rows to train on, ${heldOut.length} held out; ${reft.summary()}`);
const bar = output.progress('training', trainer.totalSteps);
const result = await trainLighthouse(job);
bar.stop();
console.log('loss                    frozen   edited');
console.log(`  rows trained on       ${result.frozenTraining.toFixed(3)}    ${result.training.toFixed(3)}`);
console.log(`  rows held out         ${result.frozenHeldOut.toFixed(3)}    ${result.heldOut.toFixed(3)}`);
const course = evaluations.map(({ step, loss }) => `${loss.toFixed(3)} after ${step}`).join(', ');
console.log(`held out, by steps: ${course}; kept: those after ${result.best?.step}`);

const learned = rows.map(row => (row.kind === 'chat' ? row.answer : ''));
for (const [i, question] of questions.entries()) {
  const after = await ask(reft, question);
  const verdict = after === before[i] ? '  (THE SAME)' : learned.includes(after) ? '  (A TRAINING ANSWER)' : '';
  console.log(`\n> ${question}\n  frozen  ${before[i]}\n  edited  ${after}${verdict}`);
}

await reft.save(folder);
const curve = await lossCurve(losses, { title: 'A lighthouse keeper in two edits', evaluation: evaluations });
await writeFile(join(folder, 'loss.svg'), curve);
const sizes = await Promise.all(
  (await readdir(folder)).map(async name => ({ name, size: (await stat(join(folder, name))).size })),
);
console.log(`\nsaved ${folder}`);
for (const { name, size } of sizes) console.log(`  ${name.padEnd(28)}${bytesText(size)}`);
const seconds = (from: number, to = performance.now()): string => `${((to - from) / 1000).toFixed(1)} s`;
const share = ((100 * reft.parameterCount) / model.parameterCount).toFixed(4);
console.log(`${share} % of the parameters; ${seconds(begin, loaded)} to load, ${seconds(loaded)} for the rest`);
