//! Routing traces: which experts each step used. JSON lines: a header, then `[step, layer, [experts]]`.

use crate::error::StoreError;
use crate::layout::Layout;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What a trace has as its `format`.
const FORMAT: &str = "moeflux-trace";
/// The version that is written and read.
const VERSION: u32 = 1;

/// A routing trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The mixtures, in a model's order.
    pub layers: Vec<TraceLayer>,
    /// In the order in which they ran.
    pub entries: Vec<TraceEntry>,
}

/// A mixture of a traced model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceLayer {
    /// Its name.
    pub name: String,
    /// How many experts it has.
    pub experts: u32,
    /// The bytes of its largest expert.
    pub bytes: u64,
}

/// What one layer of one step used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry(
    /// The step; a new one begins whenever the layer is not a later one.
    pub u64,
    /// The layer.
    pub u32,
    /// The experts.
    pub Vec<u32>,
);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    layers: Vec<TraceLayer>,
}

impl Trace {
    /// Reads a trace and checks that its experts are those of its header.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let fault = |line: usize, what: String| StoreError::Format {
            path: path.to_owned(),
            what: format!("line {}: {what}", line + 1),
        };
        let file = File::open(path).map_err(|source| file_error(path, "opening", source))?;
        let mut lines = BufReader::new(file).lines();
        let header = lines.next().unwrap_or(Ok(String::new()));
        let header = header.map_err(|source| file_error(path, "reading", source))?;
        let header: Header = serde_json::from_str(&header).map_err(|error| fault(0, error.to_string()))?;
        if (header.format.as_str(), header.version) != (FORMAT, VERSION) {
            let found = format!("{} of version {}", header.format, header.version);
            return Err(fault(0, format!("expected {FORMAT} of version {VERSION}, found {found}")));
        }
        let mut entries = Vec::new();
        for (i, line) in lines.enumerate() {
            let line = line.map_err(|source| file_error(path, "reading", source))?;
            let entry: TraceEntry =
                serde_json::from_str(&line).map_err(|error| fault(i + 1, error.to_string()))?;
            let layer = header.layers.get(entry.1 as usize);
            let layer = layer.ok_or_else(|| fault(i + 1, format!("there is no layer {}", entry.1)))?;
            if let Some(expert) = entry.2.iter().find(|&&expert| expert >= layer.experts) {
                return Err(fault(i + 1, format!("{} has no expert {expert}", layer.name)));
            }
            entries.push(entry);
        }
        Ok(Self { layers: header.layers, entries })
    }
}

/// Writes what a store fetches as a trace; clones write into the same one. A thread of its own does the writing.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    sender: Mutex<Option<Sender<TraceEntry>>>,
    state: Mutex<State>,
}

struct State {
    step: u64,
    last_layer: Option<u32>,
    writer: Option<JoinHandle<std::io::Result<()>>>,
}

impl Recorder {
    /// Begins the trace of a model in a new file.
    pub fn create(path: impl AsRef<Path>, layout: &Layout) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let layer = |layer: &crate::LayerLayout| TraceLayer {
            name: layer.name.clone(),
            experts: layer.experts.len() as u32,
            bytes: layer
                .experts
                .iter()
                .map(|pieces| pieces.iter().map(|piece| piece.len).sum())
                .max()
                .unwrap_or(0),
        };
        let layers = layout.layers.iter().map(layer).collect();
        let header = Header { format: FORMAT.to_owned(), version: VERSION, layers };
        let begin = || {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer(&mut file, &header)?;
            file.write_all(b"\n")?;
            Ok(file)
        };
        let file = begin().map_err(|source| file_error(path, "writing", source))?;
        let (sender, receiver) = channel();
        let writer = std::thread::Builder::new().name("expert-trace".to_owned());
        let writer = writer.spawn(move || write(file, receiver)).map_err(|source| StoreError::System {
            what: "starting the writer of a trace".to_owned(),
            source: Arc::new(source),
        })?;
        let state = State { step: 0, last_layer: None, writer: Some(writer) };
        let inner =
            Inner { path: path.to_owned(), sender: Mutex::new(Some(sender)), state: Mutex::new(state) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes down what a layer uses. Costs a copy of the list; nothing is written here.
    pub(crate) fn record(&self, layer: u32, experts: &[u32]) {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last_layer.is_some_and(|last| layer <= last) {
            state.step += 1;
        }
        state.last_layer = Some(layer);
        let sender = self.inner.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            // If the writer is gone, `finish` says why.
            let _ = sender.send(TraceEntry(state.step, layer, experts.to_vec()));
        }
    }

    /// Ends the trace and says whether all of it was written. What is fetched afterwards is not recorded.
    pub fn finish(&self) -> Result<(), StoreError> {
        self.inner.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).writer.take();
        let panicked = |_| Err(std::io::Error::other("the writer panicked"));
        let written = writer.map_or(Ok(()), |writer| writer.join().unwrap_or_else(panicked));
        written.map_err(|source| file_error(&self.inner.path, "writing", source))
    }
}

fn write(mut file: BufWriter<File>, entries: Receiver<TraceEntry>) -> std::io::Result<()> {
    for entry in entries {
        serde_json::to_writer(&mut file, &entry)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

fn file_error(path: &Path, what: &'static str, source: std::io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), what, source: Arc::new(source) }
}
