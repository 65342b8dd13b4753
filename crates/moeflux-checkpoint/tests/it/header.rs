//! Headers that chance damages: no panic, and the same verdict as the `safetensors` crate.

use crate::damage::damage;
use crate::fixture::{Fixture, open, reference};
use crate::property;
use moeflux_checkpoint::Error;
use moeflux_checkpoint::safetensors::{Entry, parse_header};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorInfo;
use std::path::Path;

/// What we read, or the error.
fn ours(file: &[u8]) -> Result<Vec<Entry>, Error> {
    parse_header(Path::new("model.safetensors"), file.len() as u64, file)
}

/// What the `safetensors` crate reads; `None` if it refuses.
fn theirs(file: &[u8]) -> Option<Vec<Entry>> {
    let (header, metadata) = SafeTensors::read_metadata(file).ok()?;
    let entry = |(name, info): (String, &TensorInfo)| {
        let (start, end) = info.data_offsets;
        let offset = (8 + header + start) as u64;
        Entry { name, dtype: info.dtype, shape: info.shape.clone(), offset, len: (end - start) as u64 }
    };
    let mut tensors: Vec<_> = metadata.tensors().into_iter().map(entry).collect();
    tensors.sort_by(|a, b| (a.offset, a.len, &a.name).cmp(&(b.offset, b.len, &b.name)));
    Some(tensors)
}

#[track_caller]
fn same_verdict(file: &[u8]) {
    match (ours(file), theirs(file)) {
        (Ok(ours), theirs) => assert_eq!(Some(ours), theirs),
        // The crate keeps one of two tensors of the same name.
        (Err(Error::Json { source, .. }), Some(_)) => {
            assert!(source.to_string().contains("twice"), "{source}");
        }
        (Err(error), theirs) => assert!(theirs.is_none(), "only we refuse: {error}"),
    }
}

#[test]
fn any_byte_in_the_place_of_another() {
    let tensors = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#;
    let file = [&(tensors.len() as u64).to_le_bytes()[..], tensors.as_bytes(), &[0; 11]].concat();
    assert_eq!(ours(&file).unwrap().len(), 2);
    for at in 0..8 + tensors.len() {
        for byte in 0..=u8::MAX {
            let mut file = file.clone();
            file[at] = byte;
            same_verdict(&file);
        }
    }
}

#[test]
fn real_headers_read_as_the_crate_reads_them() {
    for variant in ["hf", "mlx-q4", "mlx-mixed"] {
        let file = std::fs::read(reference(variant).join("model.safetensors")).unwrap();
        assert_eq!(ours(&file).unwrap(), theirs(&file).unwrap(), "{variant}");
    }
}

proptest! {
    #![proptest_config(property::config(1000))]

    #[test]
    fn damaged_headers(damage in damage(), tiny in any::<bool>(), honest in any::<bool>()) {
        let file = if tiny {
            Fixture::hub().weight_file()
        } else {
            std::fs::read(reference("mlx-mixed").join("model.safetensors")).unwrap()
        };
        let header_len = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
        let (mut header, data) = (file[8..8 + header_len].to_vec(), &file[8 + header_len..]);
        for damage in damage {
            damage.apply(&mut header);
        }
        // The length in front of the header follows the damage, or it does not.
        let len = if honest { header.len() } else { header_len };
        let file = [&(len as u64).to_le_bytes()[..], &header, data].concat();
        same_verdict(&file);
    }

    #[test]
    fn arbitrary_bytes(file in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ours(&file).is_err());
    }
}

/// A length that, added to the header's, overflows: the crate itself would stop here in a build with overflow checks.
#[test]
fn lengths_that_overflow() {
    let len = u64::MAX / 8;
    let header = format!(r#"{{"one": {{"dtype": "U8", "shape": [{len}], "data_offsets": [0, {len}]}}}}"#);
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    assert!(matches!(ours(&file).unwrap_err(), Error::FileLength { .. }));
    let folder = Fixture::hub().write_config();
    std::fs::write(folder.path().join("model.safetensors"), &file).unwrap();
    assert!(open(folder.path()).is_err());
}
