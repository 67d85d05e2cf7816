// What a model is trained on: the whole of a row reaches the chat template, the answer is the template's own text with
// the template's own end, what is not understood is an error with file and line, and a cut prompt keeps its start.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parsePreferences, parseRows, readRows, tokenizeRow, type Example, type Row } from '../src/data/index.js';
import { FormatError } from '../src/io/errors.js';
import { JsonFloat, parseJson } from '../src/io/orderedJson.js';
import type { Tokenizer } from '../src/io/tokenizer.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';
import { tokenizerFromFolder } from '../src/io/tokenizerNode.js';
import { caseFolder } from './helpers/caseFolder.js';

const exec = promisify(execFile);

/** Runs command lines of `reft`, in one process. */
async function reftEach(commands: string[][]): Promise<{ code: number; stdout: string; stderr: string }[]> {
  const running = exec(
    process.execPath,
    ['--import', 'tsx', fileURLToPath(new URL('helpers/runCommands.ts', import.meta.url))],
    { maxBuffer: 2 ** 24 },
  );
  running.child.stdin!.end(JSON.stringify(commands));
  return JSON.parse((await running).stdout) as { code: number; stdout: string; stderr: string }[];
}

const fixture = (name: string): string =>
  readFileSync(new URL(`fixtures/tokenizer/bpe/${name}`, import.meta.url), 'utf8');
const config = JSON.parse(fixture('tokenizer_config.json')) as Record<string, unknown>;
const withTemplate = (chatTemplate: string): Tokenizer =>
  tokenizerFromFiles(
    { tokenizerJson: fixture('tokenizer.json'), tokenizerConfig: JSON.stringify(config), chatTemplate },
    'T',
  );
const chatMl = tokenizerFromFiles(
  { tokenizerJson: fixture('tokenizer.json'), tokenizerConfig: JSON.stringify(config) },
  'T',
);
const row = (value: unknown): Row => parseRows(JSON.stringify(value), 'rows.jsonl')[0]!;
const promptOf = (example: Example, tokenizer: Tokenizer): string =>
  tokenizer.decode(example.ids.subarray(0, example.promptLength));
const learnedOf = (example: Example, tokenizer: Tokenizer): string =>
  tokenizer.decode(example.ids.filter((_, t) => example.labels[t] !== -100));
const refused = (body: () => unknown, message: RegExp): void => {
  assert.throws(body, (error: Error) => {
    assert.equal(error.name, 'FormatError', error.message);
    assert.match(error.message, message);
    return true;
  });
};
const asks = { role: 'user', content: 'hi' };
const called = { type: 'function', function: { name: 'weather', arguments: { city: 'Oslo' } } };

describe('tools and calls in rows', () => {
  const tools =
    '<|im_start|>tools\n[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": ' +
    '{"city": {"type": "string"}}}}}]<|im_end|>\n';
  const question = `${tools}<|im_start|>user\nWeather in Oslo?<|im_end|>\n`;
  const call = '<call>{"name": "weather", "arguments": {"city": "Oslo"}}<|im_end|>';

  test('reach the template; a row that ends with a call trains on the call', async () => {
    const folder = await caseFolder('18-tool-calls-in-rows');
    const tokenizer = await tokenizerFromFolder(join(folder, 'model'));
    const example = async (name: string): Promise<Example> =>
      tokenizeRow((await readRows(join(folder, name)))[0]!, tokenizer);
    const middle = await example('middle.jsonl');
    assert.equal(
      promptOf(middle, tokenizer),
      `${question}<|im_start|>assistant\n${call}\n<|im_start|>tool\n9 C<|im_end|>\n<|im_start|>assistant\n`,
    );
    assert.equal(learnedOf(middle, tokenizer), 'It is 9 C.<|im_end|>');
    for (const name of ['calls.jsonl', 'null.jsonl']) {
      const made = await example(name);
      assert.equal(promptOf(made, tokenizer), `${question}<|im_start|>assistant\n`, name);
      assert.equal(learnedOf(made, tokenizer), call, name);
    }
    const pair = JSON.parse(await readFile(join(folder, 'calls.jsonl'), 'utf8')) as {
      tools: unknown;
      messages: unknown[];
    };
    const [{ chosen, rejected }] = parsePreferences(
      JSON.stringify({
        tools: pair.tools,
        messages: pair.messages.slice(0, 1),
        chosen: pair.messages[1],
        rejected: 'no',
      }),
      'pairs.jsonl',
      tokenizer,
    ) as [{ chosen: Example; rejected: Example }];
    assert.equal(promptOf(chosen, tokenizer), `${question}<|im_start|>assistant\n`);
    assert.deepEqual([learnedOf(chosen, tokenizer), learnedOf(rejected, tokenizer)], [call, 'no<|im_end|>']);
  });

  test('every field of a turn and every variable reaches the template', () => {
    const tokenizer = withTemplate(
      "{{ documents | join(',') }}{{ mood }}{{ thinking }}{% for m in messages %}{{ m.name }}{{ m.tool_call_id }}{{ m.reasoning_content }}|{{ m.content }}<|im_end|>{% endfor %}",
    );
    const turns = [
      { ...asks, name: 'N', tool_call_id: 'T' },
      { role: 'assistant', content: 'ho', reasoning_content: 'R' },
    ];
    const more = { documents: ['d', 'e'], mood: 'm', chat_template_kwargs: { thinking: 't' } };
    const example = tokenizeRow(row({ messages: turns, ...more }), tokenizer);
    assert.equal(promptOf(example, tokenizer), 'd,emtNT|hi<|im_end|>');
    assert.equal(learnedOf(example, tokenizer), 'R|ho<|im_end|>');
  });

  test('tools that are not given are None, as transformers has it', () => {
    assert.equal(
      withTemplate('{{ tools is none }}{{ documents is none }}').chat('hi').text,
      'TrueTrue'.replaceAll('True', withTemplate('{{ 1 == 1 }}').chat('hi').text),
    );
    assert.equal(
      withTemplate('{% if tools is not none %}tools{% endif %}{{ messages[0].content }}').chat('hi').text,
      'hi',
    );
  });

  test('what the template does not read is an error that names row and field', () => {
    const answer = { role: 'assistant', content: 'ho' };
    refused(
      () => tokenizeRow(row({ messages: [asks, answer], tools: [called] }), chatMl),
      /^rows\.jsonl:1: tools: the chat template of T does not read it/,
    );
    refused(
      () => tokenizeRow(row({ messages: [asks, answer], mood: 'm' }), chatMl),
      /^rows\.jsonl:1: mood: the chat template of T does not read it/,
    );
    refused(
      () =>
        tokenizeRow(
          row({ messages: [asks, { role: 'assistant', content: '', tool_calls: [called] }, asks, answer] }),
          chatMl,
        ),
      /^rows\.jsonl:1: messages\.1\.tool_calls: the chat template of T does not read it/,
    );
    refused(
      () => tokenizeRow(row({ messages: [asks, { role: 'assistant', content: '', tool_calls: [called] }] }), chatMl),
      /^rows\.jsonl:1: the chat template writes nothing for the assistant's last turn \(tool_calls\)/,
    );
    refused(
      () =>
        tokenizeRow(row({ messages: [asks, answer] }), withTemplate('{% for m in messages %}{{ m.role }}{% endfor %}')),
      /^rows\.jsonl:1: the chat template leaves out what the assistant's last turn says/,
    );
    // Nothing is lost with what is empty, or only describes.
    const example = tokenizeRow(
      row({ messages: [asks, answer], tools: [], mood: null, id: 7, source: 's', metadata: { mood: 'm' } }),
      chatMl,
    );
    assert.equal(learnedOf(example, chatMl), 'ho<|im_end|>');
  });

  test('what a row may not say is an error that names row and field', () => {
    const answer = { role: 'assistant', content: 'ho' };
    refused(
      () => row({ messages: [asks, answer], bos_token: 'x' }),
      /^rows\.jsonl:1: bos_token: is set by the tokenizer/,
    );
    refused(
      () => row({ messages: [asks, answer], chat_template_kwargs: { messages: [] } }),
      /^rows\.jsonl:1: messages: is set by the tokenizer/,
    );
    refused(
      () => row({ messages: [asks, answer], chat_template_kwargs: 3 }),
      /^rows\.jsonl:1: chat_template_kwargs: expected an object, got a number/,
    );
    refused(
      () => row({ messages: [asks, answer], tools: { a: 1 } }),
      /^rows\.jsonl:1: tools: expected a list, got an object/,
    );
    refused(() => row({ messages: [asks, answer], tools: '{' }), /^rows\.jsonl:1: tools: is a text that is not JSON/);
    refused(
      () => row({ messages: [asks, { ...answer, tool_calls: 'f' }] }),
      /^rows\.jsonl:1: messages\.1\.tool_calls: expected a list, got a text/,
    );
    refused(
      () => row({ messages: [{ role: 'user' }, answer] }),
      /^rows\.jsonl:1: messages\.0\.content: expected a text, got nothing/,
    );
    refused(
      () => row({ messages: [{ role: 'user', content: 7 }, answer] }),
      /^rows\.jsonl:1: messages\.0\.content: expected a text or a list of text parts, got a number/,
    );
    refused(
      () => row({ messages: [{ content: 'a' }, answer] }),
      /^rows\.jsonl:1: messages\.0\.role: expected a text, got nothing/,
    );
    refused(
      () => row({ messages: ['a', answer] }),
      /^rows\.jsonl:1: messages\.0: expected an object with "role" and "content", got a text/,
    );
    refused(() => row({ messages: 'a' }), /^rows\.jsonl:1: messages: expected a list of turns, got a text/);
    refused(
      () => row({ prompt: 'a', completion: 'b', weight: 2 }),
      /^rows\.jsonl:1: weight: is not known beside prompt, completion/,
    );
    refused(
      () => parsePreferences('{"prompt":"a","chosen":"b","rejected":"c","weight":2}', 'p', chatMl),
      /^p:1: weight: is not known beside prompt, chosen, rejected/,
    );
    refused(
      () => parsePreferences(JSON.stringify({ messages: [asks], chosen: [answer, asks], rejected: 'c' }), 'p', chatMl),
      /^p:1: chosen: expected one turn, got 2/,
    );
    refused(
      () => parsePreferences(JSON.stringify({ messages: [asks], chosen: asks, rejected: 'c' }), 'p', chatMl),
      /^p:1: chosen: expected the assistant's turn, got "user"/,
    );
    refused(
      () => parsePreferences(JSON.stringify({ messages: [], chosen: 'b', rejected: 'c' }), 'p', chatMl),
      /^p:1: messages: has no turns/,
    );
    assert.equal(row({ messages: [asks, answer], tools: '[{"a":1}]' }).kind, 'chat');
  });
});

describe('content in parts', () => {
  test('is joined for a template that reads texts', async () => {
    const [made] = await readRows(join(await caseFolder('17-content-as-parts'), 'rows.jsonl'));
    const example = tokenizeRow(made!, chatMl);
    assert.equal(promptOf(example, chatMl), '<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\n');
    assert.equal(learnedOf(example, chatMl), 'hi<|im_end|>');
    assert.equal(
      chatMl.chat([
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
      ]).text,
      chatMl.chat('ab').text,
    );
  });

  test('reaches a template that reads parts, which gets one for a text where it reads nothing else', () => {
    const parts =
      "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}[{{ p.text }}]{% endif %}{% endfor %}<|im_end|>{% endfor %}";
    const both =
      '{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}';
    const inParts = [
      {
        role: 'user',
        content: [
          { type: 'text' as const, text: 'a' },
          { type: 'text' as const, text: 'b' },
        ],
      },
    ];
    assert.equal(withTemplate(parts).chat(inParts).text, '[a][b]<|im_end|>');
    assert.equal(withTemplate(parts).chat('a').text, '[a]<|im_end|>');
    assert.equal(withTemplate(both).chat(inParts).text, '[a][b]');
    assert.equal(withTemplate(both).chat('a').text, 'a');
    const example = tokenizeRow(row({ messages: [asks, { role: 'assistant', content: 'ho' }] }), withTemplate(parts));
    assert.equal(learnedOf(example, chatMl), '[ho]<|im_end|>');
  });

  test('of another kind is an error', () => {
    const withPart = (part: unknown): unknown => ({
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'a' }, part] },
        { role: 'assistant', content: 'b' },
      ],
    });
    refused(
      () => row(withPart({ type: 'image', url: 'u' })),
      /^rows\.jsonl:1: messages\.0\.content\.1: a part of type "image" is not understood, only of type "text"/,
    );
    refused(
      () => row(withPart({ type: 'text' })),
      /^rows\.jsonl:1: messages\.0\.content\.1\.text: expected a text, got nothing/,
    );
    refused(() => row(withPart('b')), /^rows\.jsonl:1: messages\.0\.content\.1: expected a part .*, got a text/);
  });
});

describe('the answer', () => {
  test('ends with what the template puts behind it, whatever its letters, where the prompt does not open it', async () => {
    const folder = await caseFolder('19-reasoning-template');
    const tokenizer = await tokenizerFromFolder(join(folder, 'no-generation-prompt'));
    const rows = await readRows(join(folder, 'choices.jsonl'));
    assert.equal(rows.length, 4);
    for (const [i, made] of rows.entries()) {
      const example = tokenizeRow(made, tokenizer);
      assert.equal(example.ids.at(-1), tokenizer.tokenToId('<|im_end|>'));
      assert.equal(promptOf(example, tokenizer), '<|im_start|>user\nWhich one? a, b, c or d<|im_end|>\n');
      assert.equal(learnedOf(example, tokenizer), `<|im_start|>assistant\n${'abcd'[i]}<|im_end|>`);
    }
  });

  // Each: a template for the assistant's turn and its opening, and what is learned of the answer " a ".
  const user = "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% else %}";
  const templates: [name: string, turn: string, opening: string, learned: string][] = [
    ['as it is', 'A:{{ m.content }}<|im_end|>\n', 'A:', ' a <|im_end|>'],
    ['trimmed', 'A: {{ m.content | trim }} <|im_end|>\n', 'A:', ' a <|im_end|>'],
    [
      'behind an empty block of reasoning',
      'A:<think>\n\n</think>\n\n{{ m.content | trim }}<|im_end|>',
      'A:',
      '<think>\n\n</think>\n\na<|im_end|>',
    ],
    ['in capitals', 'A:{{ m.content | upper }}<|im_end|>', 'A:', ' A <|im_end|>'],
    ['as JSON', 'A:{{ m.content | tojson }}<|im_end|>', 'A:', '" a "<|im_end|>'],
    ['without an end', 'A:{{ m.content }}\n', 'A:', ' a <|im_end|>'],
    ['where the prompt opens a block of reasoning', 'A:{{ m.content | trim }}<|im_end|>', 'A:<think>\n', 'a<|im_end|>'],
    ['with the start of the next turn behind it', 'A:{{ m.content }}<|im_end|><|im_start|>', 'A:', ' a <|im_end|>'],
    ['with its letters before it', 'A: a a a :{{ m.content }}<|im_end|>', 'A: a ', 'a a : a <|im_end|>'],
  ];
  for (const [name, turn, opening, learned] of templates) {
    test(name, () => {
      const tokenizer = withTemplate(
        `${user}${turn}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ${JSON.stringify(opening)} }}{% endif %}`,
      );
      const example = tokenizeRow(
        row({
          messages: [
            { role: 'user', content: ' a ' },
            { role: 'assistant', content: ' a ' },
          ],
        }),
        tokenizer,
      );
      assert.equal(promptOf(example, tokenizer), `<|im_start|> a <|im_end|>${opening}`);
      assert.equal(learnedOf(example, tokenizer), learned);
      assert.deepEqual(
        [...example.labels.subarray(example.promptLength)],
        [...example.ids.subarray(example.promptLength)],
      );
    });
  }

  test('behind a closed block of reasoning that the prompt opens', () => {
    const tokenizer = withTemplate(
      `${user}A:<think></think>{{ m.content }}<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}A:<think>\n{% endif %}`,
    );
    const example = tokenizeRow(row({ messages: [asks, { role: 'assistant', content: 'a' }] }), tokenizer);
    assert.equal(promptOf(example, tokenizer), '<|im_start|>hi<|im_end|>A:<think>\n');
    assert.equal(learnedOf(example, tokenizer), '</think>a<|im_end|>');
  });

  test('behind reasoning that goes on where the prompt ends', () => {
    const tokenizer = withTemplate(
      `${user}A:<think>{% if m.reasoning %}{{ '\\n' + m.reasoning }}{% endif %}</think>{{ m.content }}<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}A:<think>\n{% endif %}`,
    );
    const example = tokenizeRow(
      row({ messages: [asks, { role: 'assistant', content: 'a', reasoning: 'so' }] }),
      tokenizer,
    );
    assert.equal(tokenizer.decode(example.ids), '<|im_start|>hi<|im_end|>A:<think>\nso</think>a<|im_end|>');
    assert.equal(learnedOf(example, tokenizer), 'so</think>a<|im_end|>');
  });

  test('in generation blocks: what stands before them is read and not learned', () => {
    const tokenizer = withTemplate(
      `${user}A: note {% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}`,
    );
    const turns = [asks, { role: 'assistant', content: 'first' }, asks, { role: 'assistant', content: 'a' }];
    const example = tokenizeRow(row({ messages: turns }), tokenizer);
    assert.equal(
      tokenizer.decode(example.ids),
      '<|im_start|>hi<|im_end|>A: note first<|im_end|><|im_start|>hi<|im_end|>A: note a<|im_end|>',
    );
    assert.equal(
      promptOf(example, tokenizer),
      '<|im_start|>hi<|im_end|>A: note first<|im_end|><|im_start|>hi<|im_end|>A:',
    );
    assert.equal(learnedOf(example, tokenizer), 'a<|im_end|>');
  });

  test('that says what ends turns is learned whole', () => {
    const example = tokenizeRow(
      row({ messages: [asks, { role: 'assistant', content: 'it ends with <|im_end|>' }] }),
      chatMl,
    );
    assert.equal(learnedOf(example, chatMl), 'it ends with <|im_end|><|im_end|>');
  });

  test('that ends in another way than a text does', () => {
    const tokenizer = withTemplate(
      `${user}A:{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}<|endoftext|>{% else %}<|im_end|>{% endif %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}`,
    );
    const example = tokenizeRow(
      row({ messages: [asks, { role: 'assistant', content: '', tool_calls: ['f'] }] }),
      tokenizer,
    );
    assert.equal(learnedOf(example, tokenizer), '["f"]<|endoftext|>');
  });

  test('that cannot be told from what stands before it is an error', () => {
    const rewrites = withTemplate('{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}');
    refused(
      () =>
        tokenizeRow(
          row({ messages: [asks, { role: 'assistant', content: '', tool_calls: ['f'] }] }),
          withTemplate("{{ messages | length }}{% for m in messages %}{{ m.tool_calls or 'none' }}{% endfor %}"),
        ),
      /^rows\.jsonl:1: the chat template writes the conversation in another way/,
    );
    assert.equal(
      learnedOf(tokenizeRow(row({ messages: [asks, { role: 'assistant', content: 'ho' }] }), rewrites), chatMl),
      'ho<|im_end|>',
    );
  });
});

describe('what a template refuses', () => {
  test('names the row, in training and preferences', async () => {
    const folder = await caseFolder('29-template-refuses-row');
    const tokenizer = await tokenizerFromFolder(join(folder, 'model'));
    const rows = await readRows(join(folder, 'rows.jsonl'));
    rows.forEach((made, i) => {
      if (i === 4)
        refused(
          () => tokenizeRow(made, tokenizer),
          /rows\.jsonl:5: .*chat template failed on 2 messages: System role not supported$/,
        );
      else assert.equal(learnedOf(tokenizeRow(made, tokenizer), tokenizer), `a${i}<|im_end|>`);
    });
    refused(
      () =>
        parsePreferences(
          '\n{"messages":[{"role":"system","content":"s"}],"chosen":"a","rejected":"b"}',
          'pairs.jsonl',
          tokenizer,
        ),
      /^pairs\.jsonl:2: .*System role not supported$/,
    );
  });
});

describe('data as published', () => {
  const folder = caseFolder('30-alpaca-as-published');
  const learn = async (name: string): Promise<[string, string]> => {
    const example = tokenizeRow((await readRows(join(await folder, name)))[0]!, chatMl);
    return [promptOf(example, chatMl), learnedOf(example, chatMl)];
  };

  test('Alpaca with its text, and without an input', async () => {
    const expected = ['<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n', 'Red.<|im_end|>'];
    assert.deepEqual(await learn('text-column.jsonl'), expected);
    assert.deepEqual(await learn('null-input.jsonl'), expected);
    refused(
      () => row({ instruction: 'a', output: 'b', context: 'c' }),
      /^rows\.jsonl:1: context: is not known beside instruction, input, output, text/,
    );
  });

  test('ShareGPT', async () => {
    assert.deepEqual(await learn('sharegpt.jsonl'), [
      '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n',
      'hello<|im_end|>',
    ]);
    const made = row({
      id: 1,
      system: 'be brief',
      conversations: [
        { from: 'human', value: 'a' },
        { from: 'gpt', value: 'b', weight: 1 },
        { from: 'observation', value: 'c' },
        { from: 'function_call', value: '{"name":"f","arguments":{"x":1.0}}' },
        { role: 'user', content: 'd' },
        { from: 'gpt', value: 'e' },
      ],
    });
    assert.deepEqual(made, {
      kind: 'chat',
      where: 'rows.jsonl:1',
      answer: 'e',
      before: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b', weight: 1 },
        { role: 'tool', content: 'c' },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ type: 'function', function: { name: 'f', arguments: { x: new JsonFloat(1) } } }],
        },
        { role: 'user', content: 'd' },
      ],
    });
    const bad = (turn: unknown): unknown => ({ conversations: [turn, { from: 'gpt', value: 'b' }] });
    refused(
      () => row(bad({ from: 'narrator', value: 'a' })),
      /^rows\.jsonl:1: conversations\.0\.from: "narrator" is not known; known: human, user, gpt/,
    );
    refused(() => row(bad({ from: 'human' })), /^rows\.jsonl:1: conversations\.0\.value: expected a text, got nothing/);
    refused(
      () => row(bad({ from: 'function_call', value: 'f()' })),
      /^rows\.jsonl:1: conversations\.0\.value: a function call must be JSON/,
    );
    refused(
      () =>
        row({
          conversations: [
            { from: 'gpt', value: 'b' },
            { from: 'human', value: 'a' },
          ],
        }),
      /^rows\.jsonl:1: conversations: expected the last turn to be the assistant's, got "user"/,
    );
  });
});

test('a prompt cut on the left keeps the special tokens it starts with', () => {
  const first = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<|endoftext|>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { '<|endoftext|>': { id: '<|endoftext|>', ids: [0], tokens: ['<|endoftext|>'] } },
  };
  const starting = tokenizerFromFiles(
    {
      tokenizerJson: JSON.stringify({ ...(JSON.parse(fixture('tokenizer.json')) as object), post_processor: first }),
      tokenizerConfig: JSON.stringify(config),
    },
    'T',
  );
  const start = starting.tokenToId('<|endoftext|>')!;
  for (const [made, kept] of [
    [row({ prompt: 'the lighthouse keeper', completion: ' waits' }), [start]],
    [
      row({
        messages: [
          { role: 'user', content: 'the lighthouse keeper' },
          { role: 'assistant', content: 'waits' },
        ],
      }),
      [starting.bosTokenId!],
    ],
  ] as const) {
    const whole = tokenizeRow(made, starting);
    assert.deepEqual([...whole.ids.slice(0, 1)], kept);
    const cut = tokenizeRow(made, starting, { maxLength: whole.ids.length - 3 });
    assert.deepEqual([...cut.ids], [...kept, ...whole.ids.slice(4)]);
    assert.deepEqual([cut.truncated, cut.promptLength], [3, whole.promptLength - 3]);
    assert.equal(learnedOf(cut, starting), learnedOf(whole, starting));
    const answerLength = whole.ids.length - whole.promptLength;
    refused(
      () => tokenizeRow(made, starting, { maxLength: answerLength + 1 }),
      new RegExp(
        `^rows\\.jsonl:1: the completion has ${answerLength} tokens with its end token, which leaves no prompt within ${answerLength + 1}$`,
      ),
    );
    assert.equal(tokenizeRow(made, starting, { maxLength: answerLength + 2 }).promptLength, 2);
  }
});

test('the command line: conversations with tools, and which row a template refuses', async () => {
  const tools = await caseFolder('18-tool-calls-in-rows');
  const refusing = await caseFolder('29-template-refuses-row');
  const asked = JSON.parse(await readFile(join(tools, 'calls.jsonl'), 'utf8')) as {
    tools: unknown;
    messages: unknown[];
  };
  const ask = (model: string, messages: unknown): string[] => [
    'generate',
    '--model',
    model,
    '--max-new-tokens',
    '2',
    '--json',
    '--messages',
    JSON.stringify(messages),
  ];
  const [toolModel, refusingModel] = [join(tools, 'model'), join(refusing, 'model')];
  const rows = join(refusing, 'rows.jsonl');
  const results = await reftEach([
    ask(toolModel, { messages: asked.messages.slice(0, 1), tools: asked.tools }),
    ask(toolModel, asked.messages.slice(0, 1)),
    ask(refusingModel, [asks]),
    ask(refusingModel, { messages: [asks], tools: asked.tools }),
    ask(refusingModel, [{ role: 'system', content: 's' }]),
    ask(refusingModel, [{ role: 'user', content: [{ type: 'image' }] }]),
    ask(refusingModel, []),
    ['eval', '--model', refusingModel, '--data', rows],
    ['train', '--model', refusingModel, '--data', rows, '--out', join(refusing, 'out')],
    ['train', '--model', toolModel, '--data', join(tools, 'middle.jsonl'), '--steps', '1', '--out', join(tools, 'out')],
  ]);
  assert.deepEqual(
    results.map(({ code }) => code),
    [0, 0, 0, 2, 2, 2, 2, 2, 2, 0],
    results.map(({ stderr }) => stderr).join('\n'),
  );
  const ids = (i: number): unknown =>
    (JSON.parse(results[i]!.stdout.trim().split('\n').at(-1)!) as { ids: unknown }).ids;
  assert.notDeepEqual(ids(0), ids(1), 'the tools change the prompt');
  for (const [i, message] of [
    /--messages: tools: the chat template of .* does not read it/,
    /--messages: .*System role not supported/,
    /--messages: messages\.0\.content\.0: a part of type "image"/,
    /--messages: has no turns/,
    /rows\.jsonl:5: .*System role not supported/,
    /rows\.jsonl:5: .*System role not supported/,
  ].entries())
    assert.match(results[i + 3]!.stderr, message);
});

test('JSON keeps the order of keys, floats and long numbers', () => {
  assert.deepEqual(parseJson('{"b":1,"a":[1.5,"x\\u0041"],"c":{}}'), { b: 1, a: [1.5, 'xA'], c: {} });
  const value = parseJson(
    ' { "t" : {"b":1, "2":[ ], "1":null, "b":3} , "n":[1.0, -2e3, 1.25e1, 12345678901234567890, true] } ',
  ) as { t: Map<string, unknown>; n: unknown[] };
  assert.deepEqual(
    [...value.t],
    [
      ['b', 3],
      ['2', []],
      ['1', null],
    ],
  );
  assert.deepEqual(value.n, [new JsonFloat(1), new JsonFloat(-2000), 12.5, 12345678901234567890n, true]);
  assert.ok(parseJson('{"__proto__":{"x":1}}') instanceof Map, 'a key that would change the prototype');
  assert.throws(() => parseJson('{"1":1.0,}'), SyntaxError);
  assert.throws(() => parseRows('{"1":1.0,}', 'r'), FormatError);
});
