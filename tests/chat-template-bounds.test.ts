// Chat templates that would never end, or fill the memory, are stopped with one error; what ordinary ones render is in
// jinja.test.ts.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readFileSync } from 'node:fs';
import { ChatTemplate } from '../src/io/chatTemplate.js';
import { renderLimits } from '../src/io/jinja/budget.js';
import { parseTemplate } from '../src/io/jinja/parse.js';
import { render } from '../src/io/jinja/render.js';
import { withinTime } from '../src/io/timeLimit.js';
import { tokenizerFromFiles } from '../src/io/tokenizerJson.js';

const messages = [
  { role: 'user', content: 'hi' },
  { role: 'assistant', content: 'ho' },
];
const limits = { ...renderLimits, time: 300 };
/** For what is stopped by its size, on however busy a machine. */
const patient = { ...renderLimits, time: 120_000 };
const fixture = (name: string): string =>
  readFileSync(new URL(`fixtures/tokenizer/bpe/${name}`, import.meta.url), 'utf8');

/** Rendering must end with this error, soon. */
function stopped(text: string, error: RegExp, bounds = limits): void {
  const start = performance.now();
  assert.throws(
    () => new ChatTemplate(text, 'evil/tokenizer_config.json', bounds).render({ messages }),
    (thrown: Error) => {
      assert.match(
        thrown.message,
        /^evil\/tokenizer_config\.json: chat template (was stopped|failed) on 2 messages: /,
        text,
      );
      assert.match(thrown.message, error, text);
      return true;
    },
  );
  assert.ok(performance.now() - start < bounds.time + 20_000, `${text}: ${performance.now() - start} ms`);
}

/** A loop of `n` over what grows in `ns.x`. */
const growing = (n: number, start: string, next: string, end = ''): string =>
  `{% set ns = namespace(x=${start}) %}{% for i in range(${n}) %}{% set ns.x = ${next} %}{% endfor %}${end}`;

describe('a hostile chat template is stopped', () => {
  test('that asks for too long a range, in any form', () => {
    stopped(
      '{% for i in range(1000000000) %}x{% endfor %}',
      /stopped.*: asks for a range of 1000000000 numbers, at most 100000 are allowed$/,
    );
    for (const range of ['range(0, 100001)', 'range(100001, 0, -1)', 'range(1000000000 * 1000000000)'])
      stopped(`{{ ${range} | length }}`, /asks for a range of \S+ numbers/);
    stopped('{{ range(0, 5, 0) }}', /failed.*must not be zero/);
  });

  test('that loops for ever, with or without a body, or through macros', () => {
    const out = /stopped.*: (rendering takes longer than 0\.3 s|makes more texts and lists on the way)/;
    const loops = (body: string): string =>
      `{% for a in range(99999) %}{% for b in range(99999) %}${body}{% endfor %}{% endfor %}`;
    stopped(loops(''), out);
    stopped(loops('{% set x = a * b %}'), out);
    stopped(
      `{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% for c in r if c < 0 %}{% endfor %}{% endfor %}{% endfor %}`,
      out,
    );
    stopped('{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(9) }}', /failed/);
    stopped('{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}', out);
  });

  test('that doubles a text or a list again and again, or writes too much', () => {
    stopped(
      growing(60, "'x'", 'ns.x + ns.x'),
      /stopped.*: makes a text of \d+ characters, at most 33554432 are allowed$/,
      patient,
    );
    stopped(
      growing(60, "'x'", "ns.x | replace('x', 'xxxxxxxxxxxxxxxxxxxx')"),
      /replace would make more than 33554432 characters/,
      patient,
    );
    stopped(
      growing(60, '[1]', 'ns.x + ns.x'),
      /makes more texts and lists on the way than the limit of 536870912 characters/,
      patient,
    );
    stopped(growing(99999, '[]', 'ns.x + [range(99999)]'), /on the way/, patient);
    stopped(`{% for i in range(99999) %}${'x'.repeat(400)}{% endfor %}`, /makes a text of \d+ characters/, patient);
  });

  test('whose filter or method would make far more than it is given, before anything is made', () => {
    const before = process.memoryUsage().rss;
    const long = (name: string): RegExp =>
      new RegExp(`stopped.*: ${name} would make more than 33554432 characters, the most that are allowed$`);
    stopped("{{ {'a': [1, [2]]} | tojson(indent=99999999) }}", long('tojson'), patient);
    stopped(
      growing(20, "','", 'ns.x + ns.x', '{% set s = ns.x %}{{ range(99) | list | tojson(separators=(s, s)) }}'),
      long('tojson'),
      patient,
    );
    stopped(growing(60, '[1]', '[ns.x, ns.x]', '{{ ns.x | tojson }}'), long('tojson'), patient);
    stopped(growing(60, '[1]', '[ns.x, ns.x]', '{{ ns.x | string }}'), long('string'), patient);
    stopped("{{ 'a\nb' | indent(99999999) }}", long('indent'), patient);
    stopped('{% filter indent(width=99999999) %}a\nb{% endfilter %}', long('indent'), patient);
    const wide = '{% set s = ns.x %}';
    stopped(growing(16, "'x'", 'ns.x + ns.x', `${wide}{{ s | replace('x', s) }}`), long('replace'), patient);
    stopped(growing(16, "'x'", 'ns.x + ns.x', `${wide}{{ s.replace('x', s) }}`), long('replace'), patient);
    stopped(growing(16, "'x'", 'ns.x + ns.x', `${wide}{{ s['replace']('', s) }}`), long('replace'), patient);
    stopped(growing(16, "'x'", 'ns.x + ns.x', `${wide}{{ range(9999) | join(s) }}`), long('join'), patient);
    stopped(growing(16, "'x'", 'ns.x + ns.x', `${wide}{{ s | join(s) }}`), long('join'), patient);
    stopped(growing(20, "'x'", 'ns.x + ns.x', `${wide}{{ s.split('x') | length }}`), long('split'), patient);
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    assert.ok(grown < 200, `memory grew by ${grown} MB`);
  });

  test('where nothing can interrupt, as in a browser, by the clock it looks at', () => {
    const program = parseTemplate('{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}');
    const start = performance.now();
    assert.throws(
      () => render(program, { messages }, limits),
      /^RenderLimitError: rendering takes longer than 0\.3 s$/,
    );
    assert.ok(performance.now() - start < 20_000, 'performance.now() - start < 20_000');
  });

  test('as the template of a tokenizer, with the limits that are set there', () => {
    const chatTemplate = '{% for i in range(1000000000) %}x{% endfor %}';
    const tokenizer = tokenizerFromFiles(
      { tokenizerJson: fixture('tokenizer.json'), tokenizerConfig: fixture('tokenizer_config.json'), chatTemplate },
      'T',
    );
    assert.throws(
      () => tokenizer.chat('hi'),
      /^Error: T: chat template was stopped on 1 messages: asks for a range of 1000000000 numbers, at most 100000 are allowed$/,
    );
  });
});

test('renderings have each their own bounds', () => {
  // Renderings within one another, and after one that was stopped.
  const inner = new ChatTemplate('{{ messages | length }}', 'inner');
  assert.equal(
    new ChatTemplate('{{ f() }}{{ f() }}', 'outer').render({ messages, f: () => inner.render({ messages }) }),
    '22',
  );
  const either = new ChatTemplate(
    '{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}done',
    'T',
    limits,
  );
  assert.throws(() => either.render({ messages, n: 90_000 }), /longer/);
  assert.equal(either.render({ messages, n: 3 }), 'done');
});

test('a call within a time gives its value or its error, and leaves no name behind', () => {
  const names = (): number => Object.getOwnPropertySymbols(globalThis).length;
  const before = names();
  assert.deepEqual(
    withinTime(1000, () => 7),
    { value: 7 },
  );
  assert.equal(
    withinTime(20, () => {
      for (;;);
    }),
    null,
  );
  assert.throws(
    () =>
      withinTime(1000, () => {
        throw new TypeError('own');
      }),
    { name: 'TypeError', message: 'own' },
  );
  assert.equal(names(), before);
});
