//! Whatever template the bytes stand for, as they are or put together from pieces: an error or a prompt, within its limits.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use moeflux::text::{ChatRequest, ChatTemplate, Message};

/// Pieces of templates; those that open a block or loop come with what closes it elsewhere.
const PIECES: &[&str] = &[
    "{% for m in messages %}",
    "{% for i in range(1000) %}",
    "{% endfor %}",
    "{{ m.content }}",
    "{% set s = s ~ s %}",
    "{% set ns = namespace(s='x') %}",
    "{% set ns.s = ns.s ~ ns.s %}",
    "{% set ns.s = ns.s + ns.s %}",
    "{{ ns.s }}",
    "{% set s = 'x' %}",
    "{% if m.role == 'user' %}",
    "{% else %}",
    "{% endif %}",
    "{{ s | replace('x', 'xx') }}",
    "{% set s = [s, s] %}",
    "{{ s | tojson }}",
    "{{ s | join(s) }}",
    "{% macro f(a) %}",
    "{% endmacro %}",
    "{{ f(f('x')) }}",
    "{% set s %}",
    "{% endset %}",
    "{{ 'x' * 99999999 }}",
    "{{ s[::2] }}",
    "{{ '%99999d' | format(1) }}",
    "{{ s | indent(9999) }}",
    "{{ messages }}",
    "{{ tools | tojson(indent=4) }}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y') }}",
    "{% raw %}",
    "{% endraw %}",
    "{# c #}",
    "{%- generation -%}",
    "{% endgeneration %}",
    "{{ s.split('x') | length }}",
    " text ",
    "\n",
    "{% set a, b = 1, 2 %}",
    "{{ -s + 1 ** 2 }}",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let source = match first % 3 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => rest.iter().map(|&byte| PIECES[usize::from(byte) % PIECES.len()]).collect(),
    };
    let start = Instant::now();
    let messages = [Message::new("user", "hello"), Message::new("assistant", "world")];
    let tools = [serde_json::json!({ "type": "function", "function": { "name": "f", "parameters": {} } })];
    if let Ok(template) = ChatTemplate::new(&source) {
        let request = ChatRequest { messages: &messages, tools: Some(&tools), ..ChatRequest::default() };
        let text = template.render(&request).unwrap_or_default();
        assert!(text.len() <= 64 << 20, "{} bytes", text.len());
    }
    // Compiling tries it up to eight times.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
});
