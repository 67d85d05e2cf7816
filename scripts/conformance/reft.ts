// Cases reft/KIND: a training run of pyreft, from its weights: logits, loss, first gradients, the losses of every AdamW
// step, weights and logits after them. Rows to edit are taken from pyreft's unit_locations; slots on masked columns are
// its padding and edit nothing.

import { z } from 'zod';
import { scope } from '../../src/autograd/scope.js';
import { noGrad } from '../../src/autograd/tape.js';
import type { ForwardOptions, Model, ModelOutput } from '../../src/models/model.js';
import type { SiteEdit } from '../../src/models/patch.js';
import { components, type Component } from '../../src/models/sites.js';
import { AdamW } from '../../src/nn/optim.js';
import { edit, type EditBank, type EditRows } from '../../src/reft/editOp.js';
import type { Intervention } from '../../src/reft/intervention.js';
import { parameterNames, rotation, type PyreftKind, type PyreftWeights } from '../../src/reft/formats/pyreftWeights.js';
import type { PlacedKind } from '../../src/reft/kinds.js';
import { create } from '../../src/tensor/create.js';
import type { Tensor } from '../../src/tensor/tensor.js';
import { absolute, relative, type Bar, type Comparison } from './compare.js';
import { take, Unsupported } from './context.js';
import type { Fixture, HostArray } from './fixture.js';
import { masked, readBatch, type Batch } from './forward.js';
import { activationOf, buildIntervention, kindOf } from './pyreftWeights.js';

const schema = z.looseObject({
  model: z.string(),
  kind: z.string(),
  layers: z.array(z.number().int().nonnegative()).min(1),
  act_fn: z.string().nullish(),
  component: z.string().default('block_output'),
  steps: z.number().int().nonnegative().optional(),
  optimizer: z.string().default(''),
  dtype: z.string().default('float64'),
});
export type ReftSettings = z.infer<typeof schema>;

export const readSettings = (settings: unknown): ReftSettings => schema.parse(settings);

interface Bars {
  readonly forward: Bar;
  readonly gradient: Bar;
  readonly losses: Bar;
  readonly trained: Bar;
}

/**
 * A run that the reference made in float32, on a real model, has rounding of its own, which Adam makes larger where
 * gradients are small. Two such runs on SmolLM2-135M differ by 4e-6 in gradients, 2e-5 in losses and 1e-4 in weights; a
 * step left out is 6e-2 in weights.
 */
function barsOf(settings: ReftSettings, tolerance: number): Bars {
  const [once, trained] = [relative(tolerance), relative(2 * tolerance)];
  if (settings.dtype !== 'float32') return { forward: once, gradient: once, losses: trained, trained };
  return { forward: relative(1e-4), gradient: relative(1e-4), losses: absolute(2e-4), trained: relative(1e-2) };
}

/** pyreft's component as a site of ours. */
export function componentOf(name: string): Component {
  const known =
    components.find(c => c === name) ?? (/^(model\.)?layers\[\d+\]\.output$/.test(name) ? 'block_output' : undefined);
  // pyvene's mlp_activation is the activation alone; ours is the product with the gated half.
  if (!known || known === 'mlp_activation')
    throw new Unsupported(`edits at pyvene's component '${name}' are not supported`);
  return known;
}

/** Rows b * T + column that intervention `number` edits: each once, without slots on masked columns. */
function rowsOf(locations: HostInts, number: number, { attentionMask, shape: [batch, length] }: Batch): Int32Array {
  const [, rows, slots] = locations.shape;
  const indices = new Set<number>();
  for (let b = 0; b < rows; b++) {
    for (let k = 0; k < slots; k++) {
      const column = locations.data[(number * rows + b) * slots + k];
      if (rows !== batch || column >= length)
        throw new RangeError(`unit_locations: column ${column} of row ${b} is outside of [${batch}, ${length}]`);
      if (column >= 0 && attentionMask[b * length + column] !== 0) indices.add(b * length + column);
    }
  }
  return Int32Array.from(indices).sort();
}

interface HostInts {
  readonly shape: readonly number[];
  readonly data: Int32Array;
}

/**
 * What a case's interventions edit: theirs are the layers, or the layers twice (all prefix ones, then all suffix ones).
 */
export interface EditPlan {
  readonly batch: Batch;
  readonly rows: readonly Int32Array[];
  readonly layers: readonly number[];
}

export async function readPlan(fixture: Fixture, settings: ReftSettings): Promise<EditPlan> {
  const batch = await readBatch(fixture);
  const locations: HostInts = { shape: fixture.shape('unit_locations'), data: await fixture.ints('unit_locations') };
  const [count] = locations.shape;
  if (locations.shape.length !== 3 || count % settings.layers.length !== 0) {
    throw new RangeError(
      `unit_locations: [${locations.shape.join(', ')}] does not fit ${settings.layers.length} layers`,
    );
  }
  const numbers = Array.from({ length: count }, (_, i) => i);
  return {
    batch,
    rows: numbers.map(i => rowsOf(locations, i, batch)),
    layers: numbers.map(i => settings.layers[i % settings.layers.length]),
  };
}

/** Edits of a plan's rows with what `bank` gives for each intervention. */
function editsOf(
  plan: EditPlan,
  interventions: readonly Intervention[],
  bank: (i: Intervention, number: number) => EditBank,
): SiteEdit[] {
  return interventions.map((intervention, number) => {
    const indices = plan.rows[number];
    const apply: SiteEdit['apply'] = (h, present) => {
      const { places } = present.find(indices);
      const rows: EditRows = { indices: places, slots: new Int32Array(places.length) };
      return edit(h, bank(intervention, number), rows);
    };
    return { site: intervention.site, apply };
  });
}

export const editsWith = (plan: EditPlan, interventions: readonly Intervention[]): SiteEdit[] =>
  editsOf(plan, interventions, i => i.bank());

/** Logits with edits: [B, T, vocabulary], [B, labels] of a classifier. */
export const editedLogits = (model: Model, batch: Batch, edits: readonly SiteEdit[]): Promise<ArrayLike<number>> =>
  take(noGrad(() => scope(() => logitsOf(model.forward({ ...batch, edits } as ForwardOptions)))));

function logitsOf(output: ModelOutput): Tensor {
  const { logits } = output as ModelOutput & { logits?: Tensor };
  if (!logits) throw new Unsupported('the model has no logits');
  return logits;
}

export async function checkReft(
  fixture: Fixture,
  model: Model,
  tolerance: number,
  comparison: Comparison,
): Promise<void> {
  const settings = readSettings(fixture.settings);
  const bars = barsOf(settings, tolerance);
  const plan = await readPlan(fixture, settings);
  const kind = kindOf(settings.kind);
  const weights = await Promise.all(plan.layers.map((_, i) => weightsOf(fixture, `init.${i}.`)));
  const interventions = plan.layers.map((layer, number) =>
    buildIntervention(model, {
      kind,
      layer,
      number,
      component: componentOf(settings.component),
      activation: activationOf(settings.act_fn),
      weights: weights[number],
    }),
  );
  const { batch } = plan;
  const edits = editsWith(plan, interventions);
  const labels = await fixture.ints('labels');

  if (fixture.has('logits'))
    await masked('logits', editedLogits(model, batch, edits), fixture, batch, bars.forward, comparison);
  if (fixture.has('loss'))
    comparison.tensor(
      'loss',
      await take(noGrad(() => model.loss({ ...batch, edits }, labels).loss)),
      await fixture.floats('loss'),
      bars.forward,
    );
  await checkFreeRotation(fixture, model, plan, interventions, weights, labels, bars.gradient, comparison);

  const optimizer = adamWOf(settings.optimizer, interventions);
  const losses: number[] = [];
  const steps = settings.steps ?? (fixture.has('losses') ? fixture.shape('losses')[0] - 1 : 0);
  // One more backward than steps where gradients are asked for and nothing is trained.
  for (let step = 0; step < Math.max(steps, 1); step++) {
    optimizer.zeroGrad();
    const loss = scope(() => {
      const value = model.loss({ ...batch, edits }, labels).loss;
      value.backward();
      return value.detach();
    });
    losses.push((await take(loss))[0]);
    if (step === 0)
      for (const [i, intervention] of interventions.entries())
        await checkGradients(fixture, `grad.${i}.`, intervention, bars.gradient, comparison);
    if (step < steps) optimizer.step();
  }
  if (steps > 0) losses.push((await take(noGrad(() => model.loss({ ...batch, edits }, labels).loss)))[0]);
  if (fixture.has('losses')) comparison.tensor('losses', losses, await fixture.floats('losses'), bars.losses);
  for (const [i, intervention] of interventions.entries())
    await checkWeights(fixture, `final.${i}.`, intervention, bars.trained, comparison);
  if (fixture.has('final.logits'))
    await masked('final.logits', editedLogits(model, batch, edits), fixture, batch, bars.trained, comparison);
  optimizer.dispose();
}

/** The tensors under a prefix such as `init.0.`, save R where its parametrization is there too. */
async function weightsOf(fixture: Fixture, prefix: string): Promise<PyreftWeights> {
  const names = fixture.names.filter(name => name.startsWith(prefix)).map(name => name.slice(prefix.length));
  const weights = new Map<string, HostArray>();
  for (const name of names) if (name !== 'R') weights.set(name, await fixture.array(prefix + name));
  return weights;
}

/**
 * The gradient with respect to R as a matrix that is free to leave orthonormality: R is a trained leaf of its own here.
 */
async function checkFreeRotation(
  fixture: Fixture,
  model: Model,
  plan: EditPlan,
  interventions: readonly Intervention[],
  weights: readonly PyreftWeights[],
  labels: Int32Array,
  bar: Bar,
  comparison: Comparison,
): Promise<void> {
  if (!interventions.some((_, i) => fixture.has(`grad.${i}.R`))) return;
  const { backend, dtype } = model;
  const leaves = await Promise.all(
    weights.map(async (_, i) => {
      const { shape, data } = await fixture.array(`init.${i}.R`);
      return create.from(data, shape, { dtype, backend }).requireGrad();
    }),
  );
  const edits = editsOf(plan, interventions, (intervention, number) => {
    const { A, b, C, e, P } = (intervention.kind as PlacedKind).place({
      ...intervention.parameters(),
      R: leaves[number],
    });
    const lead = (t: Tensor | null | undefined): Tensor | null => (t ? t.unsqueeze(0) : null);
    return {
      A: lead(A),
      b: lead(b),
      C: lead(C),
      e: lead(e),
      P: P.unsqueeze(0),
      activation: intervention.config.activation,
    };
  });
  scope(() => {
    model.loss({ ...plan.batch, edits }, labels).loss.backward();
  });
  for (const [i, leaf] of leaves.entries()) {
    if (fixture.has(`grad.${i}.R`)) await compareGradient(fixture, `grad.${i}.R`, leaf, bar, comparison);
  }
  for (const intervention of interventions) for (const { tensor } of intervention.trained()) tensor.grad = null;
}

/** A leaf that no gradient has reached has a gradient of zeros. */
async function compareGradient(
  fixture: Fixture,
  name: string,
  leaf: Tensor | null,
  bar: Bar,
  comparison: Comparison,
): Promise<void> {
  const expected = await fixture.floats(name);
  comparison.tensor(name, leaf?.grad ? await leaf.grad.data() : new Float32Array(expected.length), expected, bar);
}

async function checkGradients(
  fixture: Fixture,
  prefix: string,
  intervention: Intervention,
  bar: Bar,
  comparison: Comparison,
): Promise<void> {
  for (const [name, tensor] of trainedByPyreftName(intervention)) {
    if (fixture.has(prefix + name)) await compareGradient(fixture, prefix + name, tensor, bar, comparison);
  }
}

async function checkWeights(
  fixture: Fixture,
  prefix: string,
  intervention: Intervention,
  bar: Bar,
  comparison: Comparison,
): Promise<void> {
  for (const [name, tensor] of [
    ...trainedByPyreftName(intervention),
    ['R', noGrad(() => intervention.parameters().R ?? null)] as const,
  ]) {
    if (tensor && fixture.has(prefix + name))
      comparison.tensor(prefix + name, await tensor.data(), await fixture.floats(prefix + name), bar);
  }
}

/** Trained tensors by pyreft's names; null for the ones that pyreft has and the formula does not use. */
function trainedByPyreftName(intervention: Intervention): [string, Tensor | null][] {
  const parameters = intervention.parameters();
  const named: [string, Tensor | null][] = [];
  for (const [name, own] of Object.entries(parameterNames[intervention.config.kind as PyreftKind]))
    named.push([name, own === null ? null : parameters[own]]);
  const rotationParts = intervention.parameterSet.rotationParameters.get('R');
  if (rotationParts?.original) named.push([rotation.original, rotationParts.original]);
  return named;
}

/**
 * The optimizer that a sentence like "AdamW lr=5e-3 (constant) betas=(0.9,0.999) eps=1e-8 weight_decay=0, no gradient
 * clipping" names.
 */
function adamWOf(text: string, interventions: readonly Intervention[]): AdamW {
  const clipped = /clip/.test(text) && !/\bno (gradient )?clipping/.test(text);
  if ((text !== '' && !text.startsWith('AdamW')) || clipped || /\b(linear|cosine|warm)/.test(text)) {
    throw new Unsupported(`the optimizer '${text}' is not supported`);
  }
  const number = (name: string, fallback: number): number => {
    const found = new RegExp(`\\b${name}\\s*=\\s*([-+.\\deE]+)`).exec(text);
    return found ? Number(found[1].replace(/\.$/, '')) : fallback;
  };
  const betas = /\bbetas\s*=\s*\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)/.exec(text);
  const trained = interventions.flatMap(i => i.trained()).filter(t => t.tensor.requiresGrad);
  const pick = (orthogonal: boolean): Tensor[] => trained.filter(t => t.orthogonal === orthogonal).map(t => t.tensor);
  return new AdamW([{ parameters: pick(false) }, { parameters: pick(true), orthogonal: true }], {
    learningRate: number('lr', 1e-3),
    betas: betas ? [Number(betas[1]), Number(betas[2])] : [0.9, 0.999],
    eps: number('eps', 1e-8),
    weightDecay: number('weight_decay', 0),
  });
}
