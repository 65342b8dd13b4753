//! Whatever a snapshot holds behind right checksums: an error, or a sequence that reads the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux::graph::StateSpec;
use moeflux::model::Fingerprint;
use moeflux::sequence::snapshot::{Expected, MAGIC, Snapshot, SnapshotOptions, VERSION};
use moeflux::sequence::{KvType, ModelId, Sequence};
use twox_hash::XxHash3_64;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    mend(&mut bytes);
    let specs = [
        StateSpec::Kv { kv_heads: 1, head_dim: 1, window: None },
        StateSpec::Kv { kv_heads: 1, head_dim: 1, window: Some(5) },
        StateSpec::Latent { rank: 1, rope_dim: 1 },
        StateSpec::Recurrent { len: 2 },
    ];
    let fingerprint = Fingerprint { architecture: 0, weights: 0 };
    let empty = Sequence::new(ModelId::unique(), &specs, KvType::F16);
    let expected = Expected { empty, fingerprint, vocab_size: 1000, context_length: 1000 };
    let Ok(Snapshot { sequence, extra }) = Snapshot::read(&bytes[..], &expected) else { return };
    let mut written = Vec::new();
    let options = SnapshotOptions { checkpoints: true, extra };
    sequence.write(&mut written, fingerprint, &options).expect("what was read can be written");
    let again = Snapshot::read(&written[..], &expected).expect("and read again");
    assert_eq!(again.sequence.tokens(), sequence.tokens());
    for len in 0..=sequence.len() {
        assert_eq!(again.sequence.truncation_cost(len), sequence.truncation_cost(len));
        let mut cut = again.sequence.fork();
        cut.rewind(len);
        assert!(cut.len() <= len);
    }
});

/// Makes the beginning and each section's checksum right, as far as lengths allow.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < 12 {
        return;
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let mut start = 12;
    while let Some(len) = bytes.get(start + 8..start + 16) {
        let len = u64::from_le_bytes(len.try_into().expect("eight bytes"));
        let end = (start as u64 + 16).saturating_add(len);
        let fits = |end: &usize| end.checked_add(8).is_some_and(|end| end <= bytes.len());
        let Some(end) = usize::try_from(end).ok().filter(fits) else { return };
        let checksum = XxHash3_64::oneshot(&bytes[start..end]);
        bytes[end..end + 8].copy_from_slice(&checksum.to_le_bytes());
        start = end + 8;
    }
}
