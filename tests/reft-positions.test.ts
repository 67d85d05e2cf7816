// Which tokens are edited: how positions are written, and what they are in prompts long and short, against the formula spelled out.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatPositions, parsePositions, resolvePositions } from '../src/reft/positions.js';
import { runs } from './helpers/draw.js';

const resolve = (text: string, prompt: number, length = prompt, side?: 'prefix' | 'suffix'): number[] =>
  resolvePositions(parsePositions(text), prompt, length, side).positions;

test('positions are read and written back', () => {
  for (const text of ['f1', 'l1', 'f7+l7', 'all', '0', '3,5,-1']) assert.equal(formatPositions(parsePositions(text)), text);
  assert.deepEqual(parsePositions([2, -1]), { type: 'list', list: [2, -1] });
  for (const text of ['', '+', 'f', 'l0', 'f0+l0', 'f1+', '+l1', 'f1l', 'first', '1,', '1.5', 'f-1']) {
    assert.throws(() => parsePositions(text), { name: 'RangeError', message: /^positions '/ }, text);
  }
  assert.throws(() => parsePositions([]), /^RangeError: positions \[\]: expected whole numbers$/);
  assert.throws(() => parsePositions('2,2'), /^RangeError: positions \[2,2\]: a position is named twice$/);
});

test('ends of long and short prompts', () => {
  assert.deepEqual(resolve('l1', 5), [4]);
  assert.deepEqual(resolve('f1+l2', 9), [0, 7, 8]);
  assert.deepEqual(resolve('f7+l7', 5), [0, 1, 3, 4]);
  assert.deepEqual(resolve('f3', 4), [0, 1]);
  assert.deepEqual(resolve('f2+l3', 10, 14, 'prefix'), [0, 1]);
  assert.deepEqual(resolve('f2+l3', 10, 14, 'suffix'), [7, 8, 9]);
  assert.equal(resolvePositions(parsePositions('f7+l7'), 5, 5).dropped, 10);
  assert.equal(resolvePositions(parsePositions('f7+l7'), 5, 5, 'prefix').dropped, 5);
  assert.equal(resolvePositions(parsePositions('l1'), 1, 4).dropped, 1);
});

test('all covers the answer too; lists count from the ends of the prompt and must fit', () => {
  assert.deepEqual(resolve('all', 2, 4), [0, 1, 2, 3]);
  assert.deepEqual(resolve('-1,0,2', 5, 9), [0, 2, 4]);
  assert.throws(() => resolve('5', 5), /^RangeError: position 5 is out of range for a prompt of 5 tokens$/);
  assert.throws(() => resolve('-6', 5), /^RangeError: position -6 is out of range/);
  assert.throws(() => resolve('4,-1', 5), /name one token twice in a prompt of 5 tokens$/);
});

test('at most half a prompt from each side, distinct, rising, and dropped ones are counted', () => {
  fc.assert(
    fc.property(fc.nat(9), fc.nat(9), fc.integer({ min: 1, max: 30 }), (first, last, prompt) => {
      if (first + last === 0) return;
      const { positions, dropped } = resolvePositions({ type: 'ends', first, last }, prompt, prompt + 3);
      const half = Math.floor(prompt / 2);
      const chosen = Array.from({ length: prompt }, (_, i) => i).filter(i => i < Math.min(first, half) || prompt - i <= Math.min(last, half));
      assert.deepEqual(positions, chosen);
      assert.equal(dropped + positions.length, first + last);
    }),
    runs(200),
  );
});
