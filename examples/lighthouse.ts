// The recipe of `npm start`: which rows, which edits, how long. Ten rows that are not trained on say how well it does,
// and after which epoch it did best; `npm run check:models` holds it to that.

import { fileURLToPath } from 'node:url';
import {
  evaluate,
  getReftModel,
  readRows,
  ReftTrainer,
  tokenizeRow,
  type CausalLM,
  type Example,
  type ReftModel,
  type Row,
  type Tokenizer,
  type TrainerOptions,
  type TrainResult,
} from '../src/index.js';

/** Two edits, in the first and the second half of the model, at the prompt's end and at every token of the answer. */
const edits = { layers: [10, 20], positions: 'l1', newTokens: 'all', rank: 8, identityStart: true } as const;
/** Forty steps: with more, the rows are learned by heart and unseen questions are answered worse. */
const course = { epochs: 5, batchSize: 4, learningRate: 4e-3, keepBest: true } as const;

export interface Lighthouse {
  readonly reft: ReftModel;
  readonly trainer: ReftTrainer;
  readonly rows: readonly Row[];
  readonly heldOut: readonly Example[];
}

const rowsOf = (name: string): Promise<Row[]> => readRows(fileURLToPath(new URL(name, import.meta.url)));

/** The rows, the edits and the trainer, ready to run. */
export async function lighthouse(
  model: CausalLM,
  tokenizer: Tokenizer,
  watch: Pick<TrainerOptions, 'onStep' | 'onEvaluation'> = {},
): Promise<Lighthouse> {
  const rows = await rowsOf('lighthouse.jsonl');
  const heldOut = (await rowsOf('lighthouse-heldout.jsonl')).map(row => tokenizeRow(row, tokenizer));
  const reft = getReftModel(model, edits);
  const trainer = new ReftTrainer(reft, { ...course, ...watch, tokenizer, rows, evaluation: { examples: heldOut } });
  return { reft, trainer, rows, heldOut };
}

export interface LighthouseLosses extends Pick<TrainResult, 'steps' | 'best'> {
  readonly training: number;
  readonly heldOut: number;
  readonly frozenTraining: number;
  readonly frozenHeldOut: number;
}

/** Trains to the end; gives the losses of the edited and the frozen model, on rows trained on and on rows held out. */
export async function trainLighthouse({ reft, trainer, heldOut }: Lighthouse): Promise<LighthouseLosses> {
  const { steps, loss: training, best } = await trainer.train();
  const lossOf = async (on: CausalLM | ReftModel, examples: readonly Example[]): Promise<number> =>
    (await evaluate(on, examples)).loss;
  return {
    steps,
    best,
    training,
    heldOut: await lossOf(reft, heldOut),
    frozenTraining: await lossOf(reft.base, trainer.examples),
    frozenHeldOut: await lossOf(reft.base, heldOut),
  };
}
