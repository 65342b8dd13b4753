//! Under which names the server may be addressed. A page elsewhere can have its own name resolve to this machine, and its
//! requests are then of one origin with the server's answers; only the name in them gives it away.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::config::Config;
use crate::error::Failure;

/// Lets a request pass if its `Host` is one of the server's.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().host()).unwrap_or("");
    if is_known(app.config(), host) {
        return next.run(request).await;
    }
    let message = format!("the server does not accept the host name {host:?}; `--host` adds a name");
    Failure::invalid(message).into_response()
}

fn is_known(config: &Config, host: &str) -> bool {
    // With keys, and for those whom the network lets in anyway, a name opens nothing.
    if !config.keys.is_empty() || !config.listen.ip().is_loopback() || host.is_empty() {
        return true;
    }
    let Ok(uri) = format!("http://{host}/").parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or("");
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || config.hosts.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_name_is_refused() {
        let config = Config { hosts: vec!["box.lan".to_owned()], ..Config::default() };
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "a.localhost", "BOX.lan:1", ""]
        {
            assert!(is_known(&config, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "a b",
            "127.0.0.1.evil",
        ] {
            assert!(!is_known(&config, host), "{host}");
        }
        assert!(is_known(&Config { hosts: vec!["*".to_owned()], ..Config::default() }, "evil.example"));
        assert!(is_known(&Config { keys: vec!["k".to_owned()], ..Config::default() }, "evil.example"));
    }
}
