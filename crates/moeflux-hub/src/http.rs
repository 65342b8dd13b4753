//! Requests to a hub, and what its refusals mean.

use crate::error::Error;
use crate::hub::HubOptions;
use crate::name::ModelName;
use std::sync::Arc;
use std::time::Duration;
use ureq::config::{AutoHeaderValue, RedirectAuthHeaders};
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

/// What asks a hub, and shows it the token. Redirections to other hosts are followed without the token.
pub(crate) struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What HEAD says of a file: header values, as they are.
pub(crate) struct Head {
    pub(crate) size: Option<String>,
    pub(crate) etag: Option<String>,
}

/// TLS for requests that the system's certificates vouch for, so that a company's own are among them.
pub fn tls() -> TlsConfig {
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

impl Http {
    pub(crate) fn new(options: &HubOptions) -> Result<Self, Error> {
        let endpoint = options.endpoint.trim_end_matches('/');
        let is_address = |address: &str| {
            let parts = address.parse::<ureq::http::Uri>().ok();
            parts
                .is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        };
        if !is_address(endpoint) {
            return Err(Error::Endpoint { endpoint: options.endpoint.clone() });
        }
        let agent = Agent::config_builder()
            .tls_config(tls())
            .proxy(options.proxy.clone())
            .user_agent(concat!("moeflux/", env!("CARGO_PKG_VERSION")))
            // A range of a compressed body would be no range of the file.
            .accept_encoding(AutoHeaderValue::Provided(Arc::new("identity".to_owned())))
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(options.timeout))
            .timeout_recv_response(Some(options.timeout))
            .timeout_per_read(Some(options.timeout))
            .max_idle_connections_per_host(options.parallel)
            .build()
            .new_agent();
        Ok(Self { agent, endpoint: endpoint.to_owned(), token: options.token.clone() })
    }

    /// The hub's address, without a slash at the end.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// GET, from a byte on; `about` is the model that the request is for.
    pub(crate) fn get(&self, about: &ModelName, url: &str, from: u64) -> Result<Response<Body>, Error> {
        let mut request = self.agent.get(url);
        if let Some(authorization) = self.authorization() {
            request = request.header("Authorization", authorization);
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| connection(url, error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(about, url, &response)) }
    }

    /// HEAD. The hub answers for large files with a redirection, which says what the file is; where that leads, other
    /// values are said, so it is followed only within the hub.
    pub(crate) fn head(&self, about: &ModelName, url: &str) -> Result<Head, Error> {
        let mut url = url.to_owned();
        for _ in 0..5 {
            let mut request = self.agent.head(&url).config().max_redirects(0).build();
            if let Some(authorization) = self.authorization() {
                request = request.header("Authorization", authorization);
            }
            let response = request.call().map_err(|error| connection(&url, error))?;
            let status = response.status();
            if !status.is_success() && !status.is_redirection() {
                return Err(self.refusal(about, &url, &response));
            }
            let linked =
                Head { size: header(&response, "x-linked-size"), etag: header(&response, "x-linked-etag") };
            if status.is_success() {
                return Ok(Head {
                    size: linked.size.or_else(|| header(&response, "content-length")),
                    etag: linked.etag.or_else(|| header(&response, "etag")),
                });
            }
            match header(&response, "location").unwrap_or_default() {
                _ if linked.size.is_some() => return Ok(linked),
                path if path.starts_with('/') => url = format!("{}{path}", self.endpoint),
                within if within.starts_with(&format!("{}/", self.endpoint)) => url = within,
                _ => return Ok(linked),
            }
        }
        Err(Error::Answer { url, what: "too many redirections".to_owned() })
    }

    fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    /// What a status other than success means. The hub says more in headers than in the status: it hides what is private
    /// behind 401 and 404 alike.
    fn refusal(&self, about: &ModelName, url: &str, response: &Response<Body>) -> Error {
        let (repo, endpoint, with_token) =
            (about.repo().to_owned(), self.endpoint.clone(), self.token.is_some());
        let status = response.status().as_u16();
        let code = header(response, "x-error-code").unwrap_or_default();
        let message = header(response, "x-error-message").unwrap_or_default();
        let is_about_repo = url.starts_with(&format!("{endpoint}/api/"));
        match (status, code.as_str()) {
            (401 | 403, "GatedRepo") => Error::Gated { repo, endpoint, with_token },
            (401 | 403 | 404, "RepoNotFound") => Error::NoRepo { repo, endpoint, with_token },
            (404, "RevisionNotFound") => {
                Error::NoRevision { repo, revision: about.revision().to_owned(), endpoint }
            }
            (404, "EntryNotFound") => Error::NoFile { url: url.to_owned() },
            (401 | 403, _) if message.is_empty() => Error::Denied { url: url.to_owned(), status, with_token },
            (404, _) if is_about_repo => Error::NoRepo { repo, endpoint, with_token },
            (404, _) => Error::NoFile { url: url.to_owned() },
            _ => {
                let seconds = header(response, "retry-after").and_then(|text| text.trim().parse().ok());
                Error::Status {
                    url: url.to_owned(),
                    status,
                    message,
                    retry_after: seconds.map(Duration::from_secs),
                }
            }
        }
    }
}

/// A header's value as text.
pub(crate) fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

pub(crate) fn connection(url: &str, error: ureq::Error) -> Error {
    Error::Connection { url: url.to_owned(), source: Box::new(error) }
}
