//! Which model, and how it computes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use moeflux::checkpoint::OpenOptions;
use moeflux::devices::{self, Candidate, Measurements, Question};
use moeflux::experts::ExpertStore;
use moeflux::placement::GpuMemory;
use moeflux::{Engine, EngineOptions, Model, ModelOptions, Precision};

use crate::cache;
use crate::device_args::DeviceArgs;
use crate::expert_args::ExpertArgs;
use crate::store_args::StoreArgs;

/// Flags that every command has.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Model folder, GGUF file, or name of a pulled model; the same as the argument MODEL [default: the demo in
    /// models/demo]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Ignore this unknown field of config.json, such as text_config.novelty; may be repeated
    #[arg(long = "ignore-config-field", value_name = "FIELD")]
    ignored_config_fields: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// The file of the speeds of disks.
const DISKS: &str = "disks.json";

/// How to compute.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model")]
pub(crate) struct EngineArgs {
    /// Number of threads that compute, at most 1024. The output does not depend on it [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Precision of products with quantised weights: fast rounds activations to 12 or 8 bits, exact keeps them in
    /// float32. `--numbers` is the same
    #[arg(long, alias = "numbers", value_name = "PRECISION", value_enum, default_value_t = PrecisionArg::Fast)]
    precision: PrecisionArg,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    experts: ExpertArgs,
}

/// [`Precision`], as a flag names them.
#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    Fast,
    Exact,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Fast => Precision::Fast,
            PrecisionArg::Exact => Precision::Exact,
        }
    }
}

impl ModelArgs {
    /// Whether `--model` names one.
    pub(crate) fn is_named(&self) -> bool {
        self.model.is_some()
    }

    /// The folder or file that an argument names; see [`StoreArgs::locate`].
    pub(crate) fn locate(&self, named: &Path) -> Result<Option<PathBuf>> {
        self.store.locate(named)
    }

    /// The model's folder: `--model`, the positional argument, or the demo.
    pub(crate) fn folder(&self, argument: Option<&Path>) -> Result<PathBuf> {
        match (argument, self.model.as_deref()) {
            (Some(argument), Some(flag)) => bail!(
                "two models are given, {} and --model {}: remove one of them",
                argument.display(),
                flag.display()
            ),
            (Some(named), None) | (None, Some(named)) => Ok(named.to_owned()),
            (None, None) => find_demo().context(
                "no model is given, and the demo is neither in models/demo nor beside the program: \
                 name a model folder, as in `moeflux run path/to/model \"Hello\"`",
            ),
        }
    }

    /// Opens that model.
    pub(crate) fn open(&self, argument: Option<&Path>) -> Result<Model> {
        self.open_with(argument, false)
    }

    /// The same, with its layer for multi-token prediction if `mtp` asks for it and there is one.
    pub(crate) fn open_with(&self, argument: Option<&Path>, mtp: bool) -> Result<Model> {
        self.open_at(&self.folder(argument)?, mtp)
    }

    /// Opens the model that an argument names, whatever `--model` says, with its layer for multi-token prediction if `mtp` asks
    /// for it and there is one.
    pub(crate) fn open_named(&self, named: &Path, mtp: bool) -> Result<Model> {
        self.open_at(named, mtp)
    }

    fn open_at(&self, named: &Path, mtp: bool) -> Result<Model> {
        let checkpoint = OpenOptions {
            ignored_config_fields: self.ignored_config_fields.clone(),
            ..OpenOptions::default()
        };
        self.store.open(named, &ModelOptions { checkpoint, mtp })
    }
}

impl EngineArgs {
    /// Threads that an engine of [`engine`](Self::engine) has.
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| EngineOptions::default().threads)
    }

    /// The precision of its products.
    pub(crate) fn precision(&self) -> Precision {
        self.precision.into()
    }

    /// Whether a flag says how much memory there is.
    pub(crate) fn limits_memory(&self) -> bool {
        self.experts.limits_memory()
    }

    /// The options that they say for a model.
    pub(crate) fn options(&self, model: &Model) -> Result<EngineOptions> {
        let mut options = EngineOptions { experts: self.experts.options(model)?, ..EngineOptions::default() };
        if let Some(threads) = self.threads {
            options.threads = threads;
        }
        options.precision = self.precision();
        // Of what a GPU takes as a whole each byte is read once.
        if self.limits_memory() || !self.device.is_gpu(model, &options, false)? {
            let mut disks: devices::Disks = cache::load(DISKS);
            if disks.tune(model, &mut options)? {
                cache::save(DISKS, &disks);
            }
        }
        Ok(options)
    }

    /// An engine for the model.
    pub(crate) fn engine(&self, model: Model) -> Result<Engine> {
        let options = self.options(&model)?;
        self.engine_with(model, &options)
    }

    /// An engine for the model, of these options if somebody changed them.
    pub(crate) fn engine_with(&self, model: Model, options: &EngineOptions) -> Result<Engine> {
        let engine = self.device.engine(model, options, self.limits_memory());
        let engine = engine.map_err(|error| self.experts.in_human_units(error))?;
        self.experts.begin(&engine)?;
        Ok(engine)
    }

    /// The same flags, of a GPU with room for all experts.
    pub(crate) fn with_all_experts_on_gpu(&self) -> Self {
        EngineArgs { device: self.device.with_all_experts(), ..self.clone() }
    }

    /// Bytes a second that the device of these flags reads from its own memory.
    pub(crate) fn read_bandwidth(&self, model: &Model) -> Result<f64> {
        self.device.read_bandwidth(model, &self.options(model)?, self.limits_memory())
    }

    /// Bytes a second that come to the GPU of these flags from the host, where it reads a copy of experts or is sent them.
    pub(crate) fn host_bandwidth(&self, model: &Model, has_copy: bool) -> Result<f64> {
        self.device.host_bandwidth(model, &self.options(model)?, has_copy)
    }

    /// How much of a GPU's memory a model may take.
    pub(crate) fn gpu_memory(&self, model: &Model) -> Result<GpuMemory> {
        self.device.memory(model)
    }

    /// The devices that the flags allow, the fastest first.
    pub(crate) fn candidates(
        &self,
        model: &Model,
        question: &Question<'_>,
        known: &mut Measurements,
    ) -> Result<Vec<Candidate>> {
        self.device.candidates(model, question, known).map_err(|error| self.experts.in_human_units(error))
    }

    /// Bytes for experts, if a flag says so much.
    pub(crate) fn expert_bytes(&self) -> Option<u64> {
        self.experts.bytes()
    }

    /// The same as [`finish`](Self::finish), after the engine is gone.
    pub(crate) fn finish_with(&self, experts: Option<&Arc<ExpertStore>>, model: &Model) -> Result<()> {
        self.experts.keep(experts, model)
    }

    /// Keeps what the engine has learnt for the next start, if that was asked for.
    pub(crate) fn finish(&self, engine: &Engine) -> Result<()> {
        self.experts.finish(engine)
    }
}

/// The demo under the current folder, else under a folder above the program, so that a built program finds
/// its source's demo from anywhere.
pub(crate) fn find_demo() -> Option<PathBuf> {
    let here = Path::new("models/demo");
    let is_model = |folder: &Path| folder.join("config.json").is_file();
    if is_model(here) {
        return Some(here.to_owned());
    }
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|above| above.join(here)).find(|folder| is_model(folder))
}
