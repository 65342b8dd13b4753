//! Disjoint rectangles of an output, so that tasks can write it side by side.

use std::marker::PhantomData;
use std::ops::Range;

use crate::pool::ThreadPool;

/// How a slice of shape `[groups, rows, stride]` is cut: each tile has all rows of one group and `width`
/// neighbouring columns (the last of a group may have fewer). Tiles count along the columns, then the groups.
#[derive(Clone, Copy)]
pub(crate) struct Tiling {
    pub(crate) groups: usize,
    pub(crate) rows: usize,
    pub(crate) stride: usize,
    pub(crate) width: usize,
}

impl Tiling {
    /// `[rows, stride]` cut into blocks of `width` columns.
    pub(crate) fn columns(rows: usize, stride: usize, width: usize) -> Self {
        Tiling { groups: 1, rows, stride, width }
    }

    /// A flat slice cut into chunks of `width`.
    pub(crate) fn chunks(len: usize, width: usize) -> Self {
        Self::columns(1, len, width)
    }

    fn per_group(&self) -> usize {
        self.stride.div_ceil(self.width.max(1))
    }

    fn tiles(&self) -> usize {
        self.groups * self.per_group()
    }
}

/// One rectangle of a `[rows, stride]` output.
pub(crate) struct Tile<'a> {
    first: *mut f32,
    rows: usize,
    stride: usize,
    first_column: usize,
    width: usize,
    owner: PhantomData<&'a mut [f32]>,
}

impl<'a> Tile<'a> {
    /// All of `slice`, as rows of `width`.
    pub(crate) fn whole(slice: &'a mut [f32], width: usize) -> Self {
        let rows = slice.len().checked_div(width).unwrap_or(0);
        assert_eq!(slice.len(), rows * width);
        Tile { first: slice.as_mut_ptr(), rows, stride: width, first_column: 0, width, owner: PhantomData }
    }

    /// All of `slice`, `[_, width]`, as the columns from `first_column` on of something larger.
    pub(crate) fn of_columns(slice: &'a mut [f32], first_column: usize, width: usize) -> Self {
        Tile { first_column, ..Tile::whole(slice, width) }
    }

    /// Where the tile's columns begin in the output.
    pub(crate) fn first_column(&self) -> usize {
        self.first_column
    }

    /// Number of columns.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub(crate) fn height(&self) -> usize {
        self.rows
    }

    /// One row of the tile.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the row lies in the slice that the tile was cut from, and no other tile has any of it.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.width) }
    }

    /// The tile without its other rows.
    pub(crate) fn rows(&mut self, rows: Range<usize>) -> Tile<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        // An empty range may begin after the last row, so the offset is not taken for it.
        let offset = if rows.is_empty() { 0 } else { rows.start * self.stride };
        // SAFETY: the first of the rows, or the tile's own start.
        let first = unsafe { self.first.add(offset) };
        Tile { first, rows: rows.len(), owner: PhantomData, ..*self }
    }

    /// The tile without its other columns.
    pub(crate) fn columns(&mut self, columns: Range<usize>) -> Tile<'_> {
        assert!(columns.start <= columns.end && columns.end <= self.width);
        // A tile without rows may begin after the slice, so the offset is not taken for it.
        let offset = if self.rows == 0 { 0 } else { columns.start };
        // SAFETY: within the tile's first row, or the tile's own start.
        let first = unsafe { self.first.add(offset) };
        let first_column = self.first_column + columns.start;
        Tile { first, first_column, width: columns.len(), owner: PhantomData, ..*self }
    }
}

/// The slice that tiles are cut from, shared between tasks.
struct Cut<'a> {
    slice: *mut f32,
    tiling: Tiling,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: a task reaches the slice only through tiles, and tiles of different indices share no element.
unsafe impl Sync for Cut<'_> {}

impl<'a> Cut<'a> {
    fn new(slice: &'a mut [f32], tiling: Tiling) -> Self {
        assert_eq!(slice.len(), tiling.groups * tiling.rows * tiling.stride);
        Cut { slice: slice.as_mut_ptr(), tiling, owner: PhantomData }
    }

    /// # Safety
    /// Each index at most once.
    unsafe fn tile(&self, index: usize) -> Tile<'a> {
        let Tiling { rows, stride, width, .. } = self.tiling;
        let group = index / self.tiling.per_group();
        let first_column = index % self.tiling.per_group() * width;
        let offset = if rows == 0 { 0 } else { group * rows * stride + first_column };
        // SAFETY: within the slice, whose length `new` compared with the tiling.
        let first = unsafe { self.slice.add(offset) };
        Tile {
            first,
            rows,
            stride,
            first_column,
            width: width.min(stride - first_column),
            owner: PhantomData,
        }
    }
}

/// Runs `f` on each tile of `out`, with the tile's index.
pub(crate) fn for_each_tile(
    pool: &ThreadPool,
    out: &mut [f32],
    tiling: Tiling,
    f: impl Fn(usize, &mut Tile<'_>) + Sync + Send,
) {
    let cut = Cut::new(out, tiling);
    pool.for_each(tiling.tiles(), |index| {
        // SAFETY: the pool gives each index to one task.
        let mut tile = unsafe { cut.tile(index) };
        f(index, &mut tile);
    });
}

/// Runs `f` on the tiles of equal index of two outputs, which must have equally many.
pub(crate) fn for_each_tile_pair(
    pool: &ThreadPool,
    (a, a_tiling): (&mut [f32], Tiling),
    (b, b_tiling): (&mut [f32], Tiling),
    f: impl Fn(usize, &mut Tile<'_>, &mut Tile<'_>) + Sync + Send,
) {
    assert_eq!(a_tiling.tiles(), b_tiling.tiles());
    let (a, b) = (Cut::new(a, a_tiling), Cut::new(b, b_tiling));
    pool.for_each(a_tiling.tiles(), |index| {
        // SAFETY: the pool gives each index to one task.
        let (mut a, mut b) = unsafe { (a.tile(index), b.tile(index)) };
        f(index, &mut a, &mut b);
    });
}

/// Some rows of an output, which tasks take `width` columns at a time.
#[derive(Clone, Debug)]
pub(crate) struct Band {
    pub(crate) rows: Range<usize>,
    pub(crate) width: usize,
}

/// Runs `f` on each tile of the bands of `out`, `[_, stride]`, with the band's index. The bands' rows ascend.
pub(crate) fn for_each_band_tile(
    pool: &ThreadPool,
    out: &mut [f32],
    stride: usize,
    bands: &[Band],
    f: impl Fn(usize, &mut Tile<'_>) + Sync + Send,
) {
    assert!(bands.is_sorted_by(|a, b| a.rows.end <= b.rows.start));
    assert!(bands.iter().all(|band| band.rows.start <= band.rows.end && band.width > 0));
    let cut = Cut::new(out, Tiling::columns(out.len().checked_div(stride).unwrap_or(0), stride, stride));
    assert!(bands.last().is_none_or(|band| band.rows.end <= cut.tiling.rows));
    let tiles = |band: &Band| stride.div_ceil(band.width);
    pool.for_each(bands.iter().map(tiles).sum(), |index| {
        let mut index = index;
        for (number, band) in bands.iter().enumerate() {
            if index < tiles(band) {
                let first_column = index * band.width;
                let columns = first_column..stride.min(first_column + band.width);
                // SAFETY: bands share no row, tiles of a band no column, and the pool gives each index to one task.
                let mut whole = unsafe { cut.tile(0) };
                let mut rows = whole.rows(band.rows.clone());
                return f(number, &mut rows.columns(columns));
            }
            index -= tiles(band);
        }
    });
}

/// Runs `f` on each `width` neighbouring elements of `slice` (the last may be fewer), with their number.
pub(crate) fn for_each_chunk<T: Send>(
    pool: &ThreadPool,
    slice: &mut [T],
    width: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    struct Shared<T>(*mut T);
    // SAFETY: tasks reach through it only to elements that no other task has.
    unsafe impl<T: Send> Sync for Shared<T> {}
    impl<T> Shared<T> {
        fn at(&self, offset: usize) -> *mut T {
            self.0.wrapping_add(offset)
        }
    }

    let (len, shared) = (slice.len(), Shared(slice.as_mut_ptr()));
    pool.for_each(len.div_ceil(width), |index| {
        let first = index * width;
        // SAFETY: within the slice, and chunks of different indices share no element.
        f(index, unsafe { std::slice::from_raw_parts_mut(shared.at(first), width.min(len - first)) });
    });
}
