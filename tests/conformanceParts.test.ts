// The pieces of the conformance command by themselves: globs, what counts as a case, how errors are measured, pyreft's
// location lists.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { findCases, globTest } from '../scripts/conformance/cases.js';
import { absolute, Comparison, relative } from '../scripts/conformance/compare.js';
import { pyreftLocations } from '../src/reft/pyreftLocations.js';

test('a glob matches the whole path, * crosses /, a bare folder means all below it', () => {
  const table: [string, string, boolean][] = [
    ['tiny-llama', 'tiny-llama/forward', true],
    ['tiny-llama/', 'tiny-llama/forward', true],
    ['tiny', 'tiny-llama/forward', false],
    ['reft/loreft', 'reft/loreft', true],
    ['reft/loreft', 'reft/loreft-gelu', false],
    ['reft/loreft*', 'reft/loreft-saved-by-pyreft', true],
    ['models', 'models/qwen2/forward', true],
    ['forward', 'models/qwen2/forward', false],
    ['*forward', 'models/qwen2/forward', true],
    ['mod*ward', 'models/qwen2/forward', true],
    ['models/*', 'models/qwen2/forward', true],
    ['models/q*', 'models/llama/forward', false],
    ['*', 'texts', true],
    ['reft/lor.ft', 'reft/loreft', false],
    ['reft/lo+*', 'reft/loooo', false],
    ['*[1]', 'a[1]', true],
    ['./reft', 'reft/loreft', true],
  ];
  for (const [glob, path, expected] of table) assert.equal(globTest(glob)(path), expected, `${glob} on ${path}`);
});

test('property: putting * for any piece of a path matches it; without * a glob takes itself and what is below', () => {
  const segment = fc.stringMatching(/^[a-z0-9.()+-]{1,6}$/).filter(s => !/^\.+$/.test(s));
  const path = fc.array(segment, { minLength: 1, maxLength: 4 }).map(parts => parts.join('/'));
  fc.assert(
    fc.property(path, fc.nat(), fc.nat(), segment, (p, a, b, extra) => {
      const [from, to] = [a % (p.length + 1), b % (p.length + 1)].sort((x, y) => x - y);
      assert.ok(globTest(`${p.slice(0, from)}*${p.slice(to)}`)(p), 'globTest(`${p.slice(0, from)}*${p.slice(to)}`)(p)');
      assert.ok(globTest(p)(p) && globTest(p)(`${p}/${extra}`), 'globTest(p)(p) && globTest(p)(`${p}/${extra}`)');
      assert.ok(!globTest(p)(`${p}${extra}`), '!globTest(p)(`${p}${extra}`)');
    }),
  );
});

test('cases are fixtures and folders pyreft saved; models, tokenizers and peft folders are not', () => {
  const files = [
    'm/config.json',
    'm/model.safetensors',
    'm/model-00001-of-00002.safetensors',
    'm/model.safetensors.index.json',
    'm/generation_config.json',
    'm/tokenizer.json',
    'm/tokenizer_config.json',
    'm/special_tokens_map.json',
    'm/forward.json',
    'm/forward.safetensors',
    'README.md',
    'texts.json',
    'reft/a.json',
    'reft/a.safetensors',
    'reft/a-saved-by-pyreft/config.json',
    'reft/a-saved-by-pyreft/intkey_x.bin',
    'reft/lost.safetensors',
    'peft/lora-saved-by-peft/adapter_config.json',
    'peft/lora-saved-by-peft/adapter_model.safetensors',
    'peft/lora.json',
    'peft/lora.safetensors',
  ];
  assert.deepEqual(
    findCases(files).map(c => `${c.type} ${c.path}`),
    [
      'tensors m/forward',
      'tensors peft/lora',
      'tensors reft/a',
      'saved reft/a-saved-by-pyreft',
      'tensors reft/lost',
      'json texts',
    ],
  );
});

test('errors are measured over a tensor, and the worst is the one that takes most of its own bar', () => {
  const c = new Comparison();
  assert.equal(c.passed, false, 'nothing compared is no pass');
  c.tensor('a', [1, 2, 4.004], [1, 2, 4], relative(1e-2));
  assert.deepEqual([c.worst?.tensor, c.passed], ['a', true]);
  assert.ok(Math.abs((c.worst?.maxRel as number) - 1e-3) < 1e-6, 'Math.abs((c.worst?.maxRel as number) - 1e-3) < 1e-6');
  c.tensor('b', [0.5], [0.4999], absolute(1e-4 + 1e-9));
  assert.equal(c.worst?.tensor, 'b');
  c.tensor('masked', [1, 99], [1, 2], relative(1e-5), i => i !== 1);
  assert.deepEqual([c.worst?.tensor, c.passed], ['b', true]);
  assert.throws(() => c.tensor('short', [1], [1, 2], relative(1)), /short: expected 2 values, got 1/);
  c.ids('ids', [1, 2], [1, 2]);
  assert.equal(c.passed, true);
  for (const add of [
    (x: Comparison) => x.tensor('x', [NaN], [1], relative(1e9)),
    (x: Comparison) => x.tensor('x', [1], [NaN], relative(1e9)),
    (x: Comparison) => x.tensor('x', [1e-30], [0], relative(1e9)),
    (x: Comparison) => x.tensor('x', [Infinity], [1], absolute(1e9)),
    (x: Comparison) => x.ids('x', [1], [2]),
    (x: Comparison) => x.ids('x', [1], [1, 2]),
    (x: Comparison) => x.text('x', 'a', 'b'),
  ]) {
    const one = new Comparison();
    add(one);
    assert.equal(one.passed, false, add.toString());
  }
  const gaps = new Comparison();
  gaps.tensor('fine', [1.0001], [1], relative(1e-3));
  gaps.tensor('nan', [1, 2], [NaN, 2], relative(1e-3));
  assert.deepEqual([gaps.passed, gaps.worst?.tensor], [false, 'nan']);
  const zeros = new Comparison();
  zeros.tensor('zeros', [0, -0], [0, 0], relative(1e-5));
  assert.deepEqual([zeros.passed, zeros.worst?.maxRel], [true, 0]);
});

test("pyreft's location lists", () => {
  const at = (
    positions: string,
    promptLength: number,
    tied: boolean,
    interventions = 4,
    padMode: 'first' | 'last' = 'first',
  ): number[][] => pyreftLocations({ positions, promptLength, interventions, tied, padMode });
  assert.deepEqual(at('f3+l1', 4, true, 2), [
    [0, 1, 3, -1],
    [0, 1, 3, -1],
  ]);
  assert.deepEqual(at('f3+l1', 4, false), [
    [0, 1, -1],
    [0, 1, -1],
    [3, -1, -1],
    [3, -1, -1],
  ]);
  assert.deepEqual(at('f3+l1', 4, false, 2, 'last'), [
    [0, 1, 4],
    [3, 4, 4],
  ]);
  assert.deepEqual(
    at('l2', 5, false, 2),
    [
      [3, 4],
      [3, 4],
    ],
    'one side: the tied list for everyone',
  );
  assert.deepEqual(at('f1+l1', 1, false, 2, 'last'), [
    [1, 1],
    [1, 1],
  ]);
  assert.throws(() => at('all', 3, true), /positions 'all'/);
});
