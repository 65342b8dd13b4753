//! Quantised activations of which several matrices take some rows each: what experts multiply.

use super::activations::{Activations, TOKENS, Tiles};
use super::{Input, Tokens, takes_tiles};
use crate::linear::Rows;
use crate::pool::ThreadPool;

/// Activations, and groups of them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    activations: Activations,
    tiles: Tiles,
    /// The rows of `activations` that tiles hold, [`ABSENT`] beyond a group's last.
    tile_rows: Vec<u32>,
    /// Where each group's tiles begin; none if it is multiplied row by row.
    first_tiles: Vec<Option<usize>>,
}

const ABSENT: u32 = u32::MAX;

impl Groups {
    /// Quantises all rows of `x`, of `cols` columns, for products of so many planes.
    pub(crate) fn quantize(&mut self, pool: &ThreadPool, cols: usize, planes: usize, x: &Rows<'_>) {
        self.activations.resize(x.len(), cols);
        self.activations.quantize(pool, 0, x, planes);
    }

    /// Prepares groups of the rows, of `cols` columns, for products of so many planes.
    pub(crate) fn group<'r>(
        &mut self,
        pool: &ThreadPool,
        cols: usize,
        planes: usize,
        groups: impl Iterator<Item = Tokens<'r>>,
    ) {
        let Groups { activations, tiles, tile_rows, first_tiles } = self;
        tile_rows.clear();
        first_tiles.clear();
        for rows in groups {
            first_tiles.push(takes_tiles(rows.len()).then_some(tile_rows.len() / TOKENS));
            if takes_tiles(rows.len()) {
                tile_rows.extend((0..rows.len()).map(|i| rows.get(i) as u32));
                tile_rows.resize(tile_rows.len().next_multiple_of(TOKENS), ABSENT);
            }
        }
        tiles.resize(tile_rows.len() / TOKENS, cols, planes);
        tiles.pack(pool, activations, |tile, i| {
            Some(tile_rows[tile * TOKENS + i]).filter(|&row| row != ABSENT).map(|row| row as usize)
        });
    }

    /// The group of this number, which has these rows.
    pub(crate) fn input<'a>(&'a self, group: usize, rows: Tokens<'a>) -> Input<'a> {
        match self.first_tiles[group] {
            Some(first) => Input::Tiles { tiles: &self.tiles, first, n: rows.len() },
            None => Input::Tokens { activations: &self.activations, tokens: rows },
        }
    }
}
