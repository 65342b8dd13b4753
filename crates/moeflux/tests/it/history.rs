//! Conversations as clients play them back, on templates that differ in what they can take. Each template here stands for a
//! kind of published ones.

use moeflux::text::{ChatRequest, ChatTemplate, Message};
use serde_json::{Value, json};

fn messages(messages: Value) -> Vec<Message> {
    serde_json::from_value(messages).unwrap()
}

fn rendered(source: &str, conversation: Value, tools: &[Value]) -> String {
    let template = ChatTemplate::new(source).unwrap();
    let messages = messages(conversation);
    let tools = (!tools.is_empty()).then_some(tools);
    template.render(&ChatRequest { messages: &messages, tools, ..ChatRequest::default() }).unwrap()
}

fn call(id: &str, name: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}})
}

const CALLS: &str = "{% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% endfor %}";

/// A loop over messages in which `body` writes the content.
fn template(body: &str) -> String {
    format!("{{% for m in messages %}}[{{{{ m.role }}}}]{body}{CALLS}{{% endfor %}}")
}

#[test]
fn no_content_is_what_the_template_takes() {
    // A search in the content, as Qwen3 and gpt-oss have it; a join, as Granite has it.
    let contains = template("{% if '</think>' in m.content %}x{% else %}{{ m.content }}{% endif %}");
    let joins = template("{{ '' + m.content }}");
    // Printed as it is, as GLM-4.6 and MiniMax-M2 do.
    let prints = template("{{ m.content }}");
    // Calls only where there is no content, as DeepSeek-R1 has it.
    let none = "{% for m in messages %}[{{ m.role }}]{% if m.content is none %}\
                {% for c in m.tool_calls %}<{{ c.function.name }}>{% endfor %}{% else %}{{ m.content }}{% endif %}\
                {% endfor %}";
    // Parts alone.
    let parts = template("{% for p in m.content %}{{ p.text }}{% endfor %}");
    for source in [contains.as_str(), &joins, &prints, none, &parts] {
        for said in [
            json!({"role": "assistant", "content": null, "tool_calls": [call("a", "f")]}),
            json!({"role": "assistant", "tool_calls": [call("a", "f")]}),
            json!({"role": "assistant", "content": "", "tool_calls": [call("a", "f")]}),
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call("a", "f")]}),
        ] {
            let conversation = json!([{"role": "user", "content": "W?"}, said, {"role": "tool", "tool_call_id": "a", "content": "ok"}]);
            assert_eq!(rendered(source, conversation, &[]), "[user]W?[assistant]<f>[tool]ok", "{source}");
        }
    }
    for source in [contains.as_str(), &joins, &prints, &parts] {
        let conversation = json!([{"role": "user", "content": "W?"}, {"role": "assistant", "content": null}, {"role": "user", "content": "x"}]);
        assert_eq!(rendered(source, conversation, &[]), "[user]W?[assistant][user]x", "{source}");
    }
}

#[test]
fn a_refusal_is_text() {
    for body in [
        "{{ m.content | trim }}",
        "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}",
    ] {
        let said = json!({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]});
        assert_eq!(rendered(&template(body), json!([said]), &[]), "[assistant]No.");
    }
}

#[test]
fn reasoning_and_content_beside_calls_are_joined_where_only_one_may_be() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{% if m.content and m.thinking %}\
                  {{ raise_exception('one or the other') }}{% endif %}({{ m.thinking or m.content }}){% for c in m.tool_calls %}\
                  <{{ c.function.name }}>{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let said = json!({"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [call("a", "f")]});
    let conversation = json!([{"role": "user", "content": "W?"}, said, {"role": "tool", "tool_call_id": "a", "content": "ok"}]);
    assert_eq!(rendered(source, conversation, &[]), "[user]W?[assistant](Hm.\n\nI look.)<f>[tool]ok");
}

#[test]
fn system_messages_go_where_the_template_has_a_place_for_them() {
    let anywhere = template("{{ m.content }}");
    let first = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('first') }}{% endif %}\
                 [{{ m.role }}]{{ m.content }}{% endfor %}";
    // The first is shown, and later ones are left out.
    let drops = "{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}";
    let conversation = json!([
        {"role": "system", "content": "A"}, {"role": "system", "content": "B"}, {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"}, {"role": "system", "content": "C"}, {"role": "user", "content": "3"},
        {"role": "system", "content": "D"},
    ]);
    let expected = "[system]A[system]B[user]1[assistant]2[system]C[user]3[system]D";
    assert_eq!(rendered(&anywhere, conversation.clone(), &[]), expected);
    for source in [first, drops] {
        let expected = "[system]A\n\nB[user]1[assistant]2[user]C\n\n3\n\nD";
        assert_eq!(rendered(source, conversation.clone(), &[]), expected, "{source}");
    }
}

#[test]
fn a_description_may_be_left_out() {
    let source = "{% for t in tools %}{{ '// ' + t.function.description + t.function.name }}{% endfor %}";
    let tools = [json!({"type": "function", "function": {"name": "f"}})];
    assert_eq!(rendered(source, json!([{"role": "user", "content": "x"}]), &tools), "// f");
}

#[test]
fn no_content_is_what_earlier_turns_take_too() {
    // The last message is written in another way than one before, as QwQ has it.
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and not loop.last %}\
                  {{ m.content.split('</think>')[-1] }}{% elif m.content %}{{ m.content }}{% endif %}\
                  {% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% endfor %}{% endfor %}";
    let said = json!({"role": "assistant", "content": null, "tool_calls": [call("a", "f")]});
    let user = json!({"role": "user", "content": "W?"});
    let short = json!([user, said]);
    let long = json!([user, said, {"role": "tool", "tool_call_id": "a", "content": "ok"}, user]);
    assert_eq!(rendered(source, short, &[]), "[user]W?[assistant]<f>");
    assert_eq!(rendered(source, long, &[]), "[user]W?[assistant]<f>[tool]ok[user]W?");
}

#[test]
fn no_content_is_a_part_where_the_first_part_is_looked_at() {
    // As SmolVLM has it, without calls.
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.content[0]['type'] == 'image' %}!{% endif %}\
                  {% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    let said = json!({"role": "assistant", "content": null, "tool_calls": [call("a", "f")]});
    let conversation = json!([{"role": "user", "content": "W?"}, said, {"role": "user", "content": "x"}]);
    assert_eq!(rendered(source, conversation, &[]), "[user]W?[assistant][user]x");
}

#[test]
fn content_is_a_message_before_calls_that_it_would_hide() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.content is none %}{% for c in m.tool_calls %}\
                  <{{ c.function.name }}>{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let said = json!({"role": "assistant", "content": "I look.", "tool_calls": [call("a", "f")]});
    let conversation = json!([{"role": "user", "content": "W?"}, said, {"role": "tool", "tool_call_id": "a", "content": "ok"}]);
    assert_eq!(rendered(source, conversation, &[]), "[user]W?[assistant]I look.[assistant]<f>[tool]ok");
}

#[test]
fn content_is_a_part_of_reasoning_that_would_hide_it() {
    let source = "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}({{ m.reasoning_content or m.content }})\
                  {% for c in m.tool_calls %}<{{ c.function.name }}>{% endfor %}{% else %}{{ m.content }}{% endif %}\
                  {% endfor %}";
    let said = json!({"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [call("a", "f")]});
    assert_eq!(
        rendered(source, json!([{"role": "user", "content": "W?"}, said]), &[]),
        "[user]W?[assistant](Hm.\n\nI look.)<f>",
    );
}

#[test]
fn parts_are_joined_for_roles_whose_contents_are_texts() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    // Results are printed as they are, or by their first part.
    for result in ["{{ m.content }}", "{{ m.content if m.content is string else m.content[0].text }}"] {
        let source = format!(
            "{{% for m in messages %}}[{{{{ m.role }}}}]{{% if m.role == 'tool' %}}{result}{{% elif m.content is string %}}\
             {{{{ m.content }}}}{{% else %}}{{% for p in m.content or [] %}}{{{{ p.text }}}};{{% endfor %}}{{% endif %}}{CALLS}{{% endfor %}}",
        );
        let conversation = json!([
            {"role": "user", "content": parts}, {"role": "assistant", "content": null, "tool_calls": [call("a", "f")]},
            {"role": "tool", "tool_call_id": "a", "content": parts},
        ]);
        assert_eq!(rendered(&source, conversation, &[]), "[user]a;b;[assistant]<f>[tool]a\nb", "{source}");
    }
}

#[test]
fn parts_become_one_where_the_first_is_all() {
    // As MiniMax-Text-01 has it.
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content[0]['text'] }}{% endfor %}";
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let conversation = json!([{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]);
    assert_eq!(rendered(source, conversation, &[]), "[user]a\nb[assistant]c");
}

#[test]
fn system_messages_that_would_be_left_out_are_of_the_next_turn() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}\n{% elif m.role == 'assistant' %}\
                  A: {{ m.content }}\n{% endif %}{% endfor %}";
    let conversation = json!([
        {"role": "system", "content": "A"}, {"role": "system", "content": "B"}, {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"}, {"role": "system", "content": "C"}, {"role": "user", "content": "3"},
    ]);
    assert_eq!(rendered(source, conversation, &[]), "Q: A\n\nB\n\n1\nA: 2\nQ: C\n\n3\n");
    let refuses = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}";
    let messages = messages(json!([{"role": "system", "content": "A"}, {"role": "user", "content": "1"}]));
    let request = ChatRequest { messages: &messages, ..ChatRequest::default() };
    assert!(ChatTemplate::new(refuses).unwrap().render(&request).is_err());
}
