//! What templates may take of time and memory.

use moeflux::text::{ChatRequest, ChatTemplate, Message};

/// Templates that never end, or make more than memory holds: each fails by itself, soon.
#[test]
fn hostile_templates_fail_alone() {
    let _alone = crate::alone();
    let doubled = "{% set s = s ~ s %}".repeat(40);
    let kept = "{% set s = s + s %}".repeat(40);
    let lists = "{% set s = [s, s] %}".repeat(40);
    let nested = "{% for s in [s ~ s] %}".repeat(40) + "{{ s }}" + &"{% endfor %}".repeat(40);
    let captured = "{% set s %}{{ s }}{{ s }}{% endset %}".repeat(40);
    let joined = "{% set s = [s, s] | join %}".repeat(40);
    let replaced = "{% set s = s | replace('x', 'xx') %}".repeat(40);
    let formatted = "{% set s = '%s%s' | format(s, s) %}".repeat(40);
    let methods = "{% set s = s.replace('x', 'xx') %}".repeat(40);
    let start = |rest: &str| format!("{{% set s = 'x' %}}{rest}");
    // Two values that are the same after 2^40 comparisons.
    let twins = "{% set a = [] %}{% set b = [] %}".to_owned()
        + &"{% set a = [a, a] %}{% set b = [b, b] %}".repeat(40);
    let twin = |rest: &str| format!("{twins}{rest}");
    // A list to which each round adds what the expression makes.
    let hoard = |made: &str| {
        format!(
            "{{% set x = 'x' * 9000000 %}}{{% set n = namespace(l=[]) %}}{{% for i in range(100000) %}}\
             {{% set n.l = n.l + [{made}] %}}{{% endfor %}}{{{{ n.l | length }}}}"
        )
    };
    let hostile = [
        "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% for d in range(1000) %}\
         {% endfor %}{% endfor %}{% endfor %}{% endfor %}"
            .to_owned(),
        "{% for a in range(10000) %}{% for b in range(10000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}{% endfor %}"
            .to_owned(),
        "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}".to_owned(),
        "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}".to_owned(),
        "{% set n = namespace(s=['x']) %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s | length }}"
            .to_owned(),
        start(&doubled),
        start(&kept),
        start(&format!("{lists}{{{{ s }}}}")),
        start(&format!("{lists}{{{{ s | tojson }}}}")),
        start(&format!("{lists}{{{{ s | string }}}}")),
        start(&nested),
        start(&captured),
        start(&joined),
        start(&replaced),
        start(&formatted),
        start(&methods),
        "{% macro f(s, n) %}{% if n %}{{ f(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ f('x', 60) }}".to_owned(),
        "{{ '%9999999999d' | format(1) }}".to_owned(),
        "{{ ('x' * 90000000) | replace('x', 'y' * 90000000) }}".to_owned(),
        "{{ ('x\n' * 1000000) | indent(1000000) }}".to_owned(),
        "{% set l = range(100000) | list %}{% for a in range(100000) %}{% if l | sort %}{% endif %}{% endfor %}".to_owned(),
        "{{ 'x' * 90000000 }}".to_owned(),
        "{{ 90000000 * 'x' }}".to_owned(),
        "{{ 'x' * 3000 * 3000 * 3000 }}".to_owned(),
        "{{ ('x' * 3000) * (3000 * 3000) }}".to_owned(),
        "{{ [1] * 90000000 }}".to_owned(),
        "{{ ((1, 2) * 45000000) | length }}".to_owned(),
        "{% for i in (range(90000) | list) * 1000 %}{% endfor %}".to_owned(),
        format!("{{{{ {} | length }}}}", vec!["'x' * 9000000"; 1000].join(" ~ ")),
        format!("{{{{ {} | length }}}}", vec!["('x' * 9000000)"; 1000].join(" + ")),
        format!("{{{{ [{}] | length }}}}", vec!["'x' * 9000000"; 1000].join(", ")),
        format!("{{% set x = 'x' * 9000000 %}}{{{{ [{}] | length }}}}", vec!["x[1:]"; 1000].join(", ")),
        hoard("x[1:]"),
        hoard("x[::-1]"),
        hoard("x | upper"),
        hoard("x | trim"),
        hoard("x.lower()"),
        hoard("x ~ i"),
        hoard("x + 'y'"),
        hoard("x | list"),
        hoard("range(90000) | list"),
        hoard("x | tojson"),
        hoard("x | string ~ ''"),
        hoard("'x'.ljust(100000)"),
        hoard("'%099999d' | format(1)"),
        hoard("'%*d' | format(99999, 1)"),
        hoard("'{:{}}'.format('x', 99999)"),
        hoard("[x] | string"),
        hoard("[['y'] * 9] * 9 | tojson(indent=64)"),
        hoard("('x ' * 4000000).split()"),
        hoard("('x\n' * 4000000) | lines"),
        hoard("x | sort"),
        hoard("x | batch(3) | list"),
        hoard("x | unique"),
        hoard("x | map('upper') | list"),
        "{{ '%*d' | format(999999999, 1) }}".to_owned(),
        "{{ '{:{}d}'.format(1, 999999999) }}".to_owned(),
        hoard("[1] | batch(90000, 1) | list"),
        twin("{{ a == b }}"),
        twin("{{ a != b }}"),
        twin("{{ a < b }}"),
        twin("{{ a in [b] }}"),
        twin("{{ a is eq(b) }}"),
        twin("{{ [a] is in([[b]]) }}"),
        twin("{{ [a, b] | unique | list | length }}"),
        twin("{{ [a, b] | sort | length }}"),
        twin("{{ [{'k': a}, {'k': b}] | groupby('k') | length }}"),
        twin("{{ [a] | map('string') | list | length }}"),
        twin("{{ '' ~ a }}"),
        twin("{{ [a] | select('eq', b) | list | length }}"),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}".to_owned(),
        "{% for i in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set d = {} %}".to_owned() + &"{% set d = dict(a=d, b=d) %}".repeat(40) + "{{ d }}",
    ];
    let messages = [Message::new("user", "hello")];
    for source in hostile {
        let start = std::time::Instant::now();
        let rendered = ChatTemplate::new(&source).and_then(|template| {
            template.render(&ChatRequest { messages: &messages, ..ChatRequest::default() })
        });
        let shown = &source[..source.len().min(100)];
        assert!(rendered.is_err(), "{shown}: {} bytes", rendered.unwrap().len());
        // Compiling tries the template a few times.
        assert!(start.elapsed().as_secs() < 60, "{shown}: {:?}", start.elapsed());
    }
    let peak = moeflux::placement::Machine::peak_resident();
    assert!(peak.is_none_or(|peak| peak < 3 << 29), "{peak:?}");
}
