//! `moeflux serve`: an HTTP server.

mod config_file;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use moeflux::engine::{SchedulerOptions, Speculate};
use moeflux_server::{App, Config, Limits, ModelSource, ServeError, Server, TlsFiles};

pub(crate) use self::config_file::arguments;
use crate::allocator;
use crate::count::count;
use crate::interrupt::EXIT_INTERRUPTED;
use crate::model_args::{EngineArgs, ModelArgs};
use crate::size::Size;
use crate::terminal::note;

/// Arguments of `serve`.
#[derive(Args, Clone)]
pub(crate) struct ServeArgs {
    /// Model folders, GGUF files or names of pulled models. NAME=MODEL sets the name that requests use [default: the
    /// demo in models/demo]
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Read flags from this TOML file, such as `listen = "0.0.0.0:8080"`. Flags of the command line take precedence
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    config: Option<PathBuf>,
    /// Address to listen on: an address and a port such as 127.0.0.1:8080 or [::1]:8080, `localhost:8080`, or a port
    /// alone
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080",
        value_parser = listen,
        help_heading = "Server"
    )]
    listen: SocketAddr,
    /// Require this key of requests; may be repeated. Other users of the machine can see it: a file is safer
    #[arg(long, value_name = "KEY", help_heading = "Server")]
    api_key: Vec<String>,
    /// Require one of the keys of this file, which has one key in each line
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    api_keys_file: Option<PathBuf>,
    /// Let web pages of this origin use the API, such as https://chat.example; may be repeated, * is every origin
    #[arg(long, value_name = "ORIGIN", help_heading = "Server")]
    cors_origin: Vec<String>,
    /// Accept requests with this host name, if the server listens on this machine alone and requires no key; may be
    /// repeated, * is every name
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    host: Vec<String>,
    /// Certificate chain for TLS: a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Server")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate: a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Server")]
    tls_key: Option<PathBuf>,
    /// Folder of the sequences that clients save
    #[arg(long, value_name = "FOLDER", help_heading = "Server")]
    sequences: Option<PathBuf>,
    /// Memory limit of the process, such as 12G. Beyond it requests are refused; mapped weights do not count [default:
    /// 7/8 of what the machine or the control group leaves]
    #[arg(long, value_name = "SIZE", help_heading = "Server")]
    memory_limit: Option<Size>,
    /// Maximum number of models in memory. The least recently used model is unloaded for another one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1024), help_heading = "Server")]
    max_loaded: usize,
    /// Log the text of requests
    #[arg(long, help_heading = "Server")]
    log_text: bool,
    /// Seconds that running answers may continue after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Server")]
    drain: u64,
    /// Seconds without output after which a stream sends a comment
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Server")]
    keep_alive: u64,
    #[command(flatten)]
    scheduler: SchedulerArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// How requests share a model.
#[derive(Args, Clone)]
#[command(next_help_heading = "Requests at once")]
struct SchedulerArgs {
    /// Maximum number of answers that are computed at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count(4096))]
    max_running: usize,
    /// Maximum number of waiting requests. Further requests get status 429
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(65_536))]
    max_queued: usize,
    /// Maximum number of prompt tokens in a step in which other requests decode. Fewer tokens shorten the pauses of
    /// running answers, more tokens prefill prompts faster [default: as many as a tenth of a second is enough for, at least 64]
    #[arg(long, value_name = "N")]
    mixed_tokens: Option<usize>,
    /// Memory for the states of running requests and for the prefix cache [default: a share of the free memory]
    #[arg(long, value_name = "SIZE")]
    state_memory: Option<Size>,
    /// Prefill every prompt from its beginning
    #[arg(long)]
    no_prefix_cache: bool,
    /// Draft tokens to be faster, which changes no text: off, auto (for each answer as many as pay), ngram (what followed
    /// before), mtp or mtp:DEPTH (the model's own layer for it)
    #[arg(long, value_name = "HOW", default_value_t = Speculate::Off)]
    speculate: Speculate,
}

/// What requests may cost.
#[derive(Args, Clone)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Maximum number of connections. A new one replaces one that has sent no request for a second
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count(65_536))]
    max_connections: usize,
    /// Maximum number of connections of one address. Behind a proxy, all have one address
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(65_536))]
    max_connections_per_address: usize,
    /// Maximum size of a request's headers
    #[arg(long, value_name = "SIZE", default_value = "64K")]
    max_headers: Size,
    /// Seconds within which the headers must arrive
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    header_timeout: u64,
    /// Maximum size of a request's body
    #[arg(long, value_name = "SIZE", default_value = "16M")]
    max_body: Size,
    /// Seconds within which the body must arrive
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    body_timeout: u64,
    /// Maximum duration of an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    request_timeout: u64,
    /// Seconds after which an answer that the client does not read is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    unread_timeout: u64,
    /// Maximum number of tokens of an answer. The model's context limits it too
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = count(1 << 30))]
    max_tokens: usize,
    /// Maximum number of answers to one request
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count(4096))]
    max_samples: usize,
    /// Maximum number of requests a minute for each key, or for each address if there are no keys [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: Option<u32>,
}

/// Events of an answer that may wait to be read before it is preempted.
const UNREAD_EVENTS: usize = 256;
/// Threads for connections; the models' own threads compute.
const CONNECTION_THREADS: usize = 2;
/// Threads for templates, tokens and files.
const WORK_THREADS: usize = 32;

/// Runs the command until a signal ends it.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    allocator::set_up();
    let sources = args.sources()?;
    let only_one = sources.len() == 1;
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    let app = App::new(args.config()?, sources, args.scheduler.options(args.limits.unread_timeout));
    let stop = stop_signal()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONNECTION_THREADS)
        .max_blocking_threads(WORK_THREADS)
        .enable_all()
        .build()
        .context("starting the threads for connections")?;
    let served = runtime.block_on(async {
        // Before a model is read, which may take a while: the address may be another program's.
        let server = Server::bind(Arc::clone(&app)).map_err(|error| match &error {
            ServeError::Listen { .. } => anyhow!("{error}; --listen selects another address"),
            _ => error.into(),
        })?;
        // Nobody is to find out by asking that the one model can't be had.
        if only_one && let Err(failure) = app.model(None).await {
            bail!("{}", failure.message);
        }
        if !args.listen.ip().is_loopback() && args.api_key.is_empty() && args.api_keys_file.is_none() {
            note("warning: everyone who can reach this address can use the server; --api-keys-file requires a key");
        }
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        note(format_args!("serving {} at {scheme}://{}/", names.join(", "), server.address()?));
        server.run(stop).await;
        Ok(())
    });
    // What still works for nobody is left behind.
    runtime.shutdown_background();
    served
}

impl ServeArgs {
    /// The file of `--config`.
    pub(crate) fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The models by name.
    fn sources(&self) -> Result<Vec<ModelSource>> {
        let mut named: Vec<(String, PathBuf)> = Vec::new();
        for model in &self.models {
            // A path that is there may have an equals sign in it.
            named.push(match model.split_once('=').filter(|_| !Path::new(model).exists()) {
                Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
                None => (name_of(Path::new(model)), PathBuf::from(model)),
            });
        }
        if named.is_empty() || self.model.is_named() {
            let path = self.model.folder(None)?;
            named.push((name_of(&path), path));
        }
        let mut seen = BTreeSet::new();
        let mut sources = Vec::new();
        for (name, path) in named {
            if name.is_empty() || !seen.insert(name.clone()) {
                bail!(
                    "the name {name:?} is empty, or two models have it: give each model a name, as in NAME={}",
                    path.display()
                );
            }
            if self.model.locate(&path)?.is_none() {
                // Says what is wrong.
                self.model.open_named(&path, false)?;
            }
            let (to_load, to_unload) = (self.clone(), self.clone());
            sources.push(ModelSource {
                name,
                load: Box::new(move |share| {
                    let mtp = to_load.scheduler.speculate.uses_mtp();
                    let model = to_load.model.open_named(&path, mtp)?;
                    let mut options = to_load.engine.options(&model)?;
                    if share.is_some() {
                        options.experts.memory.experts = share;
                    }
                    Ok(to_load.engine.engine_with(model, &options)?)
                }),
                unload: Box::new(move |handle| {
                    if let Err(error) = to_unload.engine.finish_with(handle.experts(), handle.model()) {
                        note(format_args!("warning: {error:#}"));
                    }
                }),
            });
        }
        Ok(sources)
    }

    fn config(&self) -> Result<Config> {
        let mut keys = self.api_key.clone();
        if let Some(path) = &self.api_keys_file {
            let text =
                fs::read_to_string(path).with_context(|| format!("reading keys from {}", path.display()))?;
            let before = keys.len();
            keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
            if keys.len() == before {
                bail!("{}: expected one key in each line, found none", path.display());
            }
        }
        if keys.iter().any(String::is_empty) {
            bail!("--api-key: expected a key, found an empty text");
        }
        if let Some(folder) = &self.sequences {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Ok(Config {
            listen: self.listen,
            keys,
            cors_origins: self.cors_origin.clone(),
            hosts: self.host.clone(),
            tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
            limits: self.limits.limits(),
            max_loaded: self.max_loaded,
            expert_budget: self.engine.expert_bytes(),
            memory_limit: self.memory_limit.map(|Size(bytes)| bytes),
            give_back: Some(allocator::give_back),
            sequences: self.sequences.clone(),
            log_text: self.log_text,
            keep_alive: Duration::from_secs(self.keep_alive.max(1)),
            drain: Duration::from_secs(self.drain),
        })
    }
}

impl SchedulerArgs {
    fn options(&self, unread_timeout: u64) -> SchedulerOptions {
        SchedulerOptions {
            max_running: self.max_running,
            max_queued: self.max_queued,
            mixed_tokens: self.mixed_tokens,
            state_budget: self.state_memory.map(|Size(bytes)| bytes),
            prefix_cache: !self.no_prefix_cache,
            speculate: self.speculate,
            unread_events: UNREAD_EVENTS,
            unread_time: Some(Duration::from_secs(unread_timeout)),
        }
    }
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address,
            header_bytes: self.max_headers.0 as usize,
            header_time: Duration::from_secs(self.header_timeout),
            body_bytes: self.max_body.0 as usize,
            body_time: Duration::from_secs(self.body_timeout),
            request_time: Duration::from_secs(self.request_timeout),
            unread_time: Duration::from_secs(self.unread_timeout.max(1)),
            max_tokens: Some(self.max_tokens),
            samples: self.max_samples,
            requests_per_minute: self.rate_limit,
            ..Limits::default()
        }
    }
}

/// An address and a port, or a port alone.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        format!("expected an address and a port, such as 127.0.0.1:8080 or localhost:8080, found {text:?}")
    };
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let mut found = text.to_socket_addrs().map_err(|_| wrong())?;
    found.next().ok_or_else(wrong)
}

/// What requests call a model: the last part of its path.
fn name_of(path: &Path) -> String {
    // A folder such as `.` has a name too.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_gguf = whole.extension().is_some_and(|extension| extension == "gguf");
    let name = if is_gguf { whole.file_stem() } else { whole.file_name() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Ends with the first SIGTERM or Ctrl-C; the second ends the program.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let stop = Arc::new(tokio::sync::Notify::new());
    let seen = AtomicBool::new(false);
    let signal = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        signal.notify_one();
    })
    .context("installing the handler of signals")?;
    Ok(async move { stop.notified().await })
}
