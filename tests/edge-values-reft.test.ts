// Borders, defaults and refusals of positions, of angles between subspaces, of what may differ by row, of where an
// interchange reads and writes, of principal components, heat maps and batches.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { batches, collate, shuffled } from '../src/data/collate.js';
import { checkExample } from '../src/data/examples.js';
import { parseRows } from '../src/data/rows.js';
import { heatMap } from '../src/interchange/heatMap.js';
import { principalComponents } from '../src/interchange/pca.js';
import { symmetricEigen } from '../src/nn/hostMatrices.js';
import {
  checkPartition,
  chosenFeatures,
  flatRows,
  locate,
  rowsOfBatch,
  tokenBatch,
} from '../src/interchange/unitLocations.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';
import { compose } from '../src/reft/compose.js';
import { kindByName, optionsOf } from '../src/reft/defineEdit.js';
import { getReftModel, pyreftToFiles } from '../src/reft/index.js';
import { TokenRows } from '../src/models/tokens.js';
import { firstEdited } from '../src/reft/layout.js';
import {
  checkNewTokens,
  describeNewTokens,
  describePositions,
  formatPositions,
  isScheduled,
  parsePositions,
  resolvePositions,
} from '../src/reft/positions.js';
import { principalAngles } from '../src/reft/principalAngles.js';
import { rowOptionsAt } from '../src/reft/rowOptions.js';
import { tokenSpans } from '../src/reft/tokenSpans.js';
import { tensor } from '../src/tensor/index.js';
import { tinyModel } from './helpers/tinyModel.js';

const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return 'no error';
};
const refused = (run: () => unknown, message: string): void => assert.equal(messageOf(run), message);
const rejected = (run: Promise<unknown>, message: string): Promise<void> =>
  assert.rejects(run, (error: Error) => {
    assert.equal(`${error.name}: ${error.message}`, message);
    return true;
  });
const tokenizer = await tokenizerFromFolder(fileURLToPath(new URL('fixtures/tokenizer/bpe', import.meta.url)));

describe('positions', () => {
  test('one side, both, neither', () => {
    assert.deepEqual(parsePositions('f2'), { type: 'ends', first: 2, last: 0 });
    assert.deepEqual(parsePositions('f0+l1'), { type: 'ends', first: 0, last: 1 });
    assert.equal(formatPositions({ type: 'ends', first: 0, last: 1 }), 'l1');
    assert.equal(formatPositions({ type: 'ends', first: 2, last: 0 }), 'f2');
    assert.deepEqual(parsePositions(' none '), { type: 'none' });
    assert.equal(formatPositions({ type: 'none' }), 'none');
    assert.deepEqual(parsePositions('-1'), { type: 'list', list: [-1] });
    refused(() => parsePositions('marker:'), "RangeError: positions 'marker:': expected a text after 'marker:'");
    assert.deepEqual(parsePositions(' marker: x '), { type: 'marker', text: ' x ' });
    assert.deepEqual(parsePositions('match:/a\nb/y'), { type: 'match', pattern: 'a\nb', flags: 'g' });
    assert.deepEqual(parsePositions('match:/a/gi'), { type: 'match', pattern: 'a', flags: 'gi' });
    refused(
      () => parsePositions('match:/(a|a)*b/'),
      "RangeError: positions 'match:/(a|a)*b/': the regular expression could take exponential time: a repeated part can be read in two ways, as in (a|a)* or (a+)+",
    );
    assert.equal(describePositions(parsePositions(() => [0])), 'a function');
    assert.equal(describePositions(parsePositions('all')), 'all');
  });

  const at = (positions: string, promptLength: number, length = promptLength, side?: 'prefix' | 'suffix') =>
    resolvePositions(parsePositions(positions), promptLength, length, side);

  test('halves of a prompt, and what is left out', () => {
    assert.deepEqual(at('f2+l1', 5), { positions: [0, 1, 4], dropped: 0 });
    assert.deepEqual(at('f2+l1', 3), { positions: [0, 2], dropped: 1 });
    assert.deepEqual(at('f2+l1', 1), { positions: [], dropped: 3 });
    assert.deepEqual(at('f2+l1', 4), { positions: [0, 1, 3], dropped: 0 });
    assert.deepEqual(at('f2+l1', 5, 5, 'prefix'), { positions: [0, 1], dropped: 0 });
    assert.deepEqual(at('f2+l1', 5, 5, 'suffix'), { positions: [4], dropped: 0 });
    assert.deepEqual(at('all', 3, 5), { positions: [0, 1, 2, 3, 4], dropped: 0 });
    assert.deepEqual(at('all', 3, 5, 'prefix'), { positions: [0, 1, 2], dropped: 0 });
    assert.deepEqual(at('l1', 3, 5), { positions: [2], dropped: 0 });
    assert.deepEqual(at('none', 3, 5), { positions: [], dropped: 0 });
    assert.deepEqual(at('2,0,-2', 3), { positions: [0, 1, 2], dropped: 0 });
    refused(() => at('0,-3', 3), 'RangeError: positions [0,-3] name one token twice in a prompt of 3 tokens');
    refused(() => at('3', 3), 'RangeError: position 3 is out of range for a prompt of 3 tokens');
    refused(() => at('-4', 3), 'RangeError: position -4 is out of range for a prompt of 3 tokens');
    const twice = parsePositions(() => [1, -2]);
    refused(
      () => resolvePositions(twice, 3, 3, 'both', { ids: [1, 2, 3] }),
      'RangeError: the positions of a function [1,-2] name one token twice in a prompt of 3 tokens',
    );
    refused(
      () => resolvePositions(twice, 3, 3),
      'Error: positions a function: need the ids of the sequence, which this call was not given',
    );
  });

  test('schedules of new tokens', () => {
    const hits = (newTokens: Parameters<typeof isScheduled>[0]): number[] =>
      [0, 1, 2, 3, 4].filter(i => isScheduled(newTokens, i, i + 3, [5, 6, 7, 8, 9, 10, 11, 12]));
    assert.deepEqual(hits('none'), []);
    assert.deepEqual(hits('all'), [0, 1, 2, 3, 4]);
    assert.deepEqual(hits({ first: 1 }), [0]);
    assert.deepEqual(hits({ first: 2 }), [0, 1]);
    assert.deepEqual(hits({ every: 2 }), [0, 2, 4]);
    assert.deepEqual(hits({ every: 1 }), [0, 1, 2, 3, 4]);
    assert.deepEqual(
      hits(({ index, id, ids }) => index === 1 && id === 9 && ids.length === 5 && ids[4] === 9),
      [1],
    );
    refused(
      () => isScheduled(() => true, 0, 3, undefined),
      'Error: newTokens: a function needs the ids of the sequence, which this call was not given',
    );
    for (const good of ['none', 'all', { first: 1 }, { every: 1 }, () => true])
      assert.equal(checkNewTokens(good), null);
    for (const bad of [
      'some',
      { first: 0 },
      { every: 0 },
      { first: 1.5 },
      { last: 1 },
      { first: 1, every: 2 },
      {},
      null,
      undefined,
      3,
      { first: '1' },
    ])
      assert.equal(checkNewTokens(bad), "expected 'none', 'all', { first: k }, { every: k } or a function");
    assert.deepEqual(['none' as const, { first: 3 }, { every: 2 }, () => true].map(describeNewTokens), [
      'none',
      'the first 3',
      'every 2',
      'chosen by a function',
    ]);
  });

  test('the first edited position asks the tokenizer', async () => {
    const model = await tinyModel({ vocabulary: 600 });
    const reft = getReftModel(model, { layers: [1], positions: 'match:/cat/', rank: 2 });
    const ids = Int32Array.from(tokenizer.encode('The dog saw a cat.'));
    const sequence = { promptLength: ids.length, length: ids.length, ids };
    const first = firstEdited(reft.interventions, sequence, tokenizer);
    assert.match(tokenizer.decode(ids.subarray(first)), /^ ?cat\.$/);
    refused(
      () => firstEdited(reft.interventions, sequence),
      'Error: block_output/1: positions match:/cat/g: need the tokenizer: set reft.tokenizer',
    );
    const none = getReftModel(model, { layers: [1], positions: 'none', rank: 2 });
    assert.equal(firstEdited(none.interventions, sequence, tokenizer), ids.length, 'where nothing is edited');
    assert.deepEqual(new TokenRows([2, 2], Int32Array.of(1, 3, 0)).find(Int32Array.of(0, 2, 3)), {
      tokens: Int32Array.of(0, 3),
      places: Int32Array.of(2, 1),
    });
    const tokens = Int32Array.of(1);
    const all = new TokenRows([1, 2], Int32Array.of(0, 1), true);
    assert.deepEqual(all.find(tokens), { tokens, places: tokens });
  });

  test('the tokens of one character have all of it', () => {
    const text = 'naïve 🙂 日';
    const ids = Int32Array.from(tokenizer.encode(text));
    const spans = tokenSpans(ids, tokenizer);
    assert.equal(spans.text, text);
    // Of a character of several tokens each has all of it.
    const smile = text.indexOf('🙂');
    const inside = [...ids.keys()].filter(t => spans.starts[t] <= smile && spans.ends[t] > smile);
    assert.ok(inside.length > 1, `${inside.length} tokens`);
    for (const t of inside.slice(1)) assert.deepEqual([spans.starts[t], spans.ends[t]], [smile, smile + 2]);
    assert.equal(tokenSpans(ids, tokenizer), spans, 'kept');
  });
});

describe('angles between subspaces', () => {
  const close = (found: number[], expected: number[]): void => {
    assert.equal(found.length, expected.length, String(found));
    found.forEach((angle, i) => assert.ok(Math.abs(angle - expected[i]) < 1e-12, `${found} and ${expected}`));
  };

  test('planes and lines', () => {
    const t = 0.3;
    close(principalAngles([1, 0], [1, 2], [Math.cos(t), Math.sin(t)], [1, 2]), [t]);
    close(principalAngles([1, 0], [1, 2], [0, 5], [1, 2]), [Math.PI / 2]);
    close(principalAngles([1, 0], [1, 2], [-2, 0], [1, 2]), [0]);
    close(principalAngles([1, 0], [1, 2], [1, 1e-9], [1, 2]), [1e-9]);
    close(principalAngles([1, 0], [1, 2], [Math.cos(1.2), Math.sin(1.2)], [1, 2]), [1.2]);
    // Two planes in four dimensions, turned by two angles.
    const [a, b] = [0.2, 1.1];
    const rows = [Math.cos(a), 0, Math.sin(a), 0, 0, Math.cos(b), 0, Math.sin(b)];
    close(principalAngles([1, 0, 0, 0, 0, 1, 0, 0], [2, 4], rows, [2, 4]), [a, b]);
    close(principalAngles(rows, [2, 4], [1, 1, 0, 0, 1, -1, 0, 0], [2, 4]), [a, b]);
    // The smaller set says how many; rows that depend on others do not count.
    close(principalAngles([1, 0, 0], [1, 3], [0, 1, 0, 1, 0, 0], [2, 3]), [0]);
    close(principalAngles([0, 1, 0, 1, 0, 0], [2, 3], [0, 0, 1], [1, 3]), [Math.PI / 2]);
    close(principalAngles([1, 0, 0, 2, 0, 0], [2, 3], [1, 0, 0, 0, 1, 0], [2, 3]), [0]);
    close(principalAngles([0, 0], [1, 2], [1, 0], [1, 2]), []);
    refused(
      () => principalAngles([1, 0], [1, 2], [1, 0, 0], [1, 3]),
      'RangeError: principalAngles: rows of 2 and of 3 numbers',
    );
  });

  test('weights of sets that are put together', async () => {
    const model = await tinyModel();
    const [x, y] = [0, 1].map(seed => getReftModel(model, { layers: [1], rank: 2, seed }));
    const other = getReftModel(await tinyModel(), { layers: [1], rank: 2 });
    assert.deepEqual((await compose([x, y], 'add')).weights, [1, 1]);
    assert.deepEqual((await compose([x, y], 'interpolate')).weights, [0.5, 0.5]);
    assert.deepEqual((await compose([x, y], 'interpolate', { weights: [0.25, 0.75] })).weights, [0.25, 0.75]);
    await rejected(compose([], 'add'), 'RangeError: compose: no sets were given');
    await rejected(compose([x, x], 'add'), 'RangeError: compose: a set is named twice');
    await rejected(
      compose([x, other], 'add'),
      `RangeError: compose: the sets belong to different models, ${model.name} and ${other.base.name}`,
    );
    await rejected(compose([x, y], 'add', { weights: [1] }), 'RangeError: compose: expected 2 finite weights, got [1]');
    await rejected(
      compose([x, y], 'add', { weights: [1, NaN] }),
      'RangeError: compose: expected 2 finite weights, got [1, NaN]',
    );
    await rejected(
      compose([x, y], 'interpolate', { weights: [0.5, 0.6] }),
      "RangeError: compose: weights of 'interpolate' must add to 1, [0.5, 0.6] add to 1.1",
    );
    for (const how of ['stack', 'partition'] as const)
      await rejected(
        compose([x, y], how, { weights: [1, 1] }),
        `RangeError: compose: weights have no meaning for '${how}'; set the scale of the sets' interventions`,
      );
    const composed = await compose([x, y], 'add');
    assert.match(composed.report(), /^block_output\/1: sets 0 and 1: principal angles \d+\.\d°, \d+\.\d°$/);
    assert.deepEqual(composed.overlaps[0].sets, [0, 1]);
  });
});

describe('what differs by row', () => {
  const like = tensor.zeros([1], { dtype: 'f64' });
  const at = { batch: 2, width: 3, rank: 2 };
  const indices = Int32Array.of(0, 2, 3, 5);

  test('scales and rows of R of the edited tokens', () => {
    const numbers = rowOptionsAt({ scale: [2, 3] }, indices, at, like);
    assert.deepEqual([...numbers.scale!.dataSync()], [2, 2, 3, 3]);
    assert.equal(numbers.mask, undefined);
    const given = rowOptionsAt({ scale: tensor([4, 5], { dtype: 'f64' }) }, indices, at, like);
    assert.deepEqual([...given.scale!.dataSync()], [4, 4, 5, 5]);
    const one = rowOptionsAt({ subspaces: [1] }, indices, at, like);
    assert.deepEqual([...one.mask!.dataSync()], [0, 1, 0, 1, 0, 1, 0, 1]);
    const each = rowOptionsAt({ subspaces: [[0], null] }, indices, at, like);
    assert.deepEqual([...each.mask!.dataSync()], [1, 0, 1, 0, 1, 1, 1, 1]);
    assert.deepEqual(each.mask!.shape, [4, 2]);
    assert.deepEqual([...rowOptionsAt({ subspaces: [] }, indices, at, like).mask!.dataSync()], new Array(8).fill(0));
    assert.deepEqual(rowOptionsAt({}, indices, at, like), {});
  });

  test('what does not fit the batch', () => {
    const fails = (options: Parameters<typeof rowOptionsAt>[0], message: string): void =>
      refused(() => rowOptionsAt(options, indices, at, like), `RangeError: ${message}`);
    fails({ scale: [1] }, 'scale: expected 2 finite numbers, one for each row of the batch, got [1]');
    fails({ scale: [1, NaN] }, 'scale: expected 2 finite numbers, one for each row of the batch, got [1,NaN]');
    fails({ scale: tensor([1]) }, 'scale: expected shape [2], one for each row of the batch, got [1]');
    for (const i of [2, -1, 0.5]) fails({ subspaces: [i] }, `subspaces: row ${i} is out of range, R has rows 0..1`);
    fails({ subspaces: [[0]] }, 'subspaces: 1 lists for 2 rows of the batch');
    fails(
      { subspaces: [0, [1]] as unknown as number[] },
      'subspaces: expected row numbers, or a list of them for each row of the batch, got both',
    );
  });

  test('two edits of one site are numbered for pyreft', async () => {
    const reft = getReftModel(await tinyModel(), { layers: [0, 2], positions: 'f1+l1', rank: 2 });
    const names = [...(await pyreftToFiles(reft)).keys()].flatMap(name => /layer_\d.*#-?\d+/.exec(name) ?? []);
    assert.deepEqual(
      names.sort(),
      [0, 2].flatMap(layer => [0, 1].map(n => `layer_${layer}_comp_block_output_unit_pos_nunit_1#${n}`)),
    );
  });

  test('options of kinds', () => {
    assert.equal(kindByName('loreft').name, 'loreft');
    assert.match(
      messageOf(() => kindByName('lorft')),
      /^RangeError: intervention 'lorft' is not known; known: .*loreft.*; |^RangeError: intervention 'lorft' is not known; known: /,
    );
    refused(
      () => optionsOf(kindByName('loreft'), { a: 1 }),
      "RangeError: kindOptions: loreft has no option 'a'; it has none",
    );
  });
});

describe('where an interchange reads and writes', () => {
  const batch = tokenBatch([[1, 2, 3], [4]], 9);
  const rows = rowsOfBatch('base', { ...batch });

  test('rows padded on the right', () => {
    assert.deepEqual(batch, {
      inputIds: Int32Array.of(1, 2, 3, 4, 9, 9),
      attentionMask: Int32Array.of(1, 1, 1, 1, 0, 0),
      shape: [2, 3],
    });
    assert.deepEqual([...tokenBatch([[1], [2, 3]]).inputIds], [1, 0, 2, 3], 'padded with 0');
    refused(() => tokenBatch([]), 'RangeError: tokenBatch: expected at least one row, got none');
    refused(() => tokenBatch([[1], []]), 'RangeError: tokenBatch: row 1 has no tokens');
    refused(() => tokenBatch([[1], [0.5]]), 'RangeError: tokenBatch: row 1: token 0.5 at 0 is no whole number');
    assert.deepEqual([rows.batch, rows.width, Array.from(rows.starts), Array.from(rows.lengths)], [
      2,
      3,
      [0, 0],
      [3, 1],
    ] as never);
    assert.deepEqual(
      rows.ids.map(ids => [...(ids as Int32Array)]),
      [[1, 2, 3], [4]],
    );
    const whole = rowsOfBatch('base', { inputIds: Int32Array.of(1, 2), shape: [1, 2] });
    assert.deepEqual([Array.from(whole.starts), Array.from(whole.lengths)], [[0], [2]] as never);
    refused(
      () => rowsOfBatch('base', { inputIds: Int32Array.of(1, 2), shape: [1, 3] }),
      'RangeError: base: 2 ids do not fill shape [1, 3]',
    );
    refused(
      () => rowsOfBatch('base', { inputIds: Int32Array.of(1, 2), shape: [2] }),
      'RangeError: base: 2 ids do not fill shape [2]',
    );
  });

  test('positions of every form', () => {
    assert.deepEqual(locate('x', 0, rows), [[0], [0]]);
    assert.deepEqual(locate('x', -1, rows), [[2], [0]]);
    assert.deepEqual(locate('x', [0], rows), [[0], [0]]);
    assert.deepEqual(locate('x', [[2, 0], [-1]], rows), [[2, 0], [0]]);
    assert.deepEqual(locate('x', 'all', rows), [[0, 1, 2], [0]]);
    assert.deepEqual(
      locate('x', ids => [ids.length - 1], rows),
      [[2], [0]],
    );
    refused(() => locate('x', 1, rows), 'RangeError: x, row 1: position 1 is out of range for 1 tokens');
    refused(() => locate('x', -2, rows), 'RangeError: x, row 1: position -2 is out of range for 1 tokens');
    refused(() => locate('x', [0.5], rows), 'RangeError: x, row 0: position 0.5 is out of range for 3 tokens');
    refused(() => locate('x', [[0]], rows), 'RangeError: x: lists for 1 rows, the batch has 2');
    refused(
      () => locate('x', 'match:/a/', rows),
      'Error: x, row 0: positions match:/a/g: need the tokenizer: set reft.tokenizer',
    );
    refused(() => locate('x', '1', rows), 'RangeError: x, row 1: position 1 is out of range for a prompt of 1 tokens');
    refused(() => locate('x', [[0], 3] as never, rows), 'RangeError: x, row 1: expected a list of positions, got 3');
    assert.deepEqual([...flatRows([[0, 2], [0]], { starts: [0, 2], width: 3 })], [0, 2, 5]);
  });

  test('parts and features', () => {
    const parts: [number, number][] = [
      [0, 2],
      [2, 3],
    ];
    assert.equal(
      messageOf(() => checkPartition('x', parts, 3)),
      'no error',
    );
    for (const [bad, i, shown] of [
      [[[0, 4]], 0, '0, 4'],
      [[[1, 1]], 0, '1, 1'],
      [[[-1, 1]], 0, '-1, 1'],
      [
        [
          [0, 1],
          [0.5, 2],
        ],
        1,
        '0.5, 2',
      ],
      [[[0, 1.5]], 0, '0, 1.5'],
      [[[0, 1, 2]], 0, '0, 1, 2'],
    ] as const)
      refused(
        () => checkPartition('x', bad, 3),
        `RangeError: x: subspacePartition[${i}] must be [from, to) within the 3 features, got [${shown}]`,
      );
    refused(
      () =>
        checkPartition(
          'x',
          [
            [0, 2],
            [1, 3],
          ],
          3,
        ),
      'RangeError: x: subspacePartition[1] has feature 1, which an earlier part has too',
    );
    assert.deepEqual(chosenFeatures('x', [1], 2, 3, parts), [
      [false, false, true],
      [false, false, true],
    ]);
    assert.deepEqual(chosenFeatures('x', [[0], []], 2, 3, parts), [
      [true, true, false],
      [false, false, false],
    ]);
    assert.deepEqual(chosenFeatures('x', [0, 2], 1, 3, null), [[true, false, true]]);
    for (const n of [3, -1, 0.5])
      refused(
        () => chosenFeatures('x', [n], 1, 3, null),
        `RangeError: x: subspace ${n} is out of range, there are 3 features`,
      );
    refused(
      () => chosenFeatures('x', [2], 1, 3, parts),
      'RangeError: x: subspace 2 is out of range, there are 2 parts',
    );
    refused(() => chosenFeatures('x', [[0]], 2, 3, null), 'RangeError: x: subspaces for 1 rows, the batch has 2');
  });
});

describe('principal components', () => {
  const states = tensor(
    [
      [1, 2, 5],
      [3, 6, 5],
      [5, 10, 5],
      [7, 14, 5],
    ],
    { dtype: 'f64' },
  );
  const near = (found: ArrayLike<number>, expected: number[]): void =>
    expected.forEach((x, i) => assert.ok(Math.abs(found[i] - x) < 1e-12, `${[...Array.from(found)]}`));

  test('means, deviations and variances of a line', async () => {
    const { components, mean, std, variances } = await principalComponents(states, 2, { standardize: false });
    near(mean, [4, 8, 5]);
    near(std, [1, 1, 1]);
    near(variances, [25, 0]);
    const sign = Math.sign(components[0]);
    near(
      components.map(x => x * sign),
      [1 / Math.sqrt(5), 2 / Math.sqrt(5), 0],
    );
    const standard = await principalComponents(states, 1);
    near(standard.std, [Math.sqrt(5), Math.sqrt(20), 1]);
    near(standard.variances, [2]);
    near(
      standard.components.map(x => x * Math.sign(standard.components[0])),
      [Math.SQRT1_2, Math.SQRT1_2, 0],
    );
    assert.deepEqual([components.length, standard.components.length], [6, 3]);
  });

  test('what has none', async () => {
    await rejected(
      principalComponents(tensor([[1, 2]]), 1),
      'RangeError: principalComponents: expected states [n, d] with n of 2 or more, got [1,2]',
    );
    await rejected(
      principalComponents(tensor([1, 2]), 1),
      'RangeError: principalComponents: expected states [n, d] with n of 2 or more, got [2]',
    );
    for (const k of [0, 4, 1.5])
      await rejected(
        principalComponents(states, k),
        `RangeError: principalComponents: expected 1 to 3 components, got ${k}`,
      );
    assert.equal((await principalComponents(states, 3)).variances.length, 3);
  });

  test('eigenvalues of a matrix that is known', () => {
    const { values, vectors } = symmetricEigen([
      Float64Array.of(2, 1, 0),
      Float64Array.of(1, 2, 0),
      Float64Array.of(0, 0, 5),
    ]);
    const order = [0, 1, 2].sort((a, b) => values[a] - values[b]);
    near(
      order.map(i => values[i]),
      [1, 3, 5],
    );
    const [low, high] = order.map(i => vectors[i]);
    near(
      low.map(x => x * Math.sign(low[0])),
      [Math.SQRT1_2, -Math.SQRT1_2, 0],
    );
    near(
      high.map(x => x * Math.sign(high[0])),
      [Math.SQRT1_2, Math.SQRT1_2, 0],
    );
  });
});

describe('heat maps', () => {
  const options = { title: 'T', rows: [0, 1], columns: ['a', 'b', 'c'] };
  const values = [
    [0, 0.5, 1],
    [-0.004, 2, -1],
  ];
  const attribute = (svg: string, name: string): string | undefined =>
    new RegExp(`<svg[^>]* ${name}="([^"]*)"`).exec(svg)?.[1];

  test('sizes by columns, labels and panels', async () => {
    const one = await heatMap([{ title: 'p', values }], options);
    // Three columns of 64 and 104 around; two rows of 26, 52 above and 44 below.
    assert.deepEqual([attribute(one, 'width'), attribute(one, 'height')], ['296', '148']);
    assert.equal(attribute(one, 'aria-label'), 'T');
    assert.match(one, />layer</);
    assert.match(one, />[^<]*position[^<]*</);
    const panels = [
      { title: 'p', values },
      { title: 'q', values },
    ];
    const two = await heatMap(panels, { ...options, rowLabel: 'R', columnLabel: 'C', valueLabel: 'V' });
    assert.deepEqual([attribute(two, 'width'), attribute(two, 'height')], ['406', '248']);
    assert.match(two, />V 0\.5000</);
    assert.match(one, />effect 0\.5000</);
    const wide = await heatMap([{ title: 'p', values: [new Array<number>(20).fill(0)] }], {
      title: 'T',
      rows: [0],
      columns: Array.from({ length: 20 }, (_, i) => i),
    });
    assert.deepEqual([attribute(wide, 'width'), attribute(wide, 'height')], [String(104 + 20 * 36), '122']);
    const long = await heatMap([{ title: 'p', values: [[0, 0, 0]] }], {
      ...options,
      rows: [0],
      columns: ['a', 'b', 'sixsix'],
    });
    assert.equal(attribute(long, 'height'), '142', 'labels of six letters are turned');
    const five = await heatMap([{ title: 'p', values: [[0, 0, 0]] }], {
      ...options,
      rows: [0],
      columns: ['a', 'b', 'fives'],
    });
    assert.equal(attribute(five, 'height'), '122');
  });

  test('numbers are shown with two digits, white where it is dark', async () => {
    const svg = await heatMap([{ title: 'p', values }], options);
    const shown = [...svg.matchAll(/<text[^>]*>(-?\d\.\d\d)<\/text>/g)].map(([, text]) => text);
    assert.deepEqual(shown.sort(), ['-1.00', '0.00', '0.00', '0.50', '1.00', '2.00']);
    const black = /<g[^>]*fill="black"[^>]*>(.*?)<\/g>/s.exec(svg)![1];
    const white = /<g[^>]*fill="white"[^>]*>(.*?)<\/g>/s.exec(svg)![1];
    const numbers = (text: string): string[] => [...text.matchAll(/>(-?\d\.\d\d)</g)].map(([, n]) => n).sort();
    // From -1 to 2, dark is above 0.65.
    assert.deepEqual(numbers(black), ['-1.00', '0.00', '0.00', '0.50']);
    assert.deepEqual(numbers(white), ['1.00', '2.00']);
    const given = await heatMap([{ title: 'p', values }], { ...options, domain: [0, 10] });
    assert.deepEqual(numbers(/<g[^>]*fill="black"[^>]*>(.*?)<\/g>/s.exec(given)![1]).length, 6);
    assert.equal(await heatMap([{ title: 'p', values }], options), svg, 'the same each time');
  });

  test('panels that do not fit', async () => {
    await rejected(heatMap([], options), 'RangeError: heatMap: expected at least one panel, got none');
    await rejected(
      heatMap([{ title: 'p', values: [[0, 0, 0]] }], options),
      "RangeError: heatMap: panel 'p' must be 2 x 3, its rows have 3",
    );
    await rejected(
      heatMap(
        [
          {
            title: 'p',
            values: [
              [0, 0, 0],
              [0, 0],
            ],
          },
        ],
        options,
      ),
      "RangeError: heatMap: panel 'p' must be 2 x 3, its rows have 3, 2",
    );
  });
});

describe('batches', () => {
  const example = (ids: number[], promptLength: number) => ({
    ids: Int32Array.from(ids),
    labels: Int32Array.from(ids, (id, t) => (t < promptLength ? -100 : id)),
    promptLength,
  });

  test('padded on either side', () => {
    const examples = [example([1, 2, 3], 1), example([4], 0)];
    assert.deepEqual(collate(examples, { padTokenId: 9 }), {
      shape: [2, 3],
      inputIds: Int32Array.of(1, 2, 3, 4, 9, 9),
      attentionMask: Int32Array.of(1, 1, 1, 1, 0, 0),
      labels: Int32Array.of(-100, 2, 3, 4, -100, -100),
      promptLengths: [1, 0],
      starts: [0, 0],
    });
    assert.deepEqual(collate(examples, { padTokenId: 9, side: 'left' }), {
      shape: [2, 3],
      inputIds: Int32Array.of(1, 2, 3, 9, 9, 4),
      attentionMask: Int32Array.of(1, 1, 1, 0, 0, 1),
      labels: Int32Array.of(-100, 2, 3, -100, -100, 4),
      promptLengths: [1, 0],
      starts: [0, 2],
    });
    refused(() => collate([], { padTokenId: 0 }), 'RangeError: collate: expected at least one example, got none');
    refused(
      () => collate([example([1], 0), { ...example([1, 2], 0), labels: Int32Array.of(1) }], { padTokenId: 0 }),
      'RangeError: collate: example 1: 1 labels for 2 tokens',
    );
    refused(
      () => checkExample({ ...example([1], 0), ids: [1] as never }, 'e'),
      'TypeError: e: ids: expected an Int32Array, got an array',
    );
    refused(() => checkExample(null as never, 'e'), 'TypeError: e: expected an example, got null');
    refused(
      () => checkExample({ ...example([7], 0), where: 'rows.jsonl:2' } as never, 'e', 7),
      'RangeError: rows.jsonl:2: ids: token 7 at 0 is outside the vocabulary of 7',
    );
    refused(
      () => checkExample(example([1], 2), 'e'),
      'RangeError: e: expected a prompt length from 0 to the 1 tokens there are, got 2',
    );
  });

  test('the order of a seed and an epoch is always the same', () => {
    assert.deepEqual(
      batches(5, 2, 0, 0).map(batch => batch.length),
      [2, 2, 1],
    );
    assert.deepEqual(
      batches(4, 2, 0, 0).map(batch => batch.length),
      [2, 2],
    );
    assert.deepEqual(batches(0, 2, 0, 0), []);
    assert.deepEqual(batches(3, 1, 1, 0).flat(), shuffled(3, 1, 0));
    for (const size of [0, 1.5, -1, NaN])
      refused(() => batches(3, size, 0, 0), `RangeError: batchSize: expected a whole number from 1 on, got ${size}`);
    const orders = [shuffled(12, 0, 0), shuffled(12, 0, 1), shuffled(12, 1, 0), shuffled(12, 2 ** 32, 0)];
    assert.equal(new Set(orders.map(String)).size, 4, 'each is another');
    // Runs of earlier versions go on in the order they began with.
    assert.deepEqual(
      [
        [0, 0],
        [0, 1],
        [1, 0],
        [2 ** 32, 0],
        [2 ** 53 - 1, 3],
      ].map(([seed, epoch]) => shuffled(8, seed, epoch)),
      [
        [2, 4, 5, 3, 7, 1, 6, 0],
        [5, 6, 7, 0, 3, 4, 2, 1],
        [3, 7, 0, 6, 2, 5, 4, 1],
        [1, 4, 7, 0, 3, 5, 6, 2],
        [7, 6, 4, 0, 5, 3, 1, 2],
      ],
    );
    for (const order of orders)
      assert.deepEqual(
        [...order].sort((a, b) => a - b),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
      );
    assert.deepEqual([shuffled(1, 3, 3), shuffled(0, 3, 3)], [[0], []]);
    // Every place is reached from every other.
    const seen = new Set<string>();
    for (let seed = 0; seed < 60; seed++) shuffled(3, seed, 0).forEach((n, i) => seen.add(`${n}@${i}`));
    assert.equal(seen.size, 9);
  });

  test('rows: what tells their forms apart', () => {
    const parse = (row: unknown) => parseRows(`\ufeff${JSON.stringify(row)}\n\n`, 'r');
    assert.deepEqual(parse({ instruction: 'i', input: '', output: 'o', text: 't' }), [
      { kind: 'chat', where: 'r:1', before: [{ role: 'user', content: 'i' }], answer: 'o' },
    ]);
    assert.deepEqual(parse({ instruction: 'i', input: 'x', output: 'o' })[0], {
      kind: 'chat',
      where: 'r:1',
      before: [{ role: 'user', content: 'i\n\nx' }],
      answer: 'o',
    });
    assert.deepEqual(parse({ text: 't', prompt: null }), [{ kind: 'text', where: 'r:1', text: 't' }]);
    assert.deepEqual(parse({ prompt: '', completion: ' ' }), [
      { kind: 'completion', where: 'r:1', prompt: '', completion: ' ' },
    ]);
    const forms =
      '{"prompt","completion"}, {"messages"}, {"conversations"}, {"instruction","input","output"} or {"text"}';
    refused(() => parse({}), `FormatError: r:1: expected one of ${forms}; got no keys`);
    refused(
      () => parse({ text: 'a', prompt: 'b' }),
      `FormatError: r:1: expected one of ${forms}; got the keys text, prompt`,
    );
    refused(() => parseRows('\n \n', 'r'), `FormatError: r: has no rows; expected JSON lines of ${forms}`);
    refused(() => parse({ prompt: 'a', completion: '' }), 'FormatError: r:1: completion: is empty');
    refused(() => parse({ text: ' ' }), 'FormatError: r:1: text: is empty');
    refused(
      () => parse({ messages: [{ role: 'assistant', content: 'a' }] }),
      "FormatError: r:1: messages: expected a turn and the assistant's answer to it",
    );
    refused(
      () =>
        parse({
          messages: [
            { role: 'user', content: 'a' },
            { role: 'user', content: 'b' },
          ],
        }),
      'FormatError: r:1: messages: expected the last turn to be the assistant\'s, got "user"',
    );
    refused(
      () =>
        parse({
          messages: [
            { role: 'user', content: 'a' },
            { role: 'assistant', content: ' ' },
          ],
        }),
      'FormatError: r:1: messages: the last turn is empty',
    );
    refused(
      () => parse({ text: 'a', extra: 1 }),
      'FormatError: r:1: extra: is not known beside text; what only describes a row goes under "metadata"',
    );
    assert.equal(parse({ text: 'a', metadata: { x: 1 }, extra: null }).length, 1);
    refused(() => parseRows('{"text":"a"}\n[1]', 'r'), 'FormatError: r:2: expected a JSON object');
  });
});
