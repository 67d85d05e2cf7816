// `npx tsx examples/das.ts`: where a small transformer keeps the number and the tense of a sentence. Trains it from
// scratch, patches activations, searches for the causal variables (DAS and boundless DAS) at every layer and position,
// next to a variable that plays no part, and draws what it finds.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  activationPatching,
  DasTrainer,
  getInterchangeModel,
  heatMap,
  interchangeAccuracy,
  noGrad,
  Random,
  saveInterchange,
  tokenBatch,
  type InterchangeConfig,
  type InterchangeModel,
} from '../src/index.js';
import { lossCurve } from '../src/cli/lossCurve.js';
import { Output } from '../src/cli/output.js';
import { allowRelaxedSimd } from '../src/cli/relaxedSimd.js';
import {
  agreementModel,
  betweenVerbs,
  counterfactuals,
  drawSentence,
  positionNames,
  trainAgreement,
  verbOf,
  vocabulary,
  type Variable,
} from './agreementTask.js';

allowRelaxedSimd();
const begin = performance.now();
const output = new Output(false);
const folder = fileURLToPath(new URL('../adapters/das', import.meta.url));
await mkdir(folder, { recursive: true });

const layers = 3;
const steps = 400;
const model = await agreementModel({ layers });
const learning = output.progress('training the transformer', steps);
const losses = await trainAgreement(model, {
  steps,
  onStep: (step, loss) => {
    learning.update(step, `loss ${loss.toFixed(4)}`);
  },
});
learning.stop();
const random = new Random(3);
const sentences = Array.from({ length: 3 }, () => drawSentence(random));
console.log(
  `${model.parameterCount.toLocaleString('en')} parameters, cross-entropy of the verb ${losses.at(-1)?.toFixed(4)}`,
);
for (const { ids, number, tense } of sentences)
  console.log(
    `  ${ids
      .map(id => vocabulary[id])
      .join(' ')
      .replace('<verb>', `-> ${vocabulary[verbOf(number, tense)]}`)}`,
  );

// Patching: pairs of sentences that differ in the subject's number; which state carries the difference?
const pairs = Array.from({ length: 200 }, () => [drawSentence(random), drawSentence(random)]).filter(
  ([b, s]) => b.number !== s.number && b.tense === s.tense,
);
const sweep = await activationPatching(model, {
  base: tokenBatch(pairs.map(([b]) => b.ids)),
  source: tokenBatch(pairs.map(([, s]) => s.ids)),
  components: ['block_output', 'attention_output', 'mlp_output'],
  answers: pairs.map(([b, s]) => ({ base: verbOf(b.number, b.tense), source: verbOf(s.number, s.tense) })),
});
const labels = { rows: sweep.layers, columns: positionNames };
await writeFile(
  join(folder, 'patching.svg'),
  await heatMap(
    sweep.components.map((title, i) => ({ title, values: sweep.effects[i] })),
    { ...labels, title: "Which state carries the subject's number", valueLabel: 'effect' },
  ),
);

/** Trains interventions for a variable; IIA on sentences they have not seen. */
async function search(
  config: InterchangeConfig | InterchangeConfig[],
  variables: Variable | Variable[],
  base: number,
  count = 80,
): Promise<{ interchange: InterchangeModel; accuracy: number }> {
  const interchange = getInterchangeModel(model, config);
  const trainer = new DasTrainer(interchange, {
    examples: counterfactuals(variables, 512, 5),
    unitLocations: { base },
    steps: count,
    batchSize: 64,
    learningRate: 2e-2,
    boundaryLearningRate: 2e-2,
  });
  await trainer.train();
  const { accuracy } = await trainer.evaluate(counterfactuals(variables, 512, 6));
  trainer.dispose();
  return { interchange, accuracy };
}

const variables = ['number', 'tense', 'otherNumber'] as const;
const names: Record<Variable, string> = {
  number: "subject's number",
  tense: 'tense',
  otherNumber: "other noun's number",
};
const searching = output.progress('one direction at a time', variables.length * layers * positionNames.length);
let searched = 0;
const found = new Map<Variable, number[][]>();
for (const variable of variables) {
  const grid: number[][] = [];
  for (let layer = 0; layer < layers; layer++) {
    const line: number[] = [];
    for (let position = 0; position < positionNames.length; position++) {
      const { interchange, accuracy } = await search(
        { kind: 'lowRankRotatedSpace', layer, lowRankDimension: 1 },
        variable,
        position,
      );
      line.push(accuracy);
      searching.update(
        ++searched,
        `${names[variable]}, layer ${layer}, ${positionNames[position]}: IIA ${accuracy.toFixed(2)}`,
      );
      interchange.dispose();
    }
    grid.push(line);
  }
  found.set(variable, grid);
}
searching.stop();
await writeFile(
  join(folder, 'das.svg'),
  await heatMap(
    [...found].map(([variable, values]) => ({ title: names[variable], values })),
    { ...labels, title: 'IIA of one direction: found, found, not there', valueLabel: 'IIA', domain: [0.4, 1] },
  ),
);
for (const [variable, grid] of found) {
  const best = Math.max(...grid.flat());
  const layer = grid.findIndex(line => line.includes(best));
  console.log(
    `${names[variable].padEnd(20)} IIA ${best.toFixed(3)} at best (layer ${layer}, ${positionNames[grid[layer].indexOf(best)]}); chance is about 0.5`,
  );
}

const last = layers - 1;
const part = {
  kind: 'lowRankRotatedSpace',
  layer: last,
  lowRankDimension: 2,
  subspacePartition: [
    [0, 1],
    [1, 2],
  ],
  interventionLinkKey: 'R',
} as const;
const both = await search(
  [
    { ...part, subspaces: [0] },
    { ...part, subspaces: [1] },
  ],
  ['number', 'tense'],
  -1,
  120,
);
console.log(`number and tense from two sources, by a partition of one R of rank 2: IIA ${both.accuracy.toFixed(3)}`);
await saveInterchange(both.interchange, folder);
const vanilla = getInterchangeModel(model, { kind: 'vanilla', layer: last });
const swaps = counterfactuals('number', 512, 6);
const [whole, between] = await Promise.all(
  [swaps, betweenVerbs(swaps, 'number')].map(examples =>
    interchangeAccuracy(vanilla, examples, { unitLocations: { base: -1 } }),
  ),
);
console.log(
  'the whole state in place of a subspace: ' +
    `IIA ${whole.accuracy.toFixed(3)} for the number, as it brings the tense along; ` +
    `${between.accuracy.toFixed(3)} between the two verbs of the tense that is wanted`,
);
for (const variable of ['number', 'otherNumber'] as const) {
  const {
    interchange: {
      interventions: [{ kind, space }],
    },
    accuracy,
  } = await search({ kind: 'boundlessRotatedSpace', layer: last }, variable, -1, 200);
  const swapped = noGrad(() => kind.softMask?.(space.parameters(), space.temperature).sum());
  console.log(
    `boundless DAS, ${names[variable]}: IIA ${accuracy.toFixed(3)} with ${(await swapped?.item())?.toFixed(1)} of ${space.sizes.width} directions`,
  );
}
await writeFile(
  join(folder, 'loss.svg'),
  await lossCurve(
    losses.map((loss, i) => ({ step: i + 1, loss })),
    { title: 'A language of one sentence' },
  ),
);
console.log(
  `\nwrote ${folder}: patching.svg, das.svg, loss.svg and the interventions; ${((performance.now() - begin) / 1000).toFixed(1)} s`,
);
