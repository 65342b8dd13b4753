//! How each tensor of a file is made from random numbers or from another file's tensors.
//!
//! A recipe is lines of text:
//!
//! ```text
//! xxh3 41d69cbbbf6fdc74
//! source ../hf/model.safetensors
//! blk.{layer}.attn_q.weight = model.layers.{layer}.self_attn.q_proj.weight | interleave 2
//! blk.{layer}.ffn_up_exps.weight = stack model.layers.{layer}.mlp.experts.*.up_proj.weight
//! ```
//!
//! `xxh3` is the checksum of the whole file, `source` the file that tensors are taken from, and `seed` the number and
//! the name that random numbers are drawn by. The first rule whose name fits a tensor says where its numbers begin and
//! what is done to them, step by step; `{layer}` stands for anything without a dot, and for the same on the right. At
//! last they are stored as the file's header says.
//!
//! | a rule begins with | numbers |
//! |---|---|
//! | `NAME` | a tensor of the source |
//! | `stack NAME` | tensors of the source along a new first axis, with 0, 1, … for the `*` in their name |
//! | `draw normal DEVIATION` | random, of the tensor's shape, by its name |
//! | `draw uniform LOW HIGH`, `draw log_uniform LOW HIGH`, `draw norm MIDDLE` | the same, otherwise distributed |
//! | `draw … as NAME 16x128x64` | the same by another name and of another shape |
//! | `values 0.5 0.25` | these |
//! | `ggml_mxfp4 NAME ROWS` | MXFP4 of the source in GGML's layout, some rows of each expert |
//!
//! | a step | what it does |
//! |---|---|
//! | `add X`, `negative_exp`, `bf16` | changes each number; the last rounds it |
//! | `shape 4x192x64` | another shape of as many numbers |
//! | `at INDEX` | one entry of the first axis |
//! | `take AXIS 0..64,128..192` | these places of an axis; `1..64/2` is every second from 1 on |
//! | `transpose` | swaps the last two axes |
//! | `interleave HEADS` | rows of each head in the order in which llama.cpp rotates them |
//! | `affine BITS GROUP PART`, `mxfp4 PART` | codes (`weight`), `scales` or `biases` as `mx.quantize` makes them |
//! | `hub_mxfp4 PART` | `blocks` or `scales` as gpt-oss has them |
//! | `fp8 ROWS COLUMNS bf16 PART` | codes (`weight`) or scales for each block, the scales in `bf16` or `f32` |

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use moeflux_kernels::Encoding;

use crate::Result;
use crate::encode::{self, Part};
use crate::file::{self, Entry};
use crate::random::Generator;
use crate::tensor::{Data, Tensor};

/// A recipe's lines.
pub struct Recipe {
    /// xxh3 of the whole file.
    pub checksum: u64,
    source: Option<String>,
    seed: Option<(u32, String)>,
    rules: Vec<(String, String)>,
    drawn: RefCell<HashMap<String, Vec<f32>>>,
}

/// A file that tensors are taken from.
pub struct Source {
    file: Vec<u8>,
    header: usize,
    entries: BTreeMap<String, Entry>,
}

impl Source {
    /// A file of which the path says the format.
    pub fn new(path: &Path, file: Vec<u8>) -> Result<Self> {
        let (header, entries) = file::read(path, &file)?;
        let entries = entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        Ok(Source { file, header, entries })
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let Entry { kind, shape, bytes, .. } =
            self.entries.get(name).ok_or_else(|| format!("the source has no {name}"))?;
        let bytes = &self.file[self.header + bytes.start..self.header + bytes.end];
        Ok(Tensor { shape: shape.clone(), data: encode::decode(bytes, *kind)? })
    }

    fn bytes(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
        let Tensor { shape, data } = self.tensor(name)?;
        match data {
            Data::Bytes(bytes) => Ok((shape, bytes)),
            Data::Floats(_) => Err(format!("{name} has numbers, no codes")),
        }
    }
}

impl Recipe {
    /// Reads a recipe's text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut recipe =
            Recipe { checksum: 0, source: None, seed: None, rules: Vec::new(), drawn: RefCell::default() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((name, steps)) = line.split_once(" = ") {
                recipe.rules.push((name.trim().to_owned(), steps.trim().to_owned()));
                continue;
            }
            match *line.split_whitespace().collect::<Vec<_>>() {
                ["xxh3", digits] => {
                    recipe.checksum = u64::from_str_radix(digits, 16).map_err(|_| line.to_owned())?;
                }
                ["source", path] => recipe.source = Some(path.to_owned()),
                ["seed", number, name] => recipe.seed = Some((parse(number)?, name.to_owned())),
                _ => return Err(format!("{line:?} is no line of a recipe")),
            }
        }
        Ok(recipe)
    }

    /// The file that tensors are taken from, if there is one, by its place beside `target`.
    pub fn source(&self, target: &Path) -> Result<Option<Source>> {
        let Some(source) = &self.source else { return Ok(None) };
        let path = target.parent().unwrap_or(target).join(source);
        let file = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Source::new(&path, file).map(Some)
    }

    /// The whole file that begins with these bytes.
    pub fn file(&self, target: &Path, header: Vec<u8>, source: Option<&Source>) -> Result<Vec<u8>> {
        let (start, entries) = file::read(target, &header)?;
        let mut file = header;
        for entry in &entries {
            // GGUF pads tensors with zeros.
            file.resize(start + entry.bytes.start, 0);
            file.extend_from_slice(&self.tensor(entry, source)?);
        }
        Ok(file)
    }

    /// The bytes of the tensor.
    pub fn tensor(&self, entry: &Entry, source: Option<&Source>) -> Result<Vec<u8>> {
        let steps =
            self.steps(&entry.name).ok_or_else(|| format!("{}: no rule of the recipe fits", entry.name))?;
        let bytes = self.follow(&steps, entry, source).and_then(|tensor| encode::encode(tensor, entry.kind));
        let bytes = bytes.map_err(|error| format!("{}: {error}, by {steps:?}", entry.name))?;
        if bytes.len() != entry.bytes.len() {
            let (made, due) = (bytes.len(), entry.bytes.len());
            return Err(format!("{}: {made} bytes where the file has {due}, by {steps:?}", entry.name));
        }
        Ok(bytes)
    }

    /// The steps of the first rule that fits this name, with what stands in the name for each `{…}`.
    fn steps(&self, name: &str) -> Option<String> {
        self.rules.iter().find_map(|(pattern, steps)| {
            let captures = captures(pattern, name)?;
            Some(captures.iter().fold(steps.clone(), |steps, (name, found)| steps.replace(name, found)))
        })
    }

    fn follow(&self, steps: &str, entry: &Entry, source: Option<&Source>) -> Result<Tensor> {
        let mut steps = steps.split(" | ").map(|step| step.split_whitespace().collect::<Vec<_>>());
        let first = self.begin(&steps.next().unwrap_or_default(), entry, source)?;
        steps.try_fold(first, |tensor, step| change(tensor, &step))
    }

    /// The numbers that the first step names.
    fn begin(&self, words: &[&str], entry: &Entry, source: Option<&Source>) -> Result<Tensor> {
        let source = source.ok_or("the recipe names no source");
        match *words {
            ["draw", ref how @ .., "as", name, shape] => self.draw(how, name, list(shape, 'x')?),
            ["draw", ref how @ ..] => self.draw(how, &entry.name, entry.shape.clone()),
            ["values", ref values @ ..] => {
                let values = values.iter().map(|value| parse(value)).collect::<Result<Vec<f32>>>()?;
                Ok(Tensor::floats(vec![values.len()], values))
            }
            ["stack", names] => {
                let source = source?;
                let name = |index: usize| names.replace('*', &index.to_string());
                let all = (0..source.entries.len()).map(name);
                let there = all.take_while(|name| source.entries.contains_key(name));
                let tensors = there.map(|name| source.tensor(&name));
                Tensor::stack(&tensors.collect::<Result<Vec<_>>>()?)
            }
            ["ggml_mxfp4", name, which] => {
                let (_, codes) = source?.bytes(&format!("{name}_blocks"))?;
                let (shape, scales) = source?.bytes(&format!("{name}_scales"))?;
                let &[experts, rows, blocks] = &shape[..] else {
                    return Err(format!("{name}: scales of the shape {shape:?}"));
                };
                let (which, mut bytes) = (places(which)?, Vec::new());
                for row in (0..experts).flat_map(|expert| which.iter().map(move |row| expert * rows + row)) {
                    let scales = &scales[row * blocks..][..blocks];
                    bytes.extend(encode::ggml_mxfp4(&codes[row * blocks * 16..][..blocks * 16], scales));
                }
                Ok(Tensor { shape, data: Data::Bytes(bytes) })
            }
            [name] => source?.tensor(name),
            _ => Err("the first step is not known".to_owned()),
        }
    }

    /// Random numbers by the recipe's seed and this name.
    fn draw(&self, how: &[&str], name: &str, shape: Vec<usize>) -> Result<Tensor> {
        // Each expert is a part of what is drawn for all of them.
        let key = format!("{how:?} {name} {shape:?}");
        if let Some(values) = self.drawn.borrow().get(&key) {
            return Ok(Tensor::floats(shape, values.clone()));
        }
        let (seed, model) = self.seed.as_ref().ok_or("the recipe has no seed")?;
        let mut generator = Generator::new(&[*seed, crc32(format!("{model}:{name}").as_bytes())]);
        let count = shape.iter().product();
        let mut repeat = |next: &mut dyn FnMut(&mut Generator) -> f32| -> Vec<f32> {
            (0..count).map(|_| next(&mut generator)).collect()
        };
        let values = match *how {
            ["normal", deviation] => {
                let deviation = parse::<f64>(deviation)? as f32;
                repeat(&mut |generator| generator.normal_f32() * deviation)
            }
            ["uniform", low, high] => {
                let (low, high) = (parse(low)?, parse(high)?);
                repeat(&mut |generator| generator.uniform(low, high) as f32)
            }
            ["log_uniform", low, high] => {
                let (low, high) = (parse(low)?, parse(high)?);
                repeat(&mut |generator| generator.uniform(low, high).ln() as f32)
            }
            // Multiples of 1/128 with a magnitude below 0.5: bf16 has them, and 1 more than each.
            ["norm", middle] => {
                let middle: f64 = parse(middle)?;
                let clip = |x: f64| x.clamp(-60.0, 60.0);
                repeat(&mut |generator| {
                    let whole = clip((generator.normal_f64() * 14.0).round_ties_even());
                    // A negative zero stays one.
                    let whole = if middle == 0.0 { whole } else { clip(whole + middle) };
                    (whole / 128.0) as f32
                })
            }
            _ => return Err(format!("{how:?} is no way to draw")),
        };
        self.drawn.borrow_mut().insert(key, values.clone());
        Ok(Tensor::floats(shape, values))
    }
}

/// One step.
fn change(tensor: Tensor, words: &[&str]) -> Result<Tensor> {
    match *words {
        ["bf16"] => tensor.map(encode::round_to_bf16),
        ["add", x] => {
            let x: f32 = parse(x)?;
            tensor.map(|value| value + x)
        }
        ["at", index] => tensor.at(parse(index)?),
        ["negative_exp"] => tensor.map(|value| -f64::from(value).exp() as f32),
        ["take", axis, which] => tensor.take(parse(axis)?, &places(which)?),
        ["shape", shape] => tensor.reshape(list(shape, 'x')?),
        ["transpose"] => tensor.transpose(),
        ["interleave", heads] => tensor.interleave(parse(heads)?),
        ["affine", bits, group, which] => {
            encode::mlx(&tensor, encode::affine(parse(bits)?, parse(group)?), part(which)?)
        }
        ["mxfp4", which] => encode::mlx(&tensor, Encoding::Mxfp4, part(which)?),
        ["hub_mxfp4", which] => encode::hub_mxfp4(&tensor, part(which)?),
        ["fp8", rows, columns, scales, which] => {
            encode::fp8(&tensor, [parse(rows)?, parse(columns)?], scales == "bf16", part(which)?)
        }
        _ => Err(format!("{words:?} is no step")),
    }
}

/// Called as the tensors of MLX, of `compressed-tensors` and of gpt-oss are.
fn part(word: &str) -> Result<Part> {
    match word {
        "weight" | "blocks" => Ok(Part::Codes),
        "scales" | "weight_scale" | "weight_scale_inv" => Ok(Part::Scales),
        "biases" => Ok(Part::Biases),
        _ => Err(format!("{word:?} is no part of a quantised tensor")),
    }
}

fn parse<T: FromStr>(word: &str) -> Result<T> {
    word.parse().map_err(|_| format!("{word:?} is not the number that is expected"))
}

fn list<T: FromStr>(words: &str, between: char) -> Result<Vec<T>> {
    words.split(between).map(parse).collect()
}

/// `0..64,128..192` or, of every second from 1 on, `1..64/2`.
fn places(words: &str) -> Result<Vec<usize>> {
    let mut places = Vec::new();
    for word in words.split(',') {
        let (range, step) = word.split_once('/').unwrap_or((word, "1"));
        let (start, end) = range.split_once("..").ok_or_else(|| format!("{word:?} is no range"))?;
        places.extend((parse::<usize>(start)?..parse(end)?).step_by(parse::<usize>(step)?.max(1)));
    }
    Ok(places)
}

/// What stands in a name for each `{…}` of a pattern; nothing if the name does not fit.
fn captures(pattern: &str, name: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let (mut patterns, mut parts) = (pattern.split('.'), name.split('.'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return Some(found),
            (Some(pattern), Some(part)) => match pattern.split_once('{').zip(pattern.split_once('}')) {
                Some(((before, _), (_, after))) => {
                    let middle = part.strip_prefix(before)?.strip_suffix(after)?;
                    found.push((
                        pattern[before.len()..pattern.len() - after.len()].to_owned(),
                        middle.to_owned(),
                    ));
                }
                None if pattern == part => {}
                None => return None,
            },
            _ => return None,
        }
    }
}

/// As zlib's.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_names_part_by_part() {
        let found = captures("blk.{layer}.ffn_{part}_exps.weight", "blk.12.ffn_up_exps.weight").unwrap();
        assert_eq!(found, [("{layer}", "12"), ("{part}", "up")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        for other in ["blk.12.ffn_up.weight", "blk.12.ffn_up_exps", "blk.1.2.ffn_up_exps.weight"] {
            assert_eq!(captures("blk.{layer}.ffn_{part}_exps.weight", other), None);
        }
    }

    #[test]
    fn the_checksum_of_names_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
