//! Chat templates: a conversation becomes a prompt, as `transformers.apply_chat_template` makes it.

mod bounds;
mod capabilities;
mod context;
mod dialect;
mod environment;
mod files;
mod filters;
mod history;
mod json;
mod methods;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{NaiveDateTime, Utc};
use minijinja::{Environment, Value};
use serde_json::Map;

use self::bounds::{Exceeded, Output};
use self::capabilities::Capabilities;
use self::environment::RaisedByTemplate;
pub(super) use self::files::special_token;
use super::{Message, TextError};

/// A checkpoint's chat template, compiled.
///
/// Templates differ in the messages that they can take. What this one takes is found once by rendering small conversations,
/// and messages are brought into that form: text parts are joined to a string (with line feeds) or a string becomes a part;
/// the arguments of tool calls become objects, or JSON text where the template concatenates them; a message without content
/// gets null, an empty text or no content, whichever the template shows without a word for nothing; several calls become
/// messages of one call each, and system messages are joined, where the template has no place for them.
#[derive(Debug)]
pub struct ChatTemplate {
    default: Variant,
    /// The variant for conversations with tools, if the checkpoint has a separate one.
    tool_use: Option<Variant>,
    /// `bos_token`, `eos_token`, … as the template sees them.
    special_tokens: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Variant {
    environment: Environment<'static>,
    capabilities: Capabilities,
}

/// What a template is rendered with.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest<'a> {
    /// The conversation so far.
    pub messages: &'a [Message],
    /// Tools as JSON schemas, if any are offered.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Whether to end with the start of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Passed as `enable_thinking` and as `thinking`, the two names that templates use; `None` leaves the
    /// choice to the template.
    pub enable_thinking: Option<bool>,
    /// More template variables; they go before all others.
    pub extra: Map<String, serde_json::Value>,
    /// What `strftime_now` sees; `None` is the present time, UTC.
    pub now: Option<NaiveDateTime>,
}

impl ChatTemplate {
    /// Compiles a template that has no special tokens and no variant for tools.
    pub fn new(source: &str) -> Result<Self, TextError> {
        Ok(Self { default: Variant::new(source)?, tool_use: None, special_tokens: BTreeMap::new() })
    }

    /// Sets the special tokens that the template sees, such as `bos_token`.
    #[must_use]
    pub fn with_special_tokens(mut self, tokens: BTreeMap<String, String>) -> Self {
        self.special_tokens = tokens;
        self
    }

    /// Sets the template that is used when tools are offered.
    pub fn with_tool_use(mut self, source: &str) -> Result<Self, TextError> {
        self.tool_use = Some(Variant::new(source)?);
        Ok(self)
    }

    /// The prompt of a conversation, as the template makes it of these messages: of several calls in one, some templates
    /// render the first.
    pub fn render(&self, request: &ChatRequest) -> Result<String, TextError> {
        self.rendered(request, history::Calls::AsTheyAre)
    }

    /// The prompt of a conversation, in which every call is shown: where the template renders one of a message, each call
    /// becomes a message.
    pub(super) fn render_all_calls(&self, request: &ChatRequest) -> Result<String, TextError> {
        self.rendered(request, history::Calls::All)
    }

    fn rendered(&self, request: &ChatRequest, calls: history::Calls) -> Result<String, TextError> {
        let variant = match (&self.tool_use, request.tools) {
            (Some(tool_use), Some(_)) => tool_use,
            _ => &self.default,
        };
        let now = request.now.unwrap_or_else(|| Utc::now().naive_utc());
        let messages = context::messages(request.messages, variant.capabilities, calls)?;
        let variables =
            |request: &ChatRequest| context::variables(request, messages.clone(), &self.special_tokens, now);
        let rendered = render(&variant.environment, variables(request));
        // A description is optional; some templates add it to a text.
        if matches!(rendered, Err(TextError::TemplateRender { .. }))
            && let Some(tools) = described(request.tools.unwrap_or_default())
        {
            return render(
                &variant.environment,
                variables(&ChatRequest { tools: Some(&tools), ..request.clone() }),
            );
        }
        rendered
    }
}

/// The tools with a description of no characters for each that has none; `None` if all have one.
fn described(tools: &[serde_json::Value]) -> Option<Vec<serde_json::Value>> {
    let lacks = |tool: &serde_json::Value| {
        let function = tool.get("function").unwrap_or(tool);
        function.is_object() && function.get("description").is_none_or(serde_json::Value::is_null)
    };
    tools.iter().any(lacks).then(|| {
        let described = |tool: &serde_json::Value| {
            let mut tool = tool.clone();
            if lacks(&tool) {
                let function = if tool.get("function").is_some() { &mut tool["function"] } else { &mut tool };
                function["description"] = serde_json::Value::from("");
            }
            tool
        };
        tools.iter().map(described).collect()
    })
}

impl Variant {
    fn new(source: &str) -> Result<Self, TextError> {
        let environment = environment::compile(source).map_err(|error| describe(&error))?;
        let capabilities = Capabilities::probe(&environment)?;
        Ok(Self { environment, capabilities })
    }
}

fn render(environment: &Environment, variables: Value) -> Result<String, TextError> {
    let mut output = Output::default();
    let render = || {
        let template = environment.get_template(environment::NAME)?;
        template.render_captured_to(variables, &mut output).map(drop)
    };
    // A template is a model's data: one that makes the engine panic fails the request alone.
    let rendered = bounds::rendering(|| catch_unwind(AssertUnwindSafe(render)));
    match rendered {
        Ok(Ok(())) => Ok(output.into_text()),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => {
            let detail = "it makes the template engine fail".to_owned();
            Err(TextError::TemplateRender { line: 0, detail })
        }
    }
}

/// A template error in the project's own terms: what the template raised, a syntax error, or a failed
/// operation.
fn describe(error: &minijinja::Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error;
    while let Some(current) = cause {
        if let Some(raised) = current.downcast_ref::<RaisedByTemplate>() {
            return TextError::TemplateRejected { message: raised.0.clone() };
        }
        let exceeded = current.downcast_ref::<Exceeded>();
        let of_output = || current.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<Exceeded>();
        if let Some(&Exceeded { what, limit }) = exceeded.or_else(of_output) {
            return TextError::TemplateLimit { what, limit };
        }
        innermost = current.downcast_ref().unwrap_or(innermost);
        cause = current.source();
    }
    let line = innermost.line().unwrap_or(0);
    let kind = innermost.kind();
    let detail = innermost.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}"));
    match kind {
        minijinja::ErrorKind::OutOfFuel => {
            TextError::TemplateLimit { what: "instructions", limit: bounds::FUEL }
        }
        minijinja::ErrorKind::SyntaxError => TextError::TemplateSyntax { line, detail },
        _ => TextError::TemplateRender { line, detail },
    }
}
