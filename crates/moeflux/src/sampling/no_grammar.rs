//! What stands in for constraints where the feature `grammar` is off.

use super::{Constraint, ConstraintError, TokenSet};
use crate::cancel::CancelToken;
use crate::text::Tokenizer;

/// Compiles constraints: here none.
#[derive(Debug, Default)]
pub struct GrammarCompiler(());

impl GrammarCompiler {
    /// [`ConstraintError::Unavailable`].
    pub fn compile(&self, _: &Constraint, _: &Tokenizer) -> Result<Grammar, ConstraintError> {
        Err(ConstraintError::Unavailable)
    }

    /// The same.
    pub fn compile_unless(
        &self,
        _: &Constraint,
        _: &Tokenizer,
        _: &CancelToken,
    ) -> Result<Grammar, ConstraintError> {
        Err(ConstraintError::Unavailable)
    }
}

/// Whether each of these schemas can be compiled: here none.
pub(crate) fn can_compile(schemas: Vec<serde_json::Value>) -> Vec<bool> {
    vec![false; schemas.len()]
}

/// A constraint at some place of an output: there is none.
#[derive(Debug)]
pub enum Grammar {}

impl Grammar {
    /// Which tokens may come next.
    pub fn allowed(&mut self) -> Result<TokenSet, ConstraintError> {
        match *self {}
    }

    /// Has a thread find that out.
    pub(crate) fn look_ahead(&mut self) {
        match *self {}
    }

    /// Whether it has.
    pub(crate) fn is_ready(&mut self, _: std::time::Duration) -> bool {
        match *self {}
    }

    /// Takes the token that was chosen.
    pub fn accept(&mut self, _: u32) -> Result<(), ConstraintError> {
        match *self {}
    }
}
