//! `/v1/embeddings`.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::types::Prompts;
use crate::app::App;
use crate::body::Json;
use crate::error::{Failure, from_request, from_submit};
use crate::fields::{NONE, Unknown};
use crate::generation::Prompt;
use crate::models::Lease;
use crate::openapi::ErrorBody;
use crate::work::{self, Size};
use moeflux::engine::SubmitOptions;

/// A request for embeddings.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    /// Name of the model. Default: the server's first model.
    pub model: Option<String>,
    /// One or several texts, as text or token ids.
    pub input: Prompts,
    /// Encoding of the numbers: `float`, or `base64` of little-endian float32.
    pub encoding_format: Option<EncodingFormat>,
    /// Must equal the model's `hidden_size` if present.
    pub dimensions: Option<usize>,
    /// Accepted and ignored.
    #[schema(value_type = Option<String>)]
    pub user: Option<serde_json::Value>,
    /// All other fields.
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: Unknown,
}

/// Encoding of an embedding.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// Base64 of little-endian float32.
    Base64,
}

/// Embeddings of texts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Embeddings {
    /// Always `list`.
    pub object: &'static str,
    /// One embedding for each text.
    pub data: Vec<EmbeddingObject>,
    /// Name of the model.
    pub model: String,
    /// Token usage.
    pub usage: EmbeddingUsage,
}

/// The embedding of one text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EmbeddingObject {
    /// Always `embedding`.
    pub object: &'static str,
    /// Index of the text.
    pub index: usize,
    /// The mean of the last hidden states, scaled to length 1.
    pub embedding: Vector,
}

/// An embedding.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// As a list of numbers.
    Float(Vec<f32>),
    /// As base64.
    Base64(String),
}

/// Token usage of embeddings.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    /// Tokens of all texts.
    pub prompt_tokens: usize,
    /// The same as `prompt_tokens`.
    pub total_tokens: usize,
}

/// Computes the embeddings of texts.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, body = Embeddings),
        (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Json(request): Json<EmbeddingsRequest>,
) -> Result<JsonAnswer<Embeddings>, Failure> {
    request.unknown.settle("", &[NONE])?;
    let model = app.model(request.model.as_deref()).await?;
    let (vectors, tokens) =
        embed(&model, app.config().limits.texts, request.input.into_list(), request.dimensions).await?;
    let encoded = |values: Vec<f32>| match request.encoding_format.unwrap_or_default() {
        EncodingFormat::Float => Vector::Float(values),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    };
    let object = |(index, values)| EmbeddingObject { object: "embedding", index, embedding: encoded(values) };
    let data = vectors.into_iter().enumerate().map(object).collect();
    let usage = EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(JsonAnswer(Embeddings { object: "list", data, model: model.name().to_owned(), usage }))
}

/// The embeddings of texts, each of length 1, and how many tokens the texts have.
pub(crate) async fn embed(
    model: &Lease,
    most: usize,
    inputs: Vec<Prompt>,
    dimensions: Option<usize>,
) -> Result<(Vec<Vec<f32>>, usize), Failure> {
    if inputs.is_empty() || inputs.len() > most {
        let message = format!("input: expected 1 to {most} texts, found {}", inputs.len());
        return Err(Failure::field("input", message));
    }
    let (mut vectors, mut tokens) = (Vec::new(), 0);
    for input in inputs {
        let asked = model.clone();
        let share = work::share();
        let pending = work::run(Size::OfBody, move |cancel| {
            let tokens = input.tokens(&asked, cancel)?;
            if tokens.is_empty() {
                return Err(Failure::field("input", "input: expected texts that are not empty"));
            }
            let options = SubmitOptions { share, ..SubmitOptions::default() };
            asked.handle().embed(tokens, options).map_err(from_submit)
        })
        .await?;
        let found = pending.await.map_err(|error| from_request(&error))?;
        if dimensions.is_some_and(|dimensions| dimensions != found.values.len()) {
            let message =
                format!("dimensions: expected {}, the dimensions of this model", found.values.len());
            return Err(Failure::field("dimensions", message));
        }
        tokens += found.tokens;
        vectors.push(normalized(found.values));
    }
    Ok((vectors, tokens))
}

/// The same direction, of length 1.
fn normalized(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        for value in &mut values {
            *value = (f64::from(*value) / length) as f32;
        }
    }
    values
}
