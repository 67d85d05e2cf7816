// Whether tokenizers give the ids and texts of Hugging Face's own library: scripts/tokenizerCases.py makes one of each
// kind there, with ids of random strings of all planes and texts of random ids, and every one must be equal.
// REFT_PYTHON names a Python with `tokenizers`, `sentencepiece` and `protobuf`.
//
//     npx tsx scripts/checkTokenizers.ts [STRINGS] [SEED]

import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import { TextStreamer } from '../src/io/tokenizerStream.js';

interface Cases {
  readonly strings: readonly string[];
  readonly tokenizers: Readonly<
    Record<
      string,
      {
        readonly json: string;
        readonly special: readonly number[];
        /** Of each string, with special tokens found and with them split. */
        readonly ids: readonly number[][];
        readonly split: readonly number[][];
        readonly around: readonly number[];
        readonly decode: readonly number[][];
        /** Of each list of ids, with special tokens and without. */
        readonly texts: readonly [string, string][];
      }
    >
  >;
}

const [strings = '4000', seed = '1', given] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), 'reft-tokenizers-'));
const file = given ?? join(folder, 'cases.json');
let differences = 0;
try {
  if (given === undefined) {
    const script = join(import.meta.dirname, 'tokenizerCases.py');
    const { status } = spawnSync(process.env['REFT_PYTHON'] ?? 'python3', [script, file, strings, seed], {
      stdio: 'inherit',
    });
    if (status !== 0) throw new Error(`${script} ended with ${status}`);
  }
  const cases = JSON.parse(await readFile(file, 'utf8')) as Cases;
  for (const [name, expected] of Object.entries(cases.tokenizers)) {
    const tokenizer = tokenizerFromFiles({ tokenizerJson: expected.json }, name);
    const count: Record<string, number> = { encode: 0, split: 0, decode: 0, stream: 0 };
    const compare = (kind: string, input: unknown, came: unknown, wanted: unknown): void => {
      if (JSON.stringify(came) === JSON.stringify(wanted)) return;
      if (count[kind]++ < 3)
        console.log(
          `${name} ${kind} ${JSON.stringify(input)}\n  came   ${JSON.stringify(came)}\n  wanted ${JSON.stringify(wanted)}`,
        );
    };
    cases.strings.forEach((text, i) => {
      compare('encode', text, tokenizer.encode(text, { addSpecialTokens: false }), expected.ids[i]);
      const split = tokenizer.encode(text, { addSpecialTokens: false, splitSpecialTokens: true });
      // The library's Unigram and WordLevel find special tokens in text that is split, because their vocabularies have
      // them. Here none does.
      const forged = expected.split[i].some(id => expected.special.includes(id));
      compare(
        'split',
        text,
        forged ? split.filter(id => expected.special.includes(id)) : split,
        forged ? [] : expected.split[i],
      );
    });
    compare('encode', 'x', tokenizer.encode('x'), expected.around);
    expected.decode.forEach((ids, i) => {
      for (const skipSpecialTokens of [false, true]) {
        const wanted = expected.texts[i][Number(skipSpecialTokens)];
        compare('decode', ids, tokenizer.decode(ids, { skipSpecialTokens }), wanted);
        const streamer = new TextStreamer(tokenizer, { skipSpecialTokens });
        compare('stream', ids, ids.map(id => streamer.push(id)).join('') + streamer.end(), wanted);
      }
    });
    const total = Object.values(count).reduce((a, b) => a + b, 0);
    differences += total;
    console.log(
      `${name}: ${cases.strings.length} strings, ${expected.decode.length} lists of ids, ${total === 0 ? 'no difference' : JSON.stringify(count)}`,
    );
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
if (differences > 0) process.exitCode = 1;
