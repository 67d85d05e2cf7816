// Optimizers: a step is one map kernel for each parameter, written in place. Formulas as in torch.optim. What is
// decayed, and by how much, is said by groups; a parameter of an orthogonal map is never decayed.

import { arg, add, div, mul, sqrt, sub, uniform, type Expr } from '../tensor/expr.js';
import { create } from '../tensor/create.js';
import { promote } from '../tensor/dtype.js';
import { stack } from '../tensor/layout.js';
import { formatShape, sameShape } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';
import { keep, scope } from '../autograd/scope.js';
import { observed } from '../autograd/observer.js';
import { mapInto } from '../autograd/primitives.js';
import { noGrad, zeroGrad } from '../autograd/tape.js';
import { checkOptionKeys, type OptionKeys } from '../optionKeys.js';

export interface ParameterGroup {
  readonly parameters: readonly Tensor[];
  /** Multiplies the learning rate of the step. Default 1. */
  readonly learningRateScale?: number;
  readonly weightDecay?: number;
  /** Parameters of an orthogonal map: weight decay would move them off it, and is refused. */
  readonly orthogonal?: boolean;
}

const groupKeys: OptionKeys<ParameterGroup> = {
  parameters: true,
  learningRateScale: true,
  weightDecay: true,
  orthogonal: true,
};

/** Moments and counters, by the position of a parameter: what bit-equal resuming needs. */
export interface OptimizerState {
  readonly step: number;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** The value, when it is a number from `least` to below `limit`. */
function inRange(name: string, value: number, least: number, limit = Infinity): number {
  if (!(value >= least && value < limit))
    throw new RangeError(
      `optimizer: ${name} must be from ${least}${limit < Infinity ? ` to below ${limit}` : ''}, got ${value}`,
    );
  return value;
}

abstract class Optimizer {
  protected stepCount = 0;
  protected readonly groups: readonly Required<ParameterGroup>[];
  protected readonly moments: {
    readonly tensor: Tensor;
    readonly group: Required<ParameterGroup>;
    readonly slots: Tensor[];
  }[] = [];

  constructor(groups: readonly ParameterGroup[] | readonly Tensor[], weightDecay: number) {
    const list =
      groups.length > 0 && 'storage' in groups[0]
        ? [{ parameters: groups as readonly Tensor[] }]
        : (groups as readonly ParameterGroup[]);
    for (const group of list) checkOptionKeys('parameter group', group, groupKeys);
    this.groups = list.map(({ parameters, learningRateScale = 1, orthogonal = false, ...g }) => {
      const decay = inRange('weightDecay', g.weightDecay ?? (orthogonal ? 0 : weightDecay), 0);
      if (orthogonal && decay !== 0)
        throw new RangeError('optimizer: weight decay on the parameters of an orthogonal map would move them off it');
      return {
        parameters,
        learningRateScale: inRange('learningRateScale', learningRateScale, 0),
        weightDecay: decay,
        orthogonal,
      };
    });
    if (this.groups.every(g => g.parameters.length === 0)) throw new RangeError('optimizer: there is nothing to train');
  }

  /** `count` zeroed tensors beside each parameter. */
  protected addMoments(count: number): void {
    for (const group of this.groups) {
      for (const tensor of group.parameters) {
        if (this.moments.some(m => m.tensor === tensor))
          throw new RangeError(`optimizer: ${tensor.name ?? tensor.toString()} is given twice`);
        if (!tensor.requiresGrad || !tensor.isContiguous)
          throw new RangeError(`optimizer: ${tensor.name ?? tensor.toString()} is not a contiguous trained leaf`);
        const zeros = (): Tensor => keep(create.zeros(tensor.shape, { dtype: tensor.dtype, backend: tensor.backend }));
        this.moments.push({ tensor, group, slots: Array.from({ length: count }, zeros) });
      }
    }
  }

  get parameters(): Tensor[] {
    return this.moments.map(m => m.tensor);
  }

  zeroGrad(): void {
    zeroGrad(this.parameters);
  }

  state(): OptimizerState {
    const tensors = new Map<string, Tensor>();
    this.moments.forEach(({ slots }, i) => slots.forEach((t, k) => tensors.set(`${i}.${k}`, t)));
    return { step: this.stepCount, tensors };
  }

  /**
   * Puts back what `state` gave; entries, shapes and types must be those of this optimizer. Nothing changes when they
   * are not.
   */
  loadState(state: OptimizerState): void {
    const own = this.state().tensors;
    if (!Number.isSafeInteger(state.step) || state.step < 0)
      throw new RangeError(`optimizer state: step must be a whole number, got ${state.step}`);
    for (const key of state.tensors.keys())
      if (!own.has(key))
        throw new RangeError(`optimizer state: entry ${key} belongs to no parameter of this optimizer`);
    const pairs = [...own].map(([key, target]) => {
      const saved = state.tensors.get(key);
      if (!saved || !sameShape(saved.shape, target.shape) || saved.dtype !== target.dtype) {
        throw new RangeError(
          `optimizer state: entry ${key} should be ${describe(target)}, got ${saved ? describe(saved) : 'nothing'}`,
        );
      }
      return { saved, target };
    });
    this.stepCount = state.step;
    for (const { saved, target } of pairs) mapInto('optimizer state', [arg(0)], [saved], [target]);
  }

  dispose(): void {
    for (const { slots } of this.moments) for (const t of slots) t.storage.dispose();
    this.moments.length = 0;
  }
}

const describe = (t: Tensor): string => `${t.dtype}${formatShape(t.shape)}`;

export interface AdamWOptions {
  learningRate?: number;
  betas?: readonly [number, number];
  eps?: number;
  /** Decoupled (Loshchilov and Hutter 2019). */
  weightDecay?: number;
}

const adamwKeys: OptionKeys<AdamWOptions> = { learningRate: true, betas: true, eps: true, weightDecay: true };

// Arguments: parameter, gradient, m, v. Uniforms: learning rate, decay factor, beta1, beta2, 1 - beta1, 1 - beta2, eps,
// 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t). The differences come from the host: 1 - 0.999 in f32 is off by 5e-5.
const [p, g, m, v] = [0, 1, 2, 3].map(i => arg(i));
const [lr, decay, beta1, beta2, rest1, rest2, eps, correction1, correction2] = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(i =>
  uniform(i),
);
const newM: Expr = add(mul(beta1, m), mul(rest1, g));
const newV: Expr = add(mul(beta2, v), mul(rest2, mul(g, g)));
const adamw = [
  sub(mul(p, decay), mul(mul(lr, correction1), div(newM, add(mul(sqrt(newV), correction2), eps)))),
  newM,
  newV,
];

/** AdamW as torch.optim.AdamW computes it. */
export class AdamW extends Optimizer {
  private readonly learningRate: number;
  private readonly betas: readonly [number, number];
  private readonly eps: number;

  constructor(groups: readonly ParameterGroup[] | readonly Tensor[], options: AdamWOptions = {}) {
    super(groups, options.weightDecay ?? 0);
    checkOptionKeys('AdamW', options, adamwKeys);
    const { learningRate = 1e-3, betas: [beta1, beta2] = [0.9, 0.999], eps: epsilon = 1e-8 } = options;
    this.betas = [inRange('beta1', beta1, 0, 1), inRange('beta2', beta2, 0, 1)];
    this.eps = inRange('eps', epsilon, 0);
    this.learningRate = learningRate;
    this.addMoments(2);
  }

  /** One step from the parameters' `grad`; a parameter without one stays as it is. */
  step(learningRate: number = this.learningRate): void {
    inRange('learningRate', learningRate, 0);
    this.stepCount++;
    observed('update', () => {
      this.update(learningRate);
    });
  }

  private update(learningRate: number): void {
    const {
      betas: [b1, b2],
      eps: epsilon,
    } = this;
    const corrections = [1 / (1 - b1 ** this.stepCount), 1 / Math.sqrt(1 - b2 ** this.stepCount)];
    for (const { tensor, group, slots } of this.moments) {
      if (!tensor.grad) continue;
      const rate = learningRate * group.learningRateScale;
      const uniforms = [rate, 1 - rate * group.weightDecay, b1, b2, 1 - b1, 1 - b2, epsilon, ...corrections];
      mapInto('adamw', adamw, [tensor, tensor.grad, ...slots], [tensor, ...slots], uniforms);
    }
  }
}

export interface SGDOptions {
  learningRate?: number;
  momentum?: number;
  nesterov?: boolean;
  weightDecay?: number;
}

const sgdKeys: OptionKeys<SGDOptions> = { learningRate: true, momentum: true, nesterov: true, weightDecay: true };

// Arguments: parameter, gradient, velocity. Uniforms: learning rate, weight decay, momentum.
const decayed = add(g, mul(uniform(1), p));
const velocity = add(mul(uniform(2), m), decayed);
const momentumStep = sub(p, mul(lr, velocity));
const nesterovStep = sub(p, mul(lr, add(decayed, mul(uniform(2), velocity))));

/** SGD as torch.optim.SGD computes it (dampening 0; the velocity starts at the first gradient). */
export class SGD extends Optimizer {
  private readonly learningRate: number;
  private readonly momentum: number;
  private readonly nesterov: boolean;

  constructor(groups: readonly ParameterGroup[] | readonly Tensor[], options: SGDOptions = {}) {
    super(groups, options.weightDecay ?? 0);
    checkOptionKeys('SGD', options, sgdKeys);
    this.learningRate = options.learningRate ?? 1e-2;
    this.momentum = inRange('momentum', options.momentum ?? 0, 0);
    this.nesterov = options.nesterov ?? false;
    if (this.nesterov && this.momentum === 0) throw new RangeError('optimizer: nesterov needs a momentum');
    this.addMoments(1);
  }

  step(learningRate: number = this.learningRate): void {
    inRange('learningRate', learningRate, 0);
    this.stepCount++;
    observed('update', () => {
      this.update(learningRate);
    });
  }

  private update(learningRate: number): void {
    const { momentum } = this;
    const update = this.nesterov ? nesterovStep : momentumStep;
    for (const {
      tensor,
      group,
      slots: [slot],
    } of this.moments) {
      if (!tensor.grad) continue;
      mapInto(
        'sgd',
        [update, velocity],
        [tensor, tensor.grad, slot],
        [tensor, slot],
        [learningRate * group.learningRateScale, group.weightDecay, momentum],
      );
    }
  }
}

/**
 * Scales the gradients so that their joint norm is at most `maxNorm`, by maxNorm / (norm + 1e-6) as
 * torch.nn.utils.clip_grad_norm_; gives the norm before, one element. Nothing is read back.
 */
export function clipGradNorm(parameters: Iterable<Tensor>, maxNorm: number): Tensor {
  if (!(maxNorm > 0)) throw new RangeError(`clipGradNorm: the norm must be positive, got ${maxNorm}`);
  return noGrad(() =>
    scope(() => {
      const gradients = [...parameters].flatMap(t => (t.grad ? [t.grad] : []));
      if (gradients.length === 0) throw new RangeError('clipGradNorm: no parameter has a gradient');
      // The norm of norms: squares of large gradients overflow.
      const widest = gradients.map(x => x.dtype).reduce(promote);
      const norm = stack(gradients.map(x => x.norm().to(widest))).norm();
      const scale = norm.add(1e-6).pow(-1).mul(maxNorm).minimum(1);
      for (const x of gradients) mapInto('clip', [mul(arg(0), arg(1))], [x, scale], [x]);
      return norm;
    }),
  );
}
