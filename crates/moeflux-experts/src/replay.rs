//! What policies would have made of a trace, at any budget, and the best that any could have made of it.

use crate::policy::{Policy, PolicyKind, Ranking};
use crate::trace::Trace;
use std::collections::{HashMap, VecDeque};

/// Hits and misses of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Experts that were in memory when they were used.
    pub hits: u64,
    /// Experts that had to be read.
    pub misses: u64,
    /// Bytes of those.
    pub bytes_read: u64,
}

impl Replayed {
    /// The share of uses that found their expert in memory; 1 if there were no uses.
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 1.0,
            uses => self.hits as f64 / uses as f64,
        }
    }
}

impl Trace {
    /// Bytes of all experts.
    pub fn total_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| u64::from(layer.experts) * layer.bytes).sum()
    }

    /// Replays the trace under a budget of bytes, from nothing in memory, as a store does: what a step's layer uses is
    /// not evicted before it was used, and an expert that is read always takes a place.
    pub fn replay(&self, policy: PolicyKind, budget: u64) -> Replayed {
        let uses = self.uses();
        Memory::new(self, policy.policy(self.experts()), budget).run(&uses)
    }

    /// The least misses that any policy could have had: after each layer of a step, those experts are in memory whose
    /// next uses are nearest (Belady's MIN), as if what the layer uses needed no room itself. With experts of one
    /// size it is a bound; with several sizes, near one.
    pub fn replay_optimum(&self, budget: u64) -> Replayed {
        let uses = self.uses();
        let order: Vec<u32> = uses.iter().flat_map(|of_layer| of_layer.ids.iter().copied()).collect();
        let known = uses.into_iter().map(|of_layer| Use { scan: false, ..of_layer }).collect::<Vec<_>>();
        let clairvoyant = Box::new(Clairvoyant::new(&order, self.experts()));
        Memory { evicts_before: false, ..Memory::new(self, clairvoyant, budget) }.run(&known)
    }

    fn experts(&self) -> usize {
        self.layers.iter().map(|layer| layer.experts as usize).sum()
    }

    /// Ids of the experts of each entry, numbered through, each once.
    fn uses(&self) -> Vec<Use> {
        let first: Vec<u32> = self
            .layers
            .iter()
            .scan(0, |next, layer| {
                *next += layer.experts;
                Some(*next - layer.experts)
            })
            .collect();
        let ids = |entry: &crate::trace::TraceEntry| {
            let mut ids: Vec<u32> = entry.2.iter().map(|expert| first[entry.1 as usize] + expert).collect();
            ids.sort_unstable();
            ids.dedup();
            let scan = ids.len() * 2 > self.layers[entry.1 as usize].experts as usize;
            Use { ids, scan }
        };
        self.entries.iter().map(ids).collect()
    }
}

/// What a layer of a step uses.
struct Use {
    ids: Vec<u32>,
    /// Most of the layer, as prompts do.
    scan: bool,
}

/// Experts in memory, without their bytes.
struct Memory {
    ranking: Ranking,
    resident: Vec<bool>,
    bytes: Vec<u64>,
    used: u64,
    budget: u64,
    /// Whether room is made before an expert is read, or only when its layer is done.
    evicts_before: bool,
}

impl Memory {
    fn new(trace: &Trace, policy: Box<dyn Policy>, budget: u64) -> Self {
        let of_layer =
            |layer: &crate::trace::TraceLayer| std::iter::repeat_n(layer.bytes, layer.experts as usize);
        let bytes: Vec<u64> = trace.layers.iter().flat_map(of_layer).collect();
        let resident = vec![false; bytes.len()];
        let mut ranking = Ranking::new(policy, bytes.len());
        ranking
            .memory_holds((budget as f64 / trace.total_bytes().max(1) as f64 * bytes.len() as f64) as usize);
        Self { ranking, resident, bytes, used: 0, budget, evicts_before: true }
    }

    fn run(mut self, uses: &[Use]) -> Replayed {
        let mut replayed = Replayed::default();
        for Use { ids, scan } in uses {
            for &id in ids {
                if *scan {
                    self.ranking.hold(id);
                } else {
                    self.ranking.used(id);
                }
            }
            let (hits, misses): (Vec<u32>, Vec<u32>) =
                ids.iter().partition(|&&id| self.resident[id as usize]);
            replayed.hits += hits.len() as u64;
            replayed.misses += misses.len() as u64;
            // What was in memory is used first and may go then, if there is no other way.
            let mut done = VecDeque::from(hits);
            for id in misses {
                replayed.bytes_read += self.bytes[id as usize];
                self.load(id, &mut done);
                done.push_back(id);
            }
            for &id in ids {
                if self.resident[id as usize] {
                    self.ranking.release(id);
                }
            }
            while self.used > self.budget && self.evict() {}
        }
        replayed
    }

    /// Brings an expert into memory; evicts others, and those of this step that were used already only if it must.
    fn load(&mut self, id: u32, done: &mut VecDeque<u32>) {
        let bytes = self.bytes[id as usize];
        while self.evicts_before && self.used + bytes > self.budget {
            if self.evict() {
                continue;
            }
            let Some(used) = done.pop_front() else { break };
            self.ranking.release(used);
        }
        self.used += bytes;
        self.resident[id as usize] = true;
        self.ranking.loaded(id, false);
    }

    fn evict(&mut self) -> bool {
        let Some(id) = self.ranking.evict() else { return false };
        self.resident[id as usize] = false;
        self.used -= self.bytes[id as usize];
        true
    }
}

/// Worth by the next use, which only a replay knows.
struct Clairvoyant {
    /// Of each expert, the times of its uses that are still to come, the last first.
    coming: HashMap<u32, Vec<u64>>,
    next: Vec<f64>,
    now: u64,
}

impl Clairvoyant {
    fn new(order: &[u32], experts: usize) -> Self {
        let mut coming: HashMap<u32, Vec<u64>> = HashMap::new();
        for (&id, time) in order.iter().zip(1..).collect::<Vec<_>>().into_iter().rev() {
            coming.entry(id).or_default().push(time);
        }
        Self { coming, next: vec![f64::NEG_INFINITY; experts], now: 0 }
    }
}

impl Policy for Clairvoyant {
    fn used(&mut self, expert: usize) {
        self.now += 1;
        let coming = self.coming.entry(expert as u32).or_default();
        while coming.last().is_some_and(|&time| time <= self.now) {
            coming.pop();
        }
        self.next[expert] = coming.last().map_or(f64::NEG_INFINITY, |&time| -(time as f64));
    }

    fn worth(&self, expert: usize) -> f64 {
        self.next[expert]
    }

    fn worth_if_used(&self, expert: usize) -> f64 {
        self.next[expert]
    }
}
