//! Whatever bytes a weight file holds: an error, or tensors that cover its data, as the `safetensors` crate has them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_checkpoint::safetensors::parse_header;
use safetensors::SafeTensors;
use std::path::Path;

fuzz_target!(|file: &[u8]| {
    let Ok(tensors) = parse_header(Path::new("model.safetensors"), file.len() as u64, file) else { return };
    let (header, metadata) = SafeTensors::read_metadata(file).expect("the crate reads what we read");
    let mut end = 8 + header as u64;
    for tensor in &tensors {
        assert_eq!(tensor.offset, end);
        end += tensor.len;
        let info = metadata.info(&tensor.name).expect("the crate finds what we find");
        assert_eq!((tensor.dtype, &tensor.shape), (info.dtype, &info.shape));
        assert_eq!((info.data_offsets.1 - info.data_offsets.0) as u64, tensor.len);
    }
    assert_eq!(end, file.len() as u64);
    assert_eq!(metadata.tensors().len(), tensors.len());
});
