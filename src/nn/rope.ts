// Rotary position embeddings (Su et al. 2021) in Hugging Face's rotate-half form or of neighbours, of whole heads or
// their first columns, with the scalings of frequencies that models use. Tables come from the host: sine and cosine on
// a GPU are inaccurate for large angles.

import { defineFused, type FusedDefinition } from '../autograd/fused.js';
import { concat } from '../tensor/layout.js';
import { formatShape, ShapeError } from '../tensor/shape.js';
import type { Tensor } from '../tensor/tensor.js';

const definition: FusedDefinition = {
  compose({ inputs, attributes: { inverse } }) {
    const [x, cos, sin] = inputs as Tensor[];
    const half = x.shape[3] / 2;
    const [c, s] = [cos.unsqueeze(2), inverse ? sin.unsqueeze(2).neg() : sin.unsqueeze(2)];
    const [x1, x2] = x.split([half, half], 3);
    return concat([x1.mul(c).sub(x2.mul(s)), x2.mul(c).add(x1.mul(s))], 3);
  },
  saves: ({ inputs: [, cos, sin] }) => [cos, sin],
  vjp: ({ inputs: [, cos, sin], gradient, needs, attributes }) =>
    needs[1] || needs[2] ? null : [fused([gradient, cos, sin], { inverse: attributes.inverse ? 0 : 1 }), null, null],
};
const fused = defineFused('rope', definition);

/** Which columns make a pair: i and i + R/2 (Hugging Face, GPT-NeoX), or 2i and 2i + 1 (GPT-J, GLM). */
export type RopePairs = 'halves' | 'interleaved';

/**
 * x [B, T, H, D], cos and sin [B|1, T, R/2]: the first R columns of each head rotated, the others as they are;
 * contiguous.
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor, { pairs = 'halves' }: { pairs?: RopePairs } = {}): Tensor {
  const [batch, length, heads, dim] = x.shape;
  const half = cos.shape[2];
  const fits = (table: Tensor): boolean =>
    table.rank === 3 &&
    (table.shape[0] === 1 || table.shape[0] === batch) &&
    table.shape[1] === length &&
    half > 0 &&
    2 * half <= dim;
  if (x.rank !== 4 || !fits(cos) || formatShape(sin.shape) !== formatShape(cos.shape)) {
    throw new ShapeError(
      `rope: tables ${formatShape(cos.shape)} and ${formatShape(sin.shape)} do not fit ${formatShape(x.shape)}, expected [${batch}|1,${length},1 to ${Math.floor(dim / 2)}]`,
    );
  }
  if (2 * half < dim) {
    const [first, rest] = x.split([2 * half, dim - 2 * half], 3);
    return concat([rope(first, cos, sin, { pairs }), rest], 3);
  }
  if (pairs === 'halves') return fused([x, cos, sin], { inverse: 0 });
  const by = (rows: number, columns: number, y: Tensor): Tensor =>
    y.reshape([batch, length, heads, rows, columns]).transpose().reshape([batch, length, heads, dim]);
  return by(2, half, fused([by(half, 2, x), cos, sin], { inverse: 0 })).contiguous();
}

export interface RopeOptions {
  readonly headDim: number;
  readonly theta: number;
  /** How much of a head is rotated, its first columns; default 1, or the scaling's partial_rotary_factor. */
  readonly fraction?: number | null;
  /** As in a Hugging Face config; old ones say `type` for `rope_type`. */
  readonly scaling?: { readonly rope_type?: string; readonly [key: string]: unknown } | null;
  /** Divides each frequency in the end: `rope_freqs.weight` of a GGUF. */
  readonly divisors?: readonly number[] | null;
}

export interface RopeFrequencies {
  /** Radians a position for each pair of dimensions. */
  readonly perPosition: Float32Array;
  /** What sines and cosines are multiplied by. */
  readonly scale: number;
}

/** What a scaling computes from: the plain frequencies, and its settings by key, checked as they are read. */
interface ScalingInput {
  /** theta^(2i/D) for each pair i, and its reciprocal: the frequency without scaling. */
  readonly powers: Float32Array;
  readonly plain: Float32Array;
  readonly theta: number;
  /** Columns that are rotated. */
  readonly rotaryDim: number;
  /** A positive number; without a fallback the setting must be there. */
  readonly number: (key: string, fallback?: number) => number;
  readonly setting: (key: string) => unknown;
  readonly fail: (text: string) => never;
}

interface Scaling {
  readonly keys: readonly string[];
  frequencies(input: ScalingInput): { readonly perPosition: Float32Array; readonly scale?: number };
}

const f = Math.fround;
const originalKey = 'original_max_position_embeddings';

/**
 * The scalings of transformers' modeling_rope_utils.py, each in the f32 steps in which PyTorch computes it. Two depend
 * on the length of a sequence and are computed for the shorter ones alone: `dynamic` changes nothing up to the model's
 * number of positions, `longrope` has its short factors up to the original one.
 */
const scalings: Readonly<Record<string, Scaling>> = {
  default: { keys: [], frequencies: ({ plain }) => ({ perPosition: plain }) },
  linear: {
    keys: ['factor'],
    frequencies: ({ plain, number }) => ({ perPosition: plain.map(x => x / number('factor')) }),
  },
  dynamic: {
    keys: ['factor', originalKey],
    frequencies({ plain, number }) {
      number('factor');
      return { perPosition: plain };
    },
  },
  llama3: {
    keys: ['factor', 'low_freq_factor', 'high_freq_factor', originalKey],
    frequencies({ plain, number }) {
      const [factor, low, high, original] = ['factor', 'low_freq_factor', 'high_freq_factor', originalKey].map(key =>
        number(key),
      );
      return {
        perPosition: plain.map(x => {
          // PyTorch divides a number by a tensor as the reciprocal times the number.
          const wavelength = f(f(1 / x) * f(2 * Math.PI));
          if (wavelength < f(original / high)) return x;
          if (wavelength > f(original / low)) return x / factor;
          const smooth = f(f(f(f(1 / wavelength) * original) - low) / f(high - low));
          return f(f(f(1 - smooth) * x) / factor) + f(smooth * x);
        }),
      };
    },
  },
  yarn: {
    keys: [
      'factor',
      originalKey,
      'attention_factor',
      'beta_fast',
      'beta_slow',
      'mscale',
      'mscale_all_dim',
      'truncate',
      'finetuned',
    ],
    frequencies({ powers, number, setting, fail, rotaryDim, theta }) {
      const [factor, original] = ['factor', originalKey].map(key => number(key));
      const truncate = setting('truncate') ?? true;
      if (typeof truncate !== 'boolean') return fail(`truncate must be true or false, got ${String(truncate)}`);
      /** The dimension that turns so often within the original context. */
      const dimensionOf = (turns: number): number =>
        (rotaryDim * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
      const [fast, slow] = [dimensionOf(number('beta_fast', 32)), dimensionOf(number('beta_slow', 1))];
      const low = Math.max(truncate ? Math.floor(fast) : fast, 0);
      const high = Math.min(truncate ? Math.ceil(slow) : slow, rotaryDim - 1);
      const width = f(low === high ? 0.001 : high - low);
      const perPosition = powers.map((power, i) => {
        const kept = f(1 - Math.min(Math.max(f(f(i - f(low)) / width), 0), 1));
        return f(f(1 / f(factor * power)) * f(1 - kept)) + f(f(1 / power) * kept);
      });
      const magnitude = (weight: number): number => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
      const both = Boolean(setting('mscale')) && Boolean(setting('mscale_all_dim'));
      const usual = both ? magnitude(number('mscale')) / magnitude(number('mscale_all_dim')) : magnitude(1);
      return { perPosition, scale: number('attention_factor', usual) };
    },
  },
  longrope: {
    keys: ['factor', originalKey, 'attention_factor', 'short_factor', 'long_factor'],
    frequencies({ powers, number, setting, fail }) {
      const [short] = ['short_factor', 'long_factor'].map(key => {
        const list = setting(key);
        if (
          Array.isArray(list) &&
          list.length === powers.length &&
          list.every((x): x is number => typeof x === 'number' && x > 0)
        )
          return list;
        return fail(`${key} must be a list of ${powers.length} positive numbers, got ${shown(list)}`);
      });
      const [factor, original] = ['factor', originalKey].map(key => number(key));
      const usual = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
      return {
        perPosition: powers.map((power, i) => 1 / f(f(short[i]) * power)),
        scale: number('attention_factor', usual),
      };
    },
  },
};

const shown = (value: unknown): string => (Array.isArray(value) ? `a list of ${value.length}` : String(value));

/** The frequencies of a head's rotated pairs. RangeError for settings that are wrong, missing or not known. */
export function ropeFrequencies(options: RopeOptions): RopeFrequencies {
  const { headDim, theta, scaling, divisors } = options;
  if (!(theta > 0)) throw new RangeError(`rope: theta must be positive, got ${theta}`);
  const type: unknown = scaling?.rope_type ?? scaling?.['type'] ?? 'default';
  const fail = (text: string): never => {
    throw new RangeError(`rope scaling '${String(type)}': ${text}`);
  };
  if (scaling?.['type'] !== undefined && scaling['type'] !== type) fail(`type says '${String(scaling['type'])}'`);
  const known = typeof type === 'string' && Object.hasOwn(scalings, type) ? scalings[type] : undefined;
  if (!known)
    throw new RangeError(`rope scaling '${String(type)}' is not known; known: ${Object.keys(scalings).join(', ')}`);
  const setting = (key: string): unknown => scaling?.[key] ?? undefined;
  const number = (key: string, fallback?: number): number => {
    const value = setting(key) ?? fallback;
    return typeof value === 'number' && value > 0 && Number.isFinite(value)
      ? value
      : fail(`${key} must be a positive number, got ${String(value)}`);
  };
  const inScaling = number('partial_rotary_factor', options.fraction ?? 1);
  const fraction = options.fraction ?? inScaling;
  if (fraction !== inScaling) fail(`partial_rotary_factor is ${inScaling}, and ${fraction} beside it`);
  const rotaryDim = Math.floor(headDim * fraction);
  if (!(rotaryDim > 0 && rotaryDim % 2 === 0 && rotaryDim <= headDim)) {
    const part = fraction === 1 ? '' : `, ${fraction} of a head of ${headDim}`;
    throw new RangeError(
      `rope: the columns that are rotated must be even in number and positive, got ${rotaryDim}${part}`,
    );
  }
  const powers = Float32Array.from({ length: rotaryDim / 2 }, (_, i) => theta ** f((2 * i) / rotaryDim));
  const plain = powers.map(power => 1 / power);
  const common = ['rope_type', 'type', 'rope_theta', 'partial_rotary_factor'];
  const strange = Object.keys(scaling ?? {}).find(
    key => setting(key) !== undefined && !common.includes(key) && !known.keys.includes(key),
  );
  if (strange !== undefined) fail(`${strange} is not understood; it has ${['rope_theta', ...known.keys].join(', ')}`);
  const { perPosition, scale = 1 } = known.frequencies({ powers, plain, theta, rotaryDim, number, setting, fail });
  if (divisors && (divisors.length !== plain.length || !divisors.every(x => x > 0 && Number.isFinite(x)))) {
    throw new RangeError(`rope: expected ${plain.length} positive divisors of frequencies, got ${divisors.length}`);
  }
  return { perPosition: divisors ? perPosition.map((x, i) => x / divisors[i]) : perPosition, scale };
}

/** cos and sin of position times frequency, [n, R/2] row-major; the angle is rounded to f32 first, as in PyTorch. */
export function ropeTables(
  { perPosition, scale }: RopeFrequencies,
  positions: Int32Array,
): { cos: Float32Array; sin: Float32Array } {
  const half = perPosition.length;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  positions.forEach((position, p) => {
    for (let i = 0; i < half; i++) {
      const angle = f(position * perPosition[i]);
      cos[p * half + i] = f(Math.cos(angle)) * scale;
      sin[p * half + i] = f(Math.sin(angle)) * scale;
    }
  });
  return { cos, sin };
}
