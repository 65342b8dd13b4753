//! What a request may cost.

use std::time::Duration;

use crate::error::Failure;
use crate::generation::Controls;

/// Limits on requests. The defaults suit a server that strangers reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once. A new one takes the place of the one that has let the server wait longest; where there is none,
    /// it is told of the server's health and nothing else.
    pub connections: usize,
    /// Connections of one address at once. A proxy is one address.
    pub connections_per_address: usize,
    /// Bytes of a request's line and headers together.
    pub header_bytes: usize,
    /// Time in which they must have come.
    pub header_time: Duration,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Time in which it must have come.
    pub body_time: Duration,
    /// Time that an answer may take, waiting included.
    pub request_time: Duration,
    /// Time after which an answer that nobody reads ends.
    pub unread_time: Duration,
    /// Most tokens of an answer; `None` leaves it to the model's context.
    pub max_tokens: Option<usize>,
    /// Most samples of a prompt.
    pub samples: usize,
    /// Most texts of a request that takes several.
    pub texts: usize,
    /// Requests a minute of each key, or of each address where there are no keys; `None` is as many as come.
    pub requests_per_minute: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 256,
            header_bytes: 64 << 10,
            header_time: Duration::from_secs(10),
            body_bytes: 16 << 20,
            body_time: Duration::from_mins(1),
            request_time: Duration::from_mins(30),
            unread_time: Duration::from_secs(30),
            max_tokens: Some(32_768),
            samples: 16,
            texts: 256,
            requests_per_minute: None,
        }
    }
}

/// Most stop texts of a request.
const STOPS: usize = 16;

impl Limits {
    /// Whether a request stays within them.
    pub(crate) fn check(&self, controls: &Controls) -> Result<(), Failure> {
        let samples = controls.n.unwrap_or(1);
        if samples == 0 || samples > self.samples {
            let message = format!("n: expected 1 to {}, found {samples}", self.samples);
            return Err(Failure::field("n", message));
        }
        if controls.stop.len() > STOPS {
            let message = format!("stop: expected at most {STOPS} texts, found {}", controls.stop.len());
            return Err(Failure::field("stop", message));
        }
        if controls.stop.iter().any(String::is_empty) {
            return Err(Failure::field("stop", "stop: expected texts that are not empty, found \"\""));
        }
        for (field, value, range) in [
            ("temperature", controls.temperature, 0.0..=100.0),
            ("presence_penalty", controls.presence_penalty, -2.0..=2.0),
            ("frequency_penalty", controls.frequency_penalty, -2.0..=2.0),
            ("repetition_penalty", controls.repetition_penalty, 0.01..=100.0),
        ] {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let (from, to) = (range.start(), range.end());
                let message = format!("{field}: expected a number from {from} to {to}, found {value}");
                return Err(Failure::field(field, message));
            }
        }
        if let Some((token, bias)) =
            controls.logit_bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(*bias))
        {
            let message =
                format!("logit_bias: expected numbers from -100 to 100, found {bias} for token {token}");
            return Err(Failure::field("logit_bias", message));
        }
        Ok(())
    }
}
