"""Jinja's filters, tests, functions and Python's methods, by moeflux's server and by jinja2 as transformers sets it up.

    python tools/reference/templates/expressions.py --moeflux target/release/moeflux

Prints what differs; exits with 1 if something does that is
not in KNOWN.
"""

import argparse
import logging
import pathlib

import expected
from server import Server

TEXT, LIST, MAP = "' Ab cÄß dé-fg\\n x\\ty '", "[3, 1, 2, 1]", "{'b': 2, 'a': [1, None], 'C': 'x'}"
PEOPLE = "[{'n': 'bo', 'a': 2, 'g': {'k': 1}}, {'n': 'Al', 'a': 1, 'g': {'k': 1}}, {'n': 'cy', 'a': 2, 'g': {'k': 2}}]"

FILTERS = [
    "-3 | abs", f"{PEOPLE} | map(attribute='n') | list", f"{PEOPLE[0:-1]}] | map(attribute='g.k') | list", "[1,2,3,4,5] | batch(2) | list",
    "[1,2,3,4,5] | batch(2, 'z') | list", f"{TEXT} | capitalize", "'ab' | center(7)", "'ab' | center", "none | default('x')",
    "x | default('x')",
    "'' | default('x', true)", "'' | d('x', boolean=true)", f"{MAP} | dictsort", f"{MAP} | dictsort(true)",
    "{'b': 1, 'a': 2} | dictsort(by='value')",
    "{'b': 1, 'a': 2} | dictsort(false, 'value', true)", "'<a&\"\\'>' | escape", "'<a>' | e", "'<a>' | forceescape",
    "1500 | filesizeformat",
    "1500000 | filesizeformat(true)", "5 | filesizeformat", f"{LIST} | first", "'' | first", "'7.5' | float", "'x' | float",
    "'x' | float(2.5)", "3 | float", "'%s-%d' | format('a', 3)",
    "'%05.2f|%-4s|%x|%r' | format(3.14159, 'a', 255, 'q')", "'%(a)s' | format(a=1)", f"{PEOPLE} | groupby('a')",
    f"{PEOPLE} | groupby('a') | map('first') | list", "'a\\nb\\n\\nc' | indent", "'a\\nb\\n\\nc' | indent(2, true)",
    "'a\\nb\\n\\nc\\n' | indent(2, first=true, blank=true)",
    "'{\\n' | indent(4, first=true)", "'a\\nb' | indent('> ', true)", "'\\n' | indent(2, true)", "'' | indent(2, true)",
    "'a\\r\\nb' | indent(2)", "'42' | int", "'x' | int", "'x' | int(7)",
    "'0x1F' | int(0, 16)", "3.9 | int", "'3.9' | int", "true | int", f"{MAP} | items | list", "x | items | list", "['a', 1, none] | join",
    "['a', 1, none] | join(', ')",
    f"{PEOPLE} | join(',', attribute='n')", "'abc' | join('-')", f"{LIST} | last", "'abc' | last", f"{LIST} | length", f"{MAP} | length",
    "'äb' | length", "x | length", "'abc' | list",
    f"{MAP} | list", f"{TEXT} | lower", f"{LIST} | map('string') | list", "['a','B'] | map('upper') | join",
    f"{PEOPLE} | map(attribute='z', default='-') | list",
    f"{LIST} | max", f"{LIST} | min", "['b', 'A', 'c'] | max", "['b', 'A', 'c'] | min(case_sensitive=true)",
    f"{PEOPLE} | max(attribute='a')", "[] | max", "{'a': [1, 'x', none, true, 1.5]} | pprint", f"{LIST} | random in [1,2,3]",
    f"{LIST} | reject('odd') | list", f"{LIST} | reject('equalto', 1) | list",
    f"{PEOPLE} | rejectattr('a', 'equalto', 2) | map(attribute='n') | list", "'aXbX' | replace('X', 'y')",
    "'aXbX' | replace('X', 'y', 1)", f"{LIST} | reverse | list", "'abc' | reverse", "2.567 | round", "2.567 | round(2)", "2.5 | round",
    "3.5 | round", "2.1 | round(method='ceil')", "2.987 | round(1, 'floor')", "7 | round", "1234.5 | round(-2)",
    "'<a>' | safe", f"{LIST} | select('odd') | list", f"{LIST} | select | list", f"{LIST} | select('gt', 1) | list",
    f"{PEOPLE} | selectattr('a', 'lt', 2) | list", f"{PEOPLE} | selectattr('g.k', 'eq', 1) | list", f"{PEOPLE} | selectattr('z') | list",
    f"{PEOPLE} | selectattr('z', 'defined') | list",
    "[1,2,3,4,5,6,7] | slice(3) | list", "[1,2,3,4,5,6,7] | slice(3, 'z') | list", f"{LIST} | sort", f"{LIST} | sort(reverse=true)",
    "['b', 'A', 'c'] | sort", "['b', 'A', 'c'] | sort(case_sensitive=true)",
    f"{PEOPLE} | sort(attribute='n') | map(attribute='n') | list", f"{PEOPLE} | sort(attribute='a,n') | map(attribute='n') | list",
    "1.0 | string", "[1, 'a', 1e-7] | string", "none | string", "true | string", "'<p>a  <b>b</b>\\n c</p>' | striptags", f"{LIST} | sum",
    f"{PEOPLE} | sum(attribute='a')", f"{LIST} | sum(start=10)", "'hello wORLD it\\'s a-b_c' | title",
    "'x' | tojson", "{'b': [1, 2.0, 1e-7, none, 'é<\\'&'], 'a': {}} | tojson", f"{MAP} | tojson(indent=2)",
    f"{MAP} | tojson(separators=(',', ':'))", "{'b': 1, 'a': 2} | tojson(sort_keys=true)", "'é\\U0001F600' | tojson(ensure_ascii=true)",
    "'  a ' | trim", "'xxaxx' | trim('x')",
    "'one two three four five' | truncate(12)", "'one two three four five' | truncate(12, true)",
    "'one two three four five' | truncate(12, false, '…', 0)", "'one two' | truncate(9)", "[1, 1, 'a', 'A'] | unique | list",
    "['a', 'A'] | unique(true) | list", f"{PEOPLE} | unique(attribute='a') | map(attribute='n') | list",
    "'aé' | upper", "'a b&c/d' | urlencode", "{'a': 'b c', 'd': 1} | urlencode", "'one two, three' | wordcount",
    "'one two three four five' | wordwrap(9)", "'see https://example.org now' | urlize", "{'a': 1, 'b': none} | xmlattr", "[] | first",
    "[[1, 2], [3]] | sum(start=[])",
]
TESTS = [
    f"{value} is {test}" for test in (
        "boolean", "callable", "defined", "undefined", "escaped", "false", "true", "filter", "float", "integer", "iterable", "lower", "upper", "mapping", "none", "number",
        "sequence", "string")
    for value in ("1", "1.5", "true", "none", "'ab'", "'AB'", "''", "[1]", "(1,)", "{'a': 1}", "x", "range(2)")
] + [
    "4 is divisibleby(2)", "4 is even", "4 is odd", "1 is eq(1)", "1 is equalto 1", "1 is ne 2", "2 is gt 1", "2 is greaterthan 1",
    "2 is ge 2", "1 is lt 2", "1 is lessthan 2", "1 is le 1", "1 is in [1]", "'a' is in 'abc'",
    "1 is sameas 1", "none is sameas none", "true is sameas 1", "'upper' is filter", "'odd' is test", "1 == 1.0", "true == 1",
    "1 is not none",
]
METHODS = [f"{TEXT}.{method}" for method in (
    "capitalize()", "casefold()", "center(30)", "center(30, '*')", "count('b')", "count('')", "encode().decode()", "endswith('y ')",
    "endswith(('x', 'y '))", "expandtabs()", "expandtabs(4)", "find('b')", "find('q')", "find('b', 4)",
    "format()", "index('b')", "isalnum()", "isalpha()", "isascii()", "isdecimal()", "isdigit()", "isidentifier()", "islower()",
    "isnumeric()", "isprintable()", "isspace()", "istitle()", "isupper()", "join(['1', '2'])", "ljust(25)", "ljust(25, '.')",
    "lower()", "lstrip()", "lstrip(' A')", "partition('b')", "partition('q')", "removeprefix(' A')", "removesuffix('y ')",
    "replace('b', 'Q')", "replace('b', 'Q', 1)", "replace('', '-')", "rfind('d')", "rindex('d')", "rjust(25)", "rjust(25, '.')",
    "rpartition(' ')", "rpartition('q')", "rsplit()", "rsplit(' ')", "rsplit(' ', 1)", "rsplit(none, 1)", "rstrip()", "rstrip(' y')",
    "split()", "split(' ')", "split(' ', 1)", "split(sep=' ', maxsplit=1)", "splitlines()", "splitlines(true)", "startswith(' A')",
    "startswith(('x', ' '))", "startswith('b', 2)", "strip()", "strip(' y')", "swapcase()", "title()", "upper()", "zfill(25)")] + [
    "'{} {} {{}}'.format(1, 'a')", "'{0}{1}{0}'.format(1, 'a')", "'{a:>5}|{b:.2f}|{c:05d}|{d!r}'.format(a='x', b=3.14159, c=42, d='q')",
    "'{:<6}|{:^6}|{:,}|{:e}|{:%}'.format('a', 'b', 1234567, 1234.5, 0.25)", "'{a[0]}{a[1]}'.format(a=[1, 2])",
    "'a=1;b=2'.split(';')[1].split('=')", "'-7'.zfill(4)", "'½'.isnumeric()", "'²'.isdigit()", "'٣'.isdecimal()", "'ß'.upper()",
    "'ŉ'.title()", "'İ'.lower()", "'abc'.isalpha()", "'Ab'.istitle()", "'a1'.isalnum()", "' '.isspace()", "'x1'.isidentifier()",
    "''.join([])", "'\\x1c'.split()", "'a\\x0bb\\u2028c'.splitlines()",
    "'abc'.maketrans('a', 'b')", "'abc'.translate({97: 'x'})",
    f"{LIST}.index(1)", f"{LIST}.count(1)", f"{LIST}.index(2, 1)", f"{LIST}.copy()", f"{MAP}.get('b')", f"{MAP}.get('q')",
    f"{MAP}.get('q', 7)", f"{MAP}.keys() | list", f"{MAP}.values() | list", f"{MAP}.items() | list", f"{MAP}.copy()",
    "{'items': 1, 'a': 2}.items() | list", "{'keys': 1}.keys() | list",
    "(1, 2).index(2)", "(1, 2, 1).count(1)", "dict(a=1, b=2)", "dict({'a': 1}, b=2)", "dict([('a', 1)])", "range(3) | list",
    "range(1, 7, 2) | list", "range(5, 0, -2) | list", "namespace(a=1).a", "cycler('a', 'b').next()", "joiner(', ')()",
    "lipsum is defined", "(1.5).is_integer()", "(255).bit_length()",
]
OPERATORS = [
    "7 // 2", "-7 // 2", "7 % 3", "-7 % 3", "7 / 2", "6 / 2", "2 ** 10", "2 ** -1", "2 ** 0.5", "1 + 2.0", "'a' * 3", "[1] * 2",
    "3 * 'a'", "[1] + [2]", "(1,) + (2,)", "'a' ~ 1 ~ none ~ true ~ 1.0", "'a' ~ 1e-7", "1e16", "1e-5", "1e22", "0.1 + 0.2", "1 < 2 < 3",
    "3 > 2 > 2", "'a' < 'b'", "not 1", "1 and 'x'", "'' or 'y'", "none or []", "1 in [1]", "'b' not in 'abc'",
    "'a' in {'a': 1}", "'abc'[1]", "'abc'[-1]", "'abcdef'[1:4]", "'abcdef'[::-1]", "'abcdef'[::2]", "'abcdef'[-3:]", "[1, 2, 3][1:]",
    "[1, 2, 3][-2]", "[1, 2, 3][::-1]", "(1, 2, 3)[1:]", "{'a': 1}['a']", "{'a': 1}.a", "{'a': 1}['q']", "[1][5]", "'x' if 1 else 'y'",
    "'x' if 0", "[1, 'a', none, true, 1.5, 'it\\'s', \"q\\\"\", '\\n\\t\\\\é\\x00']", "{'a': {'b': [1]}, 2: none}", "(1,)", "(1, 'a')",
    "()", "[]", "{}", "none", "true", "-1", "+1", "-(2)",
    "'%s' % 'x'", "'%d and %s' % (1, 'y')", "'%05.1f' % 2.345", "'%%'  % ()", "12345678901234567890", "99999999999999999999999999",
    "123 | string | length", "1_000", "0x1f", "0b11", "0o17", "'a' 'b'", "'\\u00e9\\x41\\101'", "1 == '1'", "[1] == [1]",
    "{'a': 1} == {'a': 1.0}", "[1, 2] < [1, 3]", "none == x", "x == y", "true + 1", "x", "1 if x else 2", "1.0", "100000000000000000.0",
    "-0.0",
]
EXPRESSIONS = [*FILTERS, *TESTS, *METHODS, *OPERATORS]

STATEMENTS = [
    "{% set a = [1] %}{% set _ = a.append(2) %}{{ a }}",
    "{% set n = namespace(l=[]) %}{% for i in range(3) %}{% set _ = n.l.append(i) %}{% endfor %}{{ n.l }}",
    "{% set n = namespace(l=[1, 2]) %}{% set f = n.l.pop(0) %}{{ f }}{{ n.l }}",
    "{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{{ d }}", "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.changed(i // 2) }};{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}", "{% for i in [1, 2, 3, 4] if i is even %}{{ i }}{{ loop.last }}{% endfor %}",
    "{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
    "{% for a in [[1, [2]], [3]] recursive %}{{ a if a is number else loop(a) }}{% endfor %}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, c=3, b='q') }}{{ m(1, 2, 3, 4, z=5) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}",
    "{% macro m(x) %}[{{ caller(x) }}]{% endmacro %}{% call(y) m(3) %}{{ y + 1 }}{% endcall %}", "{% filter upper %}abc{% endfilter %}",
    "{% set x %}a{{ 1 }}b{% endset %}{{ x }}{{ x | length }}", "{% set x | upper %}ab{% endset %}{{ x }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = b = 3 %}",
    "{% raw %}{{ x }}{% endraw %}", "a {#- c -#} b", "{% if x is defined %}a{% elif none %}b{% else %}c{% endif %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set n = namespace() %}{% set n.a = 1 %}{{ n.a }}{{ n.b is defined }}", "{% autoescape false %}<{% endautoescape %}",
    "  {% if 1 %}\n  a\n  {% endif %}\nb\n\n", "{% do [1] %}", "{%- generation -%} a {%- endgeneration -%} b",
    "{% generation %}\na\n{% endgeneration %}\n", "{{ 'a' -}}  \n b", "a\n  {{- 'b' }}", "{%+ if 1 %}a{% endif %}", "\n",
    "{{ raise_exception('no') }}", "{% for i in none %}{% endfor %}", "{{ x.y }}", "{{ x.y.z }}", "{{ none.a }}", "{{ 'a'.b }}",
    "{{ strftime_now('%Y') | length }}", "{{ strftime_now('%d %b %Y %j %U %p %I') | length }}",
    "{% for i in 'ab' %}{{ i }}{% endfor %}", "{% for i in {'a': 1} %}{{ i }}{% endfor %}", "{{ self is defined }}",
    "{% block a %}b{% endblock %}", "{{ [1, 2, 3] | map('add', 1) | list }}",
    "{% set s = namespace(t='') %}{% for i in [1, 2] %}{% set s.t = s.t ~ i %}{% endfor %}{{ s.t }}",
    "{{ messages[0].content.items is defined }}", "{{ messages[0]['role'] }}", "{{ messages | length }}", "{{ 1,2 }}",
    "{{ (messages | first).role }}{{ messages[-1].get('x', 'y') }}",
]

# What differs and why, by what a source contains.
NOT_FOR_PROMPTS = "no prompt is made of it"
ENGINE = "the template engine has it otherwise"
KNOWN = {
    **dict.fromkeys(["filesizeformat", "striptags", "wordwrap", "urlize", "xmlattr", "random", "lipsum", "cycler", "joiner"], NOT_FOR_PROMPTS),
    **dict.fromkeys(["encode()", "maketrans", "translate", "isprintable", "is_integer", "bit_length", "'\\x1c'.split"], NOT_FOR_PROMPTS),
    **dict.fromkeys(["'%s' %", "'%d and", "'%05.1f' %", "'%%'", "{{ +1", "{{ 1,2", "varargs", "%r", "!r", "{:%}", "\\U0001F600"], ENGINE),
    **dict.fromkeys(["max(attribute", "pprint", "is lower", "is filter", "range(2) is sequence", "self is", "dict([", ".index(2, 1)"], ENGINE),
    **dict.fromkeys(["1e-7] | string", "~ 1e-7"], "floats with an exponent in a list, or joined by `~`"),
    "'٣'": "digits outside of ASCII", "in none": "a loop over none has no rounds", ".append(": "refused by the sandbox of transformers",
    ".pop(": "refused by the sandbox of transformers",
}


def sources():
    return [f"{{{{ {expression} }}}}" for expression in EXPRESSIONS] + STATEMENTS


def compare(command, demo, port):
    """(Source, theirs, ours) of all that differ."""
    numbered = list(enumerate(sources()))
    # Each is a template of its own, since one that does not compile would take the others with it.
    server = Server(command, demo, [(str(number), source) for number, source in numbered], port)
    try:
        chat = {"messages": [{"role": "user", "content": "q"}]}
        for number, source in numbered:
            ours, theirs = server.rendered(number, chat), expected.rendered(source, chat)
            if ours[0] != theirs[0]:
                yield source, theirs, ours
    finally:
        server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moeflux", required=True, type=pathlib.Path)
    parser.add_argument("--demo", type=pathlib.Path, default=pathlib.Path(__file__).parents[3] / "models/demo")
    parser.add_argument("--port", type=int, default=18471)
    arguments = parser.parse_args()
    logging.disable()
    faults = 0
    for source, theirs, ours in compare(arguments.moeflux.resolve(), arguments.demo, arguments.port):
        reason = next((reason for part, reason in KNOWN.items() if part in source), None)
        faults += reason is None
        print(f"{source!r}\n    theirs {theirs[0] if theirs[1] is None else theirs[1]!r}\n    ours   {ours[0] if ours[1] is None else ours[1]!r}"
              + (f"\n    {reason}" if reason else ""), flush=True)
    print(f"{len(sources())} sources, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
