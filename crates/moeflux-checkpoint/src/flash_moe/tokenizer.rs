//! `tokenizer.bin` and `vocab.bin`: a byte-level BPE tokenizer, whole or for decoding alone.

use crate::error::Error;
use std::collections::HashSet;
use std::path::Path;

const MAGIC: &[u8] = b"BPET";
const VERSION: u32 = 1;

/// What `tokenizer.bin` holds. Tokens are written in the alphabet that byte-level BPE prints bytes in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerFile {
    /// Id and token.
    pub vocab: Vec<(u32, String)>,
    /// Pairs of tokens that become one, the first to be merged first.
    pub merges: Vec<(String, String)>,
    /// Tokens that are found in a text before it is split.
    pub added: Vec<(u32, String)>,
}

impl TokenizerFile {
    /// Reads the bytes of a file, which `path` names in errors. Nothing larger than the file is allocated.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader { path, bytes, at: 0 };
        if reader.take(4, "the letters BPET")? != MAGIC {
            return Err(Error::NotATokenizer { path: path.to_owned() });
        }
        let version = reader.u32("a version")?;
        if version != VERSION {
            return Err(reader.wrong("version", &VERSION.to_string(), version));
        }
        let counts =
            [reader.count(6, "vocab_size")?, reader.count(4, "num_merges")?, reader.count(6, "num_added")?];
        let [vocab, merges, added] = counts;
        let file = TokenizerFile {
            vocab: (0..vocab).map(|_| reader.token()).collect::<Result<_, _>>()?,
            merges: (0..merges)
                .map(|_| Ok((reader.text()?, reader.text()?)))
                .collect::<Result<_, Error>>()?,
            added: (0..added).map(|_| reader.token()).collect::<Result<_, _>>()?,
        };
        if reader.at != bytes.len() {
            return Err(reader.wrong("length", &format!("{} bytes", reader.at), bytes.len()));
        }
        let mut ids = HashSet::new();
        if let Some((id, _)) = file.vocab.iter().find(|(id, _)| !ids.insert(id)) {
            return Err(reader.wrong("vocabulary", "each id once", format!("{id} twice")));
        }
        Ok(file)
    }
}

/// Reads `vocab.bin`, which is good for decoding alone: the bytes of each token by its id, empty where there is none.
pub fn parse_vocab(path: &Path, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut reader = Reader { path, bytes, at: 0 };
    if bytes.starts_with(MAGIC) {
        return Err(reader.wrong("num_entries", "a vocabulary for decoding", "a tokenizer (BPET)"));
    }
    let entries = reader.u32("a number of entries")?;
    let max_id = reader.u32("the largest id")?;
    if entries.checked_sub(1) != Some(max_id) {
        return Err(reader.wrong("num_entries", &format!("one more than max_id, {max_id}"), entries));
    }
    if entries as usize > (bytes.len() - reader.at) / 2 {
        return Err(reader.wrong("num_entries", &format!("entries that fit {} bytes", bytes.len()), entries));
    }
    let mut tokens = Vec::with_capacity(entries as usize);
    for _ in 0..entries {
        tokens.push(reader.bytes()?.to_vec());
    }
    if reader.at != bytes.len() {
        return Err(reader.wrong("length", &format!("{} bytes", reader.at), bytes.len()));
    }
    Ok(tokens)
}

/// A file's bytes, read from the front.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| {
            let place = format!("byte {}", self.at);
            self.wrong(&place, &format!("{count} bytes, {what}"), format!("{} bytes", rest.len()))
        })?;
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A number of records of at least `least` bytes, which the file has room for.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, Error> {
        let count = self.u32(what)? as usize;
        let room = self.bytes.len() / least;
        if count > room {
            return Err(self.wrong(
                what,
                &format!("at most {room}, which a file of this length can hold"),
                count,
            ));
        }
        Ok(count)
    }

    /// A length of 16 bits, and so many bytes.
    fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.take(2, "a length")?;
        self.take(usize::from(u16::from_le_bytes([len[0], len[1]])), "a token")
    }

    fn text(&mut self) -> Result<String, Error> {
        let at = self.at;
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned)
            .map_err(|_| self.wrong(&format!("byte {at}"), "a token in UTF-8", format!("{bytes:?}")))
    }

    fn token(&mut self) -> Result<(u32, String), Error> {
        Ok((self.u32("an id")?, self.text()?))
    }

    fn wrong(&self, field: &str, expected: &str, found: impl ToString) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}
