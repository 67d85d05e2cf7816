// Positions: what a spelling means, and which tokens of a padded batch or of a step of generation it comes to.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { editedRows, formatPositions, getReftModel, layoutOf, parsePositions, resolvePositions } from '../src/reft/index.js';
import { tinyModel } from './helpers/tinyModel.js';

describe('positions', () => {
  test('are parsed and written back', () => {
    for (const text of ['f1', 'l1', 'f7+l7', 'f12+l3', 'all', '0,3,-1', '-2']) assert.equal(formatPositions(parsePositions(text)), text);
    assert.deepEqual(parsePositions(' l2 '), { type: 'ends', first: 0, last: 2 });
    assert.deepEqual(parsePositions([4, -1]), { type: 'list', list: [4, -1] });
    for (const text of ['', '+', 'f', 'x1', 'f1+', '+l1', 'l1+f1', 'f1l', '1,,2', 'f-1', '1.5', 'f1+l1+f1', 'f7l7', 'ALL']) {
      assert.throws(() => parsePositions(text), /^RangeError: positions '.*': expected f<N>, l<M>, f<N>\+l<M>, all, or numbers like 0,3,-1$/, text);
    }
    assert.throws(() => parsePositions('f0'), /edits nothing/);
    assert.throws(() => parsePositions('f0+l0'), /edits nothing/);
    assert.throws(() => parsePositions([1, 1]), /named twice/);
    assert.throws(() => parsePositions([]), /expected whole numbers/);
    assert.throws(() => parsePositions([0.5]), /expected whole numbers/);
  });

  test('follow the table of the reference: halves of a short prompt', () => {
    const cases: [string, number, number[], number][] = [
      ['l1', 5, [4], 0], ['l1', 2, [1], 0], ['l1', 1, [], 1], ['f1', 5, [0], 0], ['f3', 4, [0, 1], 1], ['f7+l7', 20, [0, 1, 2, 3, 4, 5, 6, 13, 14, 15, 16, 17, 18, 19], 0],
      ['f7+l7', 5, [0, 1, 3, 4], 10], ['f2+l1', 3, [0, 2], 1], ['all', 3, [0, 1, 2, 3, 4, 5], 0], ['0,3,-1', 6, [0, 3, 5], 0],
    ];
    for (const [text, promptLength, positions, dropped] of cases) {
      assert.deepEqual(resolvePositions(parsePositions(text), promptLength, promptLength + 3), { positions, dropped }, `${text} of ${promptLength}`);
    }
    assert.deepEqual(resolvePositions(parsePositions('f2+l2'), 9, 9, 'prefix').positions, [0, 1]);
    assert.deepEqual(resolvePositions(parsePositions('f2+l2'), 9, 9, 'suffix').positions, [7, 8]);
    assert.throws(() => resolvePositions(parsePositions('5'), 5, 8), /^RangeError: position 5 is out of range for a prompt of 5 tokens$/);
    assert.throws(() => resolvePositions(parsePositions('-6'), 5, 8), /^RangeError: position -6 is out of range/);
    assert.throws(() => resolvePositions(parsePositions('4,-1'), 5, 8), /name one token twice in a prompt of 5/);
  });

  test('fN+lM are distinct, in the prompt, and never on the answer, however short it is (fault 8)', () => {
    fc.assert(fc.property(fc.nat(9), fc.nat(9), fc.integer({ min: 1, max: 30 }), fc.nat(5), (first, last, n, answer) => {
      fc.pre(first + last > 0);
      const { positions, dropped } = resolvePositions({ type: 'ends', first, last }, n, n + answer);
      assert.equal(new Set(positions).size, positions.length);
      assert.equal(positions.length + dropped, first + last);
      assert.ok(positions.every(p => p >= 0 && p < n));
    }));
  });
});

describe('the rows they come to', () => {
  const rowsOf = async (positions: string, mask: number[][], promptLengths: number[]): Promise<number[]> => {
    const reft = getReftModel(await tinyModel(), { layers: [1], positions, tied: true, rank: 1 });
    const shape = [mask.length, mask[0].length];
    return [...editedRows(reft.interventions[0], layoutOf(Int32Array.from(mask.flat()), shape, promptLengths)).indices];
  };

  test("are each row's own, whatever the others are (fault 6), for padding on either side (fault 9)", async () => {
    const right = [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]];
    assert.deepEqual(await rowsOf('l1', right, [3, 2, 6]), [2, 7, 17]);
    assert.deepEqual(await rowsOf('f1+l1', right, [3, 2, 6]), [0, 2, 6, 7, 12, 17]);
    const left = [[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]];
    assert.deepEqual(await rowsOf('l1', left, [3, 2, 6]), [3, 10, 17]);
    assert.deepEqual(await rowsOf('1,-1', left, [3, 3, 6]), [2, 3, 10, 11, 13, 17]);
    assert.deepEqual(await rowsOf('all', left, [3, 2, 6]), [1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
  });

  test('l1 is the last token of the prompt in training and in generation (fault 7)', async () => {
    const reft = getReftModel(await tinyModel(), { layers: [1], positions: 'l1', rank: 1 });
    const [intervention] = reft.interventions;
    const training = editedRows(intervention, layoutOf(new Int32Array(7).fill(1), [1, 7], [4])).indices;
    const prompt = { phase: 'prompt', batch: 1, width: 4, starts: Int32Array.of(0), promptLengths: [4], generated: 0 } as const;
    assert.deepEqual([...training], [3]);
    assert.equal(reft.editsFor(prompt).length, 1);
    assert.deepEqual([...editedRows(intervention, { ...prompt, lengths: [4] }).indices], [3]);
    assert.equal(reft.editsFor({ ...prompt, phase: 'token', width: 1, generated: 2 }).length, 0);
  });

  test('an error names the row and the intervention', async () => {
    await assert.rejects(rowsOf('3', [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], [4, 2]), /^RangeError: row 1, block_output\/1: position 3 is out of range for a prompt of 2/);
    assert.throws(() => layoutOf(Int32Array.of(1, 1, 0), [1, 3], [3]), /row 0: a prompt of 3 tokens in a sequence of 2/);
  });
});
