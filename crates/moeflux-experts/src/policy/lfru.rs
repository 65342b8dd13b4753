//! Frequency and recency in one number (LRFU: Lee et al., "LRFU: a spectrum of policies that subsumes the least
//! recently used and least frequently used policies", IEEE Transactions on Computers 50(12), 2001).

use super::Policy;

/// A use counts for half after so many uses, in multiples of the experts that memory holds: with little memory only
/// what was used just now can be kept long enough to be used again, with much memory it is worth knowing more.
const HALF_LIFE: f64 = 1.25;

/// Worth is the sum over uses of `2^(time / half-life)`, as its logarithm to base 2: every worth loses half of itself
/// in one half-life, so their order stays as it is between uses and nothing has to be aged.
pub(crate) struct Lfru {
    log_sum: Vec<f64>,
    /// Half-lives so far.
    now: f64,
    half_life: f64,
}

impl Lfru {
    pub(crate) fn new(experts: usize) -> Self {
        Self { log_sum: vec![f64::NEG_INFINITY; experts], now: 0.0, half_life: HALF_LIFE }
    }
}

impl Policy for Lfru {
    fn used(&mut self, expert: usize) {
        self.now += 1.0 / self.half_life;
        self.log_sum[expert] = self.worth_if_used(expert);
    }

    fn worth(&self, expert: usize) -> f64 {
        self.log_sum[expert]
    }

    fn worth_if_used(&self, expert: usize) -> f64 {
        let before = self.log_sum[expert];
        let (large, small) = if before > self.now { (before, self.now) } else { (self.now, before) };
        large + (small - large).exp2().ln_1p() / std::f64::consts::LN_2
    }

    fn memory_holds(&mut self, experts: usize) {
        self.half_life = HALF_LIFE * experts.max(1) as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worth_is_the_decayed_count() {
        let mut policy = Lfru::new(3);
        policy.memory_holds(8);
        let uses = [0, 1, 0, 0, 2, 1];
        for expert in uses {
            policy.used(expert);
        }
        for expert in 0..3 {
            let times = (1..).zip(uses).filter(|(_, used)| *used == expert).map(|(time, _)| f64::from(time));
            let direct: f64 = times.map(|time| (time / 10.0).exp2()).sum();
            assert!((policy.worth(expert) - direct.log2()).abs() < 1e-12);
        }
        // Another half-life changes how fast worth is lost from now on, not the order of what there is.
        let before = policy.worth(1);
        policy.memory_holds(80);
        policy.used(0);
        assert_eq!(policy.worth(1), before);
        assert!((policy.now - 0.61).abs() < 1e-12);
    }
}
