// Positions: what a spelling means, and which tokens of a padded batch or of a step of generation it comes to.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { noGrad } from '../src/autograd/tape.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';
import {
  adapterFromFiles,
  adapterToFiles,
  editedRows,
  formatPositions,
  getReftModel,
  layoutOf,
  parsePositions,
  ReftTrainer,
  resolvePositions,
  type NewTokens,
} from '../src/reft/index.js';
import { tokenSpans } from '../src/reft/tokenSpans.js';
import { tinyModel } from './helpers/tinyModel.js';

describe('positions', () => {
  test('are parsed and written back', () => {
    for (const text of ['f1', 'l1', 'f7+l7', 'f12+l3', 'all', '0,3,-1', '-2'])
      assert.equal(formatPositions(parsePositions(text)), text);
    assert.deepEqual(parsePositions(' l2 '), { type: 'ends', first: 0, last: 2 });
    assert.deepEqual(parsePositions([4, -1]), { type: 'list', list: [4, -1] });
    for (const text of [
      '',
      '+',
      'f',
      'x1',
      'f1+',
      '+l1',
      'l1+f1',
      'f1l',
      '1,,2',
      'f-1',
      '1.5',
      'f1+l1+f1',
      'f7l7',
      'ALL',
    ]) {
      assert.throws(
        () => parsePositions(text),
        /^RangeError: positions '.*': expected f<N>, l<M>, f<N>\+l<M>, all, none, numbers like 0,3,-1, match:\/re\/ or marker:text$/,
        text,
      );
    }
    assert.throws(() => parsePositions('f0'), /edits nothing/);
    assert.throws(() => parsePositions('f0+l0'), /edits nothing/);
    assert.throws(() => parsePositions([1, 1]), /named twice/);
    assert.throws(() => parsePositions([]), /expected whole numbers/);
    assert.throws(() => parsePositions([0.5]), /expected whole numbers/);
  });

  test('follow the table of the reference: halves of a short prompt', () => {
    const cases: [string, number, number[], number][] = [
      ['l1', 5, [4], 0],
      ['l1', 2, [1], 0],
      ['l1', 1, [], 1],
      ['f1', 5, [0], 0],
      ['f3', 4, [0, 1], 1],
      ['f7+l7', 20, [0, 1, 2, 3, 4, 5, 6, 13, 14, 15, 16, 17, 18, 19], 0],
      ['f7+l7', 5, [0, 1, 3, 4], 10],
      ['f2+l1', 3, [0, 2], 1],
      ['all', 3, [0, 1, 2, 3, 4, 5], 0],
      ['0,3,-1', 6, [0, 3, 5], 0],
    ];
    for (const [text, promptLength, positions, dropped] of cases) {
      assert.deepEqual(
        resolvePositions(parsePositions(text), promptLength, promptLength + 3),
        { positions, dropped },
        `${text} of ${promptLength}`,
      );
    }
    assert.deepEqual(resolvePositions(parsePositions('f2+l2'), 9, 9, 'prefix').positions, [0, 1]);
    assert.deepEqual(resolvePositions(parsePositions('f2+l2'), 9, 9, 'suffix').positions, [7, 8]);
    assert.throws(
      () => resolvePositions(parsePositions('5'), 5, 8),
      /^RangeError: position 5 is out of range for a prompt of 5 tokens$/,
    );
    assert.throws(() => resolvePositions(parsePositions('-6'), 5, 8), /^RangeError: position -6 is out of range/);
    assert.throws(() => resolvePositions(parsePositions('4,-1'), 5, 8), /name one token twice in a prompt of 5/);
  });

  test('fN+lM are distinct, in the prompt, and never on the answer, however short it is (fault 8)', () => {
    fc.assert(
      fc.property(fc.nat(9), fc.nat(9), fc.integer({ min: 1, max: 30 }), fc.nat(5), (first, last, n, answer) => {
        fc.pre(first + last > 0);
        const { positions, dropped } = resolvePositions({ type: 'ends', first, last }, n, n + answer);
        assert.equal(new Set(positions).size, positions.length);
        assert.equal(positions.length + dropped, first + last);
        assert.ok(
          positions.every(p => p >= 0 && p < n),
          'positions.every(p => p >= 0 && p < n)',
        );
      }),
    );
  });
});

describe('the rows they come to', () => {
  const rowsOf = async (positions: string, mask: number[][], promptLengths: number[]): Promise<number[]> => {
    const reft = getReftModel(await tinyModel(), { layers: [1], positions, tied: true, rank: 1 });
    const shape = [mask.length, mask[0].length];
    return [...editedRows(reft.interventions[0], layoutOf(Int32Array.from(mask.flat()), shape, promptLengths)).indices];
  };

  test("are each row's own, whatever the others are (fault 6), for padding on either side (fault 9)", async () => {
    const right = [
      [1, 1, 1, 1, 1, 0],
      [1, 1, 1, 0, 0, 0],
      [1, 1, 1, 1, 1, 1],
    ];
    assert.deepEqual(await rowsOf('l1', right, [3, 2, 6]), [2, 7, 17]);
    assert.deepEqual(await rowsOf('f1+l1', right, [3, 2, 6]), [0, 2, 6, 7, 12, 17]);
    const left = [
      [0, 1, 1, 1, 1, 1],
      [0, 0, 0, 1, 1, 1],
      [1, 1, 1, 1, 1, 1],
    ];
    assert.deepEqual(await rowsOf('l1', left, [3, 2, 6]), [3, 10, 17]);
    assert.deepEqual(await rowsOf('1,-1', left, [3, 3, 6]), [2, 3, 10, 11, 13, 17]);
    assert.deepEqual(await rowsOf('all', left, [3, 2, 6]), [1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
  });

  test('l1 is the last token of the prompt in training and in generation (fault 7)', async () => {
    const reft = getReftModel(await tinyModel(), { layers: [1], positions: 'l1', rank: 1 });
    const [intervention] = reft.interventions;
    const training = editedRows(intervention, layoutOf(new Int32Array(7).fill(1), [1, 7], [4])).indices;
    const prompt = {
      phase: 'prompt',
      batch: 1,
      width: 4,
      starts: Int32Array.of(0),
      promptLengths: [4],
      lengths: [4],
      ids: [[1, 2, 3, 4]],
      rowOf: Int32Array.of(0),
    } as const;
    assert.deepEqual([...training], [3]);
    assert.equal(reft.editsFor(prompt).length, 1);
    assert.deepEqual([...editedRows(intervention, prompt).indices], [3]);
    const step = { ...prompt, phase: 'token', width: 1, starts: Int32Array.of(-5), lengths: [6] } as const;
    assert.equal(reft.editsFor(step).length, 0);
  });

  test('an error names the row and the intervention', async () => {
    await assert.rejects(
      rowsOf(
        '3',
        [
          [1, 1, 1, 1, 1],
          [1, 1, 1, 0, 0],
        ],
        [4, 2],
      ),
      /^RangeError: row 1, block_output\/1: position 3 is out of range for a prompt of 2/,
    );
    assert.throws(
      () => layoutOf(Int32Array.of(1, 1, 0), [1, 3], [3]),
      /row 0: expected a prompt length from 0 to the 2 tokens there are, got 3$/,
    );
  });
});

describe('positions found in the text', async () => {
  const tokenizer = await tokenizerFromFolder(fileURLToPath(new URL('fixtures/tokenizer/bpe', import.meta.url)));
  const found = (positions: string, text: string): string[] => {
    const ids = Int32Array.from(tokenizer.encode(text));
    const { positions: at } = resolvePositions(parsePositions(positions), ids.length, ids.length, 'both', {
      ids,
      tokenizer,
    });
    return at.map(p => tokenizer.decode([ids[p]]));
  };

  test('spans cover the text without gaps, characters of several tokens whole', () => {
    for (const text of ['Once upon a time', 'naïve 🙂🙂 日本語 end', '']) {
      const ids = Int32Array.from(tokenizer.encode(text));
      const spans = tokenSpans(ids, tokenizer);
      assert.equal(spans.text, tokenizer.decode(ids));
      ids.forEach((_, t) => {
        assert.ok(
          spans.ends[t] > spans.starts[t] || spans.text === '',
          "spans.ends[t] > spans.starts[t] || spans.text === ''",
        );
        if (t > 0)
          assert.ok(
            spans.starts[t] === spans.ends[t - 1] || spans.starts[t] === spans.starts[t - 1],
            'spans.starts[t] === spans.ends[t - 1] || spans.starts[t] === spans....',
          );
      });
      if (ids.length > 0) assert.equal(spans.ends.at(-1), spans.text.length);
    }
  });

  test('match takes every token that overlaps a match, marker the last of the last occurrence', () => {
    const text = 'The cat saw a dog. The dog ran.';
    assert.equal(found('match:/dog/', text).join('').replaceAll(' ', ''), 'dogdog');
    assert.equal(found('match:/DOG/i', text).length, found('match:/dog/', text).length);
    assert.deepEqual(found('match:/zebra/', text), []);
    const ids = Int32Array.from(tokenizer.encode(text));
    const marked = resolvePositions(parsePositions('marker:The dog'), ids.length, ids.length, 'both', {
      ids,
      tokenizer,
    });
    assert.equal(marked.positions.length, 1);
    assert.match(tokenizer.decode(ids.subarray(0, marked.positions[0] + 1)), /The dog$/);
    assert.deepEqual(
      resolvePositions(parsePositions('marker:fish'), ids.length, ids.length, 'both', { ids, tokenizer }),
      { positions: [], dropped: 1 },
    );
    for (const text of ['match:/a+b/gi', 'marker:<|im_start|>assistant\n'])
      assert.equal(formatPositions(parsePositions(text)), text);
    assert.throws(() => parsePositions('match:/(/'), /^RangeError: positions 'match:\/\(\/': .*[Rr]egular expression/);
    assert.throws(() => parsePositions('match:x'), /expected match:/);
    assert.throws(
      () => resolvePositions(parsePositions('match:/x/'), 2, 2, 'both', { ids }),
      /need the tokenizer: set reft\.tokenizer$/,
    );
    assert.throws(() => resolvePositions(parsePositions('match:/x/'), 2, 2, 'both', { tokenizer }), /need the ids/);
  });

  test('a function gets the ids of the prompt alone', () => {
    const positions = parsePositions(prompt => [prompt.indexOf(7), -1]);
    assert.deepEqual(resolvePositions(positions, 4, 6, 'both', { ids: [5, 7, 1, 2, 7, 7] }).positions, [1, 3]);
    assert.throws(
      () =>
        resolvePositions(
          parsePositions(() => [4]),
          4,
          6,
          'both',
          { ids: [0, 0, 0, 0, 0, 0] },
        ),
      /position 4 is out of range for a prompt of 4/,
    );
    assert.throws(() => formatPositions(positions), /a function cannot be written/);
  });
});

describe('schedules of new tokens', () => {
  const examples = [
    [5, 9, 3, 7, 11, 4, 2, 2],
    [8, 2, 6, 1, 3, 12, 10],
  ].map((ids, i) => ({
    ids: Int32Array.from(ids),
    promptLength: 3,
    labels: Int32Array.from(ids, (id, t) => (t < 3 ? -100 : id)),
    truncated: 0,
    where: `row ${i}`,
  }));
  const schedules: NewTokens[] = [
    'none',
    'all',
    { first: 2 },
    { every: 3 },
    ({ id, index }) => id % 2 === 0 || index === 1,
  ];

  test('pick new tokens by their number or their ids', () => {
    const ids = [9, 9, 1, 2, 3, 4, 5, 6];
    const expected = [[], [2, 3, 4, 5, 6, 7], [2, 3], [2, 5], [3, 5, 7]];
    schedules.forEach((newTokens, i) => {
      assert.deepEqual(
        resolvePositions(parsePositions('none'), 2, 8, 'both', { newTokens, ids }).positions,
        expected[i],
        `schedule ${i}`,
      );
    });
    assert.deepEqual(
      resolvePositions(parsePositions('l1'), 2, 8, 'both', { newTokens: { every: 2 }, ids }).positions,
      [1, 2, 4, 6],
    );
    const side = (of: 'prefix' | 'suffix'): number[] =>
      resolvePositions(parsePositions('f1+l1'), 2, 5, of, { newTokens: 'all' }).positions;
    assert.deepEqual([side('prefix'), side('suffix')], [[0], [1, 2, 3, 4]], 'one of an untied pair edits new tokens');
  });

  test('generation with and without a cache, in a batch and alone, edits what one forward over the whole sequence edits', async () => {
    const model = await tinyModel();
    const prompts = [
      [5, 9, 3, 7],
      [8, 2],
    ];
    for (const newTokens of schedules) {
      const reft = getReftModel(model, { layers: [0, 2], positions: 'l1', newTokens, rank: 2, scale: 4 });
      const options = { maxNewTokens: 7, stopTokenIds: [] };
      const ids = (results: { ids: number[] }[]): number[][] => results.map(r => r.ids);
      const cached = ids(await reft.generate(prompts, options));
      assert.deepEqual(ids(await reft.generate(prompts, { ...options, useCache: false })), cached);
      assert.deepEqual(await Promise.all(prompts.map(async p => ids(await reft.generate(p, options))[0])), cached);
      for (const [b, prompt] of prompts.entries()) {
        const whole = Int32Array.from([...prompt, ...cached[b]]);
        const shape = [1, whole.length];
        const layout = layoutOf(new Int32Array(whole.length).fill(1), shape, [prompt.length], whole);
        const best = await noGrad(() => reft.forward({ inputIds: whole, shape }, layout))
          .logits.argmax(-1)
          .data();
        assert.deepEqual([...best.subarray(prompt.length - 1, -1)], cached[b]);
      }
    }
  });

  test('training follows them, with reuse and without', async () => {
    for (const newTokens of schedules) {
      const losses: number[][] = [];
      for (const reuse of [true, false]) {
        const reft = getReftModel(await tinyModel(), {
          layers: [1],
          positions: 'none',
          newTokens: newTokens === 'none' ? 'all' : newTokens,
          rank: 2,
        });
        const trainer = new ReftTrainer(reft, { examples, steps: 3, learningRate: 0.02, reuse });
        const all: number[] = [];
        for await (const step of trainer.steps()) all.push(step.loss);
        losses.push(all);
      }
      losses[0].forEach((loss, i) =>
        assert.ok(Math.abs(loss - losses[1][i]) < 1e-5, 'Math.abs(loss - losses[1][i]) < 1e-5'),
      );
      assert.ok(losses[0][2] < losses[0][0], 'losses[0][2] < losses[0][0]');
    }
  });

  test('are checked, saved and read back; a function is refused by name', async () => {
    const model = await tinyModel();
    for (const newTokens of [{ every: 0 }, { first: 1, every: 2 }, 'some', 3]) {
      assert.throws(
        () => getReftModel(model, { layers: [1], newTokens: newTokens as NewTokens }),
        /newTokens: expected 'none', 'all', \{ first: k \}/,
      );
    }
    const reft = getReftModel(model, { layers: [1], positions: 'marker:x', newTokens: { every: 2 }, rank: 1 });
    const again = await adapterFromFiles(model, await adapterToFiles(reft));
    assert.deepEqual(
      [again.configs[0].newTokens, again.configs[0].positions],
      [{ every: 2 }, { type: 'marker', text: 'x' }],
    );
    await assert.rejects(
      adapterToFiles(getReftModel(model, { layers: [1], newTokens: () => true, rank: 1 })),
      /newTokens: a function cannot be written/,
    );
  });
});
