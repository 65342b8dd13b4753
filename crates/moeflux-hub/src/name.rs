//! Names of models.

use crate::error::Error;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a revision is when none is named.
const DEFAULT_REVISION: &str = "main";

/// A model on a hub, and in a store: `OWNER/NAME`, `OWNER/NAME@REVISION`, `OWNER/NAME:FILE`.
///
/// Asked of a hub, `FILE` is a pattern that chooses among weight files ([`Hub::plan`](crate::Hub::plan)). In the name of
/// a stored model it is the chosen file's path without its ending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName {
    repo: String,
    revision: Option<String>,
    file: Option<String>,
}

impl ModelName {
    /// The repository: `OWNER/NAME`, or `NAME` alone.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// What chooses among the repository's weight files.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The same model with another choice of weight files.
    #[must_use]
    pub fn with_file(&self, file: Option<String>) -> Self {
        Self { file, ..self.clone() }
    }

    /// Where a store keeps it, below the store's folder; one folder for each name.
    pub(crate) fn folder(&self) -> PathBuf {
        let mut folder = format!("{}@{}", self.repo, encode(self.revision()));
        if let Some(file) = &self.file {
            folder = format!("{folder}+{}", encode(file));
        }
        folder.into()
    }

    /// Whether somebody who writes `query` may mean this model: case and the owner may be left out, as may revision and
    /// file; a file may be meant by a pattern.
    pub(crate) fn answers_to(&self, query: &ModelName) -> bool {
        let short = self.repo.rsplit('/').next().unwrap_or_default();
        let file_fits = |pattern: &String| {
            self.file.as_deref().is_some_and(|file| crate::selection::chooses(pattern, file))
        };
        (self.repo.eq_ignore_ascii_case(&query.repo) || short.eq_ignore_ascii_case(&query.repo))
            && (query.revision.is_none() || self.revision == query.revision)
            && query.file.as_ref().is_none_or(file_fits)
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what| Error::Name { text: text.to_owned(), what };
        let (rest, file) = match text.split_once(':') {
            Some((_, "")) => return Err(wrong("nothing after the colon")),
            Some((rest, file)) => (rest, Some(file.to_owned())),
            None => (text, None),
        };
        let (repo, revision) = match rest.split_once('@') {
            Some((_, "")) => return Err(wrong("nothing after the @")),
            Some((repo, revision)) => (repo, Some(revision)),
            None => (rest, None),
        };
        let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(in_name);
        if repo.split('/').count() > 2 || !repo.split('/').all(is_part) {
            return Err(wrong("no such name can be on a hub"));
        }
        if file.as_deref().is_some_and(|file| file.contains(char::is_control)) {
            return Err(wrong("no such file can be on a hub"));
        }
        if revision.is_some_and(|revision| revision.chars().any(|c| c.is_control() || c.is_whitespace())) {
            return Err(wrong("no such revision can be on a hub"));
        }
        let revision = revision.filter(|revision| *revision != DEFAULT_REVISION).map(str::to_owned);
        Ok(Self { repo: repo.to_owned(), revision, file })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.repo.clone();
        for (mark, part) in [('@', &self.revision), (':', &self.file)] {
            if let Some(part) = part {
                text.push(mark);
                text.push_str(part);
            }
        }
        f.pad(&text)
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for ModelName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

/// `text` as one part of a path or a URL.
pub(crate) fn encode(text: &str) -> String {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    utf8_percent_encode(text, &KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::ModelName;
    use std::path::Path;

    fn name(text: &str) -> ModelName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_name_is_what_it_prints() {
        for text in ["owner/name", "name", "owner/Name-1.5_b@refs/pr/3", "a/b@v1:Q4_K_M", "a/b:UD/x-Q4"] {
            assert_eq!(name(text).to_string(), text);
        }
        assert_eq!(name("a/b@main"), name("a/b"));
        assert_eq!(name("a/b").revision(), "main");
    }

    #[test]
    fn what_is_no_name() {
        for text in [
            "", "/", "a/", "/b", "a/b/c", "../b", "a/..", ".a/b", "a b/c", "What?", "a/b@", "a/b:", "a/b@x y",
        ] {
            assert!(text.parse::<ModelName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_folder_stays_below_the_store() {
        assert_eq!(name("a/b").folder(), Path::new("a/b@main"));
        assert_eq!(name("a/b@refs/pr/3:../x").folder(), Path::new("a/b@refs%2Fpr%2F3+..%2Fx"));
        assert_eq!(name("a/b@../..").folder(), Path::new("a/b@..%2F.."));
    }

    #[test]
    fn short_names() {
        let stored = name("Owner/Model@v1:Model-Q4_K_M");
        for query in ["Owner/Model", "owner/model@v1", "model", "MODEL:q4_k_m", "Owner/Model@v1:Model-Q4_K_M"]
        {
            assert!(stored.answers_to(&name(query)), "{query}");
        }
        for query in ["Model@v2", "other/Model", "Mode", "Model:Q8_0", "Owner"] {
            assert!(!stored.answers_to(&name(query)), "{query}");
        }
    }
}
