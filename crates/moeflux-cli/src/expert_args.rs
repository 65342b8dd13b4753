//! How much memory a model may take, and how its experts are streamed.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use moeflux::experts::{self, ExpertOptions, Heat, HintMode, Io, PolicyKind, StoreOptions};
use moeflux::memory::MemoryRequest;
use moeflux::{Engine, Model};

use crate::size::{Amount, Size};

/// Flags about memory and streaming. None changes the output.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Memory")]
pub(crate) struct ExpertArgs {
    /// Memory for the whole process, such as 8G or 500M; experts that do not fit are streamed from disk
    /// [default: what is free]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Memory for streamed experts, such as 4G, or 25% of all experts [default: what --memory leaves]
    #[arg(long, value_name = "SIZE")]
    expert_budget: Option<Amount>,
    /// How experts are read: past the page cache, through it, or mapped (then the system decides what stays in memory)
    #[arg(long, value_enum, default_value = "auto")]
    io: IoArg,
    /// Which experts stay in memory
    #[arg(long, value_enum, default_value = "lfru")]
    policy: PolicyArg,
    /// Guesses that start reads before the router has spoken
    #[arg(long, value_enum, default_value = "auto")]
    hints: HintArg,
    /// Start with the experts that were used most when the program last ran with this file, and note in it what is used
    /// now
    #[arg(long, value_name = "FILE")]
    warm: Option<PathBuf>,
    /// Compare the checksums of what is read, where the model has them (packs do)
    #[arg(long)]
    verify_reads: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IoArg {
    /// Direct if the file system takes it, else buffered
    Auto,
    Direct,
    Buffered,
    Mmap,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PolicyArg {
    /// What was used least recently goes
    Lru,
    /// What was used least often, lately, goes
    Lfru,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HintArg {
    Off,
    /// What the last token chose
    Last,
    /// What the next layer's router says of this layer's input
    Lookahead,
    /// Look ahead while it helps
    Auto,
}

impl ExpertArgs {
    /// Whether a flag says how much memory there is.
    pub(crate) fn limits_memory(&self) -> bool {
        self.memory.is_some() || self.expert_budget.is_some()
    }

    /// The options that they say for a model.
    pub(crate) fn options(&self, model: &Model) -> Result<ExpertOptions> {
        let all = experts::needs(model, 1, 0)?.experts;
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
        let Some(store) = engine.experts() else { return Ok(()) };
        if let Some(Amount::Percent(_)) = self.expert_budget {
            // Slots take a little more than what lies in them.
            let budget = self.expert_budget.map_or(0, |amount| amount.of(store.bytes_of_all()));
            store.resize(budget)?;
        }
        if let Some(path) = self.warm.as_deref().filter(|path| path.exists()) {
            store.warm(&Heat::load(path)?)?;
        }
        Ok(())
    }

    /// Writes the file of `--warm`.
    pub(crate) fn finish(&self, engine: &Engine) -> Result<()> {
        if let (Some(store), Some(path)) = (engine.experts(), &self.warm) {
            store.heat().save(path)?;
        }
        Ok(())
    }
}
