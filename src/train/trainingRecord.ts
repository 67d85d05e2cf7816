// What a training run measured on the way. It is part of a checkpoint, so that a resumed run's record has neither gaps
// nor doubles.

import { z } from 'zod';

export interface LossPoint {
  readonly step: number;
  readonly loss: number;
}

export interface TrainingRecord {
  /** Of each step. */
  readonly losses: LossPoint[];
  /** On the rows of `evaluation`. */
  readonly evaluation: LossPoint[];
}

// JSON has no NaN: a loss on other rows that was not finite is null there.
const point = z.strictObject({
  step: z.number().int().positive(),
  loss: z
    .number()
    .nullable()
    .transform(loss => loss ?? NaN),
});

export const recordSchema = z.strictObject({ losses: z.array(point), evaluation: z.array(point) });
