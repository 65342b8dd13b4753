//! Who may ask, and how often.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

use crate::app::App;
use crate::connections::Place;
use crate::error::{Failure, FailureKind};
use crate::work;

/// The keys that let a request in.
pub(crate) struct Keys(Vec<[u8; 32]>);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// Whoever has this key, by its place in the list.
    Key(usize),
    /// Someone at this address; where it is not known, everyone.
    Address(Option<IpAddr>),
}

/// When to come again where there is no room.
const SOON: Duration = Duration::from_secs(2);

impl Caller {
    /// A number of its own, for its share of an engine.
    fn share(self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Lets a request pass if it has a key, where there are keys, and if its caller does not ask too often.
pub(crate) async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match admitted(&app, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

fn admitted(app: &App, request: &Request) -> Result<Caller, Failure> {
    let caller = if app.keys().is_empty() {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        Caller::Address(peer.map(|ConnectInfo(address)| address.ip()))
    } else {
        let key = given_key(request.headers()).ok_or_else(|| {
            let message =
                "this server requires a key: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`";
            Failure::new(FailureKind::Unauthorized, message)
        })?;
        let known = app
            .keys()
            .find(key)
            .ok_or_else(|| Failure::new(FailureKind::Unauthorized, "the key is not valid for this server"))?;
        Caller::Key(known)
    };
    let is_asked = request.uri().path() == "/metrics";
    if request.extensions().get::<Arc<Place>>().is_some_and(|place| place.is_reserved()) && !is_asked {
        let message =
            "the server has reached its limit of connections, from this address or in all; try again";
        return Err(Failure::new(FailureKind::Unavailable, message).retry_after(SOON));
    }
    if request.method() != Method::GET && app.memory().sheds() {
        let message = "the server's memory is nearly full; try again";
        return Err(Failure::new(FailureKind::Unavailable, message).retry_after(SOON));
    }
    app.rate().take(caller, Instant::now())?;
    work::note_share(caller.share());
    Ok(caller)
}

fn given_key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(axum::http::HeaderValue::as_bytes))
}

impl Keys {
    pub(crate) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| hash(key.as_bytes())).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which key it is. It takes as long for any key: hashes are compared, whole, with all.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let given = hash(key);
        let mut found = None;
        for (index, known) in self.0.iter().enumerate() {
            if bool::from(std::hint::black_box(Choice::from(known.ct_eq(&given).unwrap_u8()))) {
                found = Some(index);
            }
        }
        found
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Requests that callers have left.
pub(crate) struct Rate {
    per_minute: Option<u32>,
    left: Mutex<HashMap<Caller, Left>>,
}

/// What one caller has left, as of a moment; it grows evenly up to a minute's requests.
struct Left {
    requests: f64,
    at: Instant,
}

/// Callers known at once. Beyond that, those that have all their requests are forgotten, and if none has, all.
const CALLERS: usize = 65_536;

impl Rate {
    pub(crate) fn new(per_minute: Option<u32>) -> Self {
        Self { per_minute, left: Mutex::default() }
    }

    /// Takes one request of a caller's.
    fn take(&self, caller: Caller, now: Instant) -> Result<(), Failure> {
        let Some(most) = self.per_minute.map(f64::from) else { return Ok(()) };
        let mut callers = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS {
            callers.retain(|_, left| left.at(now, most) < most);
            if callers.len() >= CALLERS {
                callers.clear();
            }
        }
        let left = callers.entry(caller).or_insert(Left { requests: most, at: now });
        *left = Left { requests: left.at(now, most), at: now };
        if left.requests >= 1.0 {
            left.requests -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - left.requests) * 60.0 / most.max(f64::MIN_POSITIVE));
        let message = format!("more than {most} requests a minute; try again");
        Err(Failure::new(FailureKind::RateLimit, message).retry_after(wait))
    }
}

impl Left {
    fn at(&self, now: Instant, most: f64) -> f64 {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * most / 60.0;
        (self.requests + gained).min(most)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    #[test]
    fn a_minute_has_so_many_requests() {
        let rate = Rate::new(Some(2));
        let (start, caller) = (Instant::now(), Caller::Key(0));
        rate.take(caller, start).unwrap();
        rate.take(caller, start).unwrap();
        let failure = rate.take(caller, start).unwrap_err();
        assert_eq!(failure.retry_after, Some(Duration::from_secs(30)));
        rate.take(Caller::Key(1), start).unwrap();
        rate.take(caller, start + Duration::from_secs(30)).unwrap();
        rate.take(caller, start + Duration::from_secs(31)).unwrap_err();
    }

    #[test]
    fn a_key_is_found_whole() {
        let keys = Keys::new(&["one".to_owned(), "two".to_owned()]);
        assert_eq!(keys.find(b"two"), Some(1));
        for wrong in ["", "on", "onee", "One", "three"] {
            assert_eq!(keys.find(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
