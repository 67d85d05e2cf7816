// Schedules against transformers' get_*_schedule_with_warmup, written out again, and by their values at known steps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { scheduleFactor, scheduleNames } from '../src/nn/index.js';
import { runs } from './helpers/draw.js';

/** transformers/optimization.py, with warm-up in steps. */
function expected(name: string, step: number, total: number, warmup: number): number {
  if (step < warmup) return step / Math.max(1, warmup);
  if (name === 'constant') return 1;
  if (name === 'linear') return Math.max(0, (total - step) / Math.max(1, total - warmup));
  const progress = (step - warmup) / Math.max(1, total - warmup);
  return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * 2 * 0.5 * progress)));
}

for (const name of scheduleNames) {
  test(`${name}: as transformers`, () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(300), fc.nat(400), (total, at, warm) => {
        const warmup = warm % (total + 1) === 0 ? 0 : Math.max(1, warm % (total + 1));
        const step = at % (total + 1);
        // At the very end of a run that was all warm-up, transformers' cosine stands at 1; nothing trains there.
        const want = step === total && warmup === total && name === 'cosine' ? 0 : expected(name, step, total, warmup);
        assert.ok(
          Math.abs(scheduleFactor(name, step, total, warmup) - want) <= 1e-12,
          'Math.abs(scheduleFactor(name, step, total, warmup) - want) <= 1e-12',
        );
      }),
      runs(200),
    ));

  test(`${name}: from 0 to 1, rising to the end of warm-up, never rising after`, () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 120 }),
        fc.double({ min: 0, max: 0.99, noNaN: true }),
        (total, fraction) => {
          const warmup = Math.ceil(fraction * total);
          let last = -1;
          for (let step = 0; step <= total + 3; step++) {
            const f = scheduleFactor(name, step, total, fraction);
            assert.ok(f >= 0 && f <= 1, 'f >= 0 && f <= 1');
            if (step > 0 && step < warmup) assert.ok(f > last, 'f > last');
            if (step > warmup) assert.ok(f <= last, 'f <= last');
            last = f;
          }
          assert.equal(last, name === 'constant' ? 1 : 0);
        },
      ),
      runs(60),
    ));
}

test('known values', () => {
  assert.deepEqual(
    [0, 1, 2, 3, 4].map(s => scheduleFactor('linear', s, 4)),
    [1, 0.75, 0.5, 0.25, 0],
  );
  assert.deepEqual(
    [0, 1, 2, 6, 10].map(s => scheduleFactor('linear', s, 10, 2)),
    [0, 0.5, 1, 0.5, 0],
  );
  assert.deepEqual(
    [0, 1, 2, 6, 10].map(s => scheduleFactor('linear', s, 10, 0.2)),
    [0, 0.5, 1, 0.5, 0],
  );
  assert.deepEqual(
    [0, 1, 2, 99].map(s => scheduleFactor('constant', s, 10, 2)),
    [0, 0.5, 1, 1],
  );
  assert.deepEqual(
    [0, 5, 10].map(s => Math.round(scheduleFactor('cosine', s, 10) * 1e12) / 1e12),
    [1, 0.5, 0],
  );
  assert.equal(scheduleFactor('linear', 0, 10, 1), 0, 'a whole number is steps: one of warm-up');
});

test('messages', () => {
  assert.throws(() => scheduleFactor('linaer' as 'linear', 0, 1), {
    message: "schedule: expected constant, linear, cosine, got 'linaer'",
  });
  assert.throws(() => scheduleFactor('linear', 0, 1, -1), {
    message: 'warmup: expected a fraction or a number of steps, got -1',
  });
});
