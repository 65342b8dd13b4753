//! What a request asks for, checked, in no API's terms.

use std::collections::BTreeMap;

use moeflux::chat::{ChatOptions, Prefill};
use moeflux::sampling::{Constraint, MAX_TOP_LOGPROBS};
use moeflux::text::{Content, Message};
use serde_json::{Map, Value, json};

use super::tools::{custom_arguments, tool_choice, tools};
use super::types::{ChatCompletionRequest, CompletionRequest, StreamOptions};
use crate::error::Failure;
use crate::fields::{CHAT, NONE, SAMPLING, ignore};
use crate::generation::{ChatInput, Controls};

/// Both requests name the fields about sampling alike.
macro_rules! controls {
    ($request:expr) => {
        Controls {
            temperature: $request.temperature,
            top_k: top_k($request.top_k)?,
            top_p: $request.top_p,
            min_p: $request.min_p,
            repetition_penalty: $request.repetition_penalty.or($request.repeat_penalty),
            presence_penalty: $request.presence_penalty,
            frequency_penalty: $request.frequency_penalty,
            logit_bias: logit_bias($request.logit_bias.take())?,
            seed: $request.seed.map(|seed| seed as u64),
            min_tokens: $request.min_tokens.unwrap_or(0),
            stop: $request.stop.take().map(super::types::OneOrMany::into_vec).unwrap_or_default(),
            ignore_eos: $request.ignore_eos.unwrap_or(false),
            n: $request.n,
            priority: $request.priority.unwrap_or(0),
            ..Controls::default()
        }
    };
}

impl ChatCompletionRequest {
    /// What it asks for.
    pub(super) fn into_input(mut self) -> Result<ChatInput, Failure> {
        self.unknown.settle("", &[SAMPLING, CHAT])?;
        settle_stream_options(self.stream_options.as_ref())?;
        if self.store == Some(true) {
            ignore("store");
        }
        if self.modalities.as_ref().is_some_and(|kinds| kinds.iter().any(|kind| kind != "text")) {
            return Err(Failure::field(
                "modalities",
                "modalities: expected [\"text\"]: other modalities are not supported",
            ));
        }
        let logprobs = match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (false, Some(1..)) => {
                let message = "top_logprobs: expected only together with `logprobs: true`";
                return Err(Failure::field("top_logprobs", message));
            }
            (true, Some(top)) if top > MAX_TOP_LOGPROBS => {
                let message = format!("top_logprobs: expected at most {MAX_TOP_LOGPROBS}, found {top}");
                return Err(Failure::field("top_logprobs", message));
            }
            (asked, top) => asked.then(|| top.unwrap_or(0)),
        };
        let max_tokens = max_tokens(self.max_completion_tokens.or(self.max_tokens))?;
        if max_tokens == Some(0) {
            return Err(Failure::field("max_tokens", "max_tokens: expected at least 1, found 0"));
        }
        let controls = Controls { max_tokens, logprobs, ..controls!(self) };
        let super::tools::Offered { functions: mut tools, customs } = tools(self.tools.unwrap_or_default())?;
        let tool_choice = tool_choice(self.tool_choice, &mut tools)?;
        let constraint = match response_format(self.response_format)? {
            Some(constraint) => Some(constraint),
            None => guided(&mut self.guided)?,
        };
        let mut variables = self.chat_template_kwargs.unwrap_or_default();
        let mut enable_thinking = self.enable_thinking;
        let (thinking, effort) = thinking(self.thinking.as_ref(), self.reasoning.as_ref())?;
        enable_thinking = enable_thinking.or(thinking);
        if let Some(effort) = self.reasoning_effort.or(effort) {
            let thinks = effort_thinks(&effort)?;
            enable_thinking = enable_thinking.or(Some(thinks));
            if thinks {
                variables.entry("reasoning_effort").or_insert(Value::String(effort));
            }
        }
        let mut messages = messages(self.messages)?;
        let prefill = prefill(&mut messages, self.continue_final_message, self.add_generation_prompt)?;
        Ok(ChatInput {
            messages,
            customs,
            options: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
                enable_thinking,
                template_variables: variables,
                prefill,
            },
            constraint,
            reasoning_budget: self.reasoning_budget,
            controls,
        })
    }
}

impl CompletionRequest {
    /// How to choose tokens.
    pub(super) fn take_controls(&mut self) -> Result<Controls, Failure> {
        self.unknown.settle("", &[SAMPLING])?;
        settle_stream_options(self.stream_options.as_ref())?;
        if self.best_of.is_some_and(|best| best != self.n.unwrap_or(1)) {
            return Err(Failure::field(
                "best_of",
                "best_of: expected the value of n: selection among answers is not supported",
            ));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Failure::field("suffix", "suffix: expected none: insertion is not supported"));
        }
        Ok(Controls {
            max_tokens: if self.max_tokens == Some(-1) {
                None
            } else {
                max_tokens(self.max_tokens)?.or(Some(16))
            },
            logprobs: self.logprobs,
            ..controls!(self)
        })
    }
}

/// Most tokens; -1 is as many as there may be, as local servers have it.
pub(crate) fn max_tokens(tokens: Option<i64>) -> Result<Option<usize>, Failure> {
    let Some(tokens) = tokens.filter(|&tokens| tokens != -1) else { return Ok(None) };
    usize::try_from(tokens).map(Some).map_err(|_| {
        Failure::field(
            "max_tokens",
            format!("max_tokens: expected at least 1, or -1 for no limit, found {tokens}"),
        )
    })
}

/// How many of the likeliest tokens; 0 and -1 are all.
fn top_k(top_k: Option<i64>) -> Result<Option<usize>, Failure> {
    let Some(top_k) = top_k else { return Ok(None) };
    usize::try_from(if top_k == -1 { 0 } else { top_k }).map(Some).map_err(|_| {
        Failure::field("top_k", format!("top_k: expected at least 0, or -1 for all tokens, found {top_k}"))
    })
}

fn settle_stream_options(options: Option<&StreamOptions>) -> Result<(), Failure> {
    options.map_or(Ok(()), |options| options.unknown.settle("stream_options.", &[NONE]))
}

/// What the fields `thinking` (GLM, DeepSeek, Kimi) and `reasoning` (OpenRouter) ask for: whether to think, and the effort.
fn thinking(
    thinking: Option<&Value>,
    reasoning: Option<&Value>,
) -> Result<(Option<bool>, Option<String>), Failure> {
    let enabled = match thinking {
        None | Some(Value::Null) => None,
        Some(Value::Bool(enabled)) => Some(*enabled),
        Some(thinking) => match thinking.get("type").and_then(Value::as_str) {
            Some("enabled" | "adaptive" | "auto") => Some(true),
            Some("disabled") => Some(false),
            _ => {
                let message = "thinking: expected {type: \"enabled\"} or {type: \"disabled\"}";
                return Err(Failure::field("thinking", message));
            }
        },
    };
    let Some(reasoning) = reasoning.filter(|reasoning| !reasoning.is_null()) else {
        return Ok((enabled, None));
    };
    let effort = match reasoning {
        Value::String(effort) => Some(effort.clone()),
        reasoning => reasoning.get("effort").and_then(Value::as_str).map(str::to_owned),
    };
    let asked = match reasoning {
        Value::Bool(enabled) => Some(*enabled),
        reasoning => reasoning.get("enabled").and_then(Value::as_bool),
    };
    for name in ["max_tokens", "exclude"] {
        if reasoning.get(name).is_some_and(|value| crate::fields::asks(value, &[])) {
            ignore(&format!("reasoning.{name}"));
        }
    }
    Ok((enabled.or(asked), effort))
}

/// The beginning of the answer, taken from the end of the messages: an assistant's message without calls, unless the request
/// says that the answer is to be a new one.
pub(crate) fn prefill(
    messages: &mut Vec<Message>,
    continues: Option<bool>,
    begins: Option<bool>,
) -> Result<Option<Prefill>, Failure> {
    let wrong = |field: &str, message: &str| Err(Failure::field(field, format!("{field}: {message}")));
    if continues == Some(true) && begins == Some(true) {
        return wrong("continue_final_message", "expected false together with `add_generation_prompt: true`");
    }
    let last = messages.last();
    let is_open = last.is_some_and(|last| {
        last.role == "assistant"
            && last.tool_calls.is_empty()
            && (last.content.is_some() || last.reasoning_content.is_some())
    });
    if !is_open {
        return match continues {
            Some(true) => wrong(
                "continue_final_message",
                "expected the last message to be the assistant's, without calls",
            ),
            _ if begins == Some(false) => {
                wrong("add_generation_prompt", "expected true unless the last message is the assistant's")
            }
            _ => Ok(None),
        };
    }
    let is_new = continues == Some(false) && begins != Some(false) || begins == Some(true);
    let is_prefix = last.and_then(|last| last.extra.get("prefix")).and_then(Value::as_bool);
    if is_new || is_prefix == Some(false) || !messages.iter().any(|message| message.role != "assistant") {
        return Ok(None);
    }
    let Some(last) = messages.pop() else { return Ok(None) };
    let text = match last.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let text =
                |part: &Value| Some(part.get("text").or_else(|| part.get("refusal"))?.as_str()?.to_owned());
            parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
        }
        None => String::new(),
    };
    let prefill = Prefill { text, reasoning: last.reasoning_content.unwrap_or_default() };
    // A message that says nothing is where a client shows the answer.
    Ok(Some(prefill).filter(|prefill| *prefill != Prefill::default()))
}

/// The constraint that the fields of vLLM and llama.cpp ask for.
fn guided(guided: &mut super::types::Guided) -> Result<Option<Constraint>, Failure> {
    let mut given: Vec<(String, Value)> = Vec::new();
    let mut add = |name: &str, kind: &str, value: Option<Value>| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            given.push((name.to_owned(), json!({ kind: value })));
        }
    };
    add("guided_json", "json", guided.guided_json.take());
    add("guided_regex", "regex", guided.guided_regex.take());
    add("guided_choice", "choice", guided.guided_choice.take());
    add("json_schema", "json", guided.json_schema.take());
    if let Some(Value::Object(fields)) = guided.structured_outputs.take() {
        for (name, value) in fields {
            match name.as_str() {
                "json" | "regex" | "choice" => add(&format!("structured_outputs.{name}"), &name, Some(value)),
                "json_object" if value == true => {
                    add("structured_outputs.json_object", "object", Some(value));
                }
                "grammar" | "structural_tag" if crate::fields::asks(&value, &[]) => {
                    let param = format!("structured_outputs.{name}");
                    let message =
                        format!("{param}: this notation is not supported; use json, regex or choice");
                    return Err(Failure::field(param, message));
                }
                _ if crate::fields::asks(&value, &[]) => ignore(&format!("structured_outputs.{name}")),
                _ => {}
            }
        }
    }
    if given.len() > 1 {
        let message = format!("{}: expected alone, found together with {}", given[1].0, given[0].0);
        return Err(Failure::field(given[1].0.as_str(), message));
    }
    let Some((name, given)) = given.pop() else { return Ok(None) };
    let wrong = |expected: &str| Failure::field(name.as_str(), format!("{name}: {expected}"));
    Ok(Some(match (given.get("json"), given.get("regex"), given.get("choice")) {
        (Some(Value::String(text)), ..) => {
            let schema =
                serde_json::from_str(text).map_err(|error| wrong(&format!("expected JSON: {error}")))?;
            Constraint::JsonSchema(schema)
        }
        (Some(schema @ Value::Object(_)), ..) => Constraint::JsonSchema(schema.clone()),
        (_, Some(Value::String(regex)), _) => Constraint::Regex(regex.clone()),
        (.., Some(Value::Array(choices))) if !choices.is_empty() && choices.iter().all(Value::is_string) => {
            let choices = choices.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
            Constraint::Lark(format!("start: {choices}\n"))
        }
        _ if given.get("object").is_some() => Constraint::JsonObject,
        _ => return Err(wrong("expected a JSON schema, a regular expression or a list of texts")),
    }))
}

/// Whether so much effort is any.
pub(crate) fn effort_thinks(effort: &str) -> Result<bool, Failure> {
    const KNOWN: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    if KNOWN.contains(&effort) {
        return Ok(effort != "none");
    }
    let message = format!("reasoning_effort: expected one of {}, found {effort:?}", KNOWN.join(", "));
    Err(Failure::field("reasoning_effort", message))
}

fn logit_bias(bias: Option<BTreeMap<String, f32>>) -> Result<BTreeMap<u32, f32>, Failure> {
    let token = |(token, bias): (String, f32)| match token.parse() {
        Ok(token) => Ok((token, bias)),
        Err(_) => Err(Failure::field(
            "logit_bias",
            format!("logit_bias: expected token ids as keys, found {token:?}"),
        )),
    };
    bias.unwrap_or_default().into_iter().map(token).collect()
}

/// Messages in the form that templates know, each with a role and a content that it may have.
pub(crate) fn messages(mut messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
    for (index, message) in messages.iter_mut().enumerate() {
        let wrong = |field: &str, message: String| {
            let param = format!("messages[{index}].{field}");
            let message = format!("{param}: {message}");
            Failure::field(param, message)
        };
        match message.role.as_str() {
            "system" | "user" | "assistant" | "tool" => {}
            // Templates know it by its older name.
            "developer" => "system".clone_into(&mut message.role),
            // The older form of a tool's result.
            "function" if message.name.is_some() => "tool".clone_into(&mut message.role),
            role => {
                let expected = "expected system, developer, user, assistant or tool";
                return Err(wrong("role", format!("{expected}, found {role:?}")));
            }
        }
        match &message.content {
            Some(Content::Text(_)) => {}
            Some(Content::Parts(parts)) => {
                for part in parts {
                    let kind = part.get("type").and_then(Value::as_str).unwrap_or("");
                    if !matches!(kind, "text" | "refusal") || !part.get(kind).is_some_and(Value::is_string) {
                        let expected = "expected parts such as {\"type\": \"text\", \"text\": \"…\"}";
                        return Err(wrong("content", format!("{expected}, found one of type {kind:?}")));
                    }
                }
            }
            None if message.role == "assistant" => {
                // A refusal is what the model wrote instead of content.
                if let Some(Value::String(refusal)) = message.extra.remove("refusal") {
                    message.content = Some(Content::Text(refusal));
                }
            }
            None if message.role == "tool" => message.content = Some(Content::Text(String::new())),
            None => return Err(wrong("content", "expected a text, found none".to_owned())),
        }
        for call in &mut message.tool_calls {
            if let Some(custom) = call.get("custom").filter(|_| call.get("function").is_none()) {
                let text = |name: &str| custom.get(name).and_then(Value::as_str).unwrap_or_default();
                let function = json!({ "name": text("name"), "arguments": custom_arguments(text("input")) });
                *call = json!({ "id": call.get("id"), "type": "function", "function": function });
            }
            let function = call.get("function");
            let name = function.and_then(|function| function.get("name")).is_some_and(Value::is_string);
            let arguments = match function.and_then(|function| function.get("arguments")) {
                Some(Value::String(text)) => {
                    text.trim().is_empty() || serde_json::from_str::<Map<String, Value>>(text).is_ok()
                }
                Some(Value::Object(_)) => true,
                _ => false,
            };
            if !name || !arguments {
                let expected = "expected {id, type, function: {name, arguments}}, with arguments that are the text of \
                                a JSON object";
                return Err(wrong("tool_calls", expected.to_owned()));
            }
        }
    }
    Ok(messages)
}

/// The constraint that a response format is.
pub(crate) fn response_format(format: Option<Value>) -> Result<Option<Constraint>, Failure> {
    let wrong = |message: &str| Err(Failure::field("response_format", format!("response_format: {message}")));
    let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        // With a schema it is llama.cpp's, Together's and LM Studio's form of `json_schema`.
        Some("json_object") => match format.get("schema").filter(|schema| !schema.is_null()) {
            Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            Some(_) => wrong("expected a JSON schema as schema"),
            None => Ok(Some(Constraint::JsonObject)),
        },
        Some("json_schema") => match format.get("json_schema").and_then(|named| named.get("schema")) {
            Some(schema @ Value::Object(_)) => Ok(Some(Constraint::JsonSchema(schema.clone()))),
            _ => wrong("expected a JSON schema as json_schema.schema"),
        },
        _ => wrong("expected the type text, json_object or json_schema"),
    }
}
