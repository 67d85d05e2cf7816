// Learning-rate schedules as pure functions of the step, with linear warm-up: the factors of transformers'
// get_*_schedule_with_warmup.

export const scheduleNames = ['constant', 'linear', 'cosine'] as const;
export type ScheduleName = (typeof scheduleNames)[number];

/**
 * The factor on the learning rate at `step` (from 0) of `totalSteps`. `warmup` is a fraction of the steps below 1, else
 * a number of steps.
 */
export function scheduleFactor(name: ScheduleName, step: number, totalSteps: number, warmup = 0): number {
  if (!scheduleNames.includes(name))
    throw new RangeError(`schedule: expected ${scheduleNames.join(', ')}, got '${name}'`);
  if (!(warmup >= 0)) throw new RangeError(`warmup: expected a fraction or a number of steps, got ${warmup}`);
  const warmupSteps = warmup < 1 ? Math.ceil(warmup * totalSteps) : warmup;
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  if (name === 'constant') return 1;
  const progress = step >= totalSteps ? 1 : (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  return name === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
}
