//! A hub in the test: two listeners on the loopback, one with the hub's interface, one that large files are redirected to.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What the server does to requests for one file.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Sends as many bytes of the body, and closes the connection.
    Cut(usize),
    /// Sends as many bytes of the body, and then nothing for this long.
    Stall(usize, Duration),
    /// Answers with this status.
    Status(u16),
    /// Sends the body with one bit changed.
    Flip,
    /// Sends the whole file, whatever range is asked for.
    NoRange,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method and path, as in `GET /api/models/a/b`.
    pub(crate) line: String,
    /// First byte of the range asked for.
    pub(crate) from: Option<usize>,
    /// Whether it came with a token.
    pub(crate) with_token: bool,
    /// Whether it came to the place that large files are redirected to.
    pub(crate) to_cdn: bool,
}

/// What the server has, and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    /// Repository → revision → commit and files.
    pub(crate) repos: BTreeMap<String, BTreeMap<String, Revision>>,
    /// What happens to a file's next requests, in turn.
    pub(crate) faults: BTreeMap<String, Vec<Fault>>,
    /// What happens to all of its requests.
    pub(crate) always: BTreeMap<String, Fault>,
    /// The token that gated repositories want.
    pub(crate) token: Option<String>,
    /// Whether the list of files says sizes and hashes.
    pub(crate) without_blobs: bool,
    /// Bytes a second of each body.
    pub(crate) rate: Option<usize>,
    /// What was asked.
    pub(crate) seen: Vec<Seen>,
}

/// Files at one commit.
#[derive(Clone, Default)]
pub(crate) struct Revision {
    /// 40 digits.
    pub(crate) commit: String,
    /// Contents by path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// A server; it lives as long as the process.
#[derive(Clone)]
pub(crate) struct Server {
    endpoint: String,
    cdn: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Starts one that has nothing.
    pub(crate) fn start() -> Result<Self> {
        let (hub, cdn) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let server = Self {
            endpoint: format!("http://127.0.0.1:{}", hub.local_addr()?.port()),
            // Another host by name, so that it must not see the token.
            cdn: format!("http://localhost:{}", cdn.local_addr()?.port()),
            state: Arc::default(),
        };
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let server = server.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    thread::spawn(move || server.answer(&stream, is_cdn));
                }
            });
        }
        Ok(server)
    }

    /// Its address.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it has and does, to look at or change.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it a repository, or another commit of one.
    pub(crate) fn publish(&self, repo: &str, revision: &str, files: &[(&str, Vec<u8>)]) {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(path, content)| ((*path).to_owned(), content.clone())).collect();
        let all: Vec<u8> =
            files.iter().flat_map(|(path, content)| [path.as_bytes(), content].concat()).collect();
        let commit = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &all).as_ref());
        let mut state = self.state();
        let revisions = state.repos.entry(repo.to_owned()).or_default();
        for name in [revision, &commit] {
            revisions.insert(name.to_owned(), Revision { commit: commit.clone(), files: files.clone() });
        }
    }

    /// The lines of what was asked since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    fn answer(&self, stream: &TcpStream, is_cdn: bool) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (mut from, mut token) = (None, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
                "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let seen = Seen { line: line.clone(), from, with_token: token.is_some(), to_cdn: is_cdn };
        self.state().seen.push(seen);
        let (method, path) = line.split_once(' ').unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
        let mut reply = Reply { stream, is_head: method == "HEAD", rate: self.state().rate };
        if let Some(rest) = path.strip_prefix("api/models/") {
            return self.info(&mut reply, rest, token.as_deref());
        }
        let Some((repo, rest)) = path.split_once(if is_cdn { "/at/" } else { "/resolve/" }) else {
            return reply.refuse(404, "");
        };
        let (revision, path) = rest.split_once('/').unwrap_or_default();
        let path = path.replace("%20", " ");
        let found = match self.revision(repo, revision, token.as_deref(), is_cdn) {
            Ok(found) => found,
            Err((status, code)) => return reply.refuse(status, code),
        };
        let Some(content) = found.files.get(&path) else { return reply.refuse(404, "EntryNotFound") };
        if is_large(&path) && !is_cdn {
            let headers = [
                ("Location", format!("{}/{repo}/at/{}/{path}", self.cdn, found.commit)),
                ("X-Repo-Commit", found.commit.clone()),
                ("X-Linked-Size", content.len().to_string()),
                ("X-Linked-Etag", format!("\"{}\"", sha256(content))),
            ];
            return reply.send("302 Found", &headers, b"", 0..0, None);
        }
        self.content(&mut reply, &path, content, from, &found.commit)
    }

    /// What a repository has at a revision, or the status and code of the refusal.
    fn revision(
        &self,
        repo: &str,
        revision: &str,
        token: Option<&str>,
        is_cdn: bool,
    ) -> std::result::Result<Revision, (u16, &'static str)> {
        let state = self.state();
        let Some(revisions) = state.repos.get(repo) else {
            return Err(if token.is_some() { (404, "RepoNotFound") } else { (401, "RepoNotFound") });
        };
        if !is_cdn && state.token.is_some() && state.token.as_deref() != token {
            return Err(if token.is_some() { (401, "") } else { (401, "GatedRepo") });
        }
        revisions.get(&revision.replace("%2F", "/")).cloned().ok_or((404, "RevisionNotFound"))
    }

    fn info(&self, reply: &mut Reply<'_>, rest: &str, token: Option<&str>) -> Result<()> {
        if let Some(Fault::Status(status)) = self.fault("api") {
            return reply.refuse(status, "");
        }
        let (repo, revision) = rest.split_once("/revision/").unwrap_or((rest, "main"));
        let found = match self.revision(repo, revision, token, false) {
            Ok(found) => found,
            Err((status, code)) => return reply.refuse(status, code),
        };
        let without_blobs = self.state().without_blobs;
        let sibling = |(path, content): (&String, &Vec<u8>)| -> Value {
            let size = content.len();
            match (without_blobs, is_large(path)) {
                (true, _) => json!({"rfilename": path}),
                (false, false) => json!({"rfilename": path, "size": size, "blobId": git_sha1(content)}),
                (false, true) => json!({
                    "rfilename": path, "size": size, "blobId": git_sha1(b"a pointer"),
                    "lfs": {"sha256": sha256(content), "size": size, "pointerSize": 134},
                }),
            }
        };
        let siblings: Vec<Value> = found.files.iter().map(sibling).collect();
        let info = json!({
            "id": repo, "sha": found.commit, "siblings": siblings, "config": {"model_type": "some_family"},
        });
        let body = info.to_string().into_bytes();
        reply.send("200 OK", &[("Content-Type", "application/json".to_owned())], &body, 0..body.len(), None)
    }

    fn content(
        &self,
        reply: &mut Reply<'_>,
        path: &str,
        content: &[u8],
        from: Option<usize>,
        commit: &str,
    ) -> Result<()> {
        let fault = if reply.is_head { None } else { self.fault(path) };
        let etag = ("ETag", format!("\"{}\"", git_sha1(content)));
        let commit = ("X-Repo-Commit", commit.to_owned());
        match (fault, from) {
            (Some(Fault::Status(status)), _) => reply.refuse(status, ""),
            (Some(Fault::Flip), _) => {
                let mut wrong = content.to_owned();
                if let Some(byte) = wrong.last_mut() {
                    *byte ^= 1;
                }
                reply.send("200 OK", &[etag], &wrong, 0..wrong.len(), None)
            }
            (fault, Some(from)) if !matches!(fault, Some(Fault::NoRange)) => {
                if from >= content.len() {
                    return reply.refuse(416, "");
                }
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                let headers = [etag, commit, ("Content-Range", range)];
                reply.send("206 Partial Content", &headers, content, from..content.len(), fault.as_ref())
            }
            (fault, _) => reply.send("200 OK", &[etag, commit], content, 0..content.len(), fault.as_ref()),
        }
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        let mut state = self.state();
        let next = state.faults.get_mut(path).filter(|faults| !faults.is_empty());
        next.map(|faults| faults.remove(0)).or_else(|| state.always.get(path).cloned())
    }
}

/// An answer on its way; each takes a connection of its own.
struct Reply<'a> {
    stream: &'a TcpStream,
    is_head: bool,
    rate: Option<usize>,
}

impl Reply<'_> {
    fn refuse(&mut self, status: u16, code: &str) -> Result<()> {
        let body = b"no";
        let mut headers = Vec::new();
        if !code.is_empty() {
            headers.push(("X-Error-Code", code.to_owned()));
        }
        self.send(&format!("{status} Refused"), &headers, body, 0..body.len(), None)
    }

    fn send(
        &mut self,
        status: &str,
        headers: &[(&str, String)],
        content: &[u8],
        range: Range<usize>,
        fault: Option<&Fault>,
    ) -> Result<()> {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", range.len());
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let mut stream = self.stream;
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        if self.is_head {
            return Ok(());
        }
        let body = &content[range];
        let sent = match fault {
            Some(Fault::Cut(bytes) | Fault::Stall(bytes, _)) => &body[..body.len().min(*bytes)],
            _ => body,
        };
        match self.rate {
            None => stream.write_all(sent)?,
            Some(rate) => {
                for piece in sent.chunks((rate / 100).max(1)) {
                    stream.write_all(piece)?;
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        stream.flush()?;
        if let Some(Fault::Stall(_, time)) = fault {
            thread::sleep(*time);
        }
        Ok(())
    }
}

/// What a hub keeps in large-file storage.
fn is_large(path: &str) -> bool {
    ["safetensors", "gguf", "tokenizer.json"].iter().any(|ending| path.ends_with(ending))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

fn git_sha1(content: &[u8]) -> String {
    let blob = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}
