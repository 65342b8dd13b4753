//! The store that gives a backend its experts.

use std::sync::Arc;

use moeflux_checkpoint::Expert;
use moeflux_experts::{ExpertStore, Io, StoreOptions};

use super::OpenError;
use crate::experts;
use crate::model::Model;
use crate::options::ComputeOptions;
use crate::placement::{Placement, Residence};

/// Opens the store of a placement, if there is to be one: for streamed experts, and to record what is routed where.
pub(super) fn open(
    model: &Model,
    placement: &Placement,
    options: &ComputeOptions,
) -> Result<Option<Arc<ExpertStore>>, OpenError> {
    let store = &options.store;
    let store = match placement.residence {
        Residence::Streamed { budget } => StoreOptions { budget, ..store.clone() },
        Residence::Mapped if store.trace.is_some() => StoreOptions { io: Io::Mapped, ..store.clone() },
        Residence::Mapped => return Ok(None),
    };
    let StoreOptions { budget, io, .. } = &store;
    tracing::info!(budget, prefill_chunk = placement.prefill_chunk, ?io, "experts come from a store");
    check_in_place(model)?;
    Ok(Some(Arc::new(ExpertStore::open(experts::layout(model), &store)?)))
}

/// Refuses to read experts from a file that does not hold them as they are computed with.
pub(super) fn check_in_place(model: &Model) -> Result<(), moeflux_checkpoint::Error> {
    let checkpoint = model.checkpoint();
    let experts = model.weights().experts().iter().flat_map(|layer| &layer.experts);
    let mut spans = experts.flat_map(Expert::matrices).flat_map(|(_, matrix)| matrix.spans());
    match spans.find(|span| !checkpoint.is_in_place(*span)) {
        Some(span) => {
            let path = checkpoint.files()[span.file as usize].path().to_owned();
            Err(moeflux_checkpoint::Error::Transposed { path })
        }
        None => Ok(()),
    }
}
