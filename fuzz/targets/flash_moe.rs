//! Whatever bytes `model_weights.json` holds: an error, or tensors that lie in their file and do not overlap.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::flash_moe::weights_json::Index;
use std::path::Path;

const FILE_LEN: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(index) = Index::parse(Path::new("model_weights.json"), bytes, FILE_LEN) else { return };
    let mut end = 0;
    for tensor in &index.tensors {
        assert!(tensor.offset >= end);
        end = tensor.offset + tensor.size;
    }
    assert!(end <= FILE_LEN);
    let names: Vec<&str> = index.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert!(index.modules.keys().all(|module| names.contains(&format!("{module}.weight").as_str())));
});
