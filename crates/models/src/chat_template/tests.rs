//! Templates: variables, Python habits, JSON, refusals and bounds.

use serde_json::json;

use super::*;

const CHATML: &str = "{%- for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";

fn options(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Renders `template` over one user turn with `given` as further variables.
fn check(template: &str, given: Value, expected: &str) {
    let template = ChatTemplate::new(template, Some("<s>"), None).unwrap();
    let messages = json!([{"role": "user", "content": "Hi"}]);
    assert_eq!(template.render(&messages, &options(given)).unwrap(), expected);
}

fn refusal(template: &str) -> String {
    let template = ChatTemplate::new(template, None, None).unwrap();
    template.render(&json!([]), &Map::new()).unwrap_err().to_string()
}

#[test]
fn variables() {
    check(CHATML, json!({}), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    check(CHATML, json!({"add_generation_prompt": false}), "<|im_start|>user\nHi<|im_end|>\n");
    check("{{ bos_token }}|{{ eos_token }}|{{ tools }}", json!({}), "<s>||None");
    check("{{ enable_thinking is defined }} {{ x }}", json!({"x": 1.0}), "False 1.0");
    check("{{ bos_token }}", json!({"bos_token": "other"}), "other");
}

#[test]
fn blocks_are_trimmed_and_loops_controlled() {
    check("  {% if true %}\nA\n  {% endif %}\nB\n", json!({}), "A\nB");
    check(
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        json!({}),
        "02",
    );
    check(
        "a {%- generation -%} b {%- endgeneration %} c{% generation %}d{% endgeneration %}",
        json!({}),
        "ab cd",
    );
    check("{% raw %}{{ x }}{% endraw %}{# note #}", json!({}), "{{ x }}");
}

#[test]
fn python_methods() {
    check(
        "{{ ' a b '.strip() }}|{{ 'a,b'.split(',')[-1] }}|{{ 'abc'.startswith('ab') }}",
        json!({}),
        "a b|b|True",
    );
    check(
        "{{ 'x\\n'.rstrip('\\n') }}|{{ {'a': 1}.get('b', 2) }}|{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
        json!({}),
        "x|2|a1",
    );
    check(
        "{{ messages[::-1]|length }}{{ messages[0]['content'] | upper }}{{ 'TITLE'.title() }}",
        json!({}),
        "1HITitle",
    );
    check(
        "{{ ['b', 'a'] | sort | join('-') }}{{ none }}{{ [1, 'a'] is iterable }}",
        json!({}),
        "a-bNoneTrue",
    );
}

#[test]
fn json_is_written_as_python_does() {
    let value = json!({"value": {"z": [1, 2.0, 1e-7, true, null], "a": "<é>&'\"\\\n\u{1}😀"}});
    check(
        "{{ value | tojson }}",
        value.clone(),
        r#"{"z": [1, 2.0, 1e-07, true, null], "a": "<é>&'\"\\\n\u0001😀"}"#,
    );
    check(
        "{{ value | tojson(indent=2) }}",
        json!({"value": {"b": [], "a": [1, {}], "c": {"d": 2}}}),
        "{\n  \"b\": [],\n  \"a\": [\n    1,\n    {}\n  ],\n  \"c\": {\n    \"d\": 2\n  }\n}",
    );
    check(
        "{{ value | tojson(sort_keys=true, ensure_ascii=true) }}",
        json!({"value": {"b": "é😀", "a": 1}}),
        r#"{"a": 1, "b": "\u00e9\ud83d\ude00"}"#,
    );
    check("{{ value | tojson(separators=(',', ':')) }}", json!({"value": [1, {"a": 2}]}), r#"[1,{"a":2}]"#);
    check(
        "{{ value | tojson }}",
        json!({"value": [u64::MAX, i64::MIN, 12345678901234567890u64]}),
        "[18446744073709551615, -9223372036854775808, 12345678901234567890]",
    );
    assert_eq!(
        refusal("{{ nothing | tojson }}"),
        "the chat template refused the conversation: tojson: a value of kind undefined cannot be written as JSON"
    );
}

#[test]
fn failures_are_told_to_the_client() {
    let start = "the chat template refused the conversation: ";
    for (template, reason) in [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "it did not end within 1000000 steps",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion limit exceeded"),
        ("{{ messages[0].content }}", "undefined value"),
        ("{% include 'other' %}", "template not found: tried to include non-existing template 'other'"),
        (
            "{% set x = 'x' * 100000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
            "it wrote more than 67108864 bytes",
        ),
    ] {
        assert_eq!(refusal(template), format!("{start}{reason}"), "{template}");
    }
    let error = ChatTemplate::new("{% if %}", None, None).err().unwrap().to_string();
    assert!(error.starts_with("(chat template): the chat template does not parse: syntax error"), "{error}");
}

#[test]
fn values_nested_by_a_template_do_not_exhaust_the_stack() {
    let nest = "{% for i in range(COUNT) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let nested = |count: &str| format!("{{% set ns = namespace(x=[]) %}}{}", nest.replace("COUNT", count));
    check(&format!("{}done", nested("90000")), json!({}), "done");
    let tojson = format!("{}{{{{ ns.x | tojson }}}}", nested("90000"));
    assert!(refusal(&tojson).ends_with("tojson: the value is nested too deeply"));
    let endless = format!("{}{}", nested("100000"), nest.replace("COUNT", "100000").repeat(9));
    assert!(refusal(&endless).ends_with("it did not end within 1000000 steps"));
}

#[test]
fn the_date_is_that_of_today() {
    let template = ChatTemplate::new("{{ strftime_now('%Y-%m-%d') }}", None, None).unwrap();
    let today = || calendar::strftime("%F", calendar::now());
    let before = today();
    let rendered = template.render(&json!([]), &Map::new()).unwrap();
    assert!(rendered == before || rendered == today(), "{rendered}");
}

#[test]
fn templates_are_found_where_folders_keep_them() {
    let render = |files: &'static [(&'static str, &'static [u8])], tools: Value| {
        let template = ChatTemplate::read(&Repository::embedded("m", files)).unwrap();
        template.map(|template| template.render(&json!([]), &options(json!({"tools": tools}))).unwrap())
    };
    const CONFIG: (&str, &[u8]) = (
        "tokenizer_config.json",
        br#"{"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": "config {{ bos_token }}{{ eos_token }}"}"#,
    );
    const NAMED: (&str, &[u8]) = (
        "tokenizer_config.json",
        br#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]}"#,
    );
    const JSON: (&str, &[u8]) = ("chat_template.json", br#"{"chat_template": "json {{ bos_token }}"}"#);
    const JINJA: (&str, &[u8]) = ("chat_template.jinja", b"jinja {{ eos_token }}");
    assert_eq!(render(&[], Value::Null), None);
    assert_eq!(render(&[("tokenizer_config.json", b"{}")], Value::Null), None);
    assert_eq!(render(&[CONFIG], Value::Null).unwrap(), "config <b><e>");
    assert_eq!(render(&[CONFIG, JSON], Value::Null).unwrap(), "json <b>");
    assert_eq!(render(&[CONFIG, JSON, JINJA], Value::Null).unwrap(), "jinja <e>");
    assert_eq!(render(&[NAMED], Value::Null).unwrap(), "plain");
    assert_eq!(render(&[NAMED], json!([{}])).unwrap(), "tools");
}
