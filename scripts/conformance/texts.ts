// The case `texts`: a real model with its tokenizer, on plain texts and on chats.

import { z } from 'zod';
import { scope } from '../../src/autograd/scope.js';
import { noGrad } from '../../src/autograd/tape.js';
import type { CausalLM } from '../../src/models/causalLM.js';
import { absolute, type Comparison } from './compare.js';
import { take, type RunContext } from './context.js';

const ids = z.array(z.number().int().nonnegative());
const schema = z.looseObject({
  model: z.string(),
  texts: z
    .array(
      z.looseObject({
        text: z.string(),
        ids: ids.min(1),
        mean_nll: z.number().optional(),
        top_ids: ids.default([]),
        top_logits: z.array(z.number()).default([]),
        decoded: z.string().optional(),
      }),
    )
    .default([]),
  chats: z
    .array(
      z.looseObject({
        messages: z.array(z.looseObject({ role: z.string(), content: z.string() })).min(1),
        rendered: z.string().optional(),
        ids: ids.min(1),
        greedy_ids: ids.optional(),
        greedy_text: z.string().optional(),
      }),
    )
    .default([]),
});

/** Absolute bars: f32 arithmetic moves a logit in its fourth decimal. */
const logitBar = absolute(1e-3);
const likelihoodBar = absolute(1e-4);

export async function checkTexts(json: unknown, context: RunContext, comparison: Comparison): Promise<void> {
  const { model: name, texts, chats } = schema.parse(json);
  const tokenizer = await context.tokenizer(name);
  const model = await context.causalLM(name);
  for (const [i, entry] of texts.entries()) {
    comparison.ids(`texts.${i}.ids`, tokenizer.encode(entry.text), entry.ids);
    if (entry.decoded !== undefined) comparison.text(`texts.${i}.decoded`, tokenizer.decode(entry.ids), entry.decoded);
    const logits = await logitsOf(model, entry.ids);
    const last = logits.at(-1) as Float32Array;
    if (entry.top_ids.length > 0)
      comparison.tensor(
        `texts.${i}.top_logits`,
        entry.top_ids.map(id => last[id]),
        entry.top_logits,
        logitBar,
      );
    if (entry.mean_nll !== undefined && entry.ids.length > 1) {
      comparison.tensor(
        `texts.${i}.mean_nll`,
        [meanNegativeLogLikelihood(logits, entry.ids)],
        [entry.mean_nll],
        likelihoodBar,
      );
    }
  }
  for (const [i, entry] of chats.entries()) {
    const prompt = tokenizer.chat(entry.messages);
    if (entry.rendered !== undefined) comparison.text(`chats.${i}.rendered`, prompt.text, entry.rendered);
    comparison.ids(`chats.${i}.ids`, prompt.ids, entry.ids);
    if (!entry.greedy_ids?.length) continue;
    const [answer] = await model.generate(entry.ids, {
      maxNewTokens: entry.greedy_ids.length,
      stopTokenIds: tokenizer.stopTokenIds,
      rounded: false,
    });
    comparison.ids(`chats.${i}.greedy_ids`, answer.ids, entry.greedy_ids);
    if (entry.greedy_text !== undefined)
      comparison.text(
        `chats.${i}.greedy_text`,
        tokenizer.decode(answer.ids, { skipSpecialTokens: true }),
        entry.greedy_text,
      );
  }
}

/** Logits after each token of one sequence: a row of the vocabulary's length for each. */
async function logitsOf(model: CausalLM, sequence: readonly number[]): Promise<Float32Array[]> {
  const shape = [1, sequence.length];
  const all = await take(
    noGrad(() => scope(() => model.forward({ inputIds: Int32Array.from(sequence), shape }).logits)),
  );
  const width = model.config.vocabSize;
  return sequence.map((_, t) => (all as Float32Array).subarray(t * width, (t + 1) * width));
}

/** Mean over the tokens after the first of -log p(token | those before), in f64. */
function meanNegativeLogLikelihood(logits: readonly Float32Array[], sequence: readonly number[]): number {
  let sum = 0;
  for (let t = 1; t < sequence.length; t++) {
    const row = logits[t - 1];
    let top = -Infinity;
    for (const logit of row) top = Math.max(top, logit);
    let total = 0;
    for (const logit of row) total += Math.exp(logit - top);
    sum += top + Math.log(total) - row[sequence[t]];
  }
  return sum / (sequence.length - 1);
}
