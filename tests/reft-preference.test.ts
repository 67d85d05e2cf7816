// Preferences between two answers (DPO): the loss against its formula written out, with and without reuse, a run that
// learns and resumes.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { noGrad } from '../src/autograd/tape.js';
import { parsePreferences, type Example, type PreferencePair } from '../src/data/index.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';
import { getReftModel, layoutOf, ReftTrainer, type ReftModel, type TrainerOptions } from '../src/reft/index.js';
import { tinyIds, tinyModel } from './helpers/tinyModel.js';

function example(prompt: Int32Array, answer: readonly number[], where: string): Example {
  const ids = Int32Array.from([...prompt, ...answer]);
  return {
    ids,
    promptLength: prompt.length,
    labels: Int32Array.from(ids, (id, t) => (t < prompt.length ? -100 : id)),
    truncated: 0,
    where,
  };
}
const pairs: PreferencePair[] = [3, 5, 4, 3, 6].map((n, i) => {
  const prompt = tinyIds(n, i);
  return { chosen: example(prompt, [1, 2 + i, 3], `pair ${i}`), rejected: example(prompt, [4, 5 + i], `pair ${i}`) };
});
const reftOf = async (): Promise<ReftModel> =>
  getReftModel(await tinyModel(), { layers: [1], positions: 'l1', rank: 2, identityStart: true });
const run = async (
  options: Partial<TrainerOptions> = {},
): Promise<{ reft: ReftModel; trainer: ReftTrainer; losses: number[] }> => {
  const reft = await reftOf();
  const trainer = new ReftTrainer(reft, {
    preferences: { pairs, beta: 0.5 },
    steps: 12,
    batchSize: 2,
    learningRate: 0.05,
    ...options,
  });
  const losses: number[] = [];
  for await (const step of trainer.steps()) losses.push(step.loss);
  return { reft, trainer, losses };
};

/** log p of the answer, summed, one forward alone. */
async function logProbability(reft: ReftModel, { ids, promptLength }: Example): Promise<number> {
  const shape = [1, ids.length];
  const { logits } = noGrad(() =>
    reft.forward({ inputIds: ids, shape }, layoutOf(new Int32Array(ids.length).fill(1), shape, [promptLength])),
  );
  const rows = await noGrad(() => logits.logSoftmax()).data();
  let sum = 0;
  for (let t = promptLength; t < ids.length; t++) sum += rows[(t - 1) * logits.shape[2] + ids[t]];
  return sum;
}

describe('preferences', () => {
  test('begin at log 2 with edits that change nothing; the loss is the formula; pairs come to prefer the chosen answer', async () => {
    const { reft, trainer, losses } = await run({ epochs: 20, steps: undefined } as Partial<TrainerOptions>);
    assert.ok(Math.abs(losses[0] - Math.LN2) < 1e-5, 'Math.abs(losses[0] - Math.LN2) < 1e-5');
    const gains = async (e: Example): Promise<number> => {
      reft.enabled = true;
      const edited = await logProbability(reft, e);
      reft.enabled = false;
      const base = await logProbability(reft, e);
      reft.enabled = true;
      return edited - base;
    };
    let expected = 0;
    for (const { chosen, rejected } of pairs) {
      const margin = 0.5 * ((await gains(chosen)) - (await gains(rejected)));
      assert.ok(margin > 0.5, `margin ${margin}`);
      expected += Math.log1p(Math.exp(-margin)) / pairs.length;
    }
    const { loss, rows, perplexity } = await trainer.evaluate();
    assert.ok(Math.abs(loss - expected) < 1e-4, `${loss}, the formula gives ${expected}`);
    assert.deepEqual([rows, perplexity], [5, NaN]);
    assert.ok(loss < 0.3, 'loss < 0.3');
  });

  test('reuse, and reuse for some pairs only, give the same losses', async () => {
    const { losses } = await run();
    for (const options of [{ reuse: false }, { reuseBudgetBytes: 3000 }]) {
      (await run(options)).losses.forEach((loss, i) =>
        assert.ok(Math.abs(loss - losses[i]) < 1e-5, `step ${i + 1}: ${loss} and ${losses[i]}`),
      );
    }
  });

  test('a run resumes bit for bit, and not as one of another objective', async () => {
    const whole = await run();
    const first = new ReftTrainer(await reftOf(), {
      preferences: { pairs, beta: 0.5 },
      steps: 12,
      batchSize: 2,
      learningRate: 0.05,
    });
    for await (const step of first.steps()) if (step.index === 5) break;
    const files = await first.checkpointFiles();
    assert.deepEqual((await run({ resume: files })).losses, whole.losses.slice(5));
    await assert.rejects(
      run({ resume: files, preferences: { pairs, beta: 0.2 } }),
      /resume: objective is preference, beta 0\.2, but .* preference, beta 0\.5/,
    );
  });

  test('rows are read, checked and refused by line', async () => {
    const tokenizer = await tokenizerFromFolder(fileURLToPath(new URL('fixtures/tokenizer/bpe', import.meta.url)));
    const read = (text: string): PreferencePair[] => parsePreferences(text, 'pairs.jsonl', tokenizer);
    const [verbatim, chat] = read(
      '{"prompt":"Say","chosen":" yes","rejected":" no"}\n\n' +
        '{"messages":[{"role":"user","content":"Say"}],"chosen":"yes","rejected":"no"}',
    );
    const promptOf = ({ ids, promptLength }: Example): number[] => [...ids.subarray(0, promptLength)];
    assert.deepEqual(promptOf(verbatim.chosen), promptOf(verbatim.rejected));
    assert.match(tokenizer.decode(verbatim.chosen.ids), /Say yes/);
    assert.ok(
      chat.chosen.promptLength > verbatim.chosen.promptLength,
      'chat.chosen.promptLength > verbatim.chosen.promptLength',
    );
    assert.throws(
      () => read('{"prompt":"a","chosen":"b","rejected":"c"}\n{"prompt":"a","chosen":"b"}'),
      /^FormatError: pairs\.jsonl:2: rejected: /,
    );
    assert.throws(() => read('{"prompt"'), /pairs\.jsonl:1: is not JSON/);
    assert.throws(() => read('\n'), /pairs\.jsonl: has no rows/);
    const reft = await reftOf();
    assert.throws(
      () => new ReftTrainer(reft, { preferences: { pairs, beta: 0 }, steps: 1 }),
      /beta: expected a number above 0, got 0/,
    );
    assert.throws(
      () => new ReftTrainer(reft, { preferences: { pairs }, examples: [pairs[0].chosen], steps: 1 }),
      /preferences take the place of rows/,
    );
  });
});
