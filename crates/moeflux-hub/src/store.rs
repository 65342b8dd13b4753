//! A folder of models.

use crate::download::{Download, Event};
use crate::error::Error;
use crate::hub::Hub;
use crate::name::ModelName;
use crate::plan::Plan;
use crate::receipt::Receipt;
use crate::selection::is_gguf;
use crate::stage::{Stage, bytes_there, is_whole};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

/// Where models are gathered until they are whole, below the store's folder.
const PARTIAL: &str = ".partial";

/// A folder of models: `OWNER/NAME@REVISION` holds a model's files under the names that they have on the hub, and
/// `pulled.json`, which lists them with their hashes.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A model of a store.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name in full.
    pub name: ModelName,
    /// The commit that its files are from.
    pub commit: String,
    /// Its family, if the hub knew it.
    pub family: Option<String>,
    /// Size of all its files in bytes.
    pub size: u64,
    /// Bytes that are there; all of them, if it is complete.
    pub there: u64,
    /// When it became complete.
    pub pulled_at: Option<SystemTime>,
    folder: PathBuf,
    plan: Plan,
}

impl Store {
    /// A store in a folder, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All models, ordered by name, those that are not complete too. A model whose list of files cannot be read is an
    /// error in its place.
    pub fn models(&self) -> Result<Vec<Result<Model, Error>>, Error> {
        let mut models = Vec::new();
        // A model that is complete and pulled anew is listed as complete.
        for (top, is_whole) in [(self.root.clone(), true), (self.root.join(PARTIAL), false)] {
            for folder in model_folders(&top)? {
                let model = match Receipt::read(&folder) {
                    Ok(None) => continue,
                    Ok(Some(receipt)) if top.join(receipt.plan.name.folder()) != folder => continue,
                    Ok(Some(receipt)) => Ok(Model::new(folder, receipt, is_whole)),
                    Err(error) => Err(error),
                };
                let is_new =
                    |model: &Model| !models.iter().flatten().any(|known: &Model| known.name == model.name);
                if model.as_ref().map_or(true, is_new) {
                    models.push(model);
                }
            }
        }
        models.sort_by_key(|model| model.as_ref().map(|model| model.name.to_string()).ok());
        Ok(models)
    }

    /// The model that a text names: its name in full, or as much of it as no other model has. The owner may be left out, as
    /// may revision and file, and case does not matter. `None` if there is none, or the text cannot be a name.
    pub fn find(&self, text: &str) -> Result<Option<Model>, Error> {
        let Ok(query) = text.parse::<ModelName>() else { return Ok(None) };
        let mut found = Vec::new();
        let mut damaged = None;
        for model in self.models()? {
            match model {
                Ok(model) if model.name == query => return Ok(Some(model)),
                Ok(model) if model.name.answers_to(&query) => found.push(model),
                Ok(_) => {}
                Err(error) => damaged = Some(error),
            }
        }
        match (found.len(), damaged) {
            (0, Some(error)) => Err(error),
            (0 | 1, _) => Ok(found.pop()),
            _ => {
                let names = found.iter().map(|model| model.name.to_string()).collect();
                Err(Error::Ambiguous { query: text.to_owned(), names })
            }
        }
    }

    /// How many bytes of each of a plan's files are there already.
    pub fn there(&self, plan: &Plan) -> Vec<u64> {
        let (target, staged) = self.places(&plan.name);
        let mut there = vec![0; plan.files.len()];
        for folder in [target, staged] {
            let Ok(Some(receipt)) = Receipt::read(&folder) else { continue };
            for (bytes, file) in there.iter_mut().zip(&plan.files) {
                *bytes = (*bytes).max(bytes_there(&folder, &receipt, plan, file));
            }
        }
        there
    }

    /// Carries out a plan: downloads what is not there yet, several files at once, and gives the model its place when all of
    /// it is there and right. `on` hears what happens, from several threads. After an error, or a kill, what is there is kept
    /// and the same call goes on.
    pub fn pull(&self, hub: &Hub, plan: &Plan, on: &(dyn Fn(Event<'_>) + Sync)) -> Result<Model, Error> {
        let stage = self.hold(&plan.name)?;
        let (target, _) = self.places(&plan.name);
        if !is_current(&target, plan) {
            stage.prepare(plan)?;
            self.check_space(plan)?;
            download(hub, plan, &stage, on)?;
            stage.install(plan)?;
        }
        match Receipt::read(&target)? {
            Some(receipt) => Ok(Model::new(target, receipt, true)),
            None => Err(Error::Receipt { path: target, what: "it is gone".to_owned() }),
        }
    }

    /// Removes a model, and what is there of a download of it.
    pub fn remove(&self, model: &Model) -> Result<(), Error> {
        self.hold(&model.name)?.clear()?;
        // The owner's folder goes with the last model.
        if let Some(owner) = self.places(&model.name).0.parent()
            && owner != self.root
        {
            let _ = fs::remove_dir(owner);
        }
        Ok(())
    }

    fn hold(&self, name: &ModelName) -> Result<Stage, Error> {
        let (target, staged) = self.places(name);
        Stage::hold(target, staged, &name.to_string())
    }

    /// Where a model belongs, and where it is gathered.
    fn places(&self, name: &ModelName) -> (PathBuf, PathBuf) {
        let folder = name.folder();
        (self.root.join(&folder), self.root.join(PARTIAL).join(folder))
    }

    fn check_space(&self, plan: &Plan) -> Result<(), Error> {
        let there: u64 = self.there(plan).iter().sum();
        let needed = plan.size().saturating_sub(there);
        let available = fs4::available_space(&self.root).map_err(Error::at(&self.root))?;
        if needed > available {
            return Err(Error::TooLittleSpace { folder: self.root.clone(), needed, available });
        }
        Ok(())
    }
}

impl Model {
    fn new(folder: PathBuf, receipt: Receipt, is_whole: bool) -> Self {
        let pulled_at = receipt.pulled_at().filter(|_| is_whole);
        let size = receipt.plan.size();
        let bytes = |file| bytes_there(&folder, &receipt, &receipt.plan, file);
        let there = receipt.plan.files.iter().map(bytes).sum();
        let plan = receipt.plan;
        let (name, commit, family) = (plan.name.clone(), plan.commit.clone(), plan.family.clone());
        Self { name, commit, family, size, there, pulled_at, folder, plan }
    }

    /// Whether it can be used.
    pub fn is_complete(&self) -> bool {
        self.pulled_at.is_some()
    }

    /// The folder to open, after a look at whether all files are there.
    pub fn open_folder(&self) -> Result<PathBuf, Error> {
        if !self.is_complete() {
            let (name, there, size) = (self.name.to_string(), self.there, self.size);
            return Err(Error::Incomplete { name, there, size });
        }
        if let Some(file) = self.plan.files.iter().find(|file| !is_whole(&self.folder, file)) {
            let path = self.folder.join(&file.path);
            let found = fs::metadata(&path).ok().map(|metadata| metadata.len());
            let (name, expected) = (self.name.to_string(), file.size);
            return Err(Error::Damaged { name, path, expected, found });
        }
        // A GGUF may be in a folder of the repository.
        let weights = self.plan.files.iter().find(|file| is_gguf(&file.path));
        let folder = weights.and_then(|file| self.folder.join(&file.path).parent().map(Path::to_owned));
        Ok(folder.unwrap_or_else(|| self.folder.clone()))
    }
}

/// Whether the folder holds just what the plan wants.
fn is_current(folder: &Path, plan: &Plan) -> bool {
    let Ok(Some(receipt)) = Receipt::read(folder) else { return false };
    let is_same = receipt.plan.commit == plan.commit && receipt.plan.files == plan.files;
    is_same && plan.files.iter().all(|file| is_whole(folder, file))
}

/// Downloads the files that are not there, several at once. The first failure stops all.
fn download(hub: &Hub, plan: &Plan, stage: &Stage, on: &(dyn Fn(Event<'_>) + Sync)) -> Result<(), Error> {
    let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = plan.files.get(index) else { return };
            let path = stage.path(file);
            if path.exists() {
                on(Event::At { file: index, bytes: file.size });
                on(Event::Done { file: index });
                continue;
            }
            if let Err(error) = (Download { hub, plan, index, on, stop: &stop }).run(&path) {
                // Those that this stops come later.
                stop.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..hub.options.parallel.clamp(1, plan.files.len().max(1)) {
            scope.spawn(work);
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The folders below `top` that may be models: `NAME` and `OWNER/NAME`.
fn model_folders(top: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for entry in folders_in(top)? {
        // No owner has an @, and every model's folder has one.
        if entry.to_string_lossy().contains('@') {
            folders.push(top.join(entry));
        } else {
            folders
                .extend(folders_in(&top.join(&entry))?.into_iter().map(|name| top.join(&entry).join(name)));
        }
    }
    Ok(folders)
}

/// The names of a folder's folders, but for hidden ones; none if it is not there.
fn folders_in(folder: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::at(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::at(folder))?;
        let name = entry.file_name();
        if entry.path().is_dir() && !name.to_string_lossy().starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
