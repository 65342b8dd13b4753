//! How a server runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::Limits;

/// How a server runs. The default listens to this machine alone.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Keys of which a request must have one; with none, none is asked for.
    pub keys: Vec<String>,
    /// Origins whose pages may use the API, such as `https://chat.example`; `*` is all.
    pub cors_origins: Vec<String>,
    /// Names under which the server may be addressed besides this machine's; `*` is any. A server without keys that
    /// listens to this machine alone answers to no others, so that no page elsewhere can lend its name to it.
    pub hosts: Vec<String>,
    /// Certificate chain and key, PEM files, for TLS.
    pub tls: Option<TlsFiles>,
    /// What requests may cost.
    pub limits: Limits,
    /// Models in memory at once.
    pub max_loaded: usize,
    /// Bytes for the experts of all models in memory together; `None` lets each have what its own options say.
    pub expert_budget: Option<u64>,
    /// Bytes that the process may have beside mapped files; with more, requests are refused until there are fewer. `None` is
    /// what machine and control group leave, but for an eighth.
    pub memory_limit: Option<u64>,
    /// Gives memory that the allocator keeps for later back to the system.
    pub give_back: Option<fn()>,
    /// Folder of saved sequences; without it they can't be saved.
    pub sequences: Option<PathBuf>,
    /// Whether the log has what requests say.
    pub log_text: bool,
    /// After which silence a stream gets a comment, so that nobody on the way takes it for dead.
    pub keep_alive: Duration,
    /// How long running answers may go on when the server stops.
    pub drain: Duration,
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those that lead to a known authority.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            keys: Vec::new(),
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            tls: None,
            limits: Limits::default(),
            max_loaded: 1,
            expert_budget: None,
            memory_limit: None,
            give_back: None,
            sequences: None,
            log_text: false,
            keep_alive: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }
}
