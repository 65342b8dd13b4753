//! From a model to a pack: what [`moeflux_checkpoint::convert`] needs to know of a model.

pub use moeflux_checkpoint::convert::{
    Change, Damage, Difference, Error, Mixture, NAMED, Outcome, Plan, Recipe, RecipeError, RunOptions,
    partial_folder, run, verify,
};

use moeflux_checkpoint::convert;

use crate::model::Model;

/// Plans the conversion of a model into a pack: its linear maps in the encodings that the recipe says, its head for
/// multi-token prediction and the files of its tokenizer along.
pub fn plan(model: &Model, recipe: &Recipe) -> Result<Plan, Error> {
    let checkpoint = model.checkpoint();
    Plan::new(checkpoint, mixtures(model)?, recipe, convert::sidecars(checkpoint)?)
}

/// Compares the weights of two models, of which one was made from the other; see [`convert::compare`].
pub fn compare(
    ours: &Model,
    theirs: &Model,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Vec<Difference>, Error> {
    let (our_mixtures, their_mixtures) = (mixtures(ours)?, mixtures(theirs)?);
    let ours = (ours.checkpoint(), our_mixtures.as_slice());
    convert::compare(ours, (theirs.checkpoint(), &their_mixtures), threads, progress)
}

/// The experts of every layer, those of a head for multi-token prediction behind the model's own.
fn mixtures(model: &Model) -> Result<Vec<Mixture>, Error> {
    let named = model.weights().experts().iter().map(|named| {
        let name = named.name.strip_suffix(".experts").unwrap_or(&named.name).to_owned();
        Mixture { name, experts: named.experts.clone() }
    });
    let mut mixtures: Vec<Mixture> = named.collect();
    let like = mixtures.first().and_then(|mixture| Some((mixture.experts.len(), mixture.experts.first()?)));
    if let Some((count, expert)) = like {
        let head = model.checkpoint().weights()?.mtp_experts(count, expert)?;
        mixtures.extend(head.into_iter().map(|(name, experts)| Mixture { name, experts }));
    }
    Ok(mixtures)
}
