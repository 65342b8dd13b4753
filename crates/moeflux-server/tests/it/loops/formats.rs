//! How each family writes an answer, as the template of its conversations: what a scripted model says is what the template makes
//! of the same answer in a history.

use moeflux::text::{ChatRequest, ChatTemplate, Message};
use moeflux_testing::scripted::BEGIN;

/// A way to write answers, in Jinja. `name` and `arguments` are those of a call, `m` is the message, and `bare` writes a value
/// as text, if it is one.
pub(super) struct Format {
    /// As the server calls it.
    pub(super) name: &'static str,
    /// Marks that published models of the family have as single tokens.
    pub(super) tokens: &'static [&'static str],
    thoughts: [&'static str; 2],
    text: [&'static str; 2],
    /// Around all calls.
    around: [&'static str; 2],
    /// Around each of them.
    each: [&'static str; 2],
    between: &'static str,
    call: &'static str,
}

/// The last header of a prompt ends with this.
const HEADER: &str = "<|end_header_id|>\n\n";

const MACROS: &str = r#"{% macro bare(v) %}{{ v if v is string else v | tojson }}{% endmacro %}{% macro gemma(v) %}{% if v is string %}<|"|>{{ v }}<|"|>{% elif v is mapping %}{{ "{" }}{% for k, w in v.items() %}{{ k }}:{{ gemma(w) }}{{ "" if loop.last else "," }}{% endfor %}{{ "}" }}{% elif v is sequence %}[{% for w in v %}{{ gemma(w) }}{{ "" if loop.last else "," }}{% endfor %}]{% else %}{{ v | tojson }}{% endif %}{% endmacro %}"#;

impl Format {
    /// The template. A prompt ends with [`BEGIN`] if each call of the history has a result.
    pub(super) fn template(&self) -> String {
        let [open, close] = self.thoughts;
        let [text, text_end] = self.text;
        let [first, last] = self.around;
        let [before, after] = self.each;
        let (call, between) = (self.call, self.between);
        format!(
            "{MACROS}{{% set open = namespace(calls=0) %}}{{% for m in messages %}}<|start_header_id|>{{{{ m.role }}}}{HEADER}\
             {{% if m.role == 'tool' %}}{{% set open.calls = open.calls - 1 %}}{{% endif %}}\
             {{% if m.reasoning_content %}}{open}{{{{ m.reasoning_content }}}}{close}{{% endif %}}\
             {{% if m.content and m.role == 'assistant' %}}{text}{{{{ m.content }}}}{text_end}\
             {{% elif m.content %}}{{{{ m.content }}}}{{% endif %}}\
             {{% if m.tool_calls %}}{first}{{% for c in m.tool_calls %}}{{% set open.calls = open.calls + 1 %}}\
             {{% set name = c.function.name %}}{{% set arguments = c.function.arguments %}}\
             {before}{call}{after}{{{{ '' if loop.last else {between:?} }}}}{{% endfor %}}{{{{ '' }}}}{last}{{% endif %}}{{% endfor %}}\
             {{% if add_generation_prompt and open.calls == 0 %}}{BEGIN}{{% endif %}}"
        )
    }

    /// What a model writes that gives this answer.
    pub(super) fn written(&self, answer: Message) -> String {
        let template = ChatTemplate::new(&self.template()).unwrap();
        let messages = [Message::new("user", "?"), answer];
        let prompt = template.render(&ChatRequest { messages: &messages, ..ChatRequest::default() }).unwrap();
        prompt.rsplit_once(HEADER).unwrap().1.to_owned()
    }
}

const NAMED: &str = r#"{"name": "{{ name }}", "arguments": {{ arguments | tojson }}}"#;
const COHERE: &str = r#"{"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ name }}", "parameters": {{ arguments | tojson }}}"#;
const QWEN: &str = "<function={{ name }}>\n{% for k, v in arguments.items() %}<parameter={{ k }}>\n{{ bare(v) }}\n</parameter>\n{% endfor %}</function>";
const SEED: &str = "<function={{ name }}>\n{% for k, v in arguments.items() %}<parameter={{ k }}>{{ bare(v) }}</parameter>\n{% endfor %}</function>";
const INVOKE: &str = "<invoke name=\"{{ name }}\">\n{% for k, v in arguments.items() %}<parameter name=\"{{ k }}\">{{ bare(v) }}</parameter>\n{% endfor %}</invoke>";
const DSML: &str = "<｜DSML｜invoke name=\"{{ name }}\">\n{% for k, v in arguments.items() %}<｜DSML｜parameter name=\"{{ k }}\" string=\"{{ 'true' if v is string else 'false' }}\">{{ bare(v) }}</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>";
const KIMI_K3: &str = "<|open|>call tool=\"{{ name }}\" index=\"{{ loop.index }}\"<|sep|>{% for k, v in arguments.items() %}<|open|>argument key=\"{{ k }}\" type=\"{{ 'string' if v is string else 'number' if v is number else 'array' }}\"<|sep|>{{ bare(v) }}<|close|>argument<|sep|>{% endfor %}<|close|>call<|sep|>";

const THINK: &[&str] = &["<think>", "</think>"];

/// What most rows have in common.
const ROW: Format = Format {
    name: "hermes",
    tokens: &["<think>", "</think>", "<tool_call>", "</tool_call>"],
    thoughts: ["<think>\n", "\n</think>\n\n"],
    text: ["", "{{ '\\n' if m.tool_calls else '' }}"],
    around: ["", ""],
    each: ["", ""],
    between: "",
    call: NAMED,
};
const DEEPSEEK: Format = Format {
    tokens: &[
        "<think>",
        "</think>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
    ],
    around: ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
    each: ["<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"],
    ..ROW
};
const MISTRAL: Format = Format {
    tokens: &["[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]"],
    thoughts: ["[THINK]", "[/THINK]"],
    ..ROW
};
const COMMAND: Format = Format {
    tokens: &[
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
        "<|START_ACTION|>",
        "<|END_ACTION|>",
    ],
    thoughts: ["<|START_THINKING|>", "<|END_THINKING|>"],
    text: ["<|START_RESPONSE|>", "<|END_RESPONSE|>"],
    around: ["<|START_ACTION|>[\n{{ '    ' }}", "\n]<|END_ACTION|>"],
    between: ",\n    ",
    call: COHERE,
    ..ROW
};

/// All formats that the server knows.
pub(super) const FORMATS: [Format; 32] = [
    Format { each: ["<tool_call>\n", "\n</tool_call>"], between: "\n", ..ROW },
    Format { name: "qwen-xml", each: ["<tool_call>\n", "\n</tool_call>"], between: "\n", call: QWEN, ..ROW },
    Format {
        name: "seed-oss",
        tokens: &["<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"],
        thoughts: ["<seed:think>", "</seed:think>"],
        each: ["<seed:tool_call>\n", "\n</seed:tool_call>"],
        between: "\n",
        call: SEED,
        ..ROW
    },
    Format {
        name: "glm-4.5",
        each: ["<tool_call>", "</tool_call>"],
        between: "\n",
        call: "{{ name }}\n{% for k, v in arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>{{ bare(v) }}</arg_value>\n{% endfor %}",
        ..ROW
    },
    Format {
        name: "glm-4.7",
        each: ["<tool_call>", "</tool_call>"],
        call: "{{ name }}{% for k, v in arguments.items() %}<arg_key>{{ k }}</arg_key><arg_value>{{ bare(v) }}</arg_value>{% endfor %}",
        ..ROW
    },
    Format {
        name: "hunyuan-3",
        tokens: &[
            "<think:opensource>",
            "</think:opensource>",
            "<tool_calls:opensource>",
            "</tool_calls:opensource>",
            "<tool_call:opensource>",
            "</tool_call:opensource>",
        ],
        thoughts: ["<think:opensource>", "</think:opensource>"],
        around: ["<tool_calls:opensource>\n", "\n</tool_calls:opensource>"],
        each: ["<tool_call:opensource>", "</tool_call:opensource>"],
        between: "\n",
        call: "{{ name }}<tool_sep:opensource>\n{% for k, v in arguments.items() %}<arg_key:opensource>{{ k }}</arg_key:opensource>\n<arg_value:opensource>{{ bare(v) }}</arg_value:opensource>\n{% endfor %}",
        ..ROW
    },
    Format {
        name: "minimax-m1",
        tokens: &["<think>", "</think>", "<tool_calls>", "</tool_calls>"],
        around: ["<tool_calls>\n", "\n</tool_calls>"],
        between: "\n",
        ..ROW
    },
    Format {
        name: "minimax-m2",
        tokens: &["<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>"],
        around: ["<minimax:tool_call>\n", "\n</minimax:tool_call>"],
        between: "\n",
        call: INVOKE,
        ..ROW
    },
    Format {
        name: "deepseek-v3",
        between: "\n",
        call: "function<｜tool▁sep｜>{{ name }}\n```json\n{{ arguments }}\n```",
        ..DEEPSEEK
    },
    Format { name: "deepseek-v3.1", call: "{{ name }}<｜tool▁sep｜>{{ arguments }}", ..DEEPSEEK },
    Format {
        name: "deepseek-v3.2",
        tokens: &["<think>", "</think>", "<｜DSML｜function_calls>"],
        around: ["<｜DSML｜function_calls>\n", "\n</｜DSML｜function_calls>"],
        between: "\n",
        call: DSML,
        ..ROW
    },
    Format {
        name: "deepseek-v4",
        tokens: &["<think>", "</think>", "<｜DSML｜tool_calls>"],
        around: ["<｜DSML｜tool_calls>\n", "\n</｜DSML｜tool_calls>"],
        between: "\n",
        call: DSML,
        ..ROW
    },
    Format {
        name: "kimi-k2",
        tokens: &[
            "<think>",
            "</think>",
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ],
        around: ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
        each: ["<|tool_call_begin|>", "<|tool_call_end|>"],
        call: "functions.{{ name }}:{{ loop.index0 }}<|tool_call_argument_begin|>{{ arguments }}",
        ..ROW
    },
    Format {
        name: "kimi-k3",
        tokens: &["<|open|>", "<|close|>", "<|sep|>"],
        thoughts: ["<|open|>think<|sep|>", "<|close|>think<|sep|>"],
        text: ["<|open|>response<|sep|>", "<|close|>response<|sep|>"],
        around: ["<|open|>tools<|sep|>", "<|close|>tools<|sep|>"],
        call: KIMI_K3,
        ..ROW
    },
    Format {
        name: "mistral-v3",
        around: ["[TOOL_CALLS][", "]"],
        between: ", ",
        call: r#"{"name": "{{ name }}", "arguments": {{ arguments | tojson }}, "id": "{{ c.id[-9:] }}"}"#,
        ..MISTRAL
    },
    Format {
        name: "mistral-v11",
        each: ["[TOOL_CALLS]", ""],
        call: "{{ name }}[ARGS]{{ arguments }}",
        ..MISTRAL
    },
    Format {
        name: "gemma-4",
        tokens: &["<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"],
        thoughts: ["<|channel>thought\n", "<channel|>"],
        each: ["<|tool_call>", "<tool_call|>"],
        call: "call:{{ name }}{{ gemma(arguments) }}",
        ..ROW
    },
    Format {
        name: "lfm2",
        tokens: &["<think>", "</think>", "<|tool_call_start|>", "<|tool_call_end|>"],
        around: ["<|tool_call_start|>[", "]<|tool_call_end|>"],
        between: ", ",
        call: "{{ name }}({% for k, v in arguments.items() %}{{ k }}={{ v | tojson }}{{ '' if loop.last else ', ' }}{% endfor %})",
        ..ROW
    },
    Format { name: "command-r7b", ..COMMAND },
    Format {
        name: "command-r-plus",
        tokens: THINK,
        thoughts: ROW.thoughts,
        text: ROW.text,
        around: ["Action: ```json\n[\n{{ '    ' }}", "\n]\n```"],
        call: r#"{"tool_name": "{{ name }}", "parameters": {{ arguments | tojson }}}"#,
        ..COMMAND
    },
    Format {
        name: "granite-3",
        tokens: &["<think>", "</think>", "<|tool_call|>"],
        around: ["<|tool_call|>[", "]"],
        between: ", ",
        ..ROW
    },
    Format { name: "functools", tokens: THINK, around: ["functools[", "]"], between: ", ", ..ROW },
    Format {
        name: "nemotron-nano-v2",
        tokens: &["<think>", "</think>", "<TOOLCALL>", "</TOOLCALL>"],
        around: ["<TOOLCALL>[", "]</TOOLCALL>"],
        between: ", ",
        ..ROW
    },
    Format {
        name: "apriel",
        tokens: &["<tool_calls>", "</tool_calls>", "[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"],
        thoughts: ["Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"],
        text: ["", "\n[END FINAL RESPONSE]"],
        around: ["<tool_calls>[", "]</tool_calls>"],
        between: ", ",
        ..ROW
    },
    Format {
        name: "apertus",
        tokens: &["<|inner_prefix|>", "<|inner_suffix|>", "<|tools_prefix|>", "<|tools_suffix|>"],
        thoughts: ["<|inner_prefix|>", "<|inner_suffix|>"],
        around: ["<|tools_prefix|>[", "]<|tools_suffix|>"],
        between: ", ",
        call: r#"{"{{ name }}": {{ arguments | tojson }}}"#,
        ..ROW
    },
    Format {
        name: "solar",
        tokens: &[
            "<think>",
            "</think>",
            "<|tool_calls|>",
            "<|calls|>",
            "<|tool_call:begin|>",
            "<|tool_call:name|>",
            "<|tool_call:args|>",
            "<|tool_call:end|>",
        ],
        around: ["<|tool_calls|>", "<|calls|>"],
        each: ["<|tool_call:begin|>", "<|tool_call:end|>"],
        call: "x{{ loop.index }}<|tool_call:name|>{{ name }}<|tool_call:args|>{{ arguments | tojson }}",
        ..ROW
    },
    Format {
        name: "functionary-v3.1",
        tokens: THINK,
        call: "<function={{ name }}>{{ arguments | tojson }}</function>",
        ..ROW
    },
    Format {
        name: "functionary-v3.2",
        tokens: THINK,
        text: [">>>all\n", ""],
        call: ">>>{{ name }}\n{{ arguments | tojson }}",
        ..ROW
    },
    Format {
        name: "gigachat-3",
        tokens: &["<think>", "</think>", "<|function_call|>"],
        each: ["<|function_call|>", ""],
        ..ROW
    },
    Format {
        name: "minicpm-5",
        tokens: THINK,
        between: "\n",
        call: "<function name=\"{{ name }}\">{% for k, v in arguments.items() %}<param name=\"{{ k }}\">{{ bare(v) }}</param>{% endfor %}</function>",
        ..ROW
    },
    Format {
        name: "llama-3",
        tokens: &["<think>", "</think>", "<|python_tag|>"],
        around: ["{{ '<|python_tag|>' if m.content else '' }}", ""],
        between: "; ",
        call: r#"{"name": "{{ name }}", "parameters": {{ arguments | tojson }}}"#,
        ..ROW
    },
    Format {
        name: "harmony",
        tokens: &["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>"],
        thoughts: ["<|channel|>analysis<|message|>", "<|end|><|start|>assistant"],
        text: [
            "<|channel|>{{ 'commentary' if m.tool_calls else 'final' }}<|message|>",
            "{{ '<|end|><|start|>assistant' if m.tool_calls else '' }}",
        ],
        between: "<|start|>assistant",
        call: "<|channel|>commentary to=functions.{{ name }} <|constrain|>json<|message|>{{ arguments | tojson }}<|call|>",
        ..ROW
    },
];
