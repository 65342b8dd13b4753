//! Whatever bytes `moeflux.json` holds: an error, or a manifest whose tensors lie one behind the other and that reads the
//! same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::pack::manifest::{ALIGNMENT, Manifest, PAGE};
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("moeflux.json");
    let Ok(parsed) = Manifest::parse(path, bytes) else { return };
    let manifest = &parsed.manifest;
    let mut end = 0;
    for tensor in &manifest.dense.tensors {
        assert!(tensor.offset.is_multiple_of(ALIGNMENT) && tensor.offset >= end);
        assert!(tensor.offset <= manifest.dense.bytes);
        end = tensor.offset;
    }
    for experts in &manifest.experts {
        assert!(experts.stride.is_multiple_of(PAGE));
        assert!(experts.stride.checked_mul(experts.checksums.len() as u64).is_some());
    }
    let written = manifest.to_bytes().expect("what was read can be written");
    assert_eq!(Manifest::parse(path, &written).expect("and read again").manifest, *manifest);
});
