//! What a hub says about a model, in the interface of the Hugging Face hub.

use crate::digest::Digest;
use crate::error::Error;
use crate::http::{Http, connection};
use crate::name::{ModelName, encode};
use crate::plan::{Plan, PlannedFile, is_safe};
use crate::selection::{INDEX, is_gguf, select};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Body, Proxy};

/// The longest list of files or tensors that is read, in bytes: ten times what the largest models have.
const MAX_JSON: u64 = 256 << 20;

/// How to reach a hub.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The hub's address.
    pub endpoint: String,
    /// An access token, for gated and private models. It is shown to the hub, and not where the hub redirects to.
    pub token: Option<String>,
    /// A proxy to go through.
    pub proxy: Option<Proxy>,
    /// How long the network may be silent.
    pub timeout: Duration,
    /// How often in a row a request is made again, without anything gained, before it is given up.
    pub retries: u32,
    /// The pause before the first repetition; each further one is twice as long.
    pub backoff: Duration,
    /// How many files are downloaded at once.
    pub parallel: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            proxy: None,
            timeout: Duration::from_mins(1),
            retries: 5,
            backoff: Duration::from_secs(1),
            parallel: 4,
        }
    }
}

/// A hub.
pub struct Hub {
    http: Http,
    pub(crate) options: HubOptions,
}

impl Hub {
    /// A hub; nothing is asked yet.
    pub fn new(options: HubOptions) -> Result<Self, Error> {
        Ok(Self { http: Http::new(&options)?, options })
    }

    /// Asks which files a model consists of: the config, the tokenizer, the chat templates and one set of weights. Those
    /// are safetensors in the root of the repository, or a GGUF; with several GGUFs, the name's file part chooses: a
    /// path, a file's name, a part of it such as `Q4_K_M`, or any of these with `*` and `?`.
    pub fn plan(&self, name: &ModelName) -> Result<Plan, Error> {
        let endpoint = self.http.endpoint();
        let revision = encode(name.revision());
        let url = format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", name.repo());
        let info: ModelInfo = self.json(name, &url)?;
        if info.sha.is_empty() || !info.sha.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Error::Answer { url, what: format!("expected a commit, found {:?}", info.sha) });
        }

        // A path that leads out of the folder is none, whoever asks for it.
        let safe = info.siblings.iter().filter(|file| is_safe(&file.rfilename));
        let siblings: BTreeMap<&str, &Sibling> = safe.map(|file| (file.rfilename.as_str(), file)).collect();
        let paths: Vec<&str> = siblings.keys().copied().collect();
        let selection = select(name.repo(), &paths, name.file())?;
        let mut chosen = BTreeSet::from_iter(selection.files);
        if selection.with_shards {
            let index: Index = self.json(name, &self.file_url(name, &info.sha, INDEX))?;
            chosen.extend(index.weight_map.into_values());
        }

        let mut files = Vec::new();
        for path in chosen {
            let Some(sibling) = siblings.get(path.as_str()) else {
                let (repo, needed_by) = (name.repo().to_owned(), INDEX.to_owned());
                return Err(Error::MissingFile { repo, file: path, needed_by });
            };
            files.push(self.planned(name, &info.sha, path, sibling)?);
        }

        let architecture = info.gguf.and_then(|gguf| gguf.architecture);
        let family = info.config.and_then(|config| config.model_type);
        Ok(Plan {
            name: name.with_file(selection.choice),
            endpoint: endpoint.to_owned(),
            commit: info.sha,
            family: if files.iter().any(|file| is_gguf(&file.path)) {
                architecture.or(family)
            } else {
                family
            },
            files,
        })
    }

    /// The body of one of a plan's files, from a byte on.
    pub(crate) fn file(
        &self,
        plan: &Plan,
        file: &PlannedFile,
        from: u64,
    ) -> Result<(String, Response<Body>), Error> {
        let url = self.file_url(&plan.name, &plan.commit, &file.path);
        let response = self.http.get(&plan.name, &url, from)?;
        Ok((url, response))
    }

    /// What is known of a file; HEAD tells what the list of files does not.
    fn planned(
        &self,
        name: &ModelName,
        commit: &str,
        path: String,
        sibling: &Sibling,
    ) -> Result<PlannedFile, Error> {
        let (mut size, mut digest) = (sibling.size, sibling.blob_id.as_deref().and_then(Digest::from_hex));
        if let Some(lfs) = &sibling.lfs {
            // The blob is a pointer then; its hash is not the content's.
            (size, digest) = (lfs.size.or(size), lfs.sha256.as_deref().and_then(Digest::from_hex));
        }
        if let (Some(size), Some(_)) = (size, &digest) {
            return Ok(PlannedFile { path, size, digest });
        }
        let url = self.file_url(name, commit, &path);
        let head = self.patiently(|| self.http.head(name, &url))?;
        let etag = head.etag.as_deref().map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let Some(size) = size.or_else(|| head.size?.parse().ok()) else {
            return Err(Error::Answer { url, what: "the hub does not say how large the file is".to_owned() });
        };
        Ok(PlannedFile { path, size, digest: digest.or_else(|| Digest::from_hex(etag?)) })
    }

    fn file_url(&self, name: &ModelName, commit: &str, path: &str) -> String {
        let path: Vec<String> = path.split('/').map(encode).collect();
        format!("{}/{}/resolve/{commit}/{}", self.http.endpoint(), name.repo(), path.join("/"))
    }

    fn json<T: DeserializeOwned>(&self, name: &ModelName, url: &str) -> Result<T, Error> {
        self.patiently(|| {
            let mut response = self.http.get(name, url, 0)?;
            let body = response.body_mut().with_config().limit(MAX_JSON).read_to_vec();
            let body = body.map_err(|error| connection(url, error))?;
            serde_json::from_slice(&body)
                .map_err(|error| Error::Answer { url: url.to_owned(), what: error.to_string() })
        })
    }

    /// Repeats a request that the hub turns down for now. A hub that cannot be reached is told at once.
    fn patiently<T>(&self, request: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let mut tries = 0;
        loop {
            match request() {
                Err(error @ Error::Status { .. }) if error.is_transient() && tries < self.options.retries => {
                    thread::sleep(self.pause(tries, &error));
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    /// How long to wait after `tries` repetitions: at most a minute, unless the hub asks for more.
    pub(crate) fn pause(&self, tries: u32, error: &Error) -> Duration {
        let backoff = self.options.backoff.saturating_mul(1 << tries.min(16)).min(Duration::from_mins(1));
        backoff.max(error.retry_after().unwrap_or_default().min(Duration::from_mins(10)))
    }
}

/// What `api/models/REPO/revision/REV?blobs=true` answers, as far as it is used.
#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    config: Option<Config>,
    gguf: Option<Gguf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct Gguf {
    architecture: Option<String>,
}

/// `model.safetensors.index.json`: tensor → shard.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}
