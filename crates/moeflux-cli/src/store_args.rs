//! Where pulled models are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux::ModelOptions;
use moeflux_hub::{Model, Store};

/// The folder of pulled models.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model")]
pub(crate) struct StoreArgs {
    /// Folder of pulled models [default: $MOEFLUX_MODELS, or moeflux/models in the user's data folder]
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

    /// The model's folder or file that an argument names: by its path, or as a pulled model. `None` if it does
    /// neither.
    pub(crate) fn locate(&self, named: &Path) -> Result<Option<PathBuf>> {
        if named.is_dir() || moeflux::checkpoint::is_gguf(named) {
            return Ok(Some(named.to_owned()));
        }
        // A weight file stands for the folder that makes a model of it.
        if named.is_file() && named.extension().is_some_and(|extension| extension == "safetensors") {
            let folder = named.parent().filter(|folder| !folder.as_os_str().is_empty());
            return Ok(Some(folder.unwrap_or(Path::new(".")).to_owned()));
        }
        // Without a place for them there are no pulled models.
        let (Some(name), Ok(store)) = (named.to_str(), self.store()) else { return Ok(None) };
        Ok(store.find(name)?.map(|model| model.open_folder()).transpose()?)
    }

    /// Opens the model that an argument names.
    pub(crate) fn open(&self, named: &Path, options: &ModelOptions) -> Result<moeflux::Model> {
        let Some(folder) = self.locate(named)? else {
            let named = named.display();
            bail!(
                "{named} is neither a folder nor a GGUF file, and no pulled model: name the folder of a model, with \
                 its config.json, a .gguf file, or a model of `moeflux list`; `moeflux pull OWNER/NAME` downloads one"
            );
        };
        Ok(moeflux::Model::open(&folder, options)?)
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

/// Where programs keep what they can make again: `XDG_CACHE_HOME` and its default, on Windows the local application data.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    if cfg!(windows) {
        return variable("LOCALAPPDATA").map(PathBuf::from);
    }
    let named = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(env::home_dir()?.join(".cache")))
}

/// Where programs keep a user's data: `XDG_DATA_HOME` and its default, on Windows the local application data.
fn data_folder() -> Option<PathBuf> {
    if cfg!(windows) {
        return variable("LOCALAPPDATA").map(PathBuf::from);
    }
    let named = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(env::home_dir()?.join(".local/share")))
}
