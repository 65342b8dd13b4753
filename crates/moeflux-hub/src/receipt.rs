//! The list of a model's files, kept beside them.

use crate::error::Error;
use crate::plan::{Plan, is_safe};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file's name in a model's folder.
pub(crate) const RECEIPT: &str = "pulled.json";

/// Number of the list's format.
const FORMAT: u32 = 1;

/// What a folder holds, or is going to hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    format: u32,
    #[serde(flatten)]
    pub(crate) plan: Plan,
    /// When the last file was there, in seconds since 1970.
    #[serde(default)]
    pulled_at: Option<u64>,
}

impl Receipt {
    /// For a folder that files are still downloaded into.
    pub(crate) fn begun(plan: &Plan) -> Self {
        Self { format: FORMAT, plan: plan.clone(), pulled_at: None }
    }

    /// For a folder with all files, now.
    pub(crate) fn finished(plan: &Plan) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { pulled_at: Some(now.as_secs()), ..Self::begun(plan) }
    }

    /// When the last file was there.
    pub(crate) fn pulled_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.pulled_at?))
    }

    /// The list in `folder`; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(RECEIPT);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::at(path)(error)),
        };
        let wrong = |what: String| Error::Receipt { path: path.clone(), what };
        let receipt: Receipt = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if receipt.format != FORMAT {
            return Err(wrong(format!("format {}, expected {FORMAT}", receipt.format)));
        }
        match receipt.plan.files.iter().find(|file| !is_safe(&file.path)) {
            Some(file) => Err(wrong(format!("{:?} is no path in the folder", file.path))),
            None => Ok(Some(receipt)),
        }
    }

    /// Writes the list to `folder`, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let (path, new) = (folder.join(RECEIPT), folder.join(format!("{RECEIPT}.new")));
        let write = || {
            let mut file = File::create(&new)?;
            serde_json::to_writer_pretty(&mut file, self).map_err(io::Error::from)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(Error::at(&path))
    }
}
