//! Columns of groups, taken apart.

use std::ops::Range;

use crate::{Encoder, Program, View};

use super::{EACH, ELEMENT, LANES, grid};

static COLUMNS: Program =
    Program { name: "columns", entry: "main", source: &[include_str!("columns.wgsl"), ELEMENT] };

/// Takes columns of groups apart: the columns of `x`, `[n, cols]`, are groups of `group`. A row of `y` has, part by
/// part, the part's columns of every group. One dispatch a part.
pub fn columns(enc: &mut Encoder<'_>, x: &View, cols: usize, group: usize, parts: &[Range<usize>], y: &View) {
    let width: usize = parts.iter().map(Range::len).sum();
    assert!(group > 0 && cols.is_multiple_of(group) && x.len() * width == y.len() * group);
    let (rows, groups) = (x.len() / cols, cols / group);
    let mut to = 0;
    for part in parts {
        let n = rows * groups * part.len();
        let params = [n, cols, groups * width, group, part.start, part.len(), to].map(|x| x as u32);
        enc.dispatch(&COLUMNS, &EACH, &[x, y], &params, grid(n.div_ceil(LANES)));
        to += groups * part.len();
    }
}

/// The rows of `a`, `[n, left]`, each followed by the row of `b`, `[n, right]`.
pub fn concat(enc: &mut Encoder<'_>, a: &View, left: usize, b: &View, right: usize, y: &View) {
    let width = left + right;
    assert!(a.len() * width == y.len() * left && b.len() * width == y.len() * right);
    for (x, cols, to) in [(a, left, 0), (b, right, left)] {
        let params = [x.len(), cols, width, cols, 0, cols, to].map(|x| x as u32);
        enc.dispatch(&COLUMNS, &EACH, &[x, y], &params, grid(x.len().div_ceil(LANES)));
    }
}
