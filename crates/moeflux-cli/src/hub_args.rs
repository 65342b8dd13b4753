//! Which hub, and who asks.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux_hub::{Hub, HubOptions, Proxy};

use crate::store_args::variable;

/// How to reach a hub.
#[derive(Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubArgs {
    /// Address of the hub. It receives the access token [default: $HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Number of files that are downloaded at once
    #[arg(long, value_name = "N", default_value_t = HubOptions::default().parallel)]
    parallel: usize,
}

impl HubArgs {
    /// The hub, with the token of `HF_TOKEN` or of the file where the hub's own tools keep it, and the system's proxy.
    pub(crate) fn hub(&self) -> Result<Hub> {
        let mut options = HubOptions { parallel: self.parallel, token: token()?, ..HubOptions::default() };
        options.proxy = Proxy::try_from_env();
        if let Some(endpoint) = &self.endpoint {
            options.endpoint.clone_from(endpoint);
        } else if let Some(endpoint) = variable("HF_ENDPOINT") {
            options.endpoint = endpoint.to_string_lossy().into_owned();
        }
        Ok(Hub::new(options)?)
    }
}

fn token() -> Result<Option<String>> {
    let (text, source) = match variable("HF_TOKEN") {
        Some(text) => (text.to_string_lossy().into_owned(), "HF_TOKEN".to_owned()),
        None => {
            let Some(path) = token_path() else { return Ok(None) };
            match fs::read_to_string(&path) {
                Ok(text) => (text, path.display().to_string()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(error).with_context(|| format!("reading the token in {}", path.display()));
                }
            }
        }
    };
    let token = text.trim();
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!(
            "{source}: expected an access token, found spaces or other characters that a token does not have"
        );
    }
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

/// Where the hub's own tools keep the token.
fn token_path() -> Option<PathBuf> {
    if let Some(path) = variable("HF_TOKEN_PATH") {
        return Some(path.into());
    }
    if let Some(folder) = variable("HF_HOME") {
        return Some(PathBuf::from(folder).join("token"));
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(env::home_dir()?.join(".cache")))?;
    Some(cache.join("huggingface/token"))
}
