//! Sections: a kind, a length, bytes and a checksum of all that.
//!
//! `kind` (four bytes of ASCII), flags (`u32`, 0), length of the content (`u64`), the content, and the XXH3-64 of
//! everything before it in the section (`u64`); numbers are little-endian.

use std::hash::Hasher;
use std::io::{ErrorKind, Read, Write};

use twox_hash::XxHash3_64;

use super::error::SnapshotError;

/// Kind, flags and length.
const HEADER: usize = 16;

/// A kind of section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) code: [u8; 4],
    /// For errors.
    pub(super) name: &'static str,
}

/// Writes a section.
pub(super) struct SectionWriter<'w, W> {
    output: &'w mut W,
    hash: XxHash3_64,
}

impl<'w, W: Write> SectionWriter<'w, W> {
    /// Starts one whose content has `len` bytes.
    pub(super) fn new(output: &'w mut W, kind: Kind, len: usize) -> Result<Self, SnapshotError> {
        let mut section = SectionWriter { output, hash: XxHash3_64::new() };
        section.put(&kind.code)?;
        section.put(&0u32.to_le_bytes())?;
        section.put(&(len as u64).to_le_bytes())?;
        Ok(section)
    }

    /// Writes a part of the content.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.hash.write(bytes);
        Ok(self.output.write_all(bytes)?)
    }

    /// Ends it.
    pub(super) fn end(self) -> Result<(), SnapshotError> {
        Ok(self.output.write_all(&self.hash.finish().to_le_bytes())?)
    }
}

/// Reads sections, and knows where it is.
pub(super) struct SectionReader<R> {
    input: R,
    offset: u64,
    section: &'static str,
    hash: XxHash3_64,
    /// Where the section starts.
    start: u64,
    /// Bytes of its content that have not been read.
    left: u64,
}

impl<R: Read> SectionReader<R> {
    pub(super) fn new(input: R) -> Self {
        SectionReader { input, offset: 0, section: "first", hash: XxHash3_64::new(), start: 0, left: 0 }
    }

    /// Begins the next section, which must be of a kind, with content of a length if that is known.
    pub(super) fn begin(&mut self, kind: Kind, len: Option<u64>) -> Result<u64, SnapshotError> {
        (self.section, self.start, self.hash) = (kind.name, self.offset, XxHash3_64::new());
        self.left = HEADER as u64;
        let (code, flags, found) = (self.array::<4>()?, self.u32()?, self.u64()?);
        if code != kind.code {
            return Err(self.wrong("kind", format!("{:02x?}", kind.code), format!("{code:02x?}")));
        }
        if flags != 0 {
            return Err(self.wrong("flags", 0, flags));
        }
        if let Some(expected) = len.filter(|&expected| expected != found) {
            return Err(self.wrong("length", expected, found));
        }
        self.left = found;
        Ok(found)
    }

    /// Ends the section: all of it must have been read.
    pub(super) fn end(&mut self) -> Result<(), SnapshotError> {
        if self.left > 0 {
            return Err(self.wrong("what is left", 0, self.left));
        }
        let found = self.hash.finish();
        let expected = u64::from_le_bytes(self.raw()?);
        if expected != found {
            let (section, offset) = (self.section, self.offset);
            return Err(SnapshotError::Damaged { section, offset, expected, found });
        }
        Ok(())
    }

    /// The next `len` bytes of the content. Memory is taken as bytes come, whatever a file promises.
    pub(super) fn bytes(&mut self, len: usize) -> Result<Vec<u8>, SnapshotError> {
        if len as u64 > self.left {
            return Err(self.wrong("what is left", len, self.left));
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(len as u64).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        self.left -= bytes.len() as u64;
        if bytes.len() < len {
            return Err(self.cut());
        }
        self.hash.write(&bytes);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes before the first section.
    pub(super) fn raw<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => self.offset += N as u64,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.cut()),
            Err(error) => return Err(error.into()),
        }
        Ok(bytes)
    }

    /// Whether there is nothing more.
    pub(super) fn finish(mut self) -> Result<(), SnapshotError> {
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(SnapshotError::Trailing { offset: self.offset }),
        }
    }

    /// Something in this section is not what it should be.
    pub(super) fn wrong(
        &self,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> SnapshotError {
        let (expected, found) = (expected.to_string(), found.to_string());
        SnapshotError::Section { section: self.section, offset: self.start, what, expected, found }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let bytes = self.bytes(N)?;
        <[u8; N]>::try_from(bytes.as_slice()).map_err(|_| self.cut())
    }

    fn cut(&self) -> SnapshotError {
        SnapshotError::Cut { section: self.section, offset: self.offset }
    }
}
