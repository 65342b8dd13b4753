//! What can go wrong between text and tokens.

use std::path::{Path, PathBuf};

/// An error of the tokenizer, of a chat template or of the files that they come from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("{}: not valid: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's complaint, with line and column.
        source: serde_json::Error,
    },
    /// A field of a JSON file has another type than it should.
    #[error("{}: `{field}` should be {expected}, found {found}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field's name.
        field: String,
        /// What was expected.
        expected: &'static str,
        /// What the file holds.
        found: String,
    },
    /// The file describes no usable tokenizer.
    #[error("{}: not a usable tokenizer: {detail}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The tokenizer library's complaint.
        detail: String,
    },
    /// A folder without a tokenizer that can be read.
    #[error(
        "{}: no tokenizer.json, tiktoken.model or tokenizer.bin{}",
        folder.display(),
        match found {
            Some(found) => format!(
                "; {found} alone is not read: AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers \
                 writes tokenizer.json of it"
            ),
            None => "; download the model's tokenizer files too".to_owned(),
        }
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// A file that has a tokenizer in another form.
        found: Option<&'static str>,
    },
    /// A text could not be split into tokens.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// A text has more tokens than the context takes.
    #[error(
        "the text of {bytes} bytes has more than {limit} tokens, all that the model's context holds; shorten it, or leave \
         out earlier messages"
    )]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Most tokens that it may have.
        limit: usize,
    },
    /// Whoever asked has cancelled.
    #[error("splitting the text into tokens was cancelled")]
    Cancelled,
    /// The tokenizer knows what tokens say, and not how texts are split into them.
    #[error(
        "{}: good for decoding alone, so a text cannot be split into tokens; put the model's tokenizer.json or \
         tokenizer.bin beside it, or pass token ids",
        path.display()
    )]
    DecodeOnly {
        /// The file.
        path: PathBuf,
    },
    /// Tokens could not be turned into text.
    #[error("the tokens cannot be decoded: {0}")]
    Decode(String),
    /// A token id that the tokenizer does not have.
    #[error("token id {id} is unknown to the tokenizer, which has {vocab_size} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Number of tokens of the tokenizer.
        vocab_size: usize,
    },
    /// The checkpoint has no chat template.
    #[error(
        "{}: no chat template: neither chat_template.jinja nor `chat_template` in tokenizer_config.json or \
         chat_template.json, nor in the metadata of a GGUF file; pass the prompt raw instead",
        path.display()
    )]
    NoChatTemplate {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The metadata of a GGUF file is not what it should be.
    #[error(transparent)]
    Metadata(#[from] moeflux_checkpoint::Error),
    /// The chat template does not parse.
    #[error("chat template, line {line}: {detail}")]
    TemplateSyntax {
        /// Line of the template, from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// The template itself refused the conversation (`raise_exception`).
    #[error("the chat template rejects this conversation: {message}")]
    TemplateRejected {
        /// The template's message.
        message: String,
    },
    /// Rendering the template failed.
    #[error("chat template, line {line}: cannot be rendered: {detail}")]
    TemplateRender {
        /// Line of the template, from 1.
        line: usize,
        /// What went wrong.
        detail: String,
    },
    /// The chat template takes more time or memory than a prompt is worth.
    #[error(
        "the chat template makes too much: {what} beyond the limit of {limit}; the model's files are at fault"
    )]
    TemplateLimit {
        /// What there is too much of.
        what: &'static str,
        /// Most that is allowed.
        limit: u64,
    },
    /// The arguments of a tool call are a string that holds no JSON object.
    #[error("message {message}: the arguments of the call to `{function}` should be a JSON object: {detail}")]
    ToolArguments {
        /// Index of the message.
        message: usize,
        /// Name of the called function.
        function: String,
        /// What was found.
        detail: String,
    },
    /// A message has content that the template has no place for.
    #[error(
        "message {message}: content of type `{kind}` is not supported by this model's chat template (text is)"
    )]
    UnsupportedContent {
        /// Index of the message.
        message: usize,
        /// The part's `type`.
        kind: String,
    },
    /// A stop string is empty and would match everywhere.
    #[error("stop string {index} is empty: every text contains it")]
    EmptyStopString {
        /// Index in the list.
        index: usize,
    },
}

impl TextError {
    /// What is wrong with a file of text, as other errors of such files are named.
    pub(super) fn of_file(error: moeflux_checkpoint::Error) -> Self {
        match error {
            moeflux_checkpoint::Error::Io { path, source } => Self::Read { path, source },
            moeflux_checkpoint::Error::Json { path, source } => Self::Json { path, source },
            other => Self::Metadata(other),
        }
    }

    /// `found` where `field` of `path` should have held `expected`.
    pub(super) fn field(path: &Path, field: &str, expected: &'static str, found: &serde_json::Value) -> Self {
        Self::Field { path: path.to_owned(), field: field.to_owned(), expected, found: found.to_string() }
    }
}
