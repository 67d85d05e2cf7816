// Where our ops differ from torch's on purpose, and why. An entry that no sample needs any more is an error of
// checkTorchOps.ts.

import type { Part } from './run.js';
import { Stored, type Sample, type Value } from './samples.js';

export interface Deliberate {
  readonly why: string;
  /** Whether what differs in this part of a sample is meant. */
  readonly covers: (sample: Sample, part: Part, difference: string, device: string) => boolean;
}

const stored = (value: Value): Stored[] =>
  value instanceof Stored ? [value] : Array.isArray(value) ? value.flatMap(stored) : [];
const tensorsOf = ({ args, kwargs }: Sample): Stored[] => [...args, ...Object.values(kwargs)].flatMap(stored);
const refused = (difference: string): boolean => difference.startsWith('throws ShapeError');

export const deliberate: readonly Deliberate[] = [
  {
    why: 'a tensor of rank 0 has no axes: naming one is an error, where torch takes axes 0 and -1',
    covers: (sample, _, difference) => refused(difference) && tensorsOf(sample).some(t => t.shape.length === 0),
  },
  {
    why: 'products are of floats',
    covers: (sample, _, difference) =>
      sample.dtype === 'i32' && difference.includes('expected two f32 or two f64 tensors, got i32 and i32'),
  },
  {
    why: 'a join needs tensors of one rank: torch leaves out what has the shape [0]',
    covers: ({ op }, _, difference) => op === 'cat' && refused(difference),
  },
  {
    why: 'floats become integers saturating, NaN as 0, on every device: what torch gives beyond the range depends on the machine',
    covers: ({ op, dtype }, _, difference) =>
      ['int', 'long'].includes(op) && dtype.startsWith('f') && difference.startsWith('entry'),
  },
  {
    why: 'squeeze names axes of size 1: torch leaves others as they are without a word',
    covers: ({ op }, _, difference) => op.startsWith('squeeze') && difference.includes('expected 1'),
  },
  {
    why: 'einsum takes letters, each once in an operand: no dots, no diagonals',
    covers: ({ op }, _, difference) => op === 'einsum' && refused(difference),
  },
  {
    why: 'two numbers to choose from are floats: JavaScript does not tell 2 from 2.0',
    covers: ({ op, args }, _, difference) =>
      op === 'where' && difference.startsWith('dtype f32') && args.filter(v => typeof v === 'number').length === 2,
  },
  {
    why: 'of equal entries topk takes the first: torch leaves open which',
    covers: ({ op, dtype }, _, difference) => op === 'topk' && dtype === 'i32' && difference.startsWith('entry'),
  },
  {
    why: 'the variance of nothing is NaN, and so are its derivatives: torch has 0 for the second ones',
    covers: ({ op, args }, part) =>
      op === 'var' && part === 'second' && args[0] instanceof Stored && args[0].data.length === 0,
  },
  {
    why: 'a row of one number has no gradient through its norm: what torch has in f32 is a rounding',
    covers: ({ op, args }, part) =>
      op === 'nn.functional.layer_norm' &&
      part === 'gradients' &&
      args[0] instanceof Stored &&
      args[0].data.length === 1,
  },
];
