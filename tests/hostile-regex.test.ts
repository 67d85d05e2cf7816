// Regular expressions from files and users: those that could hang are refused where they come in, those of tokenizers
// in use are not, and what grows with the square of a text runs under a limit of time.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FormatError } from '../src/io/errors.js';
import { withinBound } from '../src/io/regexBound.js';
import { regexFault, regexPower } from '../src/io/regexCost.js';
import { withinTime } from '../src/io/timeLimit.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import { adapterFromFiles, adapterToFiles, getReftModel, parsePositions } from '../src/reft/index.js';
import { tinyModel } from './helpers/tinyModel.js';

const power = (pattern: string, flags = 'gu'): number => regexPower(new RegExp(pattern, flags));

/** Of tokenizers in use; what the library cannot read as it stands goes through the library below. */
const inUse = {
  gpt2: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  llama3:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  qwen2:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  qwen35:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  o200k:
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" +
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" +
    '\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  tekken:
    '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+',
  deepseek3:
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  deepseekWords: '\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-ᏽᲐ-ᲿḀ-ἕἘ-Ἕἠ-ὅ𐐀-𐑏]+',
  deepseekMarks: '\\s?[!-/:-~！-／：-～‘-‟　-。]+',
  deepseekEnd: '\\s+$',
  cjk: '[一-龥ࠀ-一가-퟿]+',
  falcon: '[\\p{P}\\$\\+<=>\\^~\\|`]+',
  falconDigits: '[0-9][0-9][0-9]',
  bloom: ' ?[^(\\s|[.,!?…。，、।۔،])]+',
  t5: ' {2,}',
  clip: '\\s+',
  clipWords: "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
  superbpe: '\\p{N}{1,3}(?=(?:\\p{N}{3})*(?:\\P{N}|$))',
  poro: ' ?[^(\\s|.,!?…。，、।۔،)]+',
  molecules:
    '(\\[[^\\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\\(|\\)|\\.|=|#|-|\\+|\\\\|\\/|:|~|@|\\?|>>?|\\*|\\$|\\%[0-9]{2}|[0-9])',
  everyCharacter: '(?<=.)',
};

const bpe = JSON.parse(
  readFileSync(new URL('fixtures/tokenizer/bpe/tokenizer.json', import.meta.url), 'utf8'),
) as Record<string, unknown>;
const tokenizerWith = (parts: Record<string, unknown>) =>
  tokenizerFromFiles({ tokenizerJson: JSON.stringify({ ...bpe, ...parts }) }, 'evil/tokenizer.json');
const split = (pattern: string): object => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
});

describe('how the time of an expression grows', () => {
  test('exponentially, where a repeated part can be read in two ways', () => {
    for (const pattern of [
      '(a|a)*b$',
      '(a+)+$',
      '(a*)*b',
      '(a|ab|b)*c',
      '(\\w+\\s?)*$',
      '(x+x+)+y',
      '(?:[ab]|[bc])*d',
      '^(([a-z])+.)+[A-Z]([a-z])+$',
      '(.)\\1+x',
      '(?=(a+)+b)a',
      '(?<!(a+)+b)a',
      '(?:a?){25}a{25}',
      '(a{1,9}){1,9}b',
      '(\\d|\\p{N})*x',
      '(?:a|[^b])*?b',
      '(?<n>a|a)+b',
      '(?:\\u{61}|a)*b',
      '((a|b)|[ab])*c',
    ])
      assert.equal(power(pattern), Infinity, pattern);
    assert.equal(power('(A|a)*b', 'gi'), Infinity);
    assert.equal(power('(A|a)*b', 'g'), 2);
  });

  test('with a power of the text, by the circles that read the same', () => {
    for (const [pattern, expected] of [
      ['the|of', 1],
      ['\\p{L}+', 1],
      ['(a|a)*', 1],
      ['(?:a+)+', 1],
      ['[ab]+c?', 1],
      ['\\s+$', 2],
      ['\\bthe .* of\\b', 2],
      ['(?:a?){3}b', 1],
      ['a+b+c', 2],
      ['.*foo.*bar', 3],
      ['.*.*.*x', 4],
      ['([^,]*,){20}x', 2],
      ['(?=.*x)a', 2],
      ['(?:a|b)*c', 2],
      ['a*b*a*c', 3],
      ['a*ba*c', 2],
      ['a*[ab]*c', 3],
      ['[^\\]]*x', 2],
    ] as const)
      assert.equal(power(pattern), expected, pattern);
    assert.equal(power('[\\p{L}--[a-z]]+x', 'gv'), 2);
  });

  test('for expressions of tokenizers in use: none is refused, as the library makes them', () => {
    for (const [name, pattern] of Object.entries(inUse)) {
      const tokenizer = tokenizerWith({ pre_tokenizer: split(pattern) });
      assert.ok(tokenizer.vocabSize > 0, name);
    }
  });

  test('what cannot be said is refused, soon', () => {
    const fault = (pattern: string): string | null => regexFault(new RegExp(pattern, 'gu'));
    assert.match(String(fault('a'.repeat(10_001))), /^has 10001 characters, at most 10000 are allowed$/);
    assert.match(String(fault('[ab]{4}'.repeat(200))), /^has more than 250 places that read a character$/);
    // Some 4^7 terms, and far too many to read.
    assert.match(String(fault(`${'(?:'.repeat(7)}\\b${'){4}'.repeat(7)}`)), /^repeats too much within repeats$/);
    assert.match(String(fault(`${'(?:'.repeat(30)}\\b${'){4}'.repeat(30)}`)), /^repeats too much within repeats$/);
    assert.match(String(fault(`${'('.repeat(200)}a${')'.repeat(200)}`)), /^has groups 100 deep within one another$/);
    assert.match(String(fault(`(?:${'.?'.repeat(240)})*x`)), /exponential/);
    assert.match(String(fault(`${'(?:.*|'.repeat(90)}x${')*'.repeat(90)}y`)), /exponential/);
    assert.match(String(fault(`${'.*'.repeat(200)}y`)), /intricate/);
  });

  test('an expression that is let through ends, on texts that are meant to trap it', () => {
    const atom = fc.constantFrom('a', 'b', '[ab]', '.', 'ab', 'a?', '\\b', '(?=a)');
    const { pattern } = fc.letrec<{ pattern: string }>(tie => ({
      pattern: fc.oneof(
        { maxDepth: 4 },
        atom,
        fc.tuple(tie('pattern'), tie('pattern')).map(([x, y]) => x + y),
        fc.tuple(tie('pattern'), tie('pattern')).map(([x, y]) => `(?:${x}|${y})`),
        fc
          .tuple(tie('pattern'), fc.constantFrom('*', '+', '?', '{2}', '{1,3}', '{2,}', '*?', '{0,9}'))
          .map(([x, q]) => `(?:${x})${q}`),
      ),
    }));
    const traps = ['a', 'b', 'ab', 'ba', 'aab', 'aabb'].flatMap(part =>
      ['', 'c', '\n'].map(end => part.repeat(400).slice(0, 200) + end),
    );
    let refused = 0;
    fc.assert(
      fc.property(pattern, fc.constantFrom('', 'c', '$', 'x'), (body, end) => {
        const expression = new RegExp(body + end, 'g');
        if (regexFault(expression) !== null || regexPower(expression) > 3) {
          refused++;
          return;
        }
        for (const trap of traps) {
          assert.ok(
            withinTime(10_000, () => [...trap.matchAll(expression)].length),
            `${body + end} on ${JSON.stringify(trap)}`,
          );
        }
      }),
      { numRuns: 400, seed: 11 },
    );
    assert.ok(refused > 20 && refused < 300, `${refused} refused`);
  });
});

describe('an expression that could hang is refused', () => {
  const evil = '(a|a)*b$';
  const said = /could take exponential time: a repeated part can be read in two ways, as in \(a\|a\)\* or \(a\+\)\+$/;

  test('in positions, given or of an adapter', async () => {
    assert.throws(() => parsePositions(`match:/${evil}/`), {
      name: 'RangeError',
      message: /^positions 'match:\/\(a\|a\)\*b\$\/': the regular expression could take/,
    });
    assert.throws(() => parsePositions(`match:/${evil}/`), said);
    const model = await tinyModel();
    const files = await adapterToFiles(getReftModel(model, { layers: [1], positions: 'match:/(a|c)*b$/', rank: 2 }));
    const config = new TextDecoder().decode(files.get('adapter_config.json'));
    files.set('adapter_config.json', new TextEncoder().encode(config.replace('(a|c)*b$', evil)));
    await assert.rejects(
      adapterFromFiles(model, files),
      (error: Error) => error instanceof FormatError && said.test(error.message),
    );
    for (const fine of [
      'match:/the capital of \\w+/',
      'match:/\\d+([.,]\\d+)?/',
      'match:/Question:.*\\n/i',
      'match:/(?<=User: ).*$/m',
    ]) {
      assert.equal(parsePositions(fine).type, 'match', fine);
    }
  });

  test('in a tokenizer, wherever it stands', () => {
    const refuses = (parts: Record<string, unknown>): void => {
      assert.throws(
        () => tokenizerWith(parts),
        (error: Error) => {
          assert.ok(error instanceof FormatError, String(error));
          assert.match(
            error.message,
            /^evil\/tokenizer\.json: cannot be used as a tokenizer: .*the regular expression \(a\|a\)\*b\$ could take/,
          );
          assert.match(error.message, said);
          return true;
        },
      );
    };
    const replace = { type: 'Replace', pattern: { Regex: evil }, content: 'x' };
    refuses({ pre_tokenizer: split(evil) });
    refuses({ pre_tokenizer: { type: 'Sequence', pretokenizers: [split('a'), split(evil)] } });
    refuses({ normalizer: replace });
    refuses({ normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, replace] } });
    refuses({ decoder: { type: 'Sequence', decoders: [replace] } });
  });

  test('replacements that make a text grow without bound are refused, too', () => {
    const longer = { type: 'Replace', pattern: { String: 'a' }, content: 'a'.repeat(11) };
    const message =
      /^FormatError: evil\/tokenizer\.json: cannot be used as a tokenizer: normalizer: could make a text more than 100 times as long as it is$/;
    assert.throws(() => tokenizerWith({ normalizer: { type: 'Sequence', normalizers: [longer, longer] } }), message);
    assert.throws(
      () => tokenizerWith({ decoder: { ...longer, content: 'x'.repeat(101) } }),
      /decoder: could make a text more than 100 times/,
    );
    assert.ok(tokenizerWith({ normalizer: longer }).vocabSize > 0, 'a little longer is fine');
  });
});

test('what may take long on a long text runs under a limit of time', () => {
  const forever = (): never => {
    for (;;);
  };
  assert.throws(
    () => withinBound('here', 2, 20_000, forever, 50),
    /^Error: here: a regular expression takes longer than 0\.05 s on a text of 20000 characters$/,
  );
  assert.equal(
    withinBound('here', 2, 20_000, () => 7),
    7,
  );
  assert.equal(
    withinBound('here', 1, 1e7, () => 7),
    7,
  );
  // Seconds in place of hours, in a tokenizer and in positions.
  const trap = `${' '.repeat(20_000)}x`;
  const tokenizer = tokenizerWith({ pre_tokenizer: split('\\s+\\s+$') });
  assert.throws(
    () => tokenizer.encode(trap),
    /^Error: evil\/tokenizer\.json: tokenizer: a regular expression takes longer than 5\.8 s on a text of 20001 characters$/,
  );
});
