"""Pieces of templates, each for one thing that Jinja2 or Python does."""

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Hi <b> "x" & é 日 😀'},
]
T = "messages[1].content"
W = "'one-two-three'"

EXPRESSIONS = [
    # Values as Python writes them.
    "none, true, 1, 1.0, 1e3, 1e-7, 1e16, 123456789012345678901234567890, 0x1f, 1_000", "[1, 'a', none, (1,), {}]",
    "messages", "{'a': none, 1: true}", "['a\\'b', 'c\"d', 'e\\nf', '\\x00é\\u200b']", "10 ** 20, 2 ** -1, 7 // 2, -7 // 2, -7 % 3, 7 / 2",
    "0.1 + 0.2", "(1, 2), (1,), ()", "undefined_name, undefined_name is defined", "undefined_name.x", "messages[0].nope", "messages[5]",
    "none is iterable, none is sequence, 'a' is sequence, {} is sequence, range(3) is sequence, 1 is iterable",
    "namespace(a=1) is mapping, messages[0] is mapping, true is number, true is integer, 1.0 is float, 'a' is lower",
    "range is callable, 'x' is callable", "1 == 1.0, true == 1, '1' == 1, 'a' < 'b'", "'a' in messages[0], 'Hi' in " + T, "1 < 2 < 3, 3 > 2 > 2",
    "+3, -3, +3.5", "'ab' * 3, [0] * 2", "'a' ~ 1 ~ none ~ 1e-7 ~ [1e20]", "'a' if false", "['a'] + ['b'], (1,) + (2,)", "'a' + 1", "[1] + (2,)",
    "'%s-%05.1f-%d-%r' % ('a', 2.25, 3.9, 'q')", "'%s' % messages[0].role", "'%(a)s' % {'a': 1}", "'%5s|%-5s|' % ('é', 'b')", "'%d' % 'x'", "7 % 3, 7.5 % 2",
    "'%s %s' % ('a',)", "messages[0].items is callable",
    "'a\\tb\\'c\\d\\x41\\101\\u00e9'", "'a' 'b'", "'abc'[::-1], 'abc'[1:], [1, 2, 3][::-2], [1, 2, 3][-2:]", "[[1, 2], [3]][0][1]",
    # Methods.
    f"{W}.split('-'), {W}.split('-', 1), {W}.rsplit('-', maxsplit=1), ' a  b '.split(), 'a b c'.split(none, 1), ''.split(), ''.split('-')",
    f"{W}.removeprefix('one-'), {W}.removesuffix('-three'), {W}.partition('-'), {W}.rpartition('-'), {W}.partition('+')",
    f"{W}.find('t'), {W}.rfind('t'), {W}.index('two'), {W}.count('e'), {W}.find('z'), 'é日'.find('日')", f"{W}.index('z')",
    f"{W}.startswith(('a', 'one')), {W}.endswith('three'), {W}.startswith('two', 4)", f"{W}.replace('-', '+', 1), {W}.replace('', '.')",
    f"{W}.title(), {W}.capitalize(), {W}.upper(), 'aB'.swapcase(), \"they're\".title()", "' a '.strip(), 'xax'.strip('x'), 'xax'.lstrip('x'), 'xax'.rstrip('x')",
    "'7'.zfill(3), '-7'.zfill(4), 'a'.ljust(3) ~ '|', 'a'.rjust(3, '.'), 'a'.center(4) ~ '|'", "'a\\nb\\r\\nc'.splitlines(), 'a\\nb'.splitlines(true)",
    "'-'.join(['a', 'b']), '-'.join('ab')", "'-'.join([1])", "'{} {1}'.format(1)", "'{}-{:>4}-{a}'.format('x', 'y', a=none)", "'12'.isdigit(), 'a1'.isalnum(), ' '.isspace(), ''.isspace()",
    "messages[0].get('role'), messages[0].get('x'), messages[0].get('x', 1)", "messages[0].keys()|list, messages[0].values()|list, messages[0].items()|list", "messages[0].copy().role",
    "[1, 2].append(3)", "{}.update({'a': 1})", "messages.pop()", "[1, 2, 2].count(2), [1, 2].index(2)", "'a'.fnord()",
    # Filters.
    f"messages|tojson, {T}|tojson", "messages|tojson(indent=2)", "{'b': [1, 1e-7, none], 'a': {}}|tojson(indent=4, sort_keys=true)", "{'b': 'é'}|tojson(ensure_ascii=true), [1, 2]|tojson(separators=(',', ':'))",
    "{none: 1, true: 2, 1.5: 3}|tojson, [1, (2, 3)]|tojson", "undefined_name|tojson", "undefined_name|length, ''|length, messages|length", "none|length",
    "''|default('q', boolean=true), none|default('x'), none|default('x', true), undefined_name|default('x')", "[1, 3, 2]|sort, [1, 3, 2]|sort(true), ['b', 'A']|sort, ['b', 'A']|sort(case_sensitive=true)",
    "messages|map(attribute='role')|list, messages|map(attribute='x', default='y')|list, ['a']|map('upper')|list", "messages|selectattr('role', 'equalto', 'user')|list|length, messages|rejectattr('role', 'in', ['user'])|list|length",
    "messages|groupby('role')|length, messages|groupby('role')", "[1, 2, 3]|batch(2)|list, [1, 2, 3]|batch(2, 0)|list, [1, 2, 3]|slice(2)|list", "{'b': 1, 'a': 2}|dictsort, {'b': 1, 'a': 2}|items|list, {'b': 1, 'a': 2}|dictsort(by='value')",
    "[1, 2, 1]|unique|list, [1, 2]|sum, [1, 2]|max, [1, 2]|min, []|max is defined", "[1, 2]|join(','), 'abc'|join('-'), messages|join(',', attribute='role')", "3.7|round, 2.5|round, 3.14159|round(2), 3.7|int, '42.9'|int, 'x'|int, 'x'|int(7), '0x1f'|int(base=16), '3'|float",
    "'abc'|reverse, [1, 2]|reverse|list, 'abc'|first, 'abc'|last, []|first is defined", "'a-b (c)'|title, 'aB'|capitalize, \"they're\"|title", "' x '|trim, 'xax'|trim('x'), 'aaa'|replace('a', 'b', 2)", "'a\\n\\nb'|indent, 'a\\nb'|indent(2, true), 'a\\nb'|indent('> ')",
    "'a b c'|wordcount, 'abc'|center(7) ~ '|', 'one two three four'|truncate(9)", "'<\\'\">&'|e", "'<x>'|safe + '<y>'", "'%s=%d'|format('a', 3), '%(k)s'|format(k=1)", "'abc'|list, {'a': 1}|list", "1|string + '2', none|string, 1e-7|string", "'x'|fnord", "'x' is fnord", "'a,b'|split(',')",
    "bos_token ~ eos_token", "dict(a=1), dict({'b': 2}, c=3)", "strftime_now(format='%%')", "fnord(1)", "'upper' is filter, 'odd' is test",
]

SNIPPETS = ["{{ " + expression + " }}" for expression in EXPRESSIONS] + [
    "{% for m in messages %}\r\n[{{ m.role }}]\r\n{% endfor %}\r\nend", "{{ 'a\r\nb\rc' }}", "a\rb\r\n", "a\n\n",
    "{% if tools is iterable and tools|length > 0 %}T{% else %}none{% endif %}",
    "{% set ns = namespace(n=0) %}{% macro mark(v) %}{% set ns.n = v %}{% endmacro %}{{ mark(3) }}{{ ns.n }}",
    "{% macro wrap() %}({{ caller() }}){% endmacro %}{% set ns = namespace(n=0) %}{% call wrap() %}x{% set ns.n = 2 %}{% endcall %}{{ ns.n }}",
    "{% macro f(a, b=a, c='x') -%}\n{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(a=3, c=4) }}",
    "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}",
    "{% for c in 'abc' %}{{ c }}{% if not loop.last %},{% endif %}{% endfor %}", "{% for x in none %}{% endfor %}", "{% for x in undefined_name %}{% else %}e{% endfor %}", "{% for k in messages[0] %}{{ k }}{% endfor %}",
    "{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.cycle('a', 'b') }}{{ loop.revindex0 }}{{ loop.changed(m.role) }}{% endfor %}",
    "{% for x in [1, [2, [3]]] recursive %}{% if x is number %}{{ x }}{% else %}<{{ loop(x) }}>{% endif %}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a + b + c }}{% endfor %}", "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.length }}{% endfor %}", "{% for i in range(5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "{% set ns = namespace(x=[]) %}{% for i in [1, 2] %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set x %}a{{ 1 }}{% endset %}{{ x }}", "{% set x | upper %}a{% endset %}{{ x }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% filter upper | replace('A', 'b') %}a{% endfilter %}", "{%- generation -%} x {%- endgeneration -%} y", "{{ '{% generation %}' }}",
    "{% raw %}\n{{ x }}{% endraw %}\ny", "   {% if true %}\n  x\n   {% endif %}\n  y\n", "{% if true +%}\nx{% endif %}", "  {%+ if true %}x{% endif %}", "a {#- c -#} b\n {# d #}\ne", "# x\n{{ 1 }}\n## y\n", "{{ 1 -}}  \n x", "{% if 1: %}a{% endif %}",
    "{% do [1].append(2) %}", "{% include 'x' %}", "{% if %}", "{{ a b }}", "{{ 1 +}}", "{% for x in [1] %}", "{% endif %}", "{{ (1 }}", "{{ 'a }}", "{# a", "{% set x.y = 1 %}", "{{ raise_exception('no') }}",
    "{% macro f() %}a{% endmacro %}{{ f() ~ f() }}", "{% set x = namespace(a=1) %}{{ x.a }}{{ x.b is defined }}",
]
