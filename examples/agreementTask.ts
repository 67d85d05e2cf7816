// A language of one sentence, and a small transformer that is trained on it from scratch: `yesterday dogs near cat`
// goes on with the verb that agrees with the subject in number and with the adverb in tense; the noun in between does
// not matter. So the causal variables are known, and what an alignment search finds can be judged. Used by das.ts and
// by a test.

import {
  loadCausalLM,
  memorySource,
  nn,
  openCheckpoint,
  Random,
  scope,
  writeSafetensors,
  type Backend,
  type CausalLM,
  type CounterfactualExample,
  type SafetensorsEntry,
} from '../src/index.js';

const numbers = ['singular', 'plural'] as const;
const tenses = ['past', 'present'] as const;
const adverbs = [
  ['yesterday', 'once', 'then'],
  ['today', 'now', 'always'],
] as const;
const nouns = [
  ['dog', 'cat', 'key', 'child', 'ship', 'tree'],
  ['dogs', 'cats', 'keys', 'children', 'ships', 'trees'],
] as const;
const prepositions = ['near', 'behind', 'with'] as const;
const verbs = [
  ['was', 'is'],
  ['were', 'are'],
] as const;

/** Words by token id. The last is where the verb goes. */
export const vocabulary: readonly string[] = [
  ...adverbs.flat(),
  ...nouns.flat(),
  ...prepositions,
  ...verbs.flat(),
  '<verb>',
];
const idOf = (word: string): number => vocabulary.indexOf(word);

/** What stands at each position. */
export const positionNames = ['adverb', 'subject', 'preposition', 'other noun', '<verb>'] as const;

export interface Sentence {
  readonly ids: readonly number[];
  /** 0 or 1: of the subject, of the adverb, and of the noun that does not matter. */
  readonly number: number;
  readonly tense: number;
  readonly otherNumber: number;
}

/** The two causal variables, and one that is none. */
export type Variable = 'number' | 'tense' | 'otherNumber';

export const verbOf = (number: number, tense: number): number => idOf(verbs[number][tense]);

export function drawSentence(random: Random): Sentence {
  const pick = <T>(list: readonly T[]): T => list[random.integer(list.length)];
  const [number, tense, otherNumber] = [
    random.integer(numbers.length),
    random.integer(tenses.length),
    random.integer(numbers.length),
  ];
  const ids = [pick(adverbs[tense]), pick(nouns[number]), pick(prepositions), pick(nouns[otherNumber]), '<verb>'].map(
    idOf,
  );
  return { ids, number, tense, otherNumber };
}

/**
 * Pairs of sentences with the verb that should follow the base if the variable, and nothing else, came from the source.
 * `otherNumber` is treated as if the verb agreed with it, which no intervention on this model should bring about.
 */
export function counterfactuals(
  variables: Variable | readonly Variable[],
  count: number,
  seed: number,
): CounterfactualExample[] {
  const random = new Random(seed, 1);
  const list = typeof variables === 'string' ? [variables] : variables;
  return Array.from({ length: count }, () => {
    const base = drawSentence(random);
    const sources = list.map(() => drawSentence(random));
    const values = { number: base.number, tense: base.tense };
    list.forEach((variable, i) => {
      if (variable === 'tense') values.tense = sources[i].tense;
      else values.number = sources[i][variable];
    });
    return { base: base.ids, sources: sources.map(s => s.ids), label: verbOf(values.number, values.tense) };
  });
}

/** The examples with the two verbs between which the variable decides as candidates. */
export function betweenVerbs(
  examples: readonly CounterfactualExample[],
  variable: 'number' | 'tense',
): CounterfactualExample[] {
  return examples.map(example => {
    const all = [0, 1].flatMap(n => [0, 1].map(t => [n, t]));
    const [number, tense] = all.find(([n, t]) => verbOf(n, t) === example.label) as number[];
    const candidates = [0, 1].map(value => (variable === 'number' ? verbOf(value, tense) : verbOf(number, value)));
    return { ...example, candidates };
  });
}

/** A random LLaMA of the vocabulary's size. */
export async function agreementModel({
  hidden = 32,
  layers = 2,
  heads = 4,
  seed = 1,
  device,
}: { hidden?: number; layers?: number; heads?: number; seed?: number; device?: Backend } = {}): Promise<CausalLM> {
  const random = new Random(seed);
  const tensor = (name: string, shape: number[], draw: () => number): SafetensorsEntry => ({
    name,
    dtype: 'F32',
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, draw),
  });
  const matrix = (name: string, output: number, input: number): SafetensorsEntry =>
    tensor(`${name}.weight`, [output, input], () => random.normal() / Math.sqrt(input));
  const norm = (name: string): SafetensorsEntry => tensor(`${name}.weight`, [hidden], () => 1);
  const entries = [
    tensor('model.embed_tokens.weight', [vocabulary.length, hidden], () => 0.3 * random.normal()),
    norm('model.norm'),
    matrix('lm_head', vocabulary.length, hidden),
    ...Array.from({ length: layers }, (_, i) => `model.layers.${i}`).flatMap(at => [
      norm(`${at}.input_layernorm`),
      norm(`${at}.post_attention_layernorm`),
      ...['q_proj', 'k_proj', 'v_proj', 'o_proj'].map(name => matrix(`${at}.self_attn.${name}`, hidden, hidden)),
      matrix(`${at}.mlp.gate_proj`, 2 * hidden, hidden),
      matrix(`${at}.mlp.up_proj`, 2 * hidden, hidden),
      matrix(`${at}.mlp.down_proj`, hidden, 2 * hidden),
    ]),
  ];
  const config = {
    model_type: 'llama',
    vocab_size: vocabulary.length,
    hidden_size: hidden,
    intermediate_size: 2 * hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    max_position_embeddings: 16,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
  };
  const checkpoint = await openCheckpoint(memorySource(writeSafetensors(entries), 'agreement.safetensors'), config);
  return loadCausalLM(checkpoint, device ? { device } : {});
}

/** Trains the whole model on drawn sentences; gives each step's loss. Frozen again afterwards. */
export async function trainAgreement(
  model: CausalLM,
  {
    steps = 200,
    batchSize = 64,
    learningRate = 3e-3,
    seed = 2,
    onStep,
  }: {
    steps?: number;
    batchSize?: number;
    learningRate?: number;
    seed?: number;
    onStep?: (step: number, loss: number) => void;
  } = {},
): Promise<number[]> {
  const random = new Random(seed);
  const parameters = model.parameters();
  for (const t of parameters) t.requireGrad();
  const optimizer = new nn.AdamW(parameters, { learningRate, weightDecay: 0.01 });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const rows = Array.from({ length: batchSize }, () => drawSentence(random));
    optimizer.zeroGrad();
    const loss = scope(() => {
      const ids = rows.flatMap(({ ids: sentence, number, tense }) => [...sentence, verbOf(number, tense)]);
      const labels = rows.flatMap(({ ids: sentence, number, tense }) => [
        ...sentence.map(() => -100),
        verbOf(number, tense),
      ]);
      const { loss: mean } = model.loss(
        { inputIds: Int32Array.from(ids), shape: [batchSize, positionNames.length + 1] },
        Int32Array.from(labels),
      );
      mean.backward();
      return mean.detach();
    });
    losses.push(await loss.item());
    loss.storage.dispose();
    optimizer.step(learningRate * nn.scheduleFactor('linear', step, steps, 0.05));
    onStep?.(step + 1, losses[step]);
  }
  optimizer.zeroGrad();
  optimizer.dispose();
  for (const t of parameters) t.requireGrad(false);
  return losses;
}
