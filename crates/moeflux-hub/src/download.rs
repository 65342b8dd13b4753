//! One file: in pieces if need be, and checked.

use crate::digest::Hasher;
use crate::error::Error;
use crate::http::{connection, header};
use crate::hub::Hub;
use crate::plan::{Plan, PlannedFile};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::Response;

/// A try that brings this many bytes was no failure, however it ended.
const PROGRESS: u64 = 1 << 20;

/// Bytes read, hashed and written at once.
const PIECE: usize = 1 << 20;

/// What happens to one of a plan's files.
#[derive(Debug)]
pub enum Event<'a> {
    /// This many bytes of it are there. The number falls if the file has to be started again.
    At {
        /// Which of the plan's files.
        file: usize,
        /// Bytes from its start.
        bytes: u64,
    },
    /// The connection failed, and is tried again after a pause.
    Retry {
        /// Which of the plan's files.
        file: usize,
        /// Why.
        error: &'a Error,
        /// Length of the pause.
        pause: Duration,
    },
    /// It is there, and its content is right.
    Done {
        /// Which of the plan's files.
        file: usize,
    },
}

/// The download of one file of a plan.
pub(crate) struct Download<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) plan: &'a Plan,
    /// Which of the plan's files.
    pub(crate) index: usize,
    pub(crate) on: &'a (dyn Fn(Event<'_>) + Sync),
    /// Set when others have failed.
    pub(crate) stop: &'a AtomicBool,
}

/// Where the bytes of a file are gathered.
pub(crate) fn part_path(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

impl Download<'_> {
    /// Brings the file to `path`, going on with what is in its part.
    pub(crate) fn run(&self, path: &Path) -> Result<(), Error> {
        let file = self.file();
        let mut part = Part::open(part_path(path), file)?;
        self.at(part.len);
        let mut failures = 0;
        while part.len < file.size {
            let before = part.len;
            let Err(error) = self.attempt(&mut part) else { continue };
            if !error.is_transient() {
                return Err(error);
            }
            failures = if part.len >= before + PROGRESS { 1 } else { failures + 1 };
            if failures > self.hub.options.retries {
                let (file, got, size) = (file.path.clone(), part.len, file.size);
                return Err(Error::GaveUp { file, got, size, tries: failures, source: Box::new(error) });
            }
            let pause = self.hub.pause(failures - 1, &error);
            (self.on)(Event::Retry { file: self.index, error: &error, pause });
            self.sleep(pause)?;
        }
        part.finish(path, file)?;
        (self.on)(Event::Done { file: self.index });
        Ok(())
    }

    /// One request for what is missing.
    fn attempt(&self, part: &mut Part) -> Result<(), Error> {
        self.check_stop()?;
        let size = self.file().size;
        let (url, response) = match self.hub.file(self.plan, self.file(), part.len) {
            // What is there is more than the hub has: it is of no use.
            Err(error @ Error::Status { status: 416, .. }) => {
                part.restart(self.file())?;
                self.at(0);
                return Err(error);
            }
            result => result?,
        };
        let from = first_byte(&response, &url, size, part.len)?;
        if from != part.len {
            part.restart(self.file())?;
            self.at(0);
        }
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        while part.len < size {
            self.check_stop()?;
            let room = piece.len().min(usize::try_from(size - part.len).unwrap_or(usize::MAX));
            let got = match body.read(&mut piece[..room]) {
                Ok(0) => return Err(Error::Truncated { url, got: part.len, size }),
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(Error::Truncated { url, got: part.len, size });
                }
                Err(error) => return Err(connection(&url, error.into())),
            };
            part.append(&piece[..got])?;
            self.at(part.len);
        }
        Ok(())
    }

    fn file(&self) -> &PlannedFile {
        &self.plan.files[self.index]
    }

    fn at(&self, bytes: u64) {
        (self.on)(Event::At { file: self.index, bytes });
    }

    fn check_stop(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    fn sleep(&self, pause: Duration) -> Result<(), Error> {
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.check_stop()?;
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }
}

/// The byte of the file that a body begins with, which is `wanted` or 0.
fn first_byte(response: &Response<Body>, url: &str, size: u64, wanted: u64) -> Result<u64, Error> {
    let wrong = |what| Error::Answer { url: url.to_owned(), what };
    if response.status().as_u16() == 206 {
        // bytes 100-199/200
        let range = header(response, "content-range").unwrap_or_default();
        let numbers = || {
            let (range, total) = range.strip_prefix("bytes ")?.split_once('/')?;
            Some((range.split_once('-')?.0.parse::<u64>().ok()?, total.parse::<u64>().ok()?))
        };
        return match numbers() {
            Some((first, total)) if first == wanted && total == size => Ok(first),
            _ => Err(wrong(format!("expected bytes {wanted}- of {size}, found content range {range:?}"))),
        };
    }
    match header(response, "content-length") {
        Some(length) if length.parse() != Ok(size) => {
            Err(wrong(format!("expected a file of {size} bytes, found one of {length}")))
        }
        _ => Ok(0),
    }
}

/// The bytes that are there, and their hash so far.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Option<Hasher>,
}

impl Part {
    /// Opens the part at `path` and hashes what is in it.
    fn open(path: PathBuf, planned: &PlannedFile) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::at(folder))?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(Error::at(&path))?;
        let mut part = Self { path, file, len: 0, hasher: new_hasher(planned) };
        let mut piece = vec![0; PIECE];
        loop {
            let got = part.file.read(&mut piece).map_err(Error::at(&part.path))?;
            part.len += got as u64;
            match &mut part.hasher {
                _ if got == 0 => break,
                Some(hasher) => hasher.update(&piece[..got]),
                None => {}
            }
        }
        if part.len > planned.size {
            part.restart(planned)?;
        }
        Ok(part)
    }

    fn restart(&mut self, planned: &PlannedFile) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::at(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::at(&self.path))?;
        self.len = 0;
        self.hasher = new_hasher(planned);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::at(&self.path))?;
        self.len += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// Gives the whole part the file's name, if its content is right; deletes it if not.
    fn finish(self, path: &Path, planned: &PlannedFile) -> Result<(), Error> {
        let found = self.hasher.map(Hasher::finish);
        if let (Some(expected), Some(found)) = (&planned.digest, found)
            && *expected != found
        {
            fs::remove_file(&self.path).map_err(Error::at(&self.path))?;
            return Err(Error::WrongDigest { file: planned.path.clone(), expected: expected.clone(), found });
        }
        self.file.sync_all().map_err(Error::at(&self.path))?;
        fs::rename(&self.path, path).map_err(Error::at(path))
    }
}

fn new_hasher(planned: &PlannedFile) -> Option<Hasher> {
    planned.digest.as_ref().map(|digest| Hasher::like(digest, planned.size))
}
