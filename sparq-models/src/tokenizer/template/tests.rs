use serde_json::Value;

use super::*;
use crate::tokenizer::tests::{byte_fallback, byte_level, load};

/// The templates in published form, and what transformers makes of them (`make.py` there).
const TEMPLATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/templates");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(TEMPLATES).join(name)).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];
    let tokens = tokens.map(|(role, token)| (role.to_owned(), token.to_owned()));
    ChatTemplate::new(Path::new("m/tokenizer_config.json"), source, BTreeMap::from(tokens)).unwrap()
}

fn say(role: &str, content: &str) -> BTreeMap<String, String> {
    [("role", role), ("content", content)].map(|(key, text)| (key.to_owned(), text.to_owned())).into()
}

#[test]
fn conversations_read_as_transformers_writes_them() {
    let expected: Value = serde_json::from_str(&read("expected.json")).unwrap();
    let mut compared = 0;
    for case in expected["cases"].as_array().unwrap() {
        let name = format!("{}, {}", case["template"], case["conversation"]);
        let chat = template(&read(case["template"].as_str().unwrap()));
        let messages = messages(&case["messages"]);
        let rendered = chat.render(&messages, case["add_generation_prompt"].as_bool().unwrap());
        match (&case["expected"], rendered) {
            (Value::String(text), Ok(rendered)) => {
                let today = Zoned::now().strftime("%d %b %Y").to_string();
                assert_eq!(rendered, text.replace("{date}", &today), "{name}");
            }
            (Value::Object(error), Err(rendered)) => {
                let message = error["error"].as_str().unwrap();
                assert!(rendered.to_string().contains(message), "{name}: {rendered}");
            }
            (expected, rendered) => panic!("{name}: expected {expected}, found {rendered:?}"),
        }
        compared += 1;
    }
    assert_eq!(compared, 9 * 7);
}

#[test]
fn a_template_knows_itself() {
    let rendered =
        template("{{ self is defined }}{% if self %}, true{% endif %}").render(&[say("user", "a")], false);
    assert_eq!(rendered.unwrap(), "True, true");
}

#[test]
fn pieces_of_templates_do_what_jinja2_does() {
    let expected: Value = serde_json::from_str(&read("expected.json")).unwrap();
    let messages = messages(&expected["messages"]);
    let snippets = expected["snippets"].as_array().unwrap();
    assert!(snippets.len() > 220);
    for snippet in snippets {
        let source = snippet[0].as_str().unwrap();
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(role, token)| (role.to_owned(), token.to_owned()));
        let rendered = ChatTemplate::new(Path::new("m"), source, BTreeMap::from(tokens))
            .and_then(|template| template.render(&messages, true));
        match (snippet[1].as_str(), rendered) {
            (Some(expected), Ok(rendered)) => assert_eq!(rendered, expected, "{source}"),
            (None, Err(_)) => {}
            (expected, rendered) => panic!("{source}: expected {expected:?}, found {rendered:?}"),
        }
    }
}

#[test]
fn what_would_read_otherwise_is_refused_when_it_runs() {
    for (source, expected) in [
        ("{{ messages|map(attribute='role') }}", "has no text: `|list` makes a list of it"),
        ("{{ ([1]|select) ~ 'a' }}", "has no text"),
        ("{{ ('%s'|safe) % '<' }}{{ 1 }}", "`%` of a safe text is not supported"),
        ("{{ '%s'|safe|format('<') }}", "a safe text is not supported"),
        ("{{ ('a'|safe).replace('a', '<') }}", "`replace` of a safe text is not supported"),
        ("{% macro f(a) %}{% endmacro %}{% set g = f %}{{ g.arguments }}", "`arguments` of a macro"),
        ("{% macro f(a=1) %}{% endmacro %}{{ namespace(f=f).f() }}", "holds a macro is not supported"),
        ("{{ '1e39'|int }}", "an integer beyond 128 bits"),
        ("{{ 2 ** 127 }}", "an integer beyond 128 bits"),
        ("{{ 2 ** 100 * 2 ** 100 }}", "an integer beyond 128 bits"),
        ("{{ (-8) ** 0.5 }}", "complex numbers are not supported"),
        ("{{ 5.bit_length is defined }}", "`bit_length` of a number is not supported"),
        ("{% set g = [1, 2]|select %}{% for x in g %}{% break %}{% endfor %}{{ g|list }}", "after a loop"),
    ] {
        let error = template(source).render(&[say("user", "hello")], true).unwrap_err().to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn templates_run_under_limits() {
    let fails =
        |source: &str| template(source).render(&[say("user", "hello")], true).unwrap_err().to_string();
    for (source, expected) in [
        ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "too many steps"),
        ("{{ [1]|tojson(indent=1000000000) }}", "a text of more than 64 MiB"),
        ("{{ 'a'|center(1000000000) }}", "a text of more than 64 MiB"),
        ("{{ '%1000000000s' % 'a' }}", "a text of more than 64 MiB"),
        ("{{ '{:1000000000}'.format('a') }}", "a text of more than 64 MiB"),
        (
            "{% set n = namespace(a=[]) %}{% for i in range(999) %}{% set n.a = [n.a] %}{% endfor %}",
            "nested too deeply",
        ),
        ("{% set n = namespace() %}{% set n.a = n %}", "holds a namespace"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion limit"),
    ] {
        let error = fails(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
    let doubling =
        "{% set n = namespace(a='abcdefgh') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}";
    let error = fails(doubling);
    assert!(error.contains("too many steps") || error.contains("64 MiB"), "{error}");
}

#[test]
fn a_templates_own_message_is_shown_without_codes_for_a_terminal() {
    let message = "a\nb\tc\x1b[31md";
    let refusal = template(&format!("{{{{ raise_exception('{message}') }}}}"));
    let text = refusal.render(&[say("user", "")], true).unwrap_err().to_string();
    assert!(text.ends_with("refuses the conversation: a\nb\tc\\u{1b}[31md"), "{text}");
    let long = template("{{ raise_exception('é' * 20000) }}").render(&[say("user", "")], true).unwrap_err();
    assert!((16 << 10..17 << 10).contains(&long.to_string().len()), "{}", long.to_string().len());
}

#[test]
fn options_choose_what_a_template_sees() {
    let mut chat = template("{{ tools|tojson }}{{ enable_thinking }}{{ style }}");
    let mut options = TemplateOptions {
        tools: Some(TemplateValue::json(r#"[{"z": 1, "a": [2.5]}]"#).unwrap()),
        no_thinking: true,
        ..Default::default()
    };
    options.variables.insert("style".to_owned(), TemplateValue::text("brief"));
    options.variables.insert("unheard_of".to_owned(), TemplateValue::from(true));
    assert_eq!(chat.set(&options), ["unheard_of"]);
    assert_eq!(chat.render(&[say("user", "")], true).unwrap(), "[{\"z\": 1, \"a\": [2.5]}]Falsebrief");
    assert_eq!(template("{{ messages }}").set(&options), ["style", "unheard_of", "tools", "enable_thinking"]);
    assert_eq!(template("{{ thinking }}").set(&options), ["style", "unheard_of", "tools"]);
    for long in ["[18446744073709551616]", r#"{"a\"1": -9223372036854775809}"#, "-0"] {
        assert!(TemplateValue::json(long).unwrap_err().to_string().contains("is not supported"), "{long}");
    }
    for short in ["[18446744073709551615, 1e30, -0.0]", r#""\\\"99999999999999999999""#] {
        assert!(TemplateValue::json(short).is_ok(), "{short}");
    }
    assert!(!TemplateValue::json("[1]").unwrap().is_list_of_objects());
}

/// The messages with their fields in the order of the file: objects of serde_json are sorted.
fn messages(list: &Value) -> Vec<crate::chat::Message> {
    list.as_array().unwrap().iter().map(|message| serde_json::from_value(message.clone()).unwrap()).collect()
}

#[test]
fn a_rendered_prompt_has_exactly_one_beginning_of_text() {
    let families = [
        ("llama-2", 1),
        ("llama-3", 1),
        ("llama-3.2", 1),
        ("mistral", 1),
        ("gemma", 1),
        // These models have none, and nothing adds one.
        ("qwen-2.5", 0),
        ("qwen-3", 0),
        ("phi-3", 0),
    ];
    for tokenizer in [byte_level(), byte_fallback()].map(|json| load(&json)) {
        let bos = tokenizer.bos_id().unwrap();
        let count = |ids: &[u32]| ids.iter().filter(|&&id| id == bos).count();
        for (family, expected) in families {
            let text = template(&read(&format!("{family}.jinja"))).render(&[say("user", "hello")], true);
            let ids = tokenizer.encode(&text.unwrap(), false).unwrap();
            assert_eq!(count(&ids), expected, "{family}");
            assert_eq!(ids.first() == Some(&bos), expected == 1, "{family}");
        }
        assert_eq!(count(&tokenizer.encode("hello", true).unwrap()), 1);
    }
}

#[test]
fn a_failure_shows_the_line_what_failed_and_the_way_out() {
    let chat = template("{{ bos_token }}\n{% for m in messages %}\n  {{ m.content.fnord(1) }}\n{% endfor %}");
    let error = chat.render(&[say("user", "hello")], true).unwrap_err();
    let text = error.to_string();
    for word in ["m/tokenizer_config.json", "line 3", "`.fnord(1)`", "unknown method"] {
        assert!(text.contains(word), "`{word}` in {text}");
    }
    assert!(error.hint().unwrap().contains("do without a chat template"));

    let refusal = template("\n{{ raise_exception('System role not supported') }}");
    let text = refusal.render(&[say("system", "hello")], true).unwrap_err().to_string();
    assert!(text.contains("line 2"), "{text}");
    assert!(text.ends_with("the template refuses the conversation: System role not supported"), "{text}");

    let broken = ChatTemplate::new(Path::new("m"), "{{ a }}\n{% for %}", BTreeMap::new()).unwrap_err();
    assert!(broken.to_string().contains("line 2") && broken.to_string().contains("syntax error"), "{broken}");
}

#[test]
fn dates_that_cannot_be_written_are_errors() {
    let year = template("{{ strftime_now('%Y') }}").render(&[say("user", "")], true).unwrap();
    assert_eq!(year, Zoned::now().year().to_string());
    assert!(template("{{ strftime_now('%5d') }}").render(&[say("user", "")], true).is_err());
}
