//! How much memory a model may take, and how its experts are streamed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Error, Result, anyhow};
use clap::{Args, ValueEnum};
use moeflux::experts::{ExpertOptions, ExpertStore, Heat, HintMode, HostCopy, Io, PolicyKind, StoreOptions};
use moeflux::placement::{MemoryError, MemoryRequest, needs};
use moeflux::{Engine, Model};

use crate::output_file;
use crate::size::{Amount, Size};
use crate::store_args::cache_folder;
use crate::terminal::note;

/// Flags about memory and streaming. None changes the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Memory")]
pub(crate) struct ExpertArgs {
    /// Memory limit of the whole process, such as 8G or 500M. Experts that do not fit are streamed from disk [default:
    /// the free memory]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Memory for streamed experts: a size such as 4G, or a share of all experts such as 25% [default: what --memory
    /// leaves]
    #[arg(long, value_name = "SIZE")]
    expert_budget: Option<Amount>,
    /// How experts are read: past the page cache, through the page cache, or mapped (the system then decides what stays
    /// in memory)
    #[arg(long, value_enum, default_value = "auto")]
    io: IoArg,
    /// Which experts stay in memory
    #[arg(long, value_enum, default_value = "lfru")]
    policy: PolicyArg,
    /// How experts are predicted, so that reads start before the router has chosen
    #[arg(long, value_enum, default_value = "auto")]
    hints: HintArg,
    /// Whether all experts are copied to host memory that the GPU reads, if the GPU has no room for them. This is
    /// faster than sending them, but it locks that much memory, and opening the model takes longer
    #[arg(long, value_enum, default_value = "auto")]
    gpu_host_copy: HostCopyArg,
    /// Start with the experts that were used most in earlier runs with this file, and update the file at the end.
    /// `auto` is a file for each model in the cache folder
    #[arg(long, value_name = "FILE")]
    warm: Option<PathBuf>,
    /// Verify the checksums of experts when they are read, if the model has checksums (packs have)
    #[arg(long)]
    verify_reads: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IoArg {
    /// Direct if the file system supports it, otherwise buffered
    Auto,
    /// Past the page cache
    Direct,
    /// Through the page cache
    Buffered,
    /// Mapped: the system decides what stays in memory
    Mmap,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// Evict the least recently used expert
    Lru,
    /// Evict the expert that was used least often, recent uses counting more
    Lfru,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HostCopyArg {
    /// If the host has room
    Auto,
    /// An error if the host has no room
    Always,
    /// Experts are sent when a router chooses them
    Never,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HintArg {
    /// No prediction
    Off,
    /// What the last token chose
    Last,
    /// What the next layer's router chooses for this layer's input
    Lookahead,
    /// Lookahead while it helps
    Auto,
}

impl ExpertArgs {
    /// Whether a flag says how much memory there is.
    pub(crate) fn limits_memory(&self) -> bool {
        self.memory.is_some() || self.expert_budget.is_some()
    }

    /// Bytes for experts, if a flag says so much.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self.expert_budget {
            Some(Amount::Bytes(bytes)) => Some(bytes),
            Some(Amount::Percent(_)) | None => None,
        }
    }

    /// The options that they say for a model.
    pub(crate) fn options(&self, model: &Model) -> Result<ExpertOptions> {
        let all = needs(model, 1, 0)?.experts;
        Ok(ExpertOptions {
            memory: MemoryRequest {
                process: self.memory.map(|Size(bytes)| bytes),
                experts: self.expert_budget.map(|amount| amount.of(all)),
            },
            hints: match self.hints {
                HintArg::Off => HintMode::Off,
                HintArg::Last => HintMode::Last,
                HintArg::Lookahead => HintMode::Lookahead,
                HintArg::Auto => HintMode::Auto,
            },
            host_copy: match self.gpu_host_copy {
                HostCopyArg::Auto => HostCopy::Auto,
                HostCopyArg::Always => HostCopy::Always,
                HostCopyArg::Never => HostCopy::Never,
            },
            store: StoreOptions {
                io: match self.io {
                    IoArg::Auto => Io::Auto,
                    IoArg::Direct => Io::Direct,
                    IoArg::Buffered => Io::Buffered,
                    IoArg::Mmap => Io::Mapped,
                },
                policy: match self.policy {
                    PolicyArg::Lru => PolicyKind::Lru,
                    PolicyArg::Lfru => PolicyKind::Lfru,
                },
                verify: self.verify_reads,
                ..StoreOptions::new(0)
            },
            ..ExpertOptions::default()
        })
    }

    /// Gives a new engine's store the budget and the experts to begin with.
    pub(crate) fn begin(&self, engine: &Engine) -> Result<()> {
        if let Some(path) = self.warm.as_deref().filter(|_| !self.warm_is_auto()) {
            output_file::check("--warm", path)?;
        }
        let Some(store) = engine.experts() else { return Ok(()) };
        if let Some(Amount::Percent(_)) = self.expert_budget {
            // Slots take a little more than what lies in them.
            let budget = self.expert_budget.map_or(0, |amount| amount.of(store.bytes_of_all()));
            store.resize(budget)?;
        }
        if let Some(path) = self.heat_file(engine.model())?.filter(|path| path.exists()) {
            let warmed = Heat::load(&path).and_then(|heat| store.warm(&heat));
            // Another model may have lain here before; a file that was named is what it should be.
            if let Err(error) = warmed {
                if !self.warm_is_auto() {
                    return Err(error.into());
                }
                note(format!(
                    "{}: the file is ignored, and no expert is loaded in advance: {error}",
                    path.display()
                ));
            }
        }
        Ok(())
    }

    /// An error of opening an engine; too little memory in units that people read, and with the flag that limits it.
    pub(crate) fn in_human_units(&self, error: Error) -> Error {
        let Some(moeflux::Error::Memory(memory)) = error.downcast_ref::<moeflux::Error>() else {
            return error;
        };
        let MemoryError { given, needed, resident, dense, transient, sequence, least_experts, .. } = *memory;
        let [given, needed, resident, dense, transient, sequence, least] =
            [given, needed, resident, dense, transient, sequence, least_experts]
                .map(|bytes| Size(bytes).to_string());
        let limit = match self.memory {
            Some(_) => format!("--memory {given}"),
            None => format!("{given}, which is what the machine or the control group leaves,"),
        };
        let hint = match self.memory {
            // A number alone is bytes, which nobody means.
            Some(Size(bytes)) if bytes < 1 << 16 => format!(" (for {bytes} GiB write {bytes}G)"),
            _ => String::new(),
        };
        anyhow!(
            "{limit} is too little{hint}: {needed} or more is needed. The process holds {resident}, dense weights take \
             {dense}, buffers {transient}, a sequence {sequence}, and experts need at least {least}"
        )
    }

    /// Writes the file of `--warm`.
    pub(crate) fn finish(&self, engine: &Engine) -> Result<()> {
        self.keep(engine.experts(), engine.model())
    }

    /// The same, of a model and what streams its experts.
    pub(crate) fn keep(&self, experts: Option<&Arc<ExpertStore>>, model: &Model) -> Result<()> {
        if let (Some(store), Some(path)) = (experts, self.heat_file(model)?) {
            if let Some(folder) = path.parent().filter(|_| self.warm_is_auto()) {
                fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            }
            store.heat().save(&path)?;
        }
        Ok(())
    }

    fn warm_is_auto(&self) -> bool {
        self.warm.as_deref() == Some(Path::new("auto"))
    }

    /// The file of `--warm`.
    fn heat_file(&self, model: &Model) -> Result<Option<PathBuf>> {
        if !self.warm_is_auto() {
            return Ok(self.warm.clone());
        }
        let cache = cache_folder().context("--warm auto: the user has no cache folder; name a file")?;
        Ok(Some(cache.join("moeflux/heat").join(heat_name(model.checkpoint().path()))))
    }
}

/// A name for the model in a folder or file, which keeps apart those of one name in different places.
fn heat_name(model: &Path) -> String {
    let path = fs::canonicalize(model).unwrap_or_else(|_| model.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // FNV-1a.
    let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{name}-{hash:016x}.json")
}
