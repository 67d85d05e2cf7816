"""Writes tests/fixtures/jinja/cases.json: small templates, drawn and hand-written, with what Jinja renders as transformers sets it up.

    pip install jinja2 && python scripts/exportJinja.py
"""

import json
import pathlib
import random

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {
    "messages": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "Where's \"it\"?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1, "function": {"name": "find", "arguments": {"b": 1.0, "10": [True, None], "2": "ü"}}}]},
        {"role": "tool", "name": "find", "content": "9 C"},
    ],
    "s": " Grüße, ΣΑΣ 東京 👍\t<b>x</b>\n",
    "words": ["beta", "Alpha", "gamma", "alpha"],
    "numbers": [3, -7, 2.5, 0, 1e16, True],
    "empty": "",
    "pairs": {"b": 2, "a": {"x": 1}, "C": [1, 2]},
    "nothing": None,
}


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


HAND_WRITTEN = pathlib.Path(__file__).with_name("jinjaCases.txt").read_text(encoding="utf-8").split("\n---\n")


SEPARATORS = "separators=(',', ':')"
TRIM_X = "trim('x ')"
INDENT_ARROWS = "indent('>>')"


class Draw:
    """Draws expressions of a kind; most have a value, some an error, which must then be one here too."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def any(self, depth):
        return self.random.choice([self.text, self.number, self.list, self.bool, self.mapping])(depth)

    def leaf(self, *choices):
        return self.random.choice(choices)

    def text(self, depth):
        if depth <= 0:
            return self.leaf("s", "'a-b c'", "'xxAyxx'", "empty", "'Grüße'", "'a\\tb\\n'", "words[0]", "messages[1].content", "messages[0]['content']", "'1,2,,3'", "'%'", "'ǆß'", "'9'")
        t, n = self.text, self.number
        d = depth - 1
        pick = self.random.randrange(22)
        chars = self.leaf("'x'", "'ab'", "' x'", "''", "none", "'👍G'")
        if pick == 0: return f"({t(d)} + {t(d)})"
        if pick == 1: return f"({t(d)} ~ {self.any(d)})"
        if pick == 2: return f"{t(d)}.{self.leaf('strip', 'lstrip', 'rstrip')}({chars})"
        if pick == 3: return f"{t(d)}.{self.leaf('upper', 'lower', 'title', 'capitalize', 'swapcase', 'strip', 'lstrip', 'rstrip', 'casefold')}()"
        if pick == 4: return f"({t(d)} | {self.leaf('upper', 'lower', 'title', 'capitalize', 'trim', 'reverse', 'string', 'urlencode', 'wordcount')})"
        if pick == 5: return f"{t(d)}[{self.leaf('1:', ':-1', '::-1', '1:6:2', '-3:', '5:1:-2', ':', '0', '-1', '99', '2:99')}]"
        if pick == 6: return f"({self.any(d)} | string)"
        if pick == 7: return f"({self.any(d)} | tojson({self.leaf('', 'indent=2', 'ensure_ascii=true', 'sort_keys=true', SEPARATORS, 'indent=1, sort_keys=true')}))"
        if pick == 8: return f"{t(d)}.replace({self.leaf(chr(39)+'x'+chr(39), chr(39)+chr(39), chr(39)+'a'+chr(39))}, {t(0)}{self.leaf('', ', 1', ', -1', ', 0')})"
        if pick == 9: return f"({self.list(d)} | join({self.leaf('', chr(39)+'-'+chr(39), chr(39)+', '+chr(39))}))"
        if pick == 10: return f"({t(d)} * {self.leaf('2', '0', '-1', '3')})"
        if pick == 11: return f"('{self.leaf('%s', '%r', '%5s|', '%-5s|', '%.2s', '%s%%', '%10.3s')}' % ({t(d)},))"
        if pick == 12: return f"('{self.leaf('%d', '%5d', '%05d', '%+d', '% d', '%.2f', '%e', '%g', '%x', '%#x', '%o', '%08.3f', '%-8d|', '%i', '%.0f', '%G', '%.3d', '%c')}' % {n(d)})"
        if pick == 13: return f"'{self.leaf('{}', '{0}-{0}', '{:>8}', '{:<8}|', '{:^7}', '{!r}', '{:*^9}', '{:.2}')}'.format({t(d)})"
        if pick == 14: return f"'{self.leaf('{:d}', '{:5d}', '{:,}', '{:.2f}', '{:+}', '{:e}', '{:g}', '{:08.2f}', '{:x}', '{:#b}', '{:.1%}', '{}', '{:_}', '{:>6}', '{:=+7}', '{:n}')}'.format({n(d)})"
        if pick == 15: return f"({t(d)} if {self.bool(d)} else {t(d)})"
        if pick == 16: return f"({t(d)} | {self.leaf('replace', 'default')}({t(0)}, {t(0)}))"
        if pick == 17: return f"({t(d)} | {self.leaf('indent', 'indent(2, true)', 'indent(1, blank=true)', 'truncate(5)', 'truncate(4, true, chr)', 'center(20)', 'center(9)', 'first', 'last', TRIM_X, INDENT_ARROWS)})".replace(", chr", "")
        if pick == 18: return f"{t(d)}.{self.leaf('center(11)', 'ljust(9)', 'rjust(9, chr)', 'zfill(7)', 'expandtabs(4)', 'removeprefix(chr)', 'removesuffix(chr)', 'center(10, chr)')}".replace("chr", "'x'")
        if pick == 19: return f"{self.leaf(chr(39)+'-'+chr(39), chr(39)+chr(39))}.join({t(d)}.{self.leaf('split()', 'split(chr)', 'rsplit(chr, 1)', 'split(none, 1)', 'splitlines()', 'splitlines(true)', 'partition(chr)', 'rpartition(chr)', 'rsplit()', 'split(chr, 1)', 'rsplit(none, 1)')})".replace("chr", self.leaf("','", "'x'", "'a'"))
        if pick == 20: return f"({self.mapping(d)} | string)"
        return f"({n(d)} | string)"

    def number(self, depth):
        if depth <= 0:
            return self.leaf("0", "1", "7", "-7", "3", "2.5", "-0.5", "1.0", "1e20", "numbers[1]", "numbers[2]", "10", "0.1", "true", "100000000000000000000", "1e-7", "123456.789")
        n, d = self.number, depth - 1
        pick = self.random.randrange(13)
        if pick <= 3: return f"({n(d)} {self.leaf('+', '-', '*', '/', '//', '%')} {n(d)})"
        if pick == 4: return f"({n(d)} {self.leaf('//', '%', '/')} {self.leaf('3', '-3', '2.5', '-2', '7')})"
        if pick == 5: return f"({self.leaf('2', '-2', '1.5', '10', '0')} ** {self.leaf('3', '0', '2', '-1')})"
        if pick == 6: return f"(-{n(d)})"
        if pick == 7: return f"({n(d)} | {self.leaf('abs', 'int', 'float', 'round', 'round(1)', 'round(2, chr)', 'round(method=flr)', 'round(-1)')})".replace("chr", "'ceil'").replace("flr", "'floor'")
        if pick == 8: return f"({self.list(d)} | length)"
        if pick == 9: return f"({self.text(d)} | {self.leaf('length', 'int', 'float', 'int(5)', 'int(-1, 16)', 'wordcount', 'count')})"
        if pick == 10: return f"{self.text(d)}.{self.leaf('find', 'rfind', 'count', 'index')}({self.leaf(chr(39)+'x'+chr(39), chr(39)+chr(39), chr(39)+'a'+chr(39))}{self.leaf('', ', 1', ', -3', ', 1, 4')})"
        if pick == 11: return f"({self.list(d)} | {self.leaf('sum', 'min', 'max', 'first', 'last')})"
        return f"({n(d)} if {self.bool(d)} else {n(d)})"

    def bool(self, depth):
        if depth <= 0:
            return self.leaf("true", "false", "nothing", "missing is defined", "s is string", "1 == 1.0", "'a' < 'B'", "not empty", "True", "none is none")
        d = depth - 1
        a = self.any
        pick = self.random.randrange(9)
        if pick == 0: return f"({a(d)} {self.leaf('==', '!=')} {a(d)})"
        if pick == 1: return f"({self.number(d)} {self.leaf('<', '<=', '>', '>=')} {self.number(d)})"
        if pick == 2: return f"({self.text(d)} {self.leaf('in', 'not in')} {self.text(d)})"
        if pick == 3: return f"({a(d)} {self.leaf('in', 'not in')} {self.list(d)})"
        if pick == 4: return f"({self.bool(d)} {self.leaf('and', 'or')} {a(d)})"
        if pick == 5: return f"(not {a(d)})"
        if pick == 6: return f"({a(d)} is {self.leaf('', 'not ')}{self.leaf('string', 'number', 'mapping', 'iterable', 'sequence', 'integer', 'float', 'boolean', 'none', 'true', 'false', 'defined', 'callable', 'lower', 'upper', 'sameas none', 'in words', 'eq 1')})"
        if pick == 7: return f"({self.number(d)} is {self.leaf('odd', 'even', 'divisibleby 3', 'divisibleby(2)', 'gt 2', 'le(3)')})"
        return f"{self.text(d)}.{self.leaf('isdigit', 'isalpha', 'isspace', 'isupper', 'islower', 'istitle', 'isalnum', 'isnumeric', 'isascii')}()" if self.random.random() < 0.5 else f"{self.text(d)}.{self.leaf('startswith', 'endswith')}({self.leaf(chr(39)+'x'+chr(39), '('+chr(39)+'a'+chr(39)+', '+chr(39)+' '+chr(39)+')')})"

    def list(self, depth):
        if depth <= 0:
            return self.leaf("words", "numbers", "[]", "[1, 2.0, 'a']", "range(4)", "('a', 1)", "pairs", "messages", "range(5, 0, -2)", "(1,)")
        d = depth - 1
        pick = self.random.randrange(12)
        if pick == 0: return f"[{self.any(d)}, {self.any(d)}]"
        if pick == 1: return f"({self.any(d)}, {self.any(d)})"
        if pick == 2: return f"({self.list(d)} | {self.leaf('list', 'sort', 'reverse | list', 'unique | list', 'sort(reverse=true)', 'sort(case_sensitive=true)', 'batch(2) | list', 'slice(2) | list', 'batch(3, 0) | list', 'slice(3, 0) | list', 'map(chr) | list')})".replace("chr", self.leaf("'string'", "'upper'", "'length'", "'tojson'", "'int'"))
        if pick == 3: return f"{self.list(d)}[{self.leaf('1:', ':-1', '::-1', '::2', '-2:')}]"
        if pick == 4: return f"({self.list(d)} + {self.list(d)})"
        if pick == 5: return f"{self.text(d)}.{self.leaf('split()', 'split(chr)', 'splitlines()', 'partition(chr)')}".replace("chr", self.leaf("','", "'x'"))
        if pick == 6: return f"(messages | {self.leaf('map(attribute=chr) | list', 'selectattr(chr) | list', 'selectattr(chr, eq, usr) | list', 'rejectattr(chr, eq, usr) | list', 'map(attribute=nam, default=usr) | list', 'groupby(chr)', 'sort(attribute=chr)', 'selectattr(nam, dfd) | list')})".replace("chr", "'role'").replace("eq", "'equalto'").replace("usr", "'user'").replace("nam", "'name'").replace("dfd", "'defined'")
        if pick == 7: return f"({self.list(d)} | {self.leaf('select', 'reject', 'select(chr)', 'reject(chr)')} | list)".replace("chr", self.leaf("'string'", "'number'", "'none'", "'mapping'"))
        if pick == 8: return f"{self.mapping(d)}.{self.leaf('keys()', 'values()', 'items()')}"
        if pick == 9: return f"({self.mapping(d)} | {self.leaf('dictsort', 'items | list', 'list', 'dictsort(by=chr)', 'dictsort(true)', 'dictsort(reverse=true)')})".replace("chr", "'value'")
        if pick == 10: return f"({self.list(d)} * {self.leaf('2', '0')})"
        return f"({self.list(d)} if {self.bool(d)} else {self.list(d)})"

    def mapping(self, depth):
        if depth <= 0:
            return self.leaf("pairs", "{}", "{'a': 1}", "messages[2]", "{1: 'x', 'b': none}", "dict(a=1, b='c')", "{2: 1, 1: 2, true: 3}")
        d = depth - 1
        return self.leaf(f"{{'k': {self.any(d)}, {self.leaf('1', '1.0', 'none', chr(39)+'z'+chr(39))}: {self.any(d)}}}", f"dict(x={self.any(d)})", f"dict({self.mapping(d)}, y={self.number(d)})")


def render(env, template):
    try:
        return env.from_string(template).render(**VARIABLES)
    except RecursionError:
        raise
    except Exception as error:  # whatever Python raises must be an error here too
        return {"error": type(error).__name__, "message": str(error)[:200]}


def main():
    env = environment()
    draw = Draw(1)
    templates = [text for text in HAND_WRITTEN if text != ""]
    seen = set(templates)
    drawn = 0
    while drawn < 900:
        template = "{{ " + draw.any(draw.random.choice([1, 1, 2, 2, 3])) + " }}"
        if template in seen or len(template) > 300:
            continue
        expected = render(env, template)
        # Python's addresses and errors say little; few of the latter are enough.
        if isinstance(expected, str) and (" at 0x" in expected or len(expected) > 3000):
            continue
        # Newer versions of Python can hash a slice.
        if not isinstance(expected, str) and "slice" in expected["message"]:
            continue
        if not isinstance(expected, str) and draw.random.random() < 0.7:
            continue
        seen.add(template)
        templates.append(template)
        drawn += 1
    cases = [[template, render(env, template)] for template in templates]
    target = pathlib.Path(__file__).parent.parent / "tests/fixtures/jinja"
    target.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    variables = json.dumps(VARIABLES, ensure_ascii=True)
    (target / "cases.json").write_text(f'{{"jinja": "{jinja2.__version__}", "variables": {variables},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    errors = sum(not isinstance(expected, str) for _, expected in cases)
    print(f"{len(cases)} cases, {errors} of them errors")


main()
