//! Who has a place where there are fewer than experts, such as in a device's memory.

use crate::policy::{PolicyKind, Ranking};

/// So many equal places for more experts, by the policies of the store: who is used often, lately, keeps one. Knows
/// nothing of what is in a place. Experts are numbered through all layers.
///
/// What a step uses it [holds](Self::hold) until it [releases](Self::release) it; what is held keeps its place.
pub struct Places {
    ranking: Ranking,
    /// Of each expert.
    place: Vec<Option<u32>>,
    free: Vec<u32>,
}

impl Places {
    /// `places` places for `experts` experts, all free.
    pub fn new(policy: PolicyKind, experts: usize, places: usize) -> Self {
        let mut ranking = Ranking::new(policy.policy(experts), experts);
        ranking.memory_holds(places);
        Places { ranking, place: vec![None; experts], free: (0..places as u32).rev().collect() }
    }

    /// The place of an expert.
    pub fn of(&self, expert: u32) -> Option<u32> {
        self.place[expert as usize]
    }

    /// Places that may be taken, as [`take`](Self::take) would one after the other, and who is in them.
    pub fn in_order(&self) -> impl Iterator<Item = (u32, Option<u32>)> {
        let free = self.free.iter().rev().map(|&place| (place, None));
        let taken = |expert: u32| self.of(expert).map(|place| (place, Some(expert)));
        free.chain(self.ranking.in_order().filter_map(taken))
    }

    /// How many places are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// A step wants an expert, which keeps its place if it has one. `counts` as a use, unless the step wants most of a
    /// layer, as prompts do.
    pub fn hold(&mut self, expert: u32, counts: bool) {
        if counts {
            self.ranking.used(expert);
        } else {
            self.ranking.hold(expert);
        }
    }

    /// A place for an expert that has none: a free one, or that of the least worth. `None` if all are held.
    pub fn take(&mut self, expert: u32) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => self.ranking.evict().and_then(|least| self.place[least as usize].take())?,
        };
        self.place[expert as usize] = Some(place);
        self.ranking.loaded(expert, false);
        Some(place)
    }

    /// The step is done with an expert.
    pub fn release(&mut self, expert: u32) {
        if self.of(expert).is_some() {
            self.ranking.release(expert);
        }
    }

    /// What was to come to an expert's place did not.
    pub fn forget(&mut self, expert: u32) {
        self.ranking.hold(expert);
        self.free.extend(self.place[expert as usize].take());
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let taken = self.place.iter().flatten().count();
        f.debug_struct("Places")
            .field("taken", &taken)
            .field("free", &self.free.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    /// A step over experts: those that have no place take one, the others first.
    fn step(places: &mut Places, experts: &[u32], counts: bool) -> usize {
        for &expert in experts {
            places.hold(expert, counts);
        }
        let missing: Vec<u32> =
            experts.iter().copied().filter(|&expert| places.of(expert).is_none()).collect();
        for &expert in &missing {
            assert!(places.take(expert).is_some());
        }
        for &expert in experts {
            places.release(expert);
        }
        missing.len()
    }

    #[test]
    fn what_is_used_often_stays() {
        let mut places = Places::new(PolicyKind::Lfru, 10, 3);
        assert_eq!(step(&mut places, &[0, 1], true), 2);
        for other in 2..10 {
            assert_eq!(step(&mut places, &[0, 1, other], true), 1, "only the other one comes");
        }
        // A prompt over all experts leaves them, and the places are still three.
        for expert in 2..10 {
            step(&mut places, &[expert], false);
        }
        assert_eq!(step(&mut places, &[0, 1], true), 0);
        assert_eq!((0..10).filter(|&expert| places.of(expert).is_some()).count(), 3);
    }

    #[test]
    fn places_are_taken_in_their_order() {
        let mut places = Places::new(PolicyKind::Lfru, 12, 4);
        for experts in [&[5, 6][..], &[6, 7], &[8, 6], &[5, 9]] {
            step(&mut places, experts, true);
        }
        places.forget(8);
        places.release(8);
        let order: Vec<_> = places.in_order().collect();
        assert_eq!((order.len(), order[0].1, places.free()), (4, None, 1));
        let wanted = [order[2].1.unwrap(), 1, 2, 3];
        for &expert in &wanted {
            places.hold(expert, true);
        }
        // Who is wanted keeps its place, and the others are taken one after the other.
        let taken = [1, 2, 3].map(|expert| places.take(expert).unwrap());
        assert_eq!(taken, [order[0].0, order[1].0, order[3].0]);
        assert_eq!(places.in_order().count(), 0);
    }

    #[test]
    fn what_is_held_is_not_taken() {
        let mut places = Places::new(PolicyKind::Lru, 4, 2);
        places.hold(0, true);
        places.hold(1, true);
        assert!(places.take(0).is_some() && places.take(1).is_some());
        assert_eq!(places.take(2), None);
        places.release(1);
        let freed = places.of(1);
        assert_eq!(places.take(2), freed);
        assert_eq!((places.of(1), places.take(3)), (None, None));
    }

    #[test]
    fn what_did_not_come_is_not_there() {
        let mut places = Places::new(PolicyKind::Lfru, 2, 1);
        places.hold(0, true);
        let place = places.take(0);
        places.forget(0);
        places.release(0);
        assert_eq!(places.of(0), None);
        assert_eq!(places.take(1), place);
    }
}
