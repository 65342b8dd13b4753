//! Experts in the host's memory, where shaders read them over the link.

use moeflux_kernels::ExpertWeights;

use crate::buffer::View;
use crate::device::Device;
use crate::error::GpuError;
use crate::matrix::DeviceEncoding;
use crate::slots::{ExpertHome, Homes};

/// All experts of a layer, one after the other, each in one stretch: its pieces as a device has them, every one of which
/// begins with a vector of four words.
#[derive(Clone, Debug)]
pub struct HostExperts {
    parts: Vec<HostPart>,
    pieces: Pieces,
    /// Of gate and up, and of down.
    encodings: [DeviceEncoding; 2],
}

/// Some of the experts.
#[derive(Clone, Debug)]
pub(crate) struct HostPart {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) words: View,
}

/// Words of an expert's pieces: codes and parameters of gate and up, the same of down, and the biases of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces(pub(crate) [usize; 6]);

/// Words of a vector.
const QUAD: usize = 4;

impl HostExperts {
    /// Room for `count` experts of the shape and the encodings of `like`; `name` is said if there is none.
    pub fn alloc(
        device: &Device,
        name: &str,
        count: usize,
        like: &ExpertWeights<'_>,
    ) -> Result<Self, GpuError> {
        let pieces = Pieces::of(like);
        let words = pieces.words();
        let limit = device.info().binding_limit as usize / 4;
        let most = (limit / words.max(1)).clamp(1, count.max(1));
        let part = |first| {
            let count = most.min(count - first);
            Ok(HostPart { first, count, words: device.alloc_on_host(name, count * words)? })
        };
        let parts = (0..count).step_by(most).map(part).collect::<Result<_, GpuError>>()?;
        Ok(HostExperts {
            parts,
            pieces,
            encodings: [like.gate, like.down].map(|m| DeviceEncoding::of(m.encoding())),
        })
    }

    /// Bytes that an expert takes here.
    pub fn bytes_of_one(expert: &ExpertWeights<'_>) -> u64 {
        4 * Pieces::of(expert).words() as u64
    }

    pub(crate) fn parts(&self) -> &[HostPart] {
        &self.parts
    }

    pub(crate) fn pieces(&self) -> Pieces {
        self.pieces
    }
}

impl Homes for HostExperts {
    fn home(&self, expert: u32) -> ExpertHome {
        let (expert, words) = (expert as usize, self.pieces.words());
        let holds = |part: &&HostPart| (part.first..part.first + part.count).contains(&expert);
        let Some(part) = self.parts.iter().find(holds) else {
            unreachable!("there is room for expert {expert}")
        };
        let whole = part.words.slice((expert - part.first) * words..(expert - part.first + 1) * words);
        let mut start = 0;
        let [a, b, c, d, e, f] = self.pieces.0.map(|len| {
            let piece = whole.slice(start..start + len);
            start += len.next_multiple_of(QUAD);
            piece
        });
        ExpertHome { encodings: self.encodings, gate_up: [a, b], down: [c, d], biases: Some([e, f]) }
    }
}

impl Pieces {
    fn of(expert: &ExpertWeights<'_>) -> Self {
        let ExpertWeights { gate, up, down, biases } = expert;
        let words = |rows: usize, matrix: &moeflux_kernels::Matrix<'_>| {
            DeviceEncoding::of(matrix.encoding()).row_words(matrix.cols()).map(|words| rows * words)
        };
        let ([a, b], [c, d]) = (words(gate.rows() + up.rows(), gate), words(down.rows(), down));
        let [e, f] = if biases.is_some() { [gate.rows() + up.rows(), down.rows()] } else { [0, 0] };
        Pieces([a, b, c, d, e, f])
    }

    /// Where each piece ends, in vectors.
    pub(crate) fn ends(self) -> [usize; 6] {
        let mut end = 0;
        self.0.map(|len| {
            end += len.div_ceil(QUAD);
            end
        })
    }

    fn words(self) -> usize {
        QUAD * self.ends()[5]
    }
}
