// The trainer and all that belongs to it know adapters, not edits: one that is none of ours is trained, saved, resumed
// and measured as they are.

import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { ParameterSet } from '../src/adapt/parameterSet.js';
import type { Adapter, FirstChange, TrainingMode } from '../src/adapt/adapter.js';
import { noGrad } from '../src/autograd/tape.js';
import type { CausalLM, ForwardOptions, ForwardOutput } from '../src/models/causalLM.js';
import type { SiteEdit } from '../src/models/patch.js';
import { orthogonalMaps } from '../src/nn/orthogonal/maps.js';
import { evaluate, getReftModel, ReftTrainer, Trainer, type TrainerOptions } from '../src/reft/index.js';
import { canReuse, PrefixReuse } from '../src/train/reuse.js';
import { tinyExample, tinyExamples } from './helpers/tinyExamples.js';
import { tinyModel } from './helpers/tinyModel.js';

/** Adds one trained vector to every token after a block: the simplest adapter there is. */
class Steering implements Adapter {
  tokenizer: undefined;
  enabled = true;
  keeps = true;
  readonly base: CausalLM & { causal?: boolean };
  readonly vector: ParameterSet;
  private readonly layer: number;

  constructor(base: CausalLM, layer: number) {
    this.base = base;
    this.layer = layer;
    this.vector = new ParameterSet(
      { id: 'steering', kind: 'steering', map: orthogonalMaps.qr, seed: 0, backend: base.backend, dtype: base.dtype },
      [{ name: 'v', shape: [base.config.hiddenSize], start: 0, stream: 0 }],
    );
  }

  get parameterCount(): number {
    return this.vector.count;
  }

  edits(): SiteEdit[] {
    if (!this.enabled) return [];
    return [{ site: { layer: this.layer, component: 'block_output' }, apply: h => h.add(this.vector.values().v) }];
  }

  forward(options: Omit<ForwardOptions, 'edits'>, _layout: unknown, _training?: TrainingMode): ForwardOutput {
    return this.base.forward({ ...options, edits: this.edits() });
  }

  trained = () => this.vector.trained();
  state = () => this.vector.state();
  setState: Adapter['setState'] = (name, value) => {
    this.vector.setState(name, value);
  };
  settings = () => ({ layer: `${this.layer}` });
  check: Adapter['check'] = ({ length }) => {
    if (length > 40) throw new RangeError('too long to be steered');
  };
  changes = () => this.enabled;
  firstChanged = (): FirstChange | null =>
    this.keeps ? { layer: this.layer, component: 'block_output', position: 0 } : null;
  toFiles = async () => new Map([['steering.json', new TextEncoder().encode('{}')]]);
  summary = () => 'one vector';
}

const course: TrainerOptions = { examples: tinyExamples(5), steps: 6, batchSize: 2, learningRate: 0.05, seed: 2 };
const numbersOf = (adapter: Steering): number[] => Array.from(noGrad(() => adapter.vector.values().v.dataSync()));

async function losses(adapter: Steering, options: TrainerOptions = course): Promise<number[]> {
  const all: number[] = [];
  for await (const { loss } of new Trainer(adapter, options).steps()) all.push(loss);
  return all;
}

const near = (a: readonly number[], b: readonly number[], bound: number): void => {
  assert.equal(a.length, b.length);
  a.forEach((x, i) => {
    assert.ok(Math.abs(x - b[i]) <= bound, `entry ${i}: ${x} and ${b[i]}`);
  });
};

describe('an adapter that is no edit of ours', () => {
  it('is trained as the edit that computes the same', async () => {
    const base = await tinyModel();
    const adapter = new Steering(base, 1);
    const steps = await losses(adapter);
    const reft = getReftModel(base, { kind: 'addition', layers: [1], positions: 'all', rank: 1 });
    const ours: number[] = [];
    for await (const { loss } of new ReftTrainer(reft, course).steps()) ours.push(loss);
    near(steps, ours, 2e-6);
    const v = noGrad(() => reft.interventions[0].parameters().v.dataSync());
    near(numbersOf(adapter), Array.from(v), 1e-5);
    const [mine, theirs] = [await evaluate(adapter, tinyExamples(5)), await evaluate(reft, tinyExamples(5))];
    near([mine.loss], [theirs.loss], 2e-6);
    const before = await evaluate(base, tinyExamples(5));
    assert.ok(mine.loss < before.loss, `${mine.loss} after training, ${before.loss} before`);
  });

  it('goes on from a checkpoint bit for bit, and refuses one of other settings', async () => {
    const whole = new Steering(await tinyModel(), 1);
    await losses(whole);
    const half = new Steering(await tinyModel(), 1);
    const trainer = new Trainer(half, course);
    let done = 0;
    for await (const _ of trainer.steps()) if (++done === 3) break;
    const files = await trainer.checkpointFiles();
    assert.ok(files.has('steering.json'), [...files.keys()].join());
    const again = new Steering(await tinyModel(), 1);
    await losses(again, { ...course, resume: files });
    assert.deepEqual(numbersOf(again), numbersOf(whole));
    await assert.rejects(
      losses(new Steering(await tinyModel(), 0), { ...course, resume: files }),
      /^RangeError: resume: layer is 0, but checkpoint was made with 1/,
    );
  });

  it('keeps what it says, from the layer it names, and nothing where it says so', async () => {
    const adapter = new Steering(await tinyModel(), 1);
    const [example] = tinyExamples(1);
    assert.equal(canReuse(adapter, example), true);
    const plain = await losses(new Steering(await tinyModel(), 1), { ...course, reuse: false });
    near(await losses(adapter), plain, 2e-6);
    adapter.keeps = false;
    assert.equal(canReuse(adapter, example), false);
    assert.throws(() => new PrefixReuse(adapter, [example]), /^Error: reuse: /);
  });

  it('on a base whose tokens see those after them, nothing is kept', async () => {
    const base = await tinyModel();
    const adapter = new Steering(base, 1);
    const causal = (value: boolean): void => {
      Object.defineProperty(base, 'causal', { configurable: true, value });
    };
    causal(false);
    assert.equal(canReuse(adapter, tinyExamples(1)[0]), false);
    const forward = base.forward.bind(base);
    let kept = 0;
    base.forward = options => {
      if (options.from || options.cache) kept++;
      return forward(options);
    };
    await losses(adapter);
    assert.equal(kept, 0);
    causal(true);
    await losses(adapter);
    assert.ok(kept > 0, 'a causal base starts from what is kept');
  });

  it('says which rows it cannot stand on, and whether it changes any', async () => {
    const adapter = new Steering(await tinyModel(), 1);
    assert.throws(
      () => new Trainer(adapter, { ...course, examples: [tinyExample(40, 3, 9)] }),
      /^RangeError: tiny:9: too long to be steered$/,
    );
    adapter.enabled = false;
    assert.throws(() => new Trainer(adapter, course), /^RangeError: training: no token of any row is edited/);
  });

  it('is claimed by its tensors: another run on them waits', async () => {
    const adapter = new Steering(await tinyModel(), 1);
    const first = new Trainer(adapter, course);
    const steps = first.steps();
    await steps.next();
    assert.equal(first.running, true);
    await assert.rejects(losses(adapter), /another trainer is being run on steering\.v; end its steps first/);
    await steps.return();
    assert.equal(first.running, false);
    assert.equal((await losses(adapter)).length, 6);
  });
});

describe('edits as an adapter', () => {
  it('first change: the lowest layer, where in it, and the first edited token', async () => {
    const base = await tinyModel();
    const sequence = { promptLength: 5, length: 9 };
    const first = (...configs: Parameters<typeof getReftModel>[1][]): FirstChange | null =>
      getReftModel(base, configs.flat() as Parameters<typeof getReftModel>[1]).firstChanged(sequence);
    const rest = { rank: 1, positions: 'l1' };
    assert.deepEqual(first({ ...rest, layers: [2, 1] }), { layer: 1, component: 'block_output', position: 4 });
    assert.deepEqual(first({ ...rest, layers: [1], component: 'mlp_output', positions: 'f2+l1' }), {
      layer: 1,
      component: 'block_input',
      position: 0,
    });
    assert.deepEqual(first({ ...rest, layers: [1] }, { ...rest, layers: [1], component: 'mlp_output' }), {
      layer: 1,
      component: 'block_input',
      position: 4,
    });
    assert.deepEqual(first({ ...rest, component: 'final_norm', positions: '3' }), {
      layer: 2,
      component: 'block_output',
      position: 3,
    });
    assert.deepEqual(first({ ...rest, component: 'embeddings' }, { ...rest, layers: [2] }), {
      layer: 0,
      component: 'embeddings',
      position: 4,
    });
    // Of what is never edited nothing is changed.
    const reft = getReftModel(base, { ...rest, layers: [0] });
    assert.equal(reft.firstChanged({ promptLength: 0, length: 9 })?.position, 9);
  });

  it('a base that is trained along leaves nothing to keep', async () => {
    const base = await tinyModel();
    const reft = getReftModel(base, { layers: [1], rank: 1 });
    const [norm] = [...base.namedParameters()].filter(([name]) => name === 'model.norm.weight');
    norm[1].requireGrad();
    assert.equal(reft.firstChanged({ promptLength: 5, length: 9 }), null);
  });

  it('changes what its switches leave on', async () => {
    const reft = getReftModel(await tinyModel(), { layers: [0, 1], rank: 1, positions: 'l1' });
    const sequence = { promptLength: 5, length: 9 };
    assert.equal(reft.changes(sequence), true);
    assert.equal(reft.changes({ promptLength: 0, length: 9 }), false);
    reft.interventions[0].enabled = false;
    assert.equal(reft.changes(sequence), true);
    reft.interventions[1].enabled = false;
    assert.equal(reft.changes(sequence), false);
    reft.interventions[0].enabled = true;
    reft.enabled = false;
    assert.equal(reft.changes(sequence), false);
  });

  it('state goes back by name; a name that nobody has is refused', async () => {
    const base = await tinyModel();
    const [a, b] = [1, 2].map(seed => getReftModel(base, { layers: [0, 2], rank: 1, positions: 'f1+l1', seed }));
    for (const { name, tensor } of a.state()) b.setState(name, tensor);
    assert.deepEqual(
      b.state().map(({ name, tensor }) => [name, ...tensor.dataSync()]),
      a.state().map(({ name, tensor }) => [name, ...tensor.dataSync()]),
    );
    assert.throws(() => {
      b.setState('block_output/1.W', a.state()[0].tensor);
    }, /^RangeError: no intervention has the state 'block_output\/1\.W'$/);
  });
});
