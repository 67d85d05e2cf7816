// Chat templates mean what they mean in Python: `fixtures/jinja/cases.json` (scripts/exportJinja.py) has templates and
// what Jinja, set up as transformers sets it up, renders of them. Where Python raises, so must we, and in its words but
// for those in `fixtures/jinja/ownWords.json`.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parseTemplate } from '../src/io/jinja/parse.js';
import { render } from '../src/io/jinja/render.js';
import { strftime } from '../src/io/jinja/strftime.js';
import { JsonFloat, parseJson } from '../src/io/orderedJson.js';
import { caseFolder } from './helpers/caseFolder.js';

interface Cases {
  readonly variables: Record<string, unknown>;
  readonly cases: readonly (readonly [template: string, expected: string | { error: string; message: string }])[];
}
const fixture = parseJson(readFileSync(new URL('fixtures/jinja/cases.json', import.meta.url), 'utf8')) as Cases;
/** Messages of ours where Python's say less, or name its own internals, by the template. */
const ownWords = JSON.parse(readFileSync(new URL('fixtures/jinja/ownWords.json', import.meta.url), 'utf8')) as Record<
  string,
  string
>;
const rendered = (template: string, variables: Record<string, unknown> = {}): string =>
  render(parseTemplate(template), variables).text;

describe('templates render as in Python', () => {
  test('all that are kept', () => {
    assert.ok(fixture.cases.length > 1000, `${fixture.cases.length} cases`);
    for (const [template, expected] of fixture.cases) {
      if (typeof expected === 'string') assert.equal(rendered(template, fixture.variables), expected, template);
      else {
        assert.throws(
          () => rendered(template, fixture.variables),
          (error: Error) => {
            assert.match(error.name, /^(TemplateError|TemplateSyntaxError|RenderLimitError)$/, template);
            assert.equal(error.message.replace(/^line 1: /, ''), ownWords[template] ?? expected.message, template);
            return true;
          },
          `${template}: ${expected.error}`,
        );
      }
    }
  });

  test('those that once came out otherwise', async () => {
    const { messages, templates } = JSON.parse(
      await readFile(join(await caseFolder('16-templates-as-python'), 'expected.json'), 'utf8'),
    ) as { messages: unknown; templates: Record<string, { template: string; tools: string; expected: string }> };
    for (const [name, { template, tools, expected }] of Object.entries(templates)) {
      assert.equal(rendered(template, { messages, tools: parseJson(tools) }), expected, name);
    }
  });

  test('what JavaScript values and JSON are to them', () => {
    const variables = {
      i: 1,
      f: 1.5,
      whole: new JsonFloat(2),
      big: 12345678901234567890n,
      none: null,
      absent: undefined,
      map: new Map([
        ['2', 1],
        ['1', 2],
      ]),
      list: [1, [true]],
    };
    assert.equal(
      rendered(
        '{{ i }} {{ f }} {{ whole }} {{ big }} {{ none }} {{ absent is defined }} {{ map }} {{ list }}',
        variables,
      ),
      "1 1.5 2.0 12345678901234567890 None False {'2': 1, '1': 2} [1, [True]]",
    );
    assert.equal(rendered('{{ f(1, "a") }}', { f: (a: bigint, b: string) => `${a}${b}` }), '1a');
    // One conversation is rendered many times: what a template sets does not reach the next.
    const template = parseTemplate('{% set x = messages %}{% set messages = messages[1:] %}{{ messages | length }}');
    const messages = [{ role: 'a' }, { role: 'b' }];
    assert.deepEqual([render(template, { messages }).text, render(template, { messages }).text], ['1', '1']);
  });

  test('errors say what is wrong, in the words of Python and Jinja', () => {
    for (const [template, message] of [
      ['{{ missing.x }}', /'missing' is undefined/],
      ["{{ {'a': 1}.b.c }}", /'dict object' has no attribute 'b'/],
      ["{{ 1 + 'a' }}", /unsupported operand type\(s\) for \+: 'int' and 'str'/],
      ["{{ 'a' < 1 }}", /'<' not supported between instances of 'str' and 'int'/],
      ['{{ 1 / 0 }}', /division by zero/],
      ["{{ 'x' | nope }}", /No filter named 'nope'/],
      ["{{ 'x' is nope }}", /No test named 'nope'/],
      ["{{ 'x' | wordwrap }}", /the filter 'wordwrap' is not supported/],
      ['{% for a, b in [[1]] %}{% endfor %}', /not enough values to unpack \(expected 2, got 1\)/],
      ['{{ [].append(1) }}', /access to attribute 'append' of 'list' object is unsafe/],
      ['a\n{% if %}', /line 2: Expected an expression, got 'block end'/],
      ['a\n\n{% nope %}', /line 3: Encountered unknown tag 'nope'/],
      ['{% nope %}\n\n', /line 1: Encountered unknown tag 'nope'/],
      ['{% include "x" %}', /line 1: \{% include %\} is not supported/],
      ['{% for x in y %}', /Unexpected end of template/],
      ['{{ 5 | length }}', /object of type 'int' has no len\(\)/],
      ['{{ "a".center(3, "ab") }}', /exactly one character long/],
      ['{{ "a".strip(1) }}', /strip\(\) argument 'chars' must be str, not int/],
      ['{{ "a".strip("a", "b") }}', /strip\(\) takes at most 1 arguments \(2 given\)/],
      ['{{ "a" | trim(foo=1) }}', /trim\(\) got an unexpected keyword argument 'foo'/],
      ['{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}', /macro 'f' takes not more than 1 argument/],
      ['{{ (-8) ** 0.5 }}', /complex numbers are not supported/],
    ] as const)
      assert.throws(() => rendered(template), message, template);
  });

  test('generation blocks are told apart', () => {
    const { text, generated } = render(
      parseTemplate('{% for m in messages %}[{% generation %}{{ m }}!{% endgeneration %}]{% endfor %}'),
      { messages: ['a', 'bc'] },
    );
    assert.equal(text, '[a!][bc!]');
    assert.deepEqual(
      generated.map(([from, to]) => text.slice(from, to)),
      ['a!', 'bc!'],
    );
  });

  test('strftime knows English only, whatever the machine speaks', () => {
    const date = new Date(2024, 1, 5, 15, 4, 9, 7);
    assert.equal(
      strftime(date, '%Y-%m-%d %H:%M:%S|%d %b %Y|%A %B %-d|%a %y %j %I %p %U %W %w %u|%F %T %D|%e|%f|%%|%q'),
      '2024-02-05 15:04:09|05 Feb 2024|Monday February 5|Mon 24 036 03 PM 05 06 1 1|2024-02-05 15:04:09 02/05/24| 5|007000|%|%q',
    );
    assert.match(rendered("{{ strftime_now('%d %b %Y') }}"), /^\d\d [A-Z][a-z][a-z] \d{4}$/);
  });
});
