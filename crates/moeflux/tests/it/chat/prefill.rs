//! Answers that have begun: the prompt has the beginning where the model would have written it, and the parser reads what comes
//! after it as what it is.

use moeflux::chat::{ChatOptions, Delta, Prefill};
use moeflux::text::Message;
use serde_json::json;

use super::with_template;

/// The end of the prompt of a chat whose answer has begun, and what is read of `more` after it.
fn continued(
    generation_prompt: &str,
    call: &str,
    text: &str,
    reasoning: &str,
    more: &str,
) -> (String, Vec<Delta>) {
    let template = format!(
        "{{%- for m in messages %}}<{{{{ m.role }}}}>{{{{ m.content }}}}{{%- for c in m.tool_calls or [] %}}{call}{{%- endfor %}}\
         {{%- endfor %}}{{%- if add_generation_prompt %}}{{{{- {generation_prompt} }}}}{{%- endif %}}"
    );
    let (_folder, tokenizer) = with_template(&template);
    let prefill = Some(Prefill { text: text.to_owned(), reasoning: reasoning.to_owned() });
    let options = ChatOptions { prefill, ..ChatOptions::default() };
    let messages: Vec<Message> =
        serde_json::from_value(json!([{ "role": "user", "content": "Hi" }])).unwrap();
    let prompt = options.prompt(&tokenizer, &messages).unwrap();
    let mut parser = options.parser(moeflux::chat::Format::of(&tokenizer), &prompt);
    let mut deltas = parser.push(more);
    deltas.extend(parser.finish());
    (prompt.strip_prefix("<user>Hi").unwrap().to_owned(), deltas)
}

fn text(text: &str) -> Vec<Delta> {
    vec![Delta::Text(text.to_owned())]
}

const HERMES: &str = "<tool_call>{{- '{\"name\": \"' + c.function.name + '\", \"arguments\": ' }}{{- c.function.arguments | tojson }}}</tool_call>";
const HARMONY: &str = "{{- '<|start|>assistant to=functions.' + c.function.name + '<|channel|>commentary json<|message|>' }}{{- c.function.arguments | tojson }}<|call|>";
const MISTRAL: &str = "[TOOL_CALLS]{{- c.function.name }}[ARGS]{{- c.function.arguments | tojson }}";
const KEEPS_THOUGHTS_OPEN: &str =
    "'<assistant>' + ('<think>\\n' if enable_thinking is not defined or enable_thinking else '')";

#[test]
fn a_begun_text_ends_the_prompt() {
    for call in [HERMES, MISTRAL, ""] {
        let (prompt, deltas) = continued("'<assistant>'", call, "It is", "", " late.");
        assert_eq!((prompt.as_str(), deltas), ("<assistant>It is", text(" late.")), "{call}");
    }
}

#[test]
fn thoughts_that_the_template_opens_are_closed_before_a_text() {
    let (prompt, deltas) = continued("'<assistant><think>\\n'", HERMES, "It is", "", " late.");
    assert_eq!((prompt.as_str(), deltas), ("<assistant><think>\n</think>\n\nIt is", text(" late.")));
    // One that can be told not to think is.
    let (prompt, deltas) = continued(KEEPS_THOUGHTS_OPEN, HERMES, "It is", "", " late.");
    assert_eq!((prompt.as_str(), deltas), ("<assistant>It is", text(" late.")));
}

#[test]
fn begun_thoughts_go_on() {
    let (prompt, deltas) =
        continued(KEEPS_THOUGHTS_OPEN, HERMES, "", "The clock", " says so.\n</think>\n\nLate.");
    assert_eq!(prompt, "<assistant><think>\nThe clock");
    assert_eq!(deltas, [Delta::Reasoning(" says so.".to_owned()), Delta::Text("Late.".to_owned())]);
    let (prompt, deltas) = continued(KEEPS_THOUGHTS_OPEN, HERMES, "It is", "The clock says so.", " late.");
    assert_eq!(prompt, "<assistant><think>\nThe clock says so.\n</think>\n\nIt is");
    assert_eq!(deltas, text(" late."));
}

#[test]
fn channels_of_gpt_oss_are_opened() {
    let begins = "'<|start|>assistant'";
    let (prompt, deltas) = continued(begins, HARMONY, "It is", "", " late.<|return|>");
    assert_eq!(prompt, "<|start|>assistant<|channel|>final<|message|>It is");
    assert_eq!(deltas, text(" late."));
    let (prompt, deltas) =
        continued(begins, HARMONY, "", "The clock says so.", "<|channel|>final<|message|>Late.<|return|>");
    assert_eq!(
        prompt,
        "<|start|>assistant<|channel|>analysis<|message|>The clock says so.<|end|><|start|>assistant"
    );
    assert_eq!(deltas, text("Late."));
}
