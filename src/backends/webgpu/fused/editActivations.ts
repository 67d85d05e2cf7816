// The edit op's activations and their derivatives as WGSL functions `activate` and `slope`, by the numbers that its
// attribute has (editActivations in reft/editOp.ts). The first, linear, needs neither.

import { literal } from '../mathWgsl.js';

export interface ActivationText {
  readonly value: string;
  readonly derivative: string;
  /** Functions of mathWgsl.ts that they call. */
  readonly functions: readonly string[];
}

const [root, inverseRoot] = [Math.sqrt(2 / Math.PI), 1 / Math.sqrt(2 * Math.PI)].map(literal);
const sigmoid = '(1.0 / (1.0 + expOf(-z)))';
const normal = `(1.0 + erfOf(z * ${literal(Math.SQRT1_2)}))`;
/** Beyond 10 tanh is 1, and the cube would overflow. */
const near = 'let y = clamp(z, -10.0, 10.0);';
const bent = `tanhOf(${root} * (y + 0.044715 * (y * (y * y))))`;
const isNegative = '(z < 0.0 && !isNan(z))';
const isLow = '(z <= 0.0 && !isNan(z))';

export const activations: readonly ActivationText[] = [
  { value: 'return z;', derivative: 'return 1.0;', functions: [] },
  {
    value: `return 0.5 * z * ${normal};`,
    derivative: `return 0.5 * ${normal} + z * ${inverseRoot} * expOf(-0.5 * z * z);`,
    functions: ['erfOf', 'expOf'],
  },
  {
    value: `return select(z, 0.0, ${isNegative});`,
    derivative: `return select(1.0, 0.0, ${isLow});`,
    functions: ['isNan'],
  },
  {
    value: `return z * ${sigmoid};`,
    derivative: `let s = ${sigmoid}; return s + z * (s * (1.0 - s));`,
    functions: ['expOf'],
  },
  { value: 'return tanhOf(z);', derivative: 'let t = tanhOf(z); return 1.0 - t * t;', functions: ['tanhOf'] },
  { value: `return ${sigmoid};`, derivative: `let s = ${sigmoid}; return s * (1.0 - s);`, functions: ['expOf'] },
  {
    value: `${near} return 0.5 * z * (1.0 + ${bent});`,
    derivative: `${near} let t = ${bent}; return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * ${root} * (1.0 + 0.134145 * (y * y));`,
    functions: ['tanhOf'],
  },
];

/** The two functions. */
export const activationCode = ({ value, derivative }: ActivationText): string =>
  `fn activate(z: f32) -> f32 { ${value} }\nfn slope(z: f32) -> f32 { ${derivative} }`;
