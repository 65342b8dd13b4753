//! Beginnings that sequences have in common, kept to go on from.

use std::collections::HashMap;

use moeflux_kernels::{KV_BLOCK, KvBlock};

use super::restore_point::RestorePoint;
use super::{Position, Sequence};

/// Keeps what sequences have read, so that others that begin alike need not read it again: a radix tree over blocks of
/// [`KV_BLOCK`] tokens under a budget of bytes, from which the least recently used goes first.
///
/// Everything in it is shared with the sequences that it came from and with those that it was given to: to put a sequence
/// in, or to get one out, copies no state, and what is dropped here stays whole there. It serves sequences of one model
/// and one kind of numbers, those of the first one put in.
#[derive(Debug)]
pub struct PrefixCache {
    budget: u64,
    bytes: u64,
    /// Counts uses.
    clock: u64,
    /// What sequences of the model are put together from.
    shell: Option<Sequence>,
    /// By id. The root, [`ROOT`], has no tokens.
    nodes: HashMap<usize, Node>,
    next_id: usize,
}

/// A block of tokens after those of its parents.
#[derive(Debug, Default)]
struct Node {
    parent: usize,
    children: Vec<usize>,
    /// Up to [`KV_BLOCK`]; fewer where nothing is known to follow.
    tokens: Vec<u32>,
    /// What full caches have of them.
    blocks: Vec<KvBlock>,
    /// Restore points within the block or at its end.
    points: Vec<Point>,
    used: u64,
}

#[derive(Debug)]
struct Point {
    restore_point: RestorePoint,
    used: u64,
}

const ROOT: usize = 0;

/// The longest prefix found so far: where it ends, within which node.
#[derive(Clone, Copy)]
struct Found {
    len: usize,
    node: usize,
}

impl PrefixCache {
    /// An empty cache that holds so many bytes at most.
    pub fn new(budget: u64) -> Self {
        let nodes = HashMap::from([(ROOT, Node::default())]);
        PrefixCache { budget, bytes: 0, clock: 0, shell: None, nodes, next_id: ROOT + 1 }
    }

    /// A sequence of the longest prefix of these tokens that is known and can be gone on from, and that leaves at least
    /// one of them to read; its length says how many it has. Where a model has states that can't be cut, it ends where
    /// there was a restore point.
    pub fn get(&mut self, tokens: &[u32]) -> Option<Sequence> {
        let mut best: Option<Found> = None;
        let needs_points = self.shell.as_ref()?.needs_restore_points();
        self.walk(tokens.get(..tokens.len().checked_sub(1)?)?, |node, id, matched| {
            let len = if needs_points {
                let lens = node.points.iter().map(|point| point.restore_point.len);
                lens.filter(|&len| len <= matched).max()
            } else {
                Some(matched)
            };
            if let Some(len) = len.filter(|&len| best.is_none_or(|best| len > best.len)) {
                best = Some(Found { len, node: id });
            }
        });
        let Found { len, node } = best?;
        self.clock += 1;
        let path = self.path(node);
        for id in &path {
            let Some(node) = self.nodes.get_mut(id) else { continue };
            node.used = self.clock;
            for point in node.points.iter_mut().filter(|point| point.restore_point.len == len) {
                point.used = self.clock;
            }
        }
        let nodes: Vec<&Node> = path.iter().filter_map(|id| self.nodes.get(id)).collect();
        let points = nodes.iter().flat_map(|node| &node.points).map(|point| &point.restore_point);
        let positions: Vec<Position> = (0..len as u32).map(|position| [position; 3]).collect();
        let blocks = nodes.iter().map(|node| node.blocks.as_slice());
        let points = points.filter(|point| point.len <= len).cloned();
        Some(self.shell.as_ref()?.assemble(tokens[..len].to_vec(), &positions, blocks, points))
    }

    /// How many of these tokens at the start have been read before, whether or not there is a state to go on from: a
    /// sequence [marked](Sequence::mark) there lets the next one with the same beginning go on from there.
    pub fn common(&self, tokens: &[u32]) -> usize {
        let mut longest = 0;
        self.walk(tokens, |_, _, matched| longest = longest.max(matched));
        longest
    }

    /// Keeps what a sequence has read, with its restore points and its present state. Of positions that are not text's, and of
    /// another model's sequences, nothing is kept.
    pub fn put(&mut self, sequence: &Sequence) {
        let shell = self.shell.get_or_insert_with(|| sequence.shell());
        if (shell.model, shell.kv_type) != (sequence.model, sequence.kv_type) {
            return;
        }
        let text = sequence.positions.text();
        let mut points: Vec<RestorePoint> = sequence.points().filter(|point| point.len <= text).collect();
        let len =
            if shell.needs_restore_points() { points.last().map_or(0, |point| point.len) } else { text };
        self.clock += 1;
        let mut id = ROOT;
        for (index, tokens) in sequence.tokens[..len].chunks(KV_BLOCK).enumerate() {
            id = match self.child(id, tokens) {
                Some(child) => child,
                None => self.add(id, tokens, sequence.block(index)),
            };
            let Some(node) = self.nodes.get_mut(&id) else { return };
            node.used = self.clock;
            let here = points.partition_point(|point| point.len <= (index + 1) * KV_BLOCK);
            for restore_point in points.drain(..here) {
                let known = node.points.iter_mut().find(|point| point.restore_point.len == restore_point.len);
                match known {
                    Some(point) if restore_point.len == len => point.used = self.clock,
                    Some(_) => {}
                    None => {
                        self.bytes += restore_point.bytes() as u64;
                        node.points.push(Point { restore_point, used: self.clock });
                    }
                }
            }
        }
        self.keep_to_budget();
    }

    /// Memory held, in bytes, whether or not sequences hold it too.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps to another budget from now on.
    pub fn resize(&mut self, budget: u64) {
        self.budget = budget;
        self.keep_to_budget();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = PrefixCache::new(self.budget);
    }

    /// Calls `visit` with each node that has tokens of these in common, and how many are in common up to there.
    fn walk(&self, tokens: &[u32], mut visit: impl FnMut(&Node, usize, usize)) {
        let (mut id, mut depth) = (ROOT, 0);
        while let Some(rest) = tokens.get(depth..) {
            let mut full = None;
            for &child in &self.nodes[&id].children {
                let node = &self.nodes[&child];
                let common = node.tokens.iter().zip(rest).take_while(|(a, b)| a == b).count();
                if common > 0 {
                    visit(node, child, depth + common);
                }
                if common == KV_BLOCK {
                    full = Some(child);
                }
            }
            let Some(full) = full else { return };
            (id, depth) = (full, depth + KV_BLOCK);
        }
    }

    /// The nodes from below the root to this one.
    fn path(&self, mut id: usize) -> Vec<usize> {
        let mut path = Vec::new();
        while id != ROOT {
            path.push(id);
            id = self.nodes[&id].parent;
        }
        path.reverse();
        path
    }

    /// The child that begins with these tokens.
    fn child(&self, id: usize, tokens: &[u32]) -> Option<usize> {
        let children = &self.nodes[&id].children;
        children.iter().copied().find(|child| self.nodes[child].tokens.starts_with(tokens))
    }

    /// Adds a child, which takes the place of those that are its beginning.
    fn add(&mut self, parent: usize, tokens: &[u32], blocks: Vec<KvBlock>) -> usize {
        let children = self.nodes[&parent].children.clone();
        let mut points = Vec::new();
        for child in children {
            match self.nodes.get_mut(&child) {
                Some(node) if tokens.starts_with(&node.tokens) => points.append(&mut node.points),
                _ => continue,
            }
            self.remove(child);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.bytes += blocks.iter().map(|block| block.bytes() as u64).sum::<u64>();
        let (tokens, used) = (tokens.to_vec(), self.clock);
        self.nodes.insert(id, Node { parent, children: Vec::new(), tokens, blocks, points, used });
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.push(id);
        }
        id
    }

    /// Takes out a node without children.
    fn remove(&mut self, id: usize) {
        let Some(node) = self.nodes.remove(&id) else { return };
        self.bytes -= node.bytes();
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.retain(|&child| child != id);
        }
    }

    /// Drops what was used longest ago until the rest fit: a restore point, or the end of a branch.
    fn keep_to_budget(&mut self) {
        let needs_points = self.shell.as_ref().is_some_and(Sequence::needs_restore_points);
        while self.bytes > self.budget {
            let leaves = self.nodes.iter().filter(|(id, node)| **id != ROOT && node.children.is_empty());
            // Of what was used at once, leaves go last, and later restore points stay longer.
            let leaves = leaves.map(|(&id, node)| (node.used, true, 0, id));
            let points = self.nodes.iter().flat_map(|(&id, node)| {
                node.points.iter().map(move |point| (point.used, false, point.restore_point.len, id))
            });
            let Some((_, is_leaf, len, mut id)) = leaves.chain(points).min() else { return };
            if is_leaf {
                let parent = self.nodes[&id].parent;
                self.remove(id);
                id = parent;
            } else if let Some(node) = self.nodes.get_mut(&id) {
                let (dropped, kept) = std::mem::take(&mut node.points)
                    .into_iter()
                    .partition(|point| point.restore_point.len == len);
                node.points = kept;
                let dropped: Vec<Point> = dropped;
                self.bytes -= dropped.iter().map(|point| point.restore_point.bytes() as u64).sum::<u64>();
            }
            // Where one can go on from restore points only, what follows the last one is of no use.
            while needs_points && id != ROOT && self.nodes[&id].is_useless() {
                let parent = self.nodes[&id].parent;
                self.remove(id);
                id = parent;
            }
        }
    }
}

impl Node {
    fn bytes(&self) -> u64 {
        let blocks: usize = self.blocks.iter().map(KvBlock::bytes).sum();
        let points: usize = self.points.iter().map(|point| point.restore_point.bytes()).sum();
        (blocks + points) as u64
    }

    fn is_useless(&self) -> bool {
        self.children.is_empty() && self.points.is_empty()
    }
}
