//! What the machine can do at most, measured: what results are quoted against.

use std::hint::black_box;
use std::time::Instant;

use crate::instruction_set::multiversion;
use crate::int8::multiply_registers;
use crate::pool::ThreadPool;

/// Bytes that [`read_bandwidth`] reads in a pass: several times what the largest caches hold.
const STREAM_BYTES: usize = 1 << 29;
/// Bytes of one task, so that threads end together.
const TASK_BYTES: usize = 1 << 22;
/// Passes; the fastest counts, since whatever else runs can only slow one down.
const PASSES: usize = 5;
/// Values that [`float_rate`] keeps in registers.
const LANES: usize = 128;

/// Bytes a second that all threads of the pool together read from memory, in order and once: the best of a few passes
/// over half a gigabyte, which is allocated for it.
pub fn read_bandwidth(pool: &ThreadPool) -> f64 {
    let words: Vec<u64> = (0..STREAM_BYTES / 8).map(|i| i as u64).collect();
    let per_task = TASK_BYTES / 8;
    best_seconds(|| {
        pool.for_each(words.len() / per_task, |task| {
            black_box(sum(&words[task * per_task..][..per_task]));
        });
    })
    .recip()
        * STREAM_BYTES as f64
}

/// Floating-point operations a second of all threads of the pool together, on values in registers: as many
/// multiplications as additions, each rounded by itself, as exact kernels do them.
pub fn float_rate(pool: &ThreadPool) -> f64 {
    const STEPS: usize = 1 << 20;
    let tasks = pool.threads() * 4;
    best_seconds(|| {
        pool.for_each(tasks, |_| {
            black_box(multiply_and_add(STEPS));
        });
    })
    .recip()
        * (tasks * STEPS * LANES * 2) as f64
}

/// Operations a second of all threads of the pool together on integers of 8 bits in registers, as many multiplications as
/// additions to integers of 32 bits (AVX2: 16), by the instructions that fast kernels take. `None` where it is not measured:
/// with AVX-VNNI and NEON.
pub fn integer_rate(pool: &ThreadPool) -> Option<f64> {
    const STEPS: u32 = 1 << 16;
    let of_one = multiply_registers(STEPS)?;
    let tasks = pool.threads() * 4;
    let seconds = best_seconds(|| {
        pool.for_each(tasks, |_| {
            multiply_registers(STEPS);
        });
    });
    Some(of_one as f64 * tasks as f64 / seconds)
}

fn best_seconds(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

multiversion! {
    fn sum(words: &[u64]) -> u64 {
        let mut sums = [0u64; 64];
        for words in words.as_chunks::<64>().0 {
            for i in 0..64 {
                sums[i] = sums[i].wrapping_add(words[i]);
            }
        }
        sums.iter().fold(0, |sum, &part| sum.wrapping_add(part))
    }
}

multiversion! {
    fn multiply_and_add(steps: usize) -> f32 {
        // Constants that the compiler does not know; the values stay near 1.
        let (factor, term) = (black_box(0.5f32), black_box(0.5f32));
        let mut values = [1.0f32; LANES];
        for _ in 0..steps {
            for value in &mut values {
                *value = *value * factor + term;
            }
        }
        values.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_some_machine() -> Result<(), crate::PoolError> {
        let pool = ThreadPool::new(1)?;
        // From a slow single-board computer to far beyond any core.
        assert!((1e8..1e13).contains(&read_bandwidth(&pool)));
        assert!((1e7..1e13).contains(&float_rate(&pool)));
        assert!(integer_rate(&pool).is_none_or(|rate| (1e8..1e15).contains(&rate)));
        Ok(())
    }
}
