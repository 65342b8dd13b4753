//! Random programs over several sequences: whatever they do, each sequence's logits are the bits of a fresh prefill of its
//! tokens, in exact and in fast mode.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::engines::{engine, fresh, probe, prompt};
use crate::property;
use moeflux::engine::{Input, Outputs};
use moeflux::sequence::PrefixCache;
use moeflux::sequence::snapshot::{Expected, Snapshot, SnapshotOptions};
use moeflux::{CancelToken, Engine, GenerateRequest, Precision, Sequence};
use proptest::prelude::*;

const SEQUENCES: usize = 3;

/// A step of a program. Sequences are numbered; a share is of what there is, in 1/16.
#[derive(Clone, Debug)]
enum Command {
    /// Appends tokens, of one of a few texts so that prefixes come again.
    Append {
        to: usize,
        n: usize,
        text: u32,
    },
    /// Appends to all sequences in one step.
    Batch {
        n: usize,
        text: u32,
    },
    /// Generates, until it is cancelled from elsewhere at some time.
    Cancelled {
        to: usize,
        n: usize,
        after_micros: u64,
    },
    /// Generates, and marks on the way.
    Generate {
        to: usize,
        n: usize,
        mark: usize,
        tokens: usize,
    },
    Truncate {
        of: usize,
        share: usize,
    },
    Fork {
        from: usize,
        to: usize,
    },
    Clear {
        of: usize,
    },
    Mark {
        of: usize,
    },
    /// Room for checkpoints, in kilobytes.
    Budget {
        of: usize,
        kilobytes: usize,
    },
    Save {
        of: usize,
        checkpoints: bool,
    },
    Restore {
        to: usize,
    },
    Put {
        of: usize,
    },
    /// Goes on from what the cache knows of another sequence and more.
    Get {
        to: usize,
        like: usize,
        share: usize,
        n: usize,
        text: u32,
    },
    /// Leaves the cache a share of what it has.
    Evict {
        share: usize,
    },
}

fn command() -> impl Strategy<Value = Command> {
    let (which, share, text) = (0..SEQUENCES, 0..17_usize, 0..3_u32);
    let (to, of, n) = (which.clone(), which.clone(), 1..70_usize);
    prop_oneof![
        4 => (to.clone(), n.clone(), text.clone()).prop_map(|(to, n, text)| Command::Append { to, n, text }),
        1 => (1..20_usize, text.clone()).prop_map(|(n, text)| Command::Batch { n, text }),
        1 => (to.clone(), n.clone(), 0..3000_u64)
            .prop_map(|(to, n, after_micros)| Command::Cancelled { to, n, after_micros }),
        1 => (to.clone(), n.clone(), 0..70_usize, 0..5_usize)
            .prop_map(|(to, n, mark, tokens)| Command::Generate { to, n, mark, tokens }),
        3 => (of.clone(), share.clone()).prop_map(|(of, share)| Command::Truncate { of, share }),
        2 => (which.clone(), to.clone()).prop_map(|(from, to)| Command::Fork { from, to }),
        1 => of.clone().prop_map(|of| Command::Clear { of }),
        2 => of.clone().prop_map(|of| Command::Mark { of }),
        1 => (of.clone(), 0..200_usize).prop_map(|(of, kilobytes)| Command::Budget { of, kilobytes }),
        1 => (of.clone(), any::<bool>()).prop_map(|(of, checkpoints)| Command::Save { of, checkpoints }),
        1 => to.clone().prop_map(|to| Command::Restore { to }),
        3 => of.prop_map(|of| Command::Put { of }),
        3 => (to, which, share.clone(), n, text)
            .prop_map(|(to, like, share, n, text)| Command::Get { to, like, share, n, text }),
        1 => share.prop_map(|share| Command::Evict { share }),
    ]
}

/// What programs work on.
struct Machine {
    engine: Engine,
    expected: Expected,
    sequences: Vec<Sequence>,
    cache: PrefixCache,
    saved: Option<(Vec<u8>, Vec<u32>)>,
    /// What each list of tokens should give.
    fresh: HashMap<Vec<u32>, Vec<u32>>,
}

impl Machine {
    fn new(engine: Engine) -> Self {
        let expected = Expected::by(engine.model(), engine.sequence());
        let sequences = vec![engine.sequence(); SEQUENCES];
        let cache = PrefixCache::new(1 << 30);
        Machine { engine, expected, sequences, cache, saved: None, fresh: HashMap::new() }
    }

    fn reset(&mut self) {
        self.sequences = vec![self.engine.sequence(); SEQUENCES];
        self.cache = PrefixCache::new(1 << 30);
        self.saved = None;
    }

    /// The next tokens of a text for a sequence, as many as it has room for, with one to spare.
    fn next(&self, sequence: usize, n: usize, text: u32) -> Vec<u32> {
        let len = self.sequences[sequence].len();
        let end = (len + n).min(self.engine.model().context_length() - 8).min(300);
        prompt(end, text).get(len..).unwrap_or_default().to_vec()
    }

    fn run(&mut self, command: &Command) {
        match *command {
            Command::Append { to, n, text } => {
                let tokens = self.next(to, n, text);
                if !tokens.is_empty() {
                    self.engine.eval(&mut self.sequences[to], &tokens).unwrap();
                }
            }
            Command::Batch { n, text } => {
                let tokens: Vec<_> = (0..SEQUENCES).map(|index| self.next(index, n, text)).collect();
                let inputs = self.sequences.iter_mut().zip(&tokens).filter(|(_, tokens)| !tokens.is_empty());
                let mut inputs: Vec<_> = inputs
                    .map(|(sequence, tokens)| Input {
                        outputs: Outputs::None,
                        ..Input::new(sequence, tokens)
                    })
                    .collect();
                if !inputs.is_empty() {
                    self.engine.step(&mut inputs, None).unwrap();
                }
            }
            Command::Cancelled { to, n, after_micros } => {
                let cancel = CancelToken::default();
                let canceller = std::thread::spawn({
                    let cancel = cancel.clone();
                    move || {
                        std::thread::sleep(Duration::from_micros(after_micros));
                        cancel.cancel();
                    }
                });
                self.generate(to, n, vec![], 1, cancel);
                canceller.join().unwrap();
            }
            Command::Generate { to, n, mark, tokens } => {
                self.generate(to, n, vec![mark], tokens, CancelToken::default());
            }
            Command::Truncate { of, share } => {
                let sequence = &mut self.sequences[of];
                let len = sequence.len() * share / 16;
                let cost = sequence.truncation_cost(len).unwrap();
                let tokens = sequence.tokens()[..len].to_vec();
                let truncated = self.engine.truncate(sequence, len).unwrap();
                assert_eq!((sequence.tokens(), truncated.replayed), (&tokens[..], cost));
            }
            Command::Fork { from, to } => self.sequences[to] = self.sequences[from].fork(),
            Command::Clear { of } => self.sequences[of].clear(),
            Command::Mark { of } => {
                self.sequences[of].mark();
                assert_eq!(self.sequences[of].truncation_cost(self.sequences[of].len()), Some(0));
            }
            Command::Budget { of, kilobytes } => {
                self.sequences[of].set_restore_point_budget(kilobytes << 10);
                assert!(self.sequences[of].restore_point_bytes() <= kilobytes << 10);
            }
            Command::Save { of, checkpoints } => {
                let mut bytes = Vec::new();
                let options = SnapshotOptions { checkpoints, ..SnapshotOptions::default() };
                let sequence = &self.sequences[of];
                sequence.write(&mut bytes, self.expected.fingerprint, &options).unwrap();
                self.saved = Some((bytes, sequence.tokens().to_vec()));
            }
            Command::Restore { to } => {
                if let Some((bytes, tokens)) = &self.saved {
                    self.sequences[to] = Snapshot::read(&bytes[..], &self.expected).unwrap().sequence;
                    assert_eq!(self.sequences[to].tokens(), tokens);
                }
            }
            Command::Put { of } => self.cache.put(&self.sequences[of]),
            Command::Get { to, like, share, n, text } => {
                let like = self.sequences[like].tokens();
                let mut tokens = like[..like.len() * share / 16].to_vec();
                tokens.extend(prompt(n, text));
                let common = self.cache.common(&tokens);
                if let Some(found) = self.cache.get(&tokens) {
                    assert!(found.len() < tokens.len() && found.len() <= common);
                    assert_eq!(found.tokens(), &tokens[..found.len()]);
                    self.sequences[to] = found;
                }
            }
            Command::Evict { share } => {
                let budget = self.cache.bytes() * share as u64 / 16;
                self.cache.resize(budget);
                assert!(self.cache.bytes() <= budget);
                self.cache.resize(1 << 30);
            }
        }
    }

    fn generate(&mut self, to: usize, n: usize, marks: Vec<usize>, max_tokens: usize, cancel: CancelToken) {
        let prompt = self.next(to, n, 1);
        if prompt.is_empty() {
            return;
        }
        let ignore_eos = true;
        let request =
            GenerateRequest { prompt, marks, max_tokens, ignore_eos, cancel, ..GenerateRequest::default() };
        for event in self.engine.generate(&mut self.sequences[to], request).unwrap() {
            event.unwrap();
        }
    }

    /// All sequences are what a fresh prefill makes of their tokens.
    fn check(&mut self) {
        for sequence in &self.sequences {
            let tokens = sequence.tokens().to_vec();
            let expected =
                self.fresh.entry(tokens).or_insert_with_key(|tokens| fresh(&mut self.engine, tokens));
            let found = probe(&mut self.engine, sequence);
            assert!(found == *expected, "{} tokens give other logits than when read afresh", sequence.len());
        }
    }
}

fn programs_change_no_bit(name: &str, cases: u32) {
    for precision in [Precision::Exact, Precision::Fast] {
        programs_change_no_bit_of(engine(name, precision, 40), &format!("{name}, {precision:?}"), cases);
    }
}

pub(crate) fn programs_change_no_bit_of(engine: Engine, name: &str, cases: u32) {
    let machine = std::cell::RefCell::new(Machine::new(engine));
    println!("{name}");
    property::check(cases, &prop::collection::vec(command(), 1..24), |program| {
        let mut machine = machine.borrow_mut();
        machine.reset();
        for command in &program {
            machine.run(command);
            machine.check();
        }
    });
}

#[test]
fn programs_change_no_bit_of_the_demo() {
    programs_change_no_bit("demo", 8);
}

#[test]
fn programs_change_no_bit_of_qwen3_next() {
    programs_change_no_bit("qwen3_next/mlx-q4", 20);
}

#[test]
fn programs_change_no_bit_of_deepseek_v3() {
    programs_change_no_bit("deepseek_v3/mlx-q4", 20);
}

#[test]
fn programs_change_no_bit_of_gpt_oss() {
    programs_change_no_bit("gpt_oss/hf", 20);
}
