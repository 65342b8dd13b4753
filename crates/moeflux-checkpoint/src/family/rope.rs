//! Rotary position embedding, as configs describe it: `rope_parameters`, or `rope_scaling`, its older name, with the
//! older fields beside it.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{MAX_CONTEXT, MAX_HEAD_DIM};
use serde_json::{Value, json};

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies, `rope_theta`.
    pub theta: f64,
    /// Channels of a head, counted from the first, that turn with the position; even.
    pub rotary_dim: usize,
    /// How the frequencies were changed to reach further.
    pub scaling: RopeScaling,
    /// How many frequencies belong to time, height and width; interleaved. They add up to half the rotary channels, or
    /// to nothing where all belong to time.
    pub mrope_section: [usize; 3],
}

/// How frequencies were changed to reach further than the context of the first training; fields are called as in
/// `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by the factor.
    Linear {
        /// Above 0.
        factor: f64,
    },
    /// The base grows with the length of a sequence that is longer than the original context.
    Dynamic {
        /// Above 0.
        factor: f64,
        /// Up to this length nothing changes.
        original_max_position_embeddings: usize,
    },
    /// YaRN (Peng et al. 2023).
    Yarn(Yarn),
    /// LongRoPE (Ding et al. 2024).
    Longrope(Longrope),
    /// Llama 3.1's own.
    Llama3(Llama3),
    /// Each is divided by a factor of its own, as GGUF files have it in `rope_freqs.weight`.
    Factors(Vec<f32>),
}

/// YaRN (Peng et al. 2023); fields are called as in `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct Yarn {
    pub factor: f64,
    pub original_max_position_embeddings: usize,
    pub beta_fast: f64,
    pub beta_slow: f64,
    /// Above 0.
    pub mscale: Option<f64>,
    /// Above 0.
    pub mscale_all_dim: Option<f64>,
    pub attention_factor: Option<f64>,
    /// Whether the corrected range is rounded to whole frequencies.
    pub truncate: bool,
}

/// LongRoPE; fields are called as in `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct Longrope {
    pub factor: f64,
    /// Divides each frequency in sequences up to the original context; `rotary_dim / 2` of them, above 0.
    pub short_factor: Vec<f64>,
    /// The same in longer ones.
    pub long_factor: Vec<f64>,
    pub original_max_position_embeddings: usize,
    pub attention_factor: Option<f64>,
}

/// Llama 3.1's scaling; fields are called as in `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the ones that config.json has")]
pub struct Llama3 {
    pub factor: f64,
    pub low_freq_factor: f64,
    /// Above `low_freq_factor`.
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

impl RopeParameters {
    /// YaRN, if that is the scaling.
    pub fn yarn(&self) -> Option<&Yarn> {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => Some(yarn),
            _ => None,
        }
    }

    /// How the frequencies of layers over a sliding window differ, in words.
    pub(crate) fn sliding_note(&self) -> String {
        let base = format!("RoPE of layers over a sliding window: base {}", self.theta);
        match self.note() {
            Some(scaling) => format!("{base}; {scaling}"),
            None => base,
        }
    }

    /// How the frequencies were scaled, in words; `None` if they were not.
    pub(crate) fn note(&self) -> Option<String> {
        let ends = "the context ends where frequencies would begin to depend on its length";
        Some(match &self.scaling {
            RopeScaling::None => return None,
            RopeScaling::Linear { factor } => format!("RoPE: linear, by {factor}"),
            RopeScaling::Dynamic { factor, .. } => format!("RoPE: dynamic, by {factor}; {ends}"),
            RopeScaling::Yarn(yarn) => {
                format!(
                    "RoPE: YaRN, by {} from {} tokens",
                    yarn.factor, yarn.original_max_position_embeddings
                )
            }
            RopeScaling::Longrope(longrope) => format!("RoPE: LongRoPE, by {}; {ends}", longrope.factor),
            RopeScaling::Llama3(llama3) => format!(
                "RoPE: Llama 3.1's, by {} from {} tokens",
                llama3.factor, llama3.original_max_position_embeddings
            ),
            RopeScaling::Factors(_) => "RoPE: factors of a tensor".to_owned(),
        })
    }

    /// Tokens that a sequence can have; `context` is what the config says without the scaling. YaRN says what the frequencies
    /// were stretched to. Those of `dynamic` and `longrope` depend on the sequence's length behind the original context,
    /// where it ends.
    pub(crate) fn context(&self, context: usize) -> usize {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => {
                let stretched = yarn.original_max_position_embeddings as f64 * yarn.factor;
                context.max((stretched as usize).min(MAX_CONTEXT))
            }
            RopeScaling::Dynamic { original_max_position_embeddings: original, .. }
            | RopeScaling::Longrope(Longrope { original_max_position_embeddings: original, .. }) => {
                context.min(*original)
            }
            _ => context,
        }
    }
}

/// What a family takes for granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeDefaults {
    /// Base of the frequencies, if files may leave it out.
    pub(crate) theta: Option<f64>,
    /// Share of a head's channels that turn.
    pub(crate) partial_rotary_factor: f64,
    /// The sections of a family that has them.
    pub(crate) mrope_section: Option<[usize; 3]>,
    /// Permission for layers over a sliding window to have frequencies of their own.
    pub(crate) by_layer_type: bool,
}

/// All channels of all layers turn with one position.
pub(crate) const PLAIN: RopeDefaults =
    RopeDefaults { theta: None, partial_rotary_factor: 1.0, mrope_section: None, by_layer_type: false };

/// What `rope_parameters` is nested by in files that have it for each type of layer.
const LAYER_TYPES: [&str; 4] = ["full_attention", SLIDING, "linear_attention", "chunked_attention"];
const SLIDING: &str = "sliding_attention";

/// Base of the frequencies of layers over a sliding window, where older files have it.
const LOCAL_BASE: &str = "rope_local_base_freq";

/// How the heads of each type of layer turn.
pub(crate) struct RopeByLayerType {
    pub(crate) full: RopeParameters,
    /// RoPE of layers over a sliding window, where it differs.
    pub(crate) sliding: Option<RopeParameters>,
}

/// Reads how heads of `head_dim` channels turn; `context` is the config's `max_position_embeddings`.
pub(crate) fn read(
    fields: &mut Fields<'_>,
    head_dim: usize,
    context: usize,
    defaults: RopeDefaults,
) -> Result<RopeByLayerType, Error> {
    let (new, old) = (fields.value("rope_parameters"), fields.value("rope_scaling"));
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        return Err(fields.wrong("rope_scaling", "the same as rope_parameters, or nothing"));
    }
    let name = if new.is_some() { "rope_parameters" } else { "rope_scaling" };
    let Objects { mut full, sliding } = by_layer_type(fields, name, defaults.by_layer_type)?;
    let mut both_places = |name: &str| {
        let inner = full.as_mut().map_or(Ok(None), |rope| rope.positive(name))?;
        let outer = fields.positive(name)?;
        match (inner, outer) {
            (Some(inner), Some(outer)) if inner != outer => Err(fields.wrong(name, &inner.to_string())),
            _ => Ok((inner.or(outer), outer)),
        }
    };
    let (theta, outer_theta) = both_places("rope_theta")?;
    let (factor, outer_factor) = both_places("partial_rotary_factor")?;
    let theta = theta.or(defaults.theta);
    let theta = theta.ok_or_else(|| fields.wrong("rope_parameters", "an object with rope_theta"))?;
    // Where some files have it; it counts before the one inside.
    let outer = fields.whole("original_max_position_embeddings", 1, MAX_CONTEXT)?;
    if full.is_none() && outer.is_some() {
        return Err(fields.wrong("original_max_position_embeddings", "nothing, without rope_scaling"));
    }
    let heads = Heads { head_dim, defaults };
    let full = heads.parameters(fields, theta, factor, full, Original { outer, context })?;

    let local = if defaults.by_layer_type { fields.positive(LOCAL_BASE)? } else { None };
    let sliding = match (sliding, local) {
        (Some(mut rope), local) => {
            let theta = rope.positive("rope_theta")?.or(local).or(outer_theta).or(defaults.theta);
            let theta = theta.ok_or_else(|| rope.wrong("rope_theta", "a number above 0"))?;
            if local.is_some_and(|local| local != theta) {
                return Err(fields.wrong(LOCAL_BASE, &format!("{theta}, as {name}.{SLIDING} says")));
            }
            let factor = rope.positive("partial_rotary_factor")?.or(outer_factor);
            Some(heads.parameters(fields, theta, factor, Some(rope), Original { outer: None, context })?)
        }
        // The scaling is of the other layers.
        (None, Some(theta)) => {
            Some(heads.parameters(fields, theta, outer_factor, None, Original { outer: None, context })?)
        }
        (None, None) => None,
    };
    Ok(RopeByLayerType { sliding: sliding.filter(|sliding| *sliding != full), full })
}

impl RopeByLayerType {
    /// Tokens that a sequence can have: see [`RopeParameters::context`]. Layers over a sliding window can end the context, and
    /// do not stretch it.
    pub(crate) fn context(&self, context: usize) -> usize {
        let stretched = self.full.context(context);
        self.sliding.as_ref().map_or(stretched, |sliding| stretched.min(sliding.context(stretched)))
    }
}

/// The heads that turn.
struct Heads {
    head_dim: usize,
    defaults: RopeDefaults,
}

impl Heads {
    /// Reads what `rope`, an object of `fields`, says besides the base and the share of channels.
    fn parameters(
        &self,
        fields: &Fields<'_>,
        theta: f64,
        partial_rotary_factor: Option<f64>,
        mut rope: Option<Fields<'_>>,
        original: Original,
    ) -> Result<RopeParameters, Error> {
        let Heads { head_dim, defaults } = *self;
        let factor = partial_rotary_factor.unwrap_or(defaults.partial_rotary_factor);
        let rotary_dim = (head_dim as f64 * factor) as usize;
        if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            let expected = format!("a share of head_dim = {head_dim} that is even and not 0");
            return Err(fields.impossible("partial_rotary_factor", expected, &factor));
        }
        let mut parameters =
            RopeParameters { theta, rotary_dim, scaling: RopeScaling::None, mrope_section: [0; 3] };
        if let Some(default) = defaults.mrope_section {
            let section = rope.as_mut().map_or(Ok(None), read_mrope_section)?.unwrap_or(default);
            if section.iter().sum::<usize>() != rotary_dim / 2 {
                let expected = format!("a sum of {}, half the rotary channels", rotary_dim / 2);
                let place = rope.as_ref().unwrap_or(fields);
                return Err(place.impossible("mrope_section", expected, &format!("{section:?}")));
            }
            parameters.mrope_section = section;
        }
        if let Some(mut rope) = rope {
            parameters.scaling = read_scaling(&mut rope, rotary_dim, original)?;
            rope.finish()?;
        }
        Ok(parameters)
    }
}

/// The objects that say how layers turn.
struct Objects<'a> {
    full: Option<Fields<'a>>,
    /// The object of layers over a sliding window, where it differs.
    sliding: Option<Fields<'a>>,
}

/// The object `name`, or those that it has for each type of layer. They must be the same, save that of layers over a sliding
/// window if `sliding_differs`.
fn by_layer_type<'a>(
    fields: &mut Fields<'a>,
    name: &str,
    sliding_differs: bool,
) -> Result<Objects<'a>, Error> {
    let Some(mut rope) = fields.object(name)? else { return Ok(Objects { full: None, sliding: None }) };
    let mut found: Option<(&str, &Value)> = None;
    let mut sliding = None;
    for layer_type in LAYER_TYPES {
        match (found, rope.value(layer_type)) {
            (None, Some(value)) => found = Some((layer_type, value)),
            (Some((first, value)), Some(other)) if value != other => {
                if !(sliding_differs && layer_type == SLIDING) {
                    return Err(rope.wrong(layer_type, &format!("the same as {first}")));
                }
                sliding = rope.object(layer_type)?;
            }
            _ => {}
        }
    }
    let Some((layer_type, _)) = found else { return Ok(Objects { full: Some(rope), sliding: None }) };
    let full = rope.object(layer_type)?;
    rope.finish()?;
    Ok(Objects { full, sliding })
}

fn read_mrope_section(rope: &mut Fields<'_>) -> Result<Option<[usize; 3]>, Error> {
    rope.only("mrope_interleaved", &[json!(true)])?;
    rope.read("mrope_section", "three whole numbers", |value| {
        let section: Option<Vec<usize>> = value
            .as_array()?
            .iter()
            .map(|n| n.as_u64().map(|n| n as usize).filter(|&n| n <= MAX_HEAD_DIM))
            .collect();
        section?.try_into().ok()
    })
}

/// Where the context of the first training is said.
struct Original {
    /// Beside `rope_scaling`.
    outer: Option<usize>,
    /// `max_position_embeddings`, where nothing else says it.
    context: usize,
}

impl Original {
    fn read(&self, rope: &mut Fields<'_>) -> Result<usize, Error> {
        let inner = rope.whole("original_max_position_embeddings", 1, MAX_CONTEXT)?;
        Ok(self.outer.or(inner).unwrap_or(self.context))
    }
}

/// The scaling's type and fields; optional ones have the defaults of transformers.
fn read_scaling(rope: &mut Fields<'_>, rotary_dim: usize, original: Original) -> Result<RopeScaling, Error> {
    const TYPES: &str = "default, linear, dynamic, yarn, longrope or llama3";
    let (new, old) = (rope.text("rope_type")?, rope.text("type")?);
    let field = if new.is_some() { "rope_type" } else { "type" };
    // What longrope was called at first, and what configs with sections call the default.
    let modern = |name| match name {
        "su" => "longrope",
        "mrope" => "default",
        other => other,
    };
    if let (Some(new), Some(old)) = (new.map(modern), old.map(modern))
        && new != old
    {
        return Err(rope.wrong("type", &format!("{new}, as rope_type says")));
    }
    let factor = |rope: &mut Fields<'_>| {
        rope.positive("factor")?.ok_or_else(|| rope.wrong("factor", "a number above 0"))
    };
    Ok(match new.or(old).map_or("default", modern) {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor(rope)? },
        "dynamic" => {
            let factor = factor(rope)?;
            // The context that the config says is the original one; a copy of it inside changes nothing else.
            rope.only("original_max_position_embeddings", &[json!(original.context)])?;
            RopeScaling::Dynamic { factor, original_max_position_embeddings: original.context }
        }
        "yarn" => RopeScaling::Yarn(read_yarn(rope, &original)?),
        "longrope" => RopeScaling::Longrope(read_longrope(rope, rotary_dim, &original)?),
        "llama3" => RopeScaling::Llama3(read_llama3(rope, &original)?),
        _ => return Err(rope.wrong(field, TYPES)),
    })
}

fn read_yarn(rope: &mut Fields<'_>, original: &Original) -> Result<Yarn, Error> {
    let trained = original.read(rope)?;
    let factor = rope.positive("factor")?.ok_or_else(|| rope.wrong("factor", "a number above 0"))?;
    let mut scale = |name: &str| {
        let scale = rope.read(name, "a number from 0 up", |value| {
            value.as_f64().filter(|scale| *scale >= 0.0 && scale.is_finite())
        });
        scale.map(|scale| scale.filter(|scale| *scale > 0.0))
    };
    Ok(Yarn {
        factor,
        mscale: scale("mscale")?,
        mscale_all_dim: scale("mscale_all_dim")?,
        original_max_position_embeddings: trained,
        beta_fast: rope.positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: rope.positive("beta_slow")?.unwrap_or(1.0),
        attention_factor: rope.positive("attention_factor")?,
        truncate: rope.flag("truncate")?.unwrap_or(true),
    })
}

fn read_longrope(rope: &mut Fields<'_>, rotary_dim: usize, original: &Original) -> Result<Longrope, Error> {
    let trained = original.read(rope)?;
    let mut factors = |name: &str| {
        let expected = format!("{} numbers above 0, one for each two channels that turn", rotary_dim / 2);
        let factors = rope.read(name, &expected, |value| {
            let positive = |value: &Value| value.as_f64().filter(|x| *x > 0.0 && x.is_finite());
            let factors: Option<Vec<f64>> = value.as_array()?.iter().map(positive).collect();
            factors.filter(|factors| factors.len() == rotary_dim / 2)
        })?;
        factors.ok_or_else(|| rope.wrong(name, &expected))
    };
    Ok(Longrope {
        short_factor: factors("short_factor")?,
        long_factor: factors("long_factor")?,
        factor: rope.positive("factor")?.unwrap_or(original.context as f64 / trained as f64),
        original_max_position_embeddings: trained,
        attention_factor: rope.positive("attention_factor")?,
    })
}

fn read_llama3(rope: &mut Fields<'_>, original: &Original) -> Result<Llama3, Error> {
    let mut required = |name: &str| rope.positive(name)?.ok_or_else(|| rope.wrong(name, "a number above 0"));
    let (factor, low, high) =
        (required("factor")?, required("low_freq_factor")?, required("high_freq_factor")?);
    if high <= low {
        return Err(rope.wrong("high_freq_factor", &format!("a number above low_freq_factor = {low}")));
    }
    Ok(Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original.read(rope)?,
    })
}
