use super::*;

fn text(source: &str) -> String {
    Rewritten::new(source).unwrap().text
}

fn error(source: &str) -> (String, String) {
    let (source, error) = Rewritten::new(source).unwrap_err();
    (source[error.range].to_owned(), error.message)
}

#[test]
fn what_minijinja_takes_as_it_is_stays() {
    for source in [
        "a {{ b }} {% if c and not d %}e{% elif f is not none %}{% else %}g{% endif %}",
        "{%- for a in [] -%}{% endfor %}".replace("[]", "_iter([])").as_str(),
        "{{ x[1]['a'].b(c, d=e)|f(1)|g is h }} {# {{ % #} {{ 1 // 4 - -5 }}",
        "{% raw -%} {{ a % b }} {% endraw %}{{ {'a': [1, (2,)]} }}",
    ] {
        // Loops are marked always; what is marked already is marked again.
        assert_eq!(text(source).replace("_iter(_iter([]))", "_iter([])"), source);
    }
}

#[test]
fn operators_of_python_become_calls_around_their_operands() {
    for (source, expected) in [
        ("{{ a + b + c }}", "{{ _add(a , b , c) }}"),
        ("{{ a + b - c + d }}", "{{ _add(_add(a , b) - c , d) }}"),
        ("{{ a ~ b + c ~ d }}", "{{ _add(_concat(a , b) , _concat(c , d)) }}"),
        ("{{ a * b % c % d }}", "{{ _mod(_mul(a , b) , c , d) }}"),
        ("{{ a ** b ** -c * 2 * 3 / d }}", "{{ _mul(_pow(a , b , _neg(c)) , 2 , 3) / d }}"),
        ("{{ a.real }}{{ a['real'] }}", "{{ _attr(a, \"real\") }}{{ _item(a, 'real') }}"),
        ("{{ '%s' % (a, b)|f }}", "{{ _mod('%s' , (a, b)|f) }}"),
        ("{{ -x % +y }}", "{{ _mod(_neg(x) , _pos(y)) }}"),
        ("{{ a, b }}", "{{ (a, b) }}"),
        ("{{ x.items }}{{ x.items() }}", "{{ _attr(x, \"items\") }}{{ x.items() }}"),
        ("{{ x['items'] }}{{ x['a'] }}", "{{ _item(x, 'items') }}{{ x['a'] }}"),
        ("{{ x[a][0][1:][-1] }}", "{{ _slice(_item(x, a)[0], 1, none, none)[-1] }}"),
        (
            "{{ x[:] }}{{ x[::a] }}{{ x[a:b:c] }}",
            "{{ _slice(x, none, none, none) }}{{ _slice(x, none, none, a) }}{{ _slice(x, a, b, c) }}",
        ),
        ("{{ {'a': 1, b: 2} }}", "{{ {'a': 1, _key(b): 2} }}"),
        ("{{ f.arguments }}", "{{ _attr(f, \"arguments\") }}"),
        ("{{ a < b == c }}{{ a == b }}", "{{ _compare(a , \"<\",  b , \"==\",  c) }}{{ a == b }}"),
        ("{{ a not in[b] }}", "{{ _compare(a , \"not in\", [b]) }}"),
        ("{{ -1 + -x }}", "{{ _add(-1 , _neg(x)) }}"),
        ("{{ not'a' ~ b }}", "{{ not _concat('a' , b) }}"),
        (
            "{% for a in b if c recursive %}{{ loop(d) }}",
            "{% for a in _iter(b) if c recursive %}{{ loop(_iter(d)) }}",
        ),
        ("{% set a, b = 1, 2 %}", "{% set a, b = _stored(_row((1, 2))) %}"),
        ("{% set a.b = 1 %}", "{% set a.b = _kept(1) %}"),
        ("{% if a: %}", "{% if a  %}"),
    ] {
        let close = if source.contains("for") {
            "{% endfor %}"
        } else if source.contains("if") {
            "{% endif %}"
        } else {
            ""
        };
        assert_eq!(text(&(source.to_owned() + close)), expected.to_owned() + close);
    }
}

#[test]
fn macros_read_the_namespaces_that_they_write_and_late_defaults() {
    let source = "{% macro f(a, b=1, c=a + 1) -%}\n{% set n.x = b %}{% set n.y %}t{% endset %}{% endmacro %}";
    let expected = "{% macro f(a, b=1, c=_unset)  %}{% set a = _argument(a) %}{% set b = _argument(b) \
                    %}{% if c is undefined %}{% set c = _add(a , 1) %}{% endif %}{% set c = _argument(c) -%}\n\
                    {% set n.x = _kept(b, n) %}{% set n.y  %}{% if n %}{% endif %}t{% endset %}{% endmacro %}";
    assert_eq!(text(source), expected);
}

#[test]
fn tags_for_training_are_scopes_that_keep_their_whitespace_control() {
    let source = "a {%- generation -%} b {%- endgeneration %} {{ '{% generation %}' }}";
    assert_eq!(text(source), "a {%- with -%} b {%- endwith %} {{ '{% generation %}' }}");
}

#[test]
fn line_breaks_and_escapes_are_those_of_python() {
    assert_eq!(text("a\r\nb\rc\n\r\n"), "a\nb\nc\n");
    assert_eq!(text(r"{{ 'a\'b\x41\u00e9\d\n\101' }}"), "{{ \"a'bAé\\\\d\\nA\" }}");
    assert_eq!(text("{{ 'a\\\nb' }}"), "{{ \"ab\"\n }}");
    assert_eq!(text(r"{{ '\U0001f600' }}"), "{{ \"😀\" }}");
    assert_eq!(error(r"{{ '\ud83d\ude00' }}").1, "`\\u` of half a character");
    assert_eq!(text("{% raw %}\n{% endraw %}"), "{% raw +%}\n{% endraw %}");
}

#[test]
fn places_of_the_text_are_found_in_the_source() {
    let rewritten = Rewritten::new("x {{ a + b.items }} y {% for c in d %}{% endfor %}").unwrap();
    let piece = |piece: &str| {
        let start = rewritten.text.find(piece).unwrap();
        &rewritten.source[rewritten.range(start..start + piece.len())]
    };
    assert_eq!(piece("_add(a , _attr(b, \"items\"))"), "a + b.items");
    assert_eq!(piece("_attr(b, \"items\")"), "b.items");
    assert_eq!(piece("_iter(d)"), "d");
    assert_eq!(piece(" y "), " y ");
    assert_eq!(piece("endfor"), "endfor");
}

#[test]
fn what_is_no_jinja_is_named_with_its_place() {
    for (source, piece, message) in [
        ("a {{ b", "{{", "the tag has no `}}`"),
        ("{# a", "{#", "the comment has no end"),
        ("{{ (a] }}", "]", "unexpected `]`"),
        ("{{ a b }}", "b", "unexpected `b`, expected the end of the tag"),
        ("{{ }}", "{{ }}", "unexpected end of the tag, expected an expression"),
        ("{{ 'a }}", "'a }}", "the text has no closing quote"),
        ("{% do x %}", "{% do x %}", "unknown statement `do`"),
        ("{% include 'x' %}", "{% include 'x' %}", "`include` needs another template, and there is none"),
        ("{% if a %}{% endfor %}", "{% endfor %}", "unexpected `endfor`, expected `endif`"),
        ("{% if a %}", "", "unexpected end of the template, expected `endif`"),
        ("{{ a is b is c }}", "a is b", "tests cannot be chained with `is`"),
    ] {
        assert_eq!(error(source), (piece.to_owned(), message.to_owned()), "{source}");
    }
}

#[test]
fn what_minijinja_does_otherwise_is_refused_by_name() {
    let in_a_loop = |open: &str, close: &str| {
        format!(
            "{{% for x in y %}}{{% {open} %}}{{% if x %}}{{% break %}}{{% endif %}}{{% {close} %}}{{% endfor %}}"
        )
    };
    for (open, close) in [
        ("set z", "endset"),
        ("filter trim", "endfilter"),
        ("with z = x", "endwith"),
        ("call f()", "endcall"),
        ("generation", "endgeneration"),
        ("macro f()", "endmacro"),
    ] {
        let name = open.split(' ').next().unwrap();
        let message = format!("`break` inside of `{name}` is not supported");
        let jumps = in_a_loop(open, close);
        assert_eq!(error(&jumps), ("{% break %}".to_owned(), message), "{jumps}");
        let continues = jumps.replace("break", "continue");
        assert!(error(&continues).1.starts_with("`continue` inside of"), "{continues}");
    }
    for (source, piece, message) in [
        (
            "{% for x in y %}\n{% block b %}{{ x }}{% endblock %}{% endfor %}",
            "{% block b %}",
            "a `block` inside of `for` is not supported",
        ),
        (
            "{% block a %}{{ self.a is defined }}{% endblock %}",
            "self",
            "what `self` names, the blocks of the template, is not supported",
        ),
        ("{% break %}", "{% break %}", "`break` outside of a loop"),
        ("{{ 1e999 }}", "1e999", "a number beyond those of 64 bits"),
        ("{% if a -%}\x1c b{% endif %}", "\x1c", "the character U+001C beside a tag is not supported"),
        ("a\n\x1e {% if a %}{% endif %}", "\x1e", "the character U+001E beside a tag is not supported"),
    ] {
        assert_eq!(error(source), (piece.to_owned(), message.to_owned()), "{source}");
    }
    assert!(Rewritten::new("a \x1f b {{ c }}").is_ok());
}

#[test]
fn what_nests_without_end_is_refused() {
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("a.b or ", "c"), ("a|b(", ")")] {
        let deep = |count| format!("{{{{ {}a{} }}}}", open.repeat(count), close.repeat(count));
        assert!(Rewritten::new(&deep(20)).is_ok() || close == "c", "{open}");
        assert!(error(&deep(5000)).1.contains("nested deeper"), "{open}");
    }
    let blocks = "{% if a %}".repeat(5000);
    assert!(error(&blocks).1.contains("nested deeper"));
    let alternatives = format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(5000));
    assert!(error(&alternatives).1.contains("behind more than"));
    assert!(error(&format!("{{{{ a{} }}}}", "|b".repeat(5000))).1.contains("nested deeper"));
    assert!(Rewritten::new(&format!("{{{{ a{} }}}}", " + a".repeat(5000))).is_ok());
}
