//! Connections: accepted, encrypted, and brought to a good end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::app::{App, router};
use crate::config::TlsFiles;
use crate::connections::{Answer, Connections, Place};
use crate::memory;
use crate::stalled::Stalled;

/// A server that listens.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// What keeps a server from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address can't be listened to.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file for TLS.
    #[error("{}: {detail}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Certificate and key don't go together.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the headers of a request beside the limit on connections.
const BRIEF: Duration = Duration::from_secs(2);
/// Bytes that the system keeps of an answer that has not been read; Linux doubles it.
const SEND_BUFFER: u32 = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long to wait when the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for clients to take the ends of their answers.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Server {
    /// Listens where the app's configuration says. It has to be called within a Tokio runtime.
    pub fn bind(app: Arc<App>) -> Result<Self, ServeError> {
        let tls = app.config().tls.as_ref().map(acceptor).transpose()?;
        let address = app.config().listen;
        let listener = listen(address).map_err(|source| ServeError::Listen { address, source })?;
        Ok(Server { app, listener, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` ends. Then running answers may finish within the drain time, and new requests are refused.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { app, listener, tls } = self;
        let router = router(Arc::clone(&app));
        let limits = &app.config().limits;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_buf_size(limits.header_bytes.max(8192));
        let mut brief = http.clone();
        brief.header_read_timeout(BRIEF.min(limits.header_time)).keep_alive(false);
        let connections = Connections::new(limits.connections, limits.connections_per_address);
        let unread_time = limits.unread_time;
        memory::watch(&app);
        let graceful = GracefulShutdown::new();
        let watcher = || graceful.watcher();
        let accept = async {
            loop {
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let Some(place) = connections.admit(peer.ip()) else {
                    tracing::debug!(%peer, "a connection was refused: there is no room for it");
                    continue;
                };
                let http = if place.is_reserved() { brief.clone() } else { http.clone() };
                let (router, tls, watcher) = (router.clone(), tls.clone(), watcher());
                tokio::spawn(async move {
                    // Each token is to leave at once.
                    drop(stream.set_nodelay(true));
                    let stream = Stalled::new(stream, unread_time);
                    let served = Arc::clone(&place);
                    let serving = async move {
                        match tls {
                            None => connection(stream, peer, served, router, &http, watcher).await,
                            Some(tls) => {
                                let accepting = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
                                match accepting {
                                    Ok(Ok(stream)) => {
                                        connection(stream, peer, served, router, &http, watcher).await;
                                    }
                                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS failed"),
                                    Err(_) => tracing::debug!(%peer, "TLS took too long"),
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = serving => {}
                        () = place.sent_away() => tracing::debug!(%peer, "a connection that let the server wait was closed"),
                    }
                });
            }
        };
        tokio::pin!(stop);
        {
            tokio::pin!(accept);
            tokio::select! {
                () = &mut accept => {}
                () = &mut stop => {}
            }
            tracing::info!(drain_s = app.config().drain.as_secs(), "shutting down");
            // Who comes now is told, rather than left waiting.
            tokio::select! {
                () = accept => {}
                () = app.shutdown() => {}
            }
        }
        drop(listener);
        if tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await.is_err() {
            tracing::warn!("some clients did not take the ends of their answers");
        }
    }
}

async fn connection<S>(
    stream: S,
    peer: SocketAddr,
    place: Arc<Place>,
    router: Router,
    http: &http1::Builder,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        if request.body().is_end_stream() {
            place.answers();
        } else {
            place.waits();
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Arc::clone(&place));
        let (router, place) = (router.clone(), Arc::clone(&place));
        async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            place.answers();
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, place)))
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Listens, with buffers for sending that don't take long answers which nobody reads.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let wrong = |path: &PathBuf, error: &dyn std::fmt::Display| ServeError::TlsFile {
        path: path.clone(),
        detail: error.to_string(),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificates)
        .map_err(|error| wrong(&files.certificates, &error))?
        .collect();
    let chain = chain.map_err(|error| wrong(&files.certificates, &error))?;
    if chain.is_empty() {
        return Err(wrong(&files.certificates, &"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
