//! Caches: what attention keeps of each token, in blocks that sequences share.

use std::io;
use std::ops::Range;

use moeflux_kernels::{AttentionShape, KV_BLOCK, KvBlock, KvType, MlaShape};

/// Keys (after RoPE) and values of every token, or of those that a window still sees.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: AttentionShape,
    keys: Blocks,
    values: Blocks,
}

impl KvCache {
    pub(super) fn new(kv_heads: usize, head_dim: usize, window: Option<usize>, kv_type: KvType) -> Self {
        let shape = AttentionShape { heads: kv_heads, kv_heads, head_dim, window };
        let blocks = || Blocks::new(shape.block_len(), kv_type);
        KvCache { shape, keys: blocks(), values: blocks() }
    }

    /// Blocks of keys and of values.
    pub fn blocks_mut(&mut self) -> (&mut [KvBlock], &mut [KvBlock]) {
        (&mut self.keys.blocks, &mut self.values.blocks)
    }

    /// Whether old tokens are dropped.
    pub(super) fn has_window(&self) -> bool {
        self.shape.window.is_some()
    }

    /// The first block of which token `len` sees something.
    pub(super) fn first_block(&self, len: usize) -> usize {
        self.shape.first_seen(len) / KV_BLOCK
    }

    /// Whether all is there that token `len` sees.
    pub(super) fn can_cut(&self, len: usize) -> bool {
        self.keys.dropped <= self.first_block(len)
    }

    /// Drops what token `len`, and so every later one, does not see.
    pub(super) fn forget(&mut self, len: usize) {
        let first_seen = self.shape.first_seen(len);
        self.keys.forget_before(first_seen);
        self.values.forget_before(first_seen);
    }

    pub(super) fn parts(&self) -> [&Blocks; 2] {
        [&self.keys, &self.values]
    }

    pub(super) fn parts_mut(&mut self) -> [&mut Blocks; 2] {
        [&mut self.keys, &mut self.values]
    }
}

/// Latents (normed) and rotary keys (turned) of every token.
#[derive(Clone, Debug)]
pub struct LatentCache {
    pub(super) blocks: Blocks,
}

impl LatentCache {
    pub(super) fn new(rank: usize, rope_dim: usize, kv_type: KvType) -> Self {
        LatentCache { blocks: Blocks::new(MlaShape { heads: 1, rank, rope_dim }.block_len(), kv_type) }
    }

    /// Its blocks.
    pub fn blocks_mut(&mut self) -> &mut [KvBlock] {
        &mut self.blocks.blocks
    }
}

/// Blocks of [`KV_BLOCK`] absolute positions; empty once no token to come sees any of them.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    block_len: usize,
    kv_type: KvType,
    blocks: Vec<KvBlock>,
    /// How many at the start have been dropped.
    dropped: usize,
}

impl Blocks {
    fn new(block_len: usize, kv_type: KvType) -> Self {
        Blocks { block_len, kv_type, blocks: Vec::new(), dropped: 0 }
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(KvBlock::bytes).sum()
    }

    /// How much of that nobody else holds.
    pub(super) fn own_bytes(&self) -> usize {
        self.blocks.iter().filter(|block| !block.is_shared()).map(KvBlock::bytes).sum()
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(&self) -> usize {
        self.block_len * self.kv_type.bytes()
    }

    /// Allocates blocks for `len` tokens.
    pub(super) fn reserve(&mut self, len: usize) {
        let blocks = len.div_ceil(KV_BLOCK).max(self.blocks.len());
        self.blocks.resize_with(blocks, || KvBlock::zeros(self.block_len, self.kv_type));
    }

    /// Drops what follows the first `len` tokens.
    pub(super) fn cut(&mut self, len: usize) {
        self.blocks.truncate(len.div_ceil(KV_BLOCK));
        self.dropped = self.dropped.min(self.blocks.len());
    }

    /// The blocks kept of the first `len` tokens, the index of the first one before them.
    pub(super) fn kept(&self, len: usize) -> (usize, &[KvBlock]) {
        (self.dropped, self.blocks.get(self.dropped..len.div_ceil(KV_BLOCK)).unwrap_or_default())
    }

    /// Makes the blocks `first` and following these, and drops all others.
    pub(super) fn replace(&mut self, first: usize, blocks: impl IntoIterator<Item = KvBlock>) {
        self.blocks.clear();
        self.blocks.resize(first, KvBlock::zeros(0, self.kv_type));
        self.dropped = first;
        self.blocks.extend(blocks);
    }

    /// Has every block in the host's memory.
    pub(super) fn bring_to_host(&mut self) -> io::Result<()> {
        for block in &mut self.blocks {
            *block = block.on_host()?;
        }
        Ok(())
    }

    /// Gives back the memory of blocks that end before `position`.
    fn forget_before(&mut self, position: usize) {
        let end = (position / KV_BLOCK).min(self.blocks.len());
        let range: Range<usize> = self.dropped..end;
        if !range.is_empty() {
            self.blocks[range].fill(KvBlock::zeros(0, self.kv_type));
            self.dropped = end;
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.dropped = 0;
    }
}
