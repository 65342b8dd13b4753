//! `moeflux inspect`: what a model is, and where each byte is.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use moeflux::Model;
use moeflux::checkpoint::{Checkpoint, IgnoredField, Provenance, Tensor};
use moeflux::summary::{Part, PartSize, Summary};
use serde::Serialize;

use crate::model_args::ModelArgs;
use crate::stats::Bytes;
use crate::terminal;

/// Arguments of `inspect`.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// Model folder, GGUF file, or name of a pulled model [default: the demo in models/demo]
    #[arg(value_name = "MODEL")]
    argument: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// List every tensor of the files
    #[arg(long, help_heading = "Output")]
    tensors: bool,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct JsonSummary<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    runs: bool,
    name: Option<&'a str>,
    written_by: &'a [String],
    notes: &'a [String],
    ignored: Vec<JsonIgnored<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<JsonTensor<'a>>>,
}

#[derive(Serialize)]
struct JsonIgnored<'a> {
    field: &'a str,
    reason: &'a str,
}

/// What `--json` prints of a model that does not open.
#[derive(Serialize)]
struct JsonRefusal<'a> {
    runs: bool,
    why: String,
    name: Option<&'a str>,
    family: Option<&'a str>,
    written_by: &'a [String],
    quantization: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonTensor<'a> {
    name: &'a str,
    part: Part,
    dtype: String,
    shape: &'a [usize],
    file: &'a Path,
    offset: u64,
    bytes: u64,
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let named = args.model.folder(args.argument.as_deref())?;
    let provenance = args.model.locate(&named)?.and_then(|path| Provenance::of(&path));
    let model = match args.model.open(args.argument.as_deref()) {
        Ok(model) => model,
        Err(error) => {
            if let Some(provenance) = provenance {
                terminal::show(&refusal(&named, &provenance, &error, args.json)?)?;
            }
            return Err(error);
        }
    };
    let provenance = provenance.unwrap_or_default();
    let notes = model.checkpoint().notes();
    let summary = model.summary()?;
    let tensors = args.tensors.then(|| tensors(model.checkpoint()));
    let text = if args.json {
        let ignored = model.checkpoint().ignored_fields().iter();
        terminal::json(&JsonSummary {
            summary: &summary,
            runs: true,
            name: provenance.name.as_deref(),
            written_by: &provenance.written_by,
            notes: &notes,
            ignored: ignored
                .map(|IgnoredField { field, reason, .. }| JsonIgnored { field, reason })
                .collect(),
            tensors,
        })?
    } else {
        page(&model, &summary, &provenance, tensors.as_deref())?
    };
    terminal::show(&text)?;
    Ok(())
}

fn tensors(checkpoint: &Checkpoint) -> Vec<JsonTensor<'_>> {
    let described = checkpoint.tensors().map(|tensor| {
        let Tensor { name, dtype, shape, span } = tensor;
        JsonTensor {
            name,
            part: Part::of_tensor(checkpoint, tensor),
            dtype: dtype.to_string(),
            shape,
            file: checkpoint.files()[span.file as usize].path(),
            offset: span.offset,
            bytes: span.len,
        }
    });
    described.collect()
}

/// What is known of a model that does not open.
fn refusal(named: &Path, provenance: &Provenance, error: &anyhow::Error, json: bool) -> Result<String> {
    let Provenance { name, family, written_by, quantization, .. } = provenance;
    if json {
        let (name, family, quantization) = (name.as_deref(), family.as_deref(), quantization.as_deref());
        let why = error.to_string();
        return Ok(terminal::json(&JsonRefusal {
            runs: false,
            why,
            name,
            family,
            written_by,
            quantization,
        })?);
    }
    let mut page = String::new();
    let out = &mut page;
    writeln!(out, "model        {}", named.display())?;
    for (label, value) in [("name", name), ("family", family), ("quantised", quantization)] {
        if let Some(value) = value {
            writeln!(out, "{label:12} {value}")?;
        }
    }
    if !written_by.is_empty() {
        writeln!(out, "written by   {}", written_by.join(", "))?;
    }
    writeln!(out, "runs         no: {error}")?;
    Ok(page)
}

/// Who wrote the files, what is unusual about them, and which fields of the config are not used.
fn provenance_lines(out: &mut String, model: &Model, provenance: &Provenance) -> std::fmt::Result {
    if let Some(name) = &provenance.name {
        writeln!(out, "name         {name}")?;
    }
    if !provenance.written_by.is_empty() {
        writeln!(out, "written by   {}", provenance.written_by.join(", "))?;
    }
    for note in model.checkpoint().notes() {
        writeln!(out, "note         {note}")?;
    }
    let ignored = model.checkpoint().ignored_fields();
    let mut reasons: Vec<&str> = ignored.iter().map(|field| field.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let of_reason = ignored.iter().filter(|field| field.reason == reason);
        let names: Vec<&str> = of_reason.map(|field| field.field.as_str()).collect();
        writeln!(out, "ignored      {} ({reason})", names.join(", "))?;
    }
    writeln!(out, "runs         yes")
}

fn page(
    model: &Model,
    summary: &Summary,
    provenance: &Provenance,
    tensors: Option<&[JsonTensor]>,
) -> Result<String, std::fmt::Error> {
    let Summary { experts, parameters, bytes_per_token, sequence, .. } = summary;
    let layers: Vec<String> =
        summary.layers.iter().map(|layer| format!("{} {}", layer.count, layer.kind)).collect();
    let mut page = String::new();
    let out = &mut page;
    writeln!(out, "model        {}", model.checkpoint().path().display())?;
    writeln!(out, "family       {}", summary.model_type)?;
    writeln!(out, "stored as    {}", summary.layout)?;
    writeln!(out, "layers       {}", layers.join(", "))?;
    writeln!(out, "hidden size  {}", summary.hidden_size)?;
    if experts.total > 0 {
        writeln!(out, "experts      {} a layer, {} active", experts.total, experts.active)?;
    }
    writeln!(out, "parameters   {}, {} active", Count(parameters.total), Count(parameters.active))?;
    writeln!(out, "bits/weight  {:.2}", summary.bits_per_weight)?;
    writeln!(
        out,
        "bytes/token  {}: {} dense, {} experts",
        Bytes(bytes_per_token.dense + bytes_per_token.experts),
        Bytes(bytes_per_token.dense),
        Bytes(bytes_per_token.experts)
    )?;
    writeln!(out, "context      {} tokens", summary.context_length)?;
    writeln!(out, "vocabulary   {} tokens", summary.vocab_size)?;
    writeln!(
        out,
        "a sequence   {} for 1000 tokens of KV cache, {} of sliding windows, {} of recurrent state",
        Bytes(1000 * sequence.kv_per_token),
        Bytes(sequence.windows),
        Bytes(sequence.recurrent)
    )?;
    provenance_lines(out, model, provenance)?;
    writeln!(out)?;
    parts(out, &summary.parts)?;
    writeln!(out)?;
    for file in &summary.files {
        writeln!(out, "{:>10}  {}", Bytes(file.bytes), file.path.display())?;
    }
    if let Some(tensors) = tensors {
        writeln!(out)?;
        for JsonTensor { name, dtype, shape, bytes, .. } in tensors {
            writeln!(out, "{:>10}  {dtype:4} {:20} {name}", Bytes(*bytes), format!("{shape:?}"))?;
        }
    }
    Ok(page)
}

fn parts(out: &mut String, parts: &[PartSize]) -> std::fmt::Result {
    let total = |count: fn(&PartSize) -> u64| parts.iter().map(count).sum::<u64>();
    let bytes = total(|part| part.bytes);
    writeln!(out, "{:17} {:>10} {:>7} {:>12} {:>8}", "part", "bytes", "share", "parameters", "tensors")?;
    let mut line = |name: &str, size: u64, parameters: u64, tensors: u64| {
        let share = format!("{:.1} %", 100.0 * size as f64 / bytes as f64);
        let parameters = if parameters == 0 { "not u".to_owned() } else { Count(parameters).to_string() };
        writeln!(out, "{name:17} {:>10} {share:>7} {parameters:>12} {tensors:>8}", Bytes(size))
    };
    for part in parts {
        line(name(part.part), part.bytes, part.parameters, part.tensors as u64)?;
    }
    line("all", bytes, total(|part| part.parameters), total(|part| part.tensors as u64))
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Embedding => "embedding",
        Part::Attention => "attention",
        Part::LinearAttention => "linear attention",
        Part::Router => "router",
        Part::SharedExpert => "shared expert",
        Part::Experts => "experts",
        Part::DenseMlp => "dense MLP",
        Part::Norms => "norms",
        Part::LmHead => "lm_head",
        Part::Mtp => "mtp",
        Part::Ignored => "ignored",
    }
}

/// A large number, shown in thousands (K), millions (M) or billions (B).
struct Count(u64);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(1e9, "B"), (1e6, "M"), (1e3, "K")];
        match units.into_iter().find(|(size, _)| self.0 as f64 >= *size) {
            Some((size, unit)) => f.pad(&format!("{:.2} {unit}", self.0 as f64 / size)),
            None => f.pad(&self.0.to_string()),
        }
    }
}
