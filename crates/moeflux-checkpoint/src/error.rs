//! What can be wrong with a checkpoint.

use crate::tensor::Dtype;
use std::path::PathBuf;

/// What is wrong with a checkpoint: which file, which tensor or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Something that cannot be read to its end: a pipe, a device, a socket.
    #[error("{}: expected a regular file, found a pipe, a device or a socket", path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// A file that is larger than any of its kind.
    #[error("{}: expected at most {limit} bytes, found {found}; it is damaged, or not what its name says", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
        /// Bytes in the file, or read of it.
        found: u64,
    },
    /// Experts that would have to be put in another form to be read from the file.
    #[error(
        "{}: the experts are stored transposed, or with scales that are quantised, so they can be held in memory but not \
         streamed from the file; `moeflux convert` makes a pack of them, which streams",
        path.display()
    )]
    Transposed {
        /// The file that holds them.
        path: PathBuf,
    },
    /// A file that every checkpoint has is not there.
    #[error("{}: not found; a checkpoint folder holds config.json and *.safetensors files", path.display())]
    MissingFile {
        /// The file looked for.
        path: PathBuf,
    },
    /// Several weight files and nothing that says how they belong together.
    #[error(
        "{}: expected model.safetensors.index.json, model.safetensors or one *.safetensors file, found {}",
        folder.display(), list(found)
    )]
    WeightFiles {
        /// The checkpoint folder.
        folder: PathBuf,
        /// The weight files found.
        found: Vec<String>,
    },
    /// One of the shards that the names of others count is not there.
    #[error("{}: {file} is missing, one of {count} weight files; download it too", folder.display())]
    MissingFileOfSeveral {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: String,
        /// How many there are.
        count: usize,
    },
    /// A folder of the hub's cache that does not say which snapshot is meant.
    #[error(
        "{}: a folder of the hub's cache without refs/main; name one of its snapshots, which are {}",
        folder.display(), list(found)
    )]
    Snapshots {
        /// The folder.
        folder: PathBuf,
        /// The names of its snapshots.
        found: Vec<String>,
    },
    /// A git-lfs pointer in place of the file itself.
    #[error("{}: a git-lfs pointer, not the file itself; fetch it with `git lfs pull`", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// Not the JSON that the file should hold.
    #[error("{}: invalid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Artifacts of flash-moe without experts.
    #[error(
        "{}: expected {}, found none",
        folder.display(),
        match bits {
            Some(bits) => format!("experts packed with {bits} bits"),
            None => "packed_experts/, packed_experts_2bit/ or expert_index.json beside model_weights.json".to_owned(),
        }
    )]
    MissingExperts {
        /// The folder.
        folder: PathBuf,
        /// Bits of their codes, if the caller wants certain ones.
        bits: Option<u8>,
    },
    /// A file of packed experts with another length than its experts take.
    #[error(
        "{}: expected {expected} bytes, {count} experts of {block}, found {found}; \
         it is cut short, or was made for another model",
        path.display()
    )]
    PackedExperts {
        /// The file.
        path: PathBuf,
        /// Experts in a layer.
        count: usize,
        /// Bytes of an expert.
        block: u64,
        /// Bytes of them all.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// Not a tokenizer of flash-moe.
    #[error(
        "{}: expected a tokenizer, which begins with BPET; a vocab.bin is for decoding alone, \
         put tokenizer.json or tokenizer.bin beside it",
        path.display()
    )]
    NotATokenizer {
        /// The file.
        path: PathBuf,
    },
    /// A file that a pack's manifest names is not there.
    #[error("{}: not found, but moeflux.json names it; copy the pack again, whole", path.display())]
    MissingPackFile {
        /// The file.
        path: PathBuf,
    },
    /// A pack's file has another length than its manifest says.
    #[error(
        "{}: expected {expected} bytes, as moeflux.json has it, found {found}; copy the pack again, whole",
        path.display()
    )]
    PackFileLength {
        /// The file.
        path: PathBuf,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The index names a shard outside the checkpoint folder.
    #[error("{}: the index places tensor {tensor} in {shard:?}; expected a file name inside the folder", index.display())]
    ShardName {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard's name in the index.
        shard: String,
    },
    /// The index names a shard that the folder lacks.
    #[error("{}: the index places tensor {tensor} in shard {shard}, which the folder lacks; download it again", index.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// A tensor that the shard should hold.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// The index names a tensor that its shard lacks.
    #[error("{}: the index places tensor {tensor} in shard {shard}, which does not hold it", index.display())]
    NotInShard {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// Two files give a tensor of the same name.
    #[error("{}: tensor {tensor} is given a second time; the first is in {}", path.display(), first.display())]
    DuplicateTensor {
        /// The file with the second.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file with the first.
        first: PathBuf,
    },
    /// The file ends before its safetensors header does.
    #[error(
        "{}: expected a safetensors header that ends at byte {expected}, found a file of {found} bytes; \
         it is cut short or not a safetensors file",
        path.display()
    )]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// Where the header should end; saturates.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The header is larger than any real one.
    #[error("{}: expected a safetensors header of at most {limit} bytes, found {found}", path.display())]
    HeaderTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
        /// Bytes the file claims.
        found: u64,
    },
    /// The data ends before or after the last tensor does.
    #[error(
        "{}: expected {expected} bytes (tensor {tensor} is the last), found {found}; the file is damaged, download it again",
        path.display()
    )]
    FileLength {
        /// The file.
        path: PathBuf,
        /// The last tensor.
        tensor: String,
        /// Where it ends, from the start of the file.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A tensor starts before the one in front of it ends.
    #[error("{}: tensor {tensor} overlaps {other}: expected it to start at data byte {expected}, found {found}", path.display())]
    Overlap {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The tensor in front of it.
        other: String,
        /// Where that one ends, from the end of the header.
        expected: u64,
        /// Where the tensor starts.
        found: u64,
    },
    /// Bytes between tensors that belong to none.
    #[error("{}: tensor {tensor}: expected it to start at data byte {expected}, found {found}", path.display())]
    Gap {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where the one in front of it ends, from the end of the header.
        expected: u64,
        /// Where the tensor starts.
        found: u64,
    },
    /// Something in the header of a GGUF file is not what it can be.
    #[error("{}: {what} at byte {offset}: expected {expected}, found {found}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Which key, tensor or number.
        what: String,
        /// Where it starts, from the start of the file.
        offset: u64,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A folder holds several GGUF models.
    #[error(
        "{}: expected the file or the parts of one GGUF model, found {}; name the file that you mean",
        folder.display(), list(found)
    )]
    GgufFiles {
        /// The folder.
        folder: PathBuf,
        /// The GGUF files found.
        found: Vec<String>,
    },
    /// A part of a split GGUF model is not there.
    #[error("{}: one of {count} parts, of which {} is missing; download it too", path.display(), part.display())]
    MissingPart {
        /// The part that was opened.
        path: PathBuf,
        /// The part that is missing.
        part: PathBuf,
        /// How many parts there are.
        count: usize,
    },
    /// A tensor's range has another length than its shape and dtype imply.
    #[error("{}: tensor {tensor}: {dtype} {shape:?} takes {expected}, found the range {start}..{end}", path.display())]
    TensorLength {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// What they imply, in words.
        expected: String,
        /// Start of its range, from the end of the header.
        start: u64,
        /// End of its range.
        end: u64,
    },
    /// A tensor that the model needs is not there.
    #[error("{}: tensor {tensor} is missing", path.display())]
    MissingTensor {
        /// The folder, or the file that holds the rest of the module.
        path: PathBuf,
        /// The tensor, as this checkpoint would name it.
        tensor: String,
    },
    /// A tensor has another shape than the config implies.
    #[error("{}: tensor {tensor}: expected shape {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that the config implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that cannot be what it is for.
    #[error("{}: tensor {tensor}: expected dtype {expected}, found {found}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The element types that would do.
        expected: &'static str,
        /// The element type in the file.
        found: Dtype,
    },
    /// A tensor holds a number that it cannot.
    #[error("{}: tensor {tensor}: expected {expected}, found {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What would do.
        expected: &'static str,
        /// The number.
        found: f32,
    },
    /// A module's tensors and the config's `quantization` contradict each other.
    #[error("{}: tensor {tensor}: expected {expected}, found {found}", path.display())]
    ModuleQuantization {
        /// The file.
        path: PathBuf,
        /// The module's tensor.
        tensor: String,
        /// What the config implies.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A model whose output projection is its embedding has another one stored.
    #[error(
        "{}: tensor {tensor}: expected the same bytes as {embedding}, since tie_word_embeddings is true; \
         set it to false in config.json if the model has an output projection of its own",
        path.display()
    )]
    Untied {
        /// The file.
        path: PathBuf,
        /// The output projection.
        tensor: String,
        /// The embedding.
        embedding: String,
    },
    /// Tensors that the model has no place for: to leave them out would change what it computes.
    #[error(
        "{}: expected no tensor beyond those of the model, found {count}: {}{}",
        path.display(), list(tensors), if *count > tensors.len() { ", …" } else { "" }
    )]
    UnexpectedTensors {
        /// The file that holds the first.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first few.
        tensors: Vec<String>,
    },
    /// A config field that the model needs is not there.
    #[error("{}: field {field} is missing; expected {expected}", path.display())]
    MissingField {
        /// The config file.
        path: PathBuf,
        /// The field, with dots.
        field: String,
        /// What belongs there.
        expected: String,
    },
    /// A config field has a value that is impossible or not supported.
    #[error("{}: field {field}: expected {expected}, found {found}", path.display())]
    Field {
        /// The config file.
        path: PathBuf,
        /// The field, with dots.
        field: String,
        /// What would do.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// A config field that nobody here knows: it may change what the model computes.
    #[error(
        "{}: unknown field {field} = {found}: it may change what the model computes; \
         if it does not, list it in ignored_config_fields (--ignore-config-field of the command)",
        path.display()
    )]
    UnknownField {
        /// The config file.
        path: PathBuf,
        /// The field, with dots.
        field: String,
        /// The value in the file.
        found: String,
    },
}

/// Names, joined for reading.
fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
