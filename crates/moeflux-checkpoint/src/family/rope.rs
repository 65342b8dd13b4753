//! Rotary position embedding, as configs describe it: `rope_parameters`, or `rope_scaling`, its older name, with the
//! older fields beside it.

use crate::config::Fields;
use crate::error::Error;
use crate::family::parts::{MAX_CONTEXT, MAX_HEAD_DIM};
use serde_json::json;

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies, `rope_theta`.
    pub theta: f64,
    /// Channels of a head, counted from the first, that turn with the position; even.
    pub rotary_dim: usize,
    /// How the frequencies were changed to reach further.
    pub yarn: Option<Yarn>,
    /// How many frequencies belong to time, height and width; interleaved. They add up to half the rotary channels, or
    /// to nothing where all belong to time.
    pub mrope_section: [usize; 3],
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

impl RopeParameters {
    /// Tokens that the frequencies were stretched to; 0 if they were not.
    pub fn stretched_context(&self) -> usize {
        let stretched = |yarn: &Yarn| yarn.original_max_position_embeddings as f64 * yarn.factor;
        self.yarn.as_ref().map_or(0, |yarn| stretched(yarn) as usize).min(MAX_CONTEXT)
    }
}

/// What a family takes for granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RopeDefaults {
    /// Share of a head's channels that turn.
    pub(crate) partial_rotary_factor: f64,
    /// The sections of a family that has them.
    pub(crate) mrope_section: Option<[usize; 3]>,
}

/// All channels turn with one position.
pub(crate) const PLAIN: RopeDefaults = RopeDefaults { partial_rotary_factor: 1.0, mrope_section: None };

/// Reads how heads of `head_dim` channels turn.
pub(crate) fn read(
    fields: &mut Fields<'_>,
    head_dim: usize,
    defaults: RopeDefaults,
) -> Result<RopeParameters, Error> {
    let name = if fields.value("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let mut rope = fields.object(name)?;
    let mut both_places = |name: &str| {
        let inner = rope.as_mut().map_or(Ok(None), |rope| rope.positive(name))?;
        let outer = fields.positive(name)?;
        match (inner, outer) {
            (Some(inner), Some(outer)) if inner != outer => Err(fields.wrong(name, &inner.to_string())),
            _ => Ok(inner.or(outer)),
        }
    };
    let theta = both_places("rope_theta")?;
    let partial_rotary_factor =
        both_places("partial_rotary_factor")?.unwrap_or(defaults.partial_rotary_factor);
    let theta = theta.ok_or_else(|| fields.wrong("rope_parameters", "an object with rope_theta"))?;
    let rotary_dim = (head_dim as f64 * partial_rotary_factor) as usize;
    if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
        let expected = format!("a share of head_dim = {head_dim} that is even and not 0");
        return Err(fields.impossible("partial_rotary_factor", expected, &partial_rotary_factor));
    }

    let mut parameters = RopeParameters { theta, rotary_dim, yarn: None, mrope_section: [0; 3] };
    if let Some(default) = defaults.mrope_section {
        let section = rope.as_mut().map_or(Ok(None), read_mrope_section)?.unwrap_or(default);
        if section.iter().sum::<usize>() != rotary_dim / 2 {
            let expected = format!("a sum of {}, half the rotary channels", rotary_dim / 2);
            let (field, found) = (format!("{name}.mrope_section"), format!("{section:?}"));
            return Err(fields.impossible(&field, expected, &found));
        }
        parameters.mrope_section = section;
    }
    if let Some(mut rope) = rope {
        parameters.yarn = read_yarn(&mut rope)?;
        rope.finish()?;
    }
    Ok(parameters)
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

/// YaRN's fields, if that is the type; its optional ones have the defaults of transformers.
fn read_yarn(rope: &mut Fields<'_>) -> Result<Option<Yarn>, Error> {
    let types = [json!("default"), json!("yarn")];
    rope.only("rope_type", &types)?;
    rope.only("type", &types)?;
    let (new, old) = (rope.text("rope_type")?, rope.text("type")?);
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        return Err(rope.wrong("type", &format!("{new}, as rope_type says")));
    }
    if new.or(old) != Some("yarn") {
        return Ok(None);
    }
    let factor = rope.positive("factor")?.ok_or_else(|| rope.wrong("factor", "a number above 0"))?;
    let mut scale = |name: &str| {
        let scale = rope.read(name, "a number from 0 up", |value| {
            value.as_f64().filter(|scale| *scale >= 0.0 && scale.is_finite())
        });
        scale.map(|scale| scale.filter(|scale| *scale > 0.0))
    };
    Ok(Some(Yarn {
        factor,
        mscale: scale("mscale")?,
        mscale_all_dim: scale("mscale_all_dim")?,
        original_max_position_embeddings: rope.size("original_max_position_embeddings", MAX_CONTEXT)?,
        beta_fast: rope.positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: rope.positive("beta_slow")?.unwrap_or(1.0),
        attention_factor: rope.positive("attention_factor")?,
        truncate: rope.flag("truncate")?.unwrap_or(true),
    }))
}
