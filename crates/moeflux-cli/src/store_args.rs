//! Where pulled models are.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use moeflux_hub::{Model, Store};

/// The folder of pulled models.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct StoreArgs {
    /// Where pulled models are
    /// [default: $MOEFLUX_MODELS, or moeflux/models in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    models_dir: Option<PathBuf>,
}

impl StoreArgs {
    /// The store.
    pub(crate) fn store(&self) -> Result<Store> {
        let folder = self.models_dir.clone().or_else(|| variable("MOEFLUX_MODELS").map(PathBuf::from));
        let folder = folder.or_else(|| data_folder().map(|data| data.join("moeflux/models")));
        let folder = folder.context(
            "neither --models-dir nor MOEFLUX_MODELS says where pulled models are, and there is no home folder",
        )?;
        Ok(Store::new(folder))
    }

    /// The pulled model that `text` names, complete or not.
    pub(crate) fn find(&self, text: &str) -> Result<Model> {
        let store = self.store()?;
        let missing =
            || format!("{text}: no such model in {}; `moeflux list` lists them", store.root().display());
        store.find(text)?.with_context(missing)
    }
}

/// An environment variable that is set to something.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Where programs keep a user's data: `XDG_DATA_HOME` and its default, on Windows the local application data.
fn data_folder() -> Option<PathBuf> {
    if cfg!(windows) {
        return variable("LOCALAPPDATA").map(PathBuf::from);
    }
    let named = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(env::home_dir()?.join(".local/share")))
}
