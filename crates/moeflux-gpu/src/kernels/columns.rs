//! Columns of groups, taken apart.

use std::ops::Range;

use crate::{Encoder, Program, View};

use super::{EACH, LANES, grid};

static COLUMNS: Program = Program { name: "columns", entry: "main", source: &[include_str!("columns.wgsl")] };

/// Takes columns of groups apart: the columns of `x`, `[n, cols]`, are groups of `group`. A row of `y` has, part by
/// part, the part's columns of every group. One dispatch a part.
pub fn gather_columns(
    enc: &mut Encoder<'_>,
    x: &View,
    cols: usize,
    group: usize,
    parts: &[Range<usize>],
    y: &View,
) {
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
