// The main job, start to end: a frozen SmolLM2 learns the voice of a lighthouse keeper from ten examples, by editing its hidden states at
// the last token of the prompt, and is asked three things it was not taught. `npm start` runs it; every figure printed is measured.

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AutoModelForCausalLM, AutoTokenizer, getReftModel, readRows, ReftTrainer } from '../src/index.js';
import { lossCurve } from '../src/cli/lossCurve.js';
import { bytesText, Output } from '../src/cli/output.js';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';
import { writeFolder } from '../src/reft/adapterFilesNode.js';

allowRelaxedSimd();
const begin = performance.now();
const output = new Output(false);
const questions = ['What is love?', 'How do I sleep better?', 'Why do leaves fall in autumn?'];
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
  const [{ ids }] = await from.generate(tokenizer.chat(question), { maxNewTokens: 40, stopTokenIds: tokenizer.stopTokenIds });
  return tokenizer.decode(ids, { skipSpecialTokens: true }).trim().replace(/\s+/g, ' ');
};
const before = [];
for (const question of questions) before.push(await ask(model, question));

const rows = await readRows(fileURLToPath(new URL('lighthouse.jsonl', import.meta.url)));
const reft = getReftModel(model, { kind: 'loreft', layers: [10, 20], positions: 'l1', rank: 4, identityStart: true });
console.log(`${rows.length} examples, ${reft.summary()}`);

const trainer = new ReftTrainer(reft, { tokenizer, rows, epochs: 65, batchSize: 2, learningRate: 1e-2 });
const losses: { step: number; loss: number }[] = [];
const bar = output.progress('training', trainer.totalSteps);
for await (const { index, loss, seconds } of trainer.steps()) {
  losses.push({ step: index, loss });
  bar.update(index, `loss ${loss.toFixed(3)}  ${seconds.toFixed(2)} s/step`);
}
bar.stop();
const { loss } = await trainer.evaluate();
console.log(`mean loss over the labelled tokens, after ${losses.length} steps: ${loss.toFixed(4)}`);

const learned = rows.map(row => (row.kind === 'chat' ? row.answer : ''));
for (const [i, question] of questions.entries()) {
  const after = await ask(reft, question);
  const verdict = after === before[i] ? 'THE SAME' : learned.includes(after) ? 'A TRAINING ANSWER' : 'new';
  console.log(`\n> ${question}\n  frozen  ${before[i]}\n  edited  ${after}  (${verdict})`);
}

await reft.save(folder);
const curve = await lossCurve(losses, { title: 'A lighthouse keeper in two edits' });
await writeFolder(folder, new Map([['loss.svg', new TextEncoder().encode(curve)]]));
const sizes = await Promise.all((await readdir(folder)).map(async name => ({ name, size: (await stat(join(folder, name))).size })));
console.log(`\nsaved ${folder}`);
for (const { name, size } of sizes) console.log(`  ${name.padEnd(28)}${bytesText(size)}`);
const seconds = (from: number, to = performance.now()): string => `${((to - from) / 1000).toFixed(1)} s`;
console.log(`${((100 * reft.parameterCount) / model.parameterCount).toFixed(4)} % of the parameters; ${seconds(begin, loaded)} to load, ${seconds(loaded)} for the rest`);
