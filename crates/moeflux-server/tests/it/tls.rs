//! Encrypted connections.

use std::path::Path;
use std::sync::Arc;

use moeflux_server::{Config, TlsFiles};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::connections::{Running, exchange};

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_the_one_that_was_given() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data");
    let files = TlsFiles { certificates: data.join("certificate.pem"), key: data.join("key.pem") };
    let certificate = CertificateDer::from_pem_file(&files.certificates).unwrap();
    let server = Running::start(Config { tls: Some(files), ..Config::default() }).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(client).connect(name, stream).await.unwrap();
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{\"status\":\"ready\"}"), "{answer}");

    // Whoever does not encrypt gets no answer.
    let (status, text) = exchange(server.address, request.as_bytes()).await;
    assert!(status.is_none(), "{text}");
    server.stop().await;
}
