//! What an unfinished conversion has done so far.
//!
//! A text file: a line that says which conversion it is, then for each finished unit of work its number and the
//! checksums of what it wrote. A line that was cut short counts as not there. That the bytes reached the disk is not
//! taken on trust: they are read again before work goes on.

use super::Error;
use crate::pack::manifest::Checksum;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Its name in the folder of unfinished work.
pub(crate) const JOURNAL: &str = "convert.journal";

/// Which conversion of which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The plan's id.
    pub(crate) plan: String,
    /// Sizes and times of the source's files.
    pub(crate) source: Checksum,
}

impl Job {
    fn header(&self) -> String {
        format!("moeflux convert 1 {} {}\n", self.plan, self.source)
    }
}

/// The journal of one conversion, locked against other processes.
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one, and gives what was finished before.
    pub(crate) fn open(folder: &Path, job: &Job) -> Result<(Self, BTreeMap<usize, Vec<Checksum>>), Error> {
        let path = folder.join(JOURNAL);
        let io = Error::io(&path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(&io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: folder.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(&io)?;
        let text = String::from_utf8_lossy(&bytes);
        // What follows the last end of a line was cut short.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut done = BTreeMap::new();
        if let Some((header, lines)) = whole.split_once('\n') {
            if header != job.header().trim_end() {
                let plan = format!("moeflux convert 1 {} ", job.plan);
                let path = folder.to_owned();
                return Err(if header.starts_with(&plan) {
                    Error::SourceChanged { path }
                } else {
                    Error::OtherJob { path }
                });
            }
            done.extend(lines.lines().filter_map(read_line));
            file.set_len(whole.len() as u64).map_err(&io)?;
        } else {
            file.set_len(0).map_err(&io)?;
            file.seek(SeekFrom::Start(0)).map_err(&io)?;
            file.write_all(job.header().as_bytes()).map_err(&io)?;
        }
        file.seek(SeekFrom::End(0)).map_err(&io)?;
        drop(io);
        Ok((Journal { path, file: Mutex::new(file) }, done))
    }

    /// Notes that a unit is finished.
    pub(crate) fn record(&self, unit: usize, checksums: &[Checksum]) -> Result<(), Error> {
        use std::fmt::Write as _;
        let mut line = unit.to_string();
        for checksum in checksums {
            // Writing to a string does not fail.
            let _ = write!(line, " {checksum}");
        }
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }
}

fn read_line(line: &str) -> Option<(usize, Vec<Checksum>)> {
    let mut words = line.split(' ');
    let unit = words.next()?.parse().ok()?;
    let checksums = words.map(|word| Checksum::try_from(word.to_owned()).ok()).collect::<Option<_>>()?;
    Some((unit, checksums))
}
