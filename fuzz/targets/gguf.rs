//! Whatever bytes a GGUF file holds: an error, or tensors that lie inside it and a config whose numbers fit together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::OpenOptions;
use moeflux_checkpoint::gguf::{header::parse_header, parse};
use std::path::Path;

fuzz_target!(|file: &[u8]| {
    let path = Path::new("model.gguf");
    let Ok((_, tensors)) = parse_header(path, file) else { return };
    let mut places: Vec<_> =
        tensors.iter().map(|tensor| (tensor.offset, tensor.offset + tensor.len)).collect();
    places.retain(|(start, end)| start < end);
    places.sort_unstable();
    assert!(places.iter().all(|(_, end)| *end <= file.len() as u64));
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let Ok(config) = parse(path, file, &OpenOptions::default()) else { return };
    let decoder = config.model.decoder();
    assert!(decoder.num_hidden_layers > 0 && decoder.hidden_size > 0 && decoder.vocab_size > 0);
});
