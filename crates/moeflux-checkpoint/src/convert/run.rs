//! Carrying out a plan.

use super::Error;
use super::journal::{JOURNAL, Job, Journal};
use super::plan::{Plan, PlannedMixture, Unit};
use super::source::{PIECE, Scratch, Source, piece_rows, read_at, write_at};
use crate::checkpoint::Checkpoint;
use crate::pack::manifest::{Checksum, MANIFEST, Manifest};
use moeflux_kernels::ThreadPool;
use std::fs::{self, File};
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::UNIX_EPOCH;
use twox_hash::XxHash3_64;

/// Bytes of memory that what is in the making may take together.
const MEMORY: u64 = 512 << 20;
/// Bytes read and written at once where nothing is computed.
const COPY: usize = 1 << 20;
/// Bytes of a file that wait before the disk is made to write them.
const BEHIND: u64 = 256 << 20;

/// How to carry out a plan.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Threads that work; the result does not depend on them.
    pub threads: usize,
    /// Whether to throw away unfinished work of before.
    pub restart: bool,
}

/// What carrying out a plan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pack was made; so many bytes had been written by an earlier run.
    Made {
        /// Bytes found written already.
        resumed: u64,
    },
    /// The very pack was there.
    AlreadyThere,
}

/// The folder that unfinished work is in.
pub fn partial_folder(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    target.with_file_name(name)
}

/// Makes the pack `target` of a plan and the checkpoint that it is for. It comes into being at once, whole: until then
/// everything lies in [`partial_folder`], from where a run that was interrupted goes on. `progress` is told how many
/// bytes of tensors are done, and how many there are.
pub fn run(
    plan: &Plan,
    checkpoint: &Checkpoint,
    target: &Path,
    options: &RunOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Outcome, Error> {
    let job = Job { plan: plan.manifest.plan.clone(), source: stamp(checkpoint)? };
    if target.exists() {
        return if is_made_by(target, &job) {
            Ok(Outcome::AlreadyThere)
        } else {
            Err(Error::Exists { path: target.to_owned() })
        };
    }
    let partial = partial_folder(target);
    if options.restart && partial.exists() {
        fs::remove_dir_all(&partial).map_err(Error::io(&partial))?;
    }
    if !is_made_by(&partial, &job) {
        let resumed = fill(plan, checkpoint, &partial, &job, options, progress)?;
        publish(&partial, target)?;
        return Ok(Outcome::Made { resumed });
    }
    // Killed between the manifest and the end.
    publish(&partial, target)?;
    Ok(Outcome::Made { resumed: plan.file_bytes().map(|(_, bytes)| bytes).sum() })
}

/// Whether a folder is the pack of this plan, whole.
fn is_made_by(folder: &Path, job: &Job) -> bool {
    let path = folder.join(MANIFEST);
    let manifest = fs::read(&path).ok().and_then(|bytes| Manifest::parse(&path, &bytes).ok());
    manifest.is_some_and(|parsed| parsed.manifest.plan == job.plan)
}

/// Does the work that is left to do in the folder; returns how many bytes were done before.
fn fill(
    plan: &Plan,
    checkpoint: &Checkpoint,
    folder: &Path,
    job: &Job,
    options: &RunOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<u64, Error> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    refuse_foreign(folder)?;
    let (journal, mut done) = Journal::open(folder, job)?;
    let pool = ThreadPool::new(options.threads)?;
    let files = open_files(plan, folder)?;
    let source = Source::open(checkpoint)?;

    let bytes_of = |unit: &Unit| plan.outputs(unit).iter().map(|(_, _, bytes)| bytes).sum::<u64>();
    let total = plan.units.iter().map(bytes_of).sum();
    let finished = AtomicU64::new(0);
    let tell = |bytes: u64| progress(finished.fetch_add(bytes, Ordering::Relaxed) + bytes, total);

    // What was done before is believed only as far as it is there.
    done.retain(|unit, _| *unit < plan.units.len());
    let before: Vec<(usize, Vec<Checksum>)> = done.into_iter().collect();
    let kept: Mutex<Vec<(usize, Vec<Checksum>)>> = Mutex::default();
    in_parallel(&pool, before.len(), options.threads, |index, (): &mut ()| {
        let (unit, checksums) = &before[index];
        let unit_plan = &plan.units[*unit];
        if stored_checksums(plan, &files, unit_plan)? == *checksums {
            tell(bytes_of(unit_plan));
            lock(&kept).push((*unit, checksums.clone()));
        }
        Ok(())
    })?;
    let resumed = finished.load(Ordering::Relaxed);
    check_space(folder, plan.bytes().saturating_sub(resumed))?;

    let mut checksums: Vec<Option<Vec<Checksum>>> = vec![None; plan.units.len()];
    for (unit, found) in lock(&kept).drain(..) {
        checksums[unit] = Some(found);
    }
    let mut todo: Vec<usize> = (0..plan.units.len()).filter(|&unit| checksums[unit].is_none()).collect();
    let made: Mutex<Vec<(usize, Vec<Checksum>)>> = Mutex::default();
    let block = plan.mixtures.iter().map(|mixture| mixture.layout.len()).max().unwrap_or(0);
    // A thread has a block, and rows as they were, as float32 and as they will be.
    let workers = (MEMORY / (block + 4 * PIECE as u64)).clamp(1, options.threads as u64) as usize;
    // Threads that write the same file wait for each other: as many files as threads take turns.
    let mut of_file = vec![0; files.len()];
    todo.sort_by_cached_key(|&unit| {
        let file = file_of(plan, &plan.units[unit]);
        of_file[file] += 1;
        (file / workers, of_file[file], file)
    });
    write_behind(&files, |flush| {
        in_parallel(&pool, todo.len(), workers, |index, worker: &mut Worker| {
            let number = todo[index];
            let unit = &plan.units[number];
            let found = worker.make(plan, unit, &source, &files)?;
            journal.record(number, &found)?;
            flush(file_of(plan, unit), bytes_of(unit));
            tell(bytes_of(unit));
            lock(&made).push((number, found));
            Ok(())
        })
    })?;
    for (unit, found) in lock(&made).drain(..) {
        checksums[unit] = Some(found);
    }

    for (path, file) in &files {
        file.sync_all().map_err(Error::io(path))?;
    }
    finish(plan, folder, &checksums.into_iter().flatten().collect::<Vec<_>>())?;
    Ok(resumed)
}

/// Runs `work`, which tells of the bytes that it has written to each file, and makes the disk write them meanwhile: it
/// would otherwise stand idle until there are many, and everything would wait for it then.
fn write_behind(
    files: &[(PathBuf, File)],
    work: impl FnOnce(&(dyn Fn(usize, u64) + Sync)) -> Result<(), Error>,
) -> Result<(), Error> {
    let written: Vec<AtomicU64> = files.iter().map(|_| AtomicU64::new(0)).collect();
    let (full, fulls) = mpsc::channel::<usize>();
    std::thread::scope(|scope| {
        let flusher = scope.spawn(move || {
            for file in fulls {
                let (path, file) = &files[file];
                file.sync_data().map_err(Error::io(path))?;
            }
            Ok(())
        });
        let done = work(&|file, bytes| {
            let before = written[file].fetch_add(bytes, Ordering::Relaxed);
            if before / BEHIND != (before + bytes) / BEHIND {
                // After a failure nobody listens; it is told below.
                let _ = full.send(file);
            }
        });
        drop(full);
        let flushed = flusher.join().unwrap_or(Ok(()));
        done.and(flushed)
    })
}

/// The file that a unit writes to.
fn file_of(plan: &Plan, unit: &Unit) -> usize {
    plan.outputs(unit).first().map_or(0, |(file, _, _)| *file)
}

/// Writes what goes beside tensors and experts, the manifest last, and takes the journal away.
fn finish(plan: &Plan, folder: &Path, checksums: &[Vec<Checksum>]) -> Result<(), Error> {
    for file in &plan.sidecars {
        let path = folder.join(&file.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        write_whole(&path, &file.bytes)?;
    }
    let mut manifest = plan.manifest.clone();
    for (unit, checksums) in plan.units.iter().zip(checksums) {
        match *unit {
            Unit::Copy { tensor, .. } | Unit::Encode { tensor, .. } => {
                for (entry, checksum) in manifest.dense.tensors[tensor..].iter_mut().zip(checksums) {
                    entry.checksum = *checksum;
                }
            }
            Unit::Block { mixture, expert } => manifest.experts[mixture].checksums[expert] = checksums[0],
        }
    }
    let path = folder.join(MANIFEST);
    let bytes = manifest.to_bytes().map_err(|source| Error::Json { path: path.clone(), source })?;
    // Under another name until it is whole.
    let unnamed = folder.join("moeflux.json.new");
    write_whole(&unnamed, &bytes)?;
    sync_folder(&folder.join("experts"))?;
    fs::rename(&unnamed, &path).map_err(Error::io(&path))?;
    let journal = folder.join(JOURNAL);
    fs::remove_file(&journal).map_err(Error::io(&journal))?;
    sync_folder(folder)
}

/// Gives the finished folder its name.
fn publish(partial: &Path, target: &Path) -> Result<(), Error> {
    let journal = partial.join(JOURNAL);
    if journal.exists() {
        fs::remove_file(&journal).map_err(Error::io(&journal))?;
    }
    sync_folder(partial)?;
    fs::rename(partial, target).map_err(Error::io(target))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// The buffers of one thread.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    out: [Vec<u8>; 3],
}

impl Worker {
    /// Writes what a unit is for, and returns the checksums of it.
    fn make(
        &mut self,
        plan: &Plan,
        unit: &Unit,
        source: &Source,
        files: &[(PathBuf, File)],
    ) -> Result<Vec<Checksum>, Error> {
        let outputs = plan.outputs(unit);
        match unit {
            Unit::Copy { span, .. } => {
                let [(file, offset, bytes)] = outputs[..] else { return Ok(Vec::new()) };
                let mut hash = XxHash3_64::with_seed(0);
                let buffer = &mut self.out[0];
                for start in (0..bytes).step_by(COPY) {
                    buffer.resize(COPY.min((bytes - start) as usize), 0);
                    source.read(span.file, span.offset + start, buffer)?;
                    hash.write(buffer);
                    write(&files[file], offset + start, buffer)?;
                }
                Ok(vec![Checksum(hash.finish())])
            }
            Unit::Encode { matrix, encoding, .. } => {
                let row = encoding.row_bytes(matrix.cols);
                let row = [row.codes, row.scales, row.biases];
                let mut hashes = [(); 3].map(|()| XxHash3_64::with_seed(0));
                let piece = piece_rows(matrix);
                for start in (0..matrix.rows).step_by(piece) {
                    let rows = start..matrix.rows.min(start + piece);
                    for (out, bytes) in self.out.iter_mut().zip(row) {
                        out.resize(rows.len() * bytes, 0);
                    }
                    let [codes, scales, biases] = &mut self.out;
                    source.encode(matrix, rows, *encoding, [codes, scales, biases], &mut self.scratch)?;
                    for (part, &(file, offset, _)) in outputs.iter().enumerate() {
                        hashes[part].write(&self.out[part]);
                        write(&files[file], offset + (start * row[part]) as u64, &self.out[part])?;
                    }
                }
                Ok(hashes.iter().take(outputs.len()).map(|hash| Checksum(hash.finish())).collect())
            }
            Unit::Block { mixture, expert } => {
                let [(file, offset, bytes)] = outputs[..] else { return Ok(Vec::new()) };
                let PlannedMixture { experts, layout, .. } = &plan.mixtures[*mixture];
                let block = &mut self.out[0];
                // Between parts there are zeros.
                block.clear();
                block.resize(bytes as usize, 0);
                let mut rest = block.as_mut_slice();
                let mut at = 0;
                for ((_, matrix), (kind, offsets)) in experts[*expert].matrices().zip(layout.matrices()) {
                    let mut parts = [(); 3].map(|()| Default::default());
                    // The layout could not be made of sizes that overflow.
                    let sizes = kind.part_bytes().unwrap_or_default();
                    for ((part, bytes), offset) in parts.iter_mut().zip(sizes).zip(offsets) {
                        let (_, after) = rest.split_at_mut((offset - at) as usize);
                        let (own, after) = after.split_at_mut(bytes as usize);
                        (*part, rest) = (own, after);
                        at = offset + bytes;
                    }
                    source.encode(matrix, 0..matrix.rows, kind.encoding, parts, &mut self.scratch)?;
                }
                write(&files[file], offset, block)?;
                Ok(vec![Checksum(XxHash3_64::oneshot(block))])
            }
        }
    }
}

fn write((path, file): &(PathBuf, File), offset: u64, bytes: &[u8]) -> Result<(), Error> {
    write_at(file, offset, bytes).map_err(Error::io(path))
}

/// Creates the files of the plan at their full length, or opens those that are there.
fn open_files(plan: &Plan, folder: &Path) -> Result<Vec<(PathBuf, File)>, Error> {
    let experts = folder.join("experts");
    fs::create_dir_all(&experts).map_err(Error::io(&experts))?;
    let open = |(name, bytes): (&str, u64)| {
        let path = folder.join(name);
        let io = Error::io(&path);
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(&io)?;
        file.set_len(bytes).map_err(&io)?;
        drop(io);
        Ok((path, file))
    };
    plan.file_bytes().map(open).collect()
}

/// The checksums of what a unit has written, if it has.
fn stored_checksums(plan: &Plan, files: &[(PathBuf, File)], unit: &Unit) -> Result<Vec<Checksum>, Error> {
    let stored = |(file, offset, bytes): (usize, u64, u64)| {
        let (path, file) = &files[file];
        checksum(file, offset, bytes).map_err(Error::io(path))
    };
    plan.outputs(unit).into_iter().map(stored).collect()
}

/// The checksum of some bytes of a file.
pub(crate) fn checksum(file: &File, offset: u64, bytes: u64) -> std::io::Result<Checksum> {
    let mut hash = XxHash3_64::with_seed(0);
    let mut buffer = vec![0; COPY.min(bytes as usize)];
    for start in (0..bytes).step_by(COPY) {
        let piece = COPY.min((bytes - start) as usize);
        read_at(file, offset + start, &mut buffer[..piece])?;
        hash.write(&buffer[..piece]);
    }
    Ok(Checksum(hash.finish()))
}

/// Runs `work(0..tasks)` on so many threads, each with its own `W`, until all are done or one fails.
pub(crate) fn in_parallel<W: Default>(
    pool: &ThreadPool,
    tasks: usize,
    workers: usize,
    work: impl Fn(usize, &mut W) -> Result<(), Error> + Sync + Send,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let error = Mutex::new(None);
    pool.for_each(workers.min(tasks), |_| {
        let mut own = W::default();
        while !failed.load(Ordering::Relaxed) {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            if let Err(found) = work(task, &mut own) {
                failed.store(true, Ordering::Relaxed);
                lock(&error).get_or_insert(found);
            }
        }
    });
    lock(&error).take().map_or(Ok(()), Err)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder without a journal must be empty: what is in it is not ours.
fn refuse_foreign(folder: &Path) -> Result<(), Error> {
    let mut entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    if !folder.join(JOURNAL).exists() && entries.next().is_some() {
        return Err(Error::NotAJob { path: folder.to_owned() });
    }
    Ok(())
}

/// Refuses to begin what the disk cannot hold.
fn check_space(folder: &Path, needed: u64) -> Result<(), Error> {
    let available = fs4::available_space(folder).map_err(Error::io(folder))?;
    if available < needed {
        return Err(Error::NoSpace { path: folder.to_owned(), needed, available });
    }
    Ok(())
}

/// Sizes and times of the source's files.
fn stamp(checkpoint: &Checkpoint) -> Result<Checksum, Error> {
    let mut hash = XxHash3_64::with_seed(0);
    for file in checkpoint.files() {
        let metadata = fs::metadata(file.path()).map_err(Error::io(file.path()))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        hash.write_u64(metadata.len());
        hash.write_u128(modified.map_or(0, |since| since.as_nanos()));
    }
    Ok(Checksum(hash.finish()))
}

/// Writes a file and waits until the disk has it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(Error::io(path))
}

/// Waits until the disk has the names in a folder.
fn sync_folder(folder: &Path) -> Result<(), Error> {
    // Other systems do not open folders.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    Ok(())
}
