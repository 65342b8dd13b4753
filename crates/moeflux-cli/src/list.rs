//! `moeflux list`: the pulled models.

use std::fmt::Write;
use std::time::SystemTime;

use anyhow::Result;
use chrono::{DateTime, Local, Utc};
use clap::Args;
use moeflux_hub::Model;
use serde::Serialize;

use crate::one_line;
use crate::stats::Bytes;
use crate::store_args::StoreArgs;
use crate::terminal::{self, note};

/// Arguments of `list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// A model, as `--json` prints it.
#[derive(Serialize)]
struct JsonModel {
    name: String,
    revision: String,
    commit: String,
    family: Option<String>,
    size: u64,
    /// Bytes that are there.
    there: u64,
    /// When it became complete; `null` for one that is not.
    pulled_at: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &ListArgs) -> Result<()> {
    let store = args.store.store()?;
    let mut models = Vec::new();
    for model in store.models()? {
        match model {
            Ok(model) => models.push(model),
            Err(error) => note(one_line(&error.into())),
        }
    }
    if args.json {
        let models: Vec<_> = models.into_iter().map(JsonModel::from).collect();
        return Ok(terminal::show(&terminal::json(&models)?)?);
    }
    if models.is_empty() {
        note(format_args!(
            "no models in {}: `moeflux pull OWNER/NAME` downloads one",
            store.root().display()
        ));
        return Ok(());
    }
    Ok(terminal::show(&table(&models))?)
}

impl From<Model> for JsonModel {
    fn from(model: Model) -> Self {
        Self {
            name: model.name.to_string(),
            revision: model.name.revision().to_owned(),
            pulled_at: model.pulled_at.map(|time| DateTime::<Utc>::from(time).to_rfc3339()),
            commit: model.commit,
            family: model.family,
            size: model.size,
            there: model.there,
        }
    }
}

fn table(models: &[Model]) -> String {
    let head = ["NAME", "SIZE", "COMMIT", "FAMILY", "PULLED"].map(str::to_owned);
    let rows: Vec<[String; 5]> = [head].into_iter().chain(models.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    for [name, size, commit, family, pulled] in &rows {
        let [of_name, of_size, of_commit, of_family] = widths;
        let _ = writeln!(
            text,
            "{name:of_name$}  {size:>of_size$}  {commit:of_commit$}  {family:of_family$}  {pulled}"
        );
    }
    text
}

fn row(model: &Model) -> [String; 5] {
    let local = |time: SystemTime| DateTime::<Local>::from(time).format("%Y-%m-%d %H:%M").to_string();
    let pulled = model.pulled_at.map_or_else(|| format!("incomplete, {} there", Bytes(model.there)), local);
    let commit = model.commit.chars().take(8).collect();
    let family = model.family.clone().unwrap_or_else(|| "-".to_owned());
    [model.name.to_string(), Bytes(model.size).to_string(), commit, family, pulled]
}
