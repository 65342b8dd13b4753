//! Which JSON schemas llguidance can make a grammar of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};

use llguidance::ParserFactory;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::ApproximateTokEnv;
use serde_json::Value;

use super::grammar::{STACK, TIME};
use super::{Constraint, ConstraintLimits};
use crate::background;

/// Whether each of these schemas can be compiled. An agent sends the same tools with every request, so the latest answers are
/// kept.
pub(crate) fn can_compile(schemas: Vec<Value>) -> Vec<bool> {
    static KNOWN: Mutex<Known> = Mutex::new(Known { answers: Vec::new(), bytes: 0 });
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let texts: Vec<String> = schemas.iter().map(Value::to_string).collect();
    let known: Vec<Option<bool>> = {
        let mut kept = lock();
        texts.iter().map(|text| kept.answer(text)).collect()
    };
    let unknown: Vec<Value> = schemas
        .into_iter()
        .zip(&known)
        .filter(|(_, known)| known.is_none())
        .map(|(schema, _)| schema)
        .collect();
    if unknown.is_empty() {
        return known.into_iter().flatten().collect();
    }
    // Those that took too long are not kept: another time the machine may do less beside them.
    let Some(found) = compile(unknown) else {
        return known.into_iter().map(|known| known.unwrap_or(false)).collect();
    };
    let mut found = found.into_iter();
    let mut kept = lock();
    let answers = texts.into_iter().zip(known).map(|(text, known)| {
        known.unwrap_or_else(|| {
            let compiles = found.next().unwrap_or(false);
            kept.keep(text, compiles);
            compiles
        })
    });
    answers.collect()
}

/// Answers that are known, the latest last.
struct Known {
    answers: Vec<(String, bool)>,
    /// Of their schemas.
    bytes: usize,
}

/// Answers that are kept.
const KEPT: usize = 1024;
/// Bytes of their schemas.
const KEPT_BYTES: usize = 4 << 20;

impl Known {
    fn answer(&mut self, schema: &str) -> Option<bool> {
        let index = self.answers.iter().position(|(known, _)| known == schema)?;
        let entry = self.answers.remove(index);
        let answer = entry.1;
        self.answers.push(entry);
        Some(answer)
    }

    fn keep(&mut self, schema: String, answer: bool) {
        // Another request may have asked meanwhile.
        if schema.len() > KEPT_BYTES || self.answer(&schema).is_some() {
            return;
        }
        self.bytes += schema.len();
        self.answers.push((schema, answer));
        while self.answers.len() > KEPT || self.bytes > KEPT_BYTES {
            self.bytes -= self.answers.remove(0).0.len();
        }
    }
}

/// Tries each of them on a thread with a large stack and a low priority; `None` if that takes too long.
fn compile(schemas: Vec<Value>) -> Option<Vec<bool>> {
    let (reply, answer) = mpsc::sync_channel(1);
    let check = move || {
        let environment = ApproximateTokEnv::single_byte_env();
        let Ok(mut factory) = ParserFactory::new_simple(&environment) else { return };
        factory.quiet();
        let compiles = |schema: Value| {
            let limits = ConstraintLimits::default();
            Constraint::JsonSchema(schema.clone()).measure(&limits).is_ok()
                && catch_unwind(AssertUnwindSafe(|| {
                    let grammar = TopLevelGrammar::from_grammar(GrammarWithLexer::from_json_schema(schema));
                    factory.create_parser(grammar).is_ok()
                }))
                .unwrap_or(false)
        };
        // Who has waited too long is gone.
        drop(reply.send(schemas.into_iter().map(compiles).collect()));
    };
    background::spawn("moeflux-schemas", STACK, check).ok()?;
    answer.recv_timeout(TIME).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_kept_until_newer_ones_need_their_place() {
        let mut known = Known { answers: Vec::new(), bytes: 0 };
        known.keep("first".to_owned(), true);
        known.keep("first".to_owned(), true);
        assert_eq!((known.answers.len(), known.bytes), (1, 5));
        for index in 0..KEPT - 1 {
            known.keep(format!("{index}"), false);
        }
        assert_eq!(known.answer("first"), Some(true));
        known.keep("one more".to_owned(), false);
        assert_eq!((known.answer("0"), known.answer("first")), (None, Some(true)));
        known.keep("x".repeat(KEPT_BYTES - 2), true);
        assert_eq!(known.answers.len(), 1);
        known.keep("x".repeat(KEPT_BYTES + 1), true);
        assert_eq!((known.answers.len(), known.bytes), (1, KEPT_BYTES - 2));
    }

    #[test]
    fn each_schema_has_its_own_answer_known_or_not() {
        let good = |name: &str| json!({ "type": "object", "properties": { name: { "type": "integer" } } });
        let bad = json!({ "type": "no such type" });
        let schemas = vec![good("a"), bad.clone(), good("b")];
        assert_eq!(can_compile(schemas.clone()), [true, false, true]);
        assert_eq!(can_compile(schemas), [true, false, true]);
        assert_eq!(can_compile(vec![good("c"), good("b"), bad, good("a")]), [true, true, false, true]);
    }
}
