//! What a constraint will cost, measured before it is compiled: schemas with their references followed, Lark grammars with
//! the rules that they name, regular expressions. Nothing here recurses deeper than the limits allow.

mod lark;
mod schema;

use super::{Constraint, ConstraintError};

/// Limits on a constraint, beyond which it is refused before it is compiled. The defaults let through what people and
/// libraries write, with an order of magnitude to spare, and keep the compiler within a second and tens of megabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConstraintLimits {
    /// Bytes of its text: of a schema, those of its keys and strings.
    pub bytes: usize,
    /// Levels, with references and rules followed; definitions that refer to each other count together.
    pub depth: usize,
    /// Values of a schema, or symbols of a grammar.
    pub nodes: usize,
    /// Properties of one object that may be missing.
    pub optional_properties: usize,
    /// Ways to read a schema in one place: alternatives of `anyOf` and `oneOf` with references followed, multiplied where
    /// `allOf` combines them.
    pub alternatives: usize,
}

impl Default for ConstraintLimits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 512, nodes: 50_000, optional_properties: 400, alternatives: 1000 }
    }
}

impl Constraint {
    /// Checks that the constraint is within limits: [`ConstraintError::TooLarge`] if it isn't. It compiles nothing and takes
    /// time in proportion to the text.
    pub fn measure(&self, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
        let measured = match self {
            Self::JsonSchema(schema) => schema::measure(schema, limits),
            Self::JsonObject => Ok(()),
            Self::Regex(regex) => measure_regex(regex, limits),
            Self::Lark(grammar) => lark::measure(grammar, limits),
        };
        measured.map_err(|TooLarge { what, found, limit }| ConstraintError::TooLarge {
            kind: self.kind(),
            what,
            found,
            limit,
        })
    }
}

/// A measure that is beyond its limit.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge {
    what: &'static str,
    found: usize,
    limit: usize,
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), TooLarge> {
    if found > limit { Err(TooLarge { what, found, limit }) } else { Ok(()) }
}

const BYTES: &str = "bytes";
const DEPTH: &str = "levels with references followed";
const NODES: &str = "values";
const SYMBOLS: &str = "symbols";
const OPTIONAL: &str = "optional properties in one object";
const ALTERNATIVES: &str = "alternatives in one place";
/// Groups within groups that a regular expression may have: the parser of the compiler goes as deep.
const GROUPS: usize = 200;

fn measure_regex(regex: &str, limits: &ConstraintLimits) -> Result<(), TooLarge> {
    within(BYTES, regex.len(), limits.bytes.min(64 << 10))?;
    let (mut depth, mut deepest, mut escaped) = (0_usize, 0, false);
    for byte in regex.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    within("groups within groups", deepest, limits.depth.min(GROUPS))
}

/// The most levels on a path through parts that refer to each other, each with so many levels of its own. Parts that refer
/// to each other in a circle count together, once each: a compiler that enters each of them once goes no deeper.
fn deepest(levels: &[usize], edges: &[Vec<usize>]) -> usize {
    let components = components(edges);
    let n = components.iter().max().map_or(0, |last| last + 1);
    let mut own = vec![0_usize; n];
    for (part, &component) in components.iter().enumerate() {
        own[component] = own[component].saturating_add(levels[part]);
    }
    // Components are numbered in the order in which they are complete: what one refers to has a lower number.
    let mut order: Vec<usize> = (0..levels.len()).collect();
    order.sort_by_key(|&part| components[part]);
    let mut below = vec![0_usize; n];
    let mut total = vec![0_usize; n];
    let mut index = 0;
    for component in 0..n {
        while let Some(&part) = order.get(index).filter(|&&part| components[part] == component) {
            for &to in edges[part].iter().filter(|&&to| components[to] != component) {
                below[component] = below[component].max(total[components[to]]);
            }
            index += 1;
        }
        total[component] = own[component].saturating_add(below[component]);
    }
    total.into_iter().max().unwrap_or(0)
}

/// Tarjan's strongly connected components, without recursion: the component of each part.
fn components(edges: &[Vec<usize>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let n = edges.len();
    let (mut index, mut low) = (vec![NONE; n], vec![NONE; n]);
    let mut component = vec![NONE; n];
    let (mut stack, mut visits, mut next, mut found) = (Vec::new(), Vec::new(), 0, 0);
    for root in 0..n {
        if index[root] != NONE {
            continue;
        }
        visits.push((root, 0));
        while let Some((part, edge)) = visits.pop() {
            if edge == 0 {
                index[part] = next;
                low[part] = next;
                next += 1;
                stack.push(part);
            }
            if let Some(&to) = edges[part].get(edge) {
                visits.push((part, edge + 1));
                if index[to] == NONE {
                    visits.push((to, 0));
                } else if component[to] == NONE {
                    low[part] = low[part].min(index[to]);
                }
                continue;
            }
            if low[part] == index[part] {
                while let Some(member) = stack.pop() {
                    component[member] = found;
                    if member == part {
                        break;
                    }
                }
                found += 1;
            }
            if let Some(&(parent, _)) = visits.last() {
                low[parent] = low[parent].min(low[part]);
            }
        }
    }
    component
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chains_add_up_and_circles_count_once() {
        assert_eq!(deepest(&[1, 2, 3], &[vec![1], vec![2], vec![]]), 6);
        assert_eq!(deepest(&[1, 2, 3], &[vec![1, 2], vec![], vec![]]), 4);
        assert_eq!(deepest(&[1, 2, 3], &[vec![1], vec![0, 2], vec![]]), 6);
        assert_eq!(deepest(&[], &[]), 0);
        let n = 100_000;
        let edges: Vec<Vec<usize>> =
            (0..n).map(|part| if part + 1 < n { vec![part + 1] } else { vec![] }).collect();
        assert_eq!(deepest(&vec![1; n], &edges), n);
    }

    /// Levels of the deepest walk from a part that enters each part once.
    fn walk(part: usize, levels: &[usize], edges: &[Vec<usize>], entered: &mut [bool]) -> usize {
        if std::mem::replace(&mut entered[part], true) {
            return 0;
        }
        let below = edges[part].iter().map(|&to| walk(to, levels, edges, entered)).max();
        levels[part] + below.unwrap_or(0)
    }

    proptest! {
        /// No walk that enters each part once goes deeper.
        #[test]
        fn it_bounds_every_walk(
            levels in proptest::collection::vec(1_usize..5, 1..12),
            seeds in proptest::collection::vec((0_usize..12, 0_usize..12), 0..30),
        ) {
            let n = levels.len();
            let mut edges = vec![Vec::new(); n];
            for (from, to) in seeds {
                edges[from % n].push(to % n);
            }
            let bound = deepest(&levels, &edges);
            for start in 0..n {
                prop_assert!(walk(start, &levels, &edges, &mut vec![false; n]) <= bound);
            }
        }
    }
}
