//! Experts that come and go: places for them on a device, and the way there through staging memory that is used again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;
use std::ptr::NonNull;

use moeflux_kernels::{ExpertWeights, Matrix, ThreadPool};

use crate::buffer::View;
use crate::device::Device;
use crate::encoder::{Encoder, Mark};
use crate::error::GpuError;
use crate::kernels::{GpuExpertBiases, GpuExperts};
use crate::matrix::{DeviceEncoding, GpuMatrix, values};

/// What pieces of staging memory lose by alignment, in a submission.
const SLACK: u64 = 16 << 10;
/// Submissions with uploads that may wait for the device; a further one waits for the first of them.
const IN_FLIGHT: usize = 2;
/// What a thread brings at once: it stays in a core's cache between being packed and being written.
const TASK_BYTES: usize = 64 << 10;

/// The way from the host to a device for much memory, again and again.
#[derive(Debug)]
pub struct Uploads {
    belt: wgpu::util::StagingBelt,
    in_flight: VecDeque<Mark>,
}

/// Memory that experts are brought to.
pub trait Homes {
    /// Where the expert in a place has its parts.
    fn home(&self, place: u32) -> ExpertHome;
}

/// Where an expert has its parts: codes and parameters of gate and up, the same of down, and the biases of both.
#[derive(Clone, Debug)]
pub struct ExpertHome {
    pub(crate) encodings: [DeviceEncoding; 2],
    pub(crate) gate_up: [View; 2],
    pub(crate) down: [View; 2],
    pub(crate) biases: Option<[View; 2]>,
}

impl Homes for GpuExperts {
    fn home(&self, place: u32) -> ExpertHome {
        let place = place as usize;
        let of = |view: &View, rows: usize| view.slice(place * rows..(place + 1) * rows);
        let [rows, down_rows] = [self.gate_up.rows(), self.down.rows()].map(|rows| rows / self.count.max(1));
        ExpertHome {
            encodings: [self.gate_up.encoding(), self.down.encoding()],
            gate_up: self.gate_up.places(place * rows, rows),
            down: self.down.places(place * down_rows, down_rows),
            biases: self.biases.as_ref().map(|to| [of(&to.gate_up, rows), of(&to.down, down_rows)]),
        }
    }
}

impl GpuExperts {
    /// Room for `count` experts of the shape and the encodings of `like`; `name` is said if there is none.
    pub fn alloc(
        device: &Device,
        name: &str,
        count: usize,
        like: &ExpertWeights<'_>,
    ) -> Result<Self, GpuError> {
        let ExpertWeights { gate, up, down, biases } = like;
        let encoding = DeviceEncoding::of(gate.encoding());
        if DeviceEncoding::of(up.encoding()) != encoding {
            let encoding = format!("{:?} beside others in {encoding:?} ({name})", up.encoding());
            return Err(GpuError::Encoding { encoding });
        }
        let rows = 2 * gate.rows();
        let biases = biases.map(|_| {
            Ok::<_, GpuError>(GpuExpertBiases {
                gate_up: device.alloc(name, count * rows)?,
                down: device.alloc(name, count * down.rows())?,
            })
        });
        let down_encoding = DeviceEncoding::of(down.encoding());
        Ok(GpuExperts {
            count,
            gate_up: GpuMatrix::alloc(device, name, count * rows, rows, gate.cols(), encoding)?,
            down: GpuMatrix::alloc(
                device,
                name,
                count * down.rows(),
                down.rows(),
                down.cols(),
                down_encoding,
            )?,
            biases: biases.transpose()?,
        })
    }

    /// Bytes that an expert takes on a device.
    pub fn bytes_of_one(expert: &ExpertWeights<'_>) -> u64 {
        let ExpertWeights { gate, up, down, biases } = expert;
        let matrices = [gate, up, down].map(|m| GpuMatrix::bytes_of(m.rows(), m.cols(), m.encoding()));
        let floats = biases.map_or(0, |biases| biases.gate.rows() + biases.up.rows() + biases.down.rows());
        matrices.iter().sum::<u64>() + 4 * floats as u64
    }
}

impl Uploads {
    /// To a device, about so many bytes in a submission. No memory is taken yet.
    pub fn new(device: &Device, of_submission: u64) -> Self {
        let chunk = (of_submission + SLACK).next_multiple_of(wgpu::MAP_ALIGNMENT);
        let belt = wgpu::util::StagingBelt::new(device.raw.clone(), chunk);
        Uploads { belt, in_flight: VecDeque::new() }
    }

    /// The most memory that is held for so many bytes in a submission.
    pub fn most_bytes(of_submission: u64) -> u64 {
        (IN_FLIGHT as u64 + 1) * (of_submission + SLACK)
    }

    /// Packs experts and records their copies to places among `homes`: what is recorded afterwards finds them there. Gives
    /// the bytes. What was recorded must be [submitted](Self::submit) here.
    pub fn record(
        &mut self,
        enc: &mut Encoder<'_>,
        pool: &ThreadPool,
        homes: &impl Homes,
        experts: &[(u32, ExpertWeights<'_>)],
    ) -> Result<u64, GpuError> {
        let mut sources = Vec::new();
        for (place, ExpertWeights { gate, up, down, biases }) in experts {
            let home = homes.home(*place);
            let [of_gate_up, of_down] = home.encodings;
            let encodings = [gate, up, down].map(|matrix| DeviceEncoding::of(matrix.encoding()));
            let expected = [of_gate_up, of_gate_up, of_down];
            if encodings != expected {
                let encoding = format!("{encodings:?} beside others in {expected:?}");
                return Err(GpuError::Encoding { encoding });
            }
            sources.push(Source::rows(home.gate_up, vec![*gate, *up], of_gate_up));
            sources.push(Source::rows(home.down, vec![*down], of_down));
            if let (Some([gate_up, of_down]), Some(biases)) = (home.biases, biases) {
                sources.push(Source::values(gate_up, &[biases.gate, biases.up]));
                sources.push(Source::values(of_down, &[biases.down]));
            }
        }
        Ok(self.bring(enc, pool, &sources))
    }

    /// The same with words that go to a view as they are.
    pub(crate) fn record_words(
        &mut self,
        enc: &mut Encoder<'_>,
        pool: &ThreadPool,
        to: &View,
        words: &[u32],
    ) {
        let to = [to.slice(0..words.len()), to.slice(0..0)];
        let from = From::Words(Cow::Borrowed(words));
        self.bring(enc, pool, &[Source { to, rows: words.len(), row_words: [1, 0], from }]);
    }

    fn bring(&mut self, enc: &mut Encoder<'_>, pool: &ThreadPool, sources: &[Source<'_>]) -> u64 {
        let mut staged = Vec::new();
        let mut tasks = Vec::new();
        let mut bytes = 0;
        for (index, source) in sources.iter().enumerate() {
            let [codes, params] = source.to.each_ref().map(|view| {
                bytes += 4 * view.len() as u64;
                self.stage(enc, view, &mut staged)
            });
            let step = (TASK_BYTES / 4 / source.row_words[0].max(1)).max(1);
            for first in (0..source.rows).step_by(step) {
                tasks.push((index, first..(first + step).min(source.rows), codes, params));
            }
        }
        pool.for_each(tasks.len(), |task| {
            let (index, rows, codes, params) = &tasks[task];
            let source = &sources[*index];
            let (packed, packed_params) = source.pack(rows.clone());
            let [code_words, param_words] = source.row_words;
            codes.write(rows.start * code_words, &packed);
            params.write(rows.start * param_words, &packed_params);
        });
        // The views are given back before the submission unmaps what they point to.
        drop(staged);
        bytes
    }

    /// Hands what was recorded to the device; waits if it is much behind.
    pub fn submit(&mut self, device: &Device, enc: Encoder<'_>) -> Result<(), GpuError> {
        self.belt.finish();
        let mark = enc.submit_marked()?;
        self.belt.recall();
        self.in_flight.push_back(mark);
        if self.in_flight.len() > IN_FLIGHT
            && let Some(first) = self.in_flight.pop_front()
        {
            device.wait_for("an upload", &first)?;
        }
        Ok(())
    }

    /// Staging memory whose copy to a view is recorded.
    fn stage(&mut self, enc: &mut Encoder<'_>, to: &View, staged: &mut Vec<wgpu::BufferViewMut>) -> Staged {
        let bytes = to.bytes();
        let Some(size) = NonZeroU64::new(bytes.end - bytes.start) else {
            return Staged { start: NonNull::dangling(), words: 0 };
        };
        let mut view = self.belt.write_buffer(enc.commands(), &to.buffer().raw, bytes.start, size);
        let start = view.slice(..).as_raw_element_ptr();
        staged.push(view);
        Staged { start, words: to.len() }
    }
}

/// What goes to a place.
struct Source<'a> {
    /// Of codes and of parameters.
    to: [View; 2],
    rows: usize,
    row_words: [usize; 2],
    from: From<'a>,
}

enum From<'a> {
    /// Matrices one after the other.
    Matrices(Vec<Matrix<'a>>, DeviceEncoding),
    Words(Cow<'a, [u32]>),
}

impl<'a> Source<'a> {
    fn rows(to: [View; 2], matrices: Vec<Matrix<'a>>, encoding: DeviceEncoding) -> Self {
        let rows = matrices.iter().map(Matrix::rows).sum();
        let row_words = encoding.row_words(matrices.first().map_or(0, Matrix::cols));
        Source { to, rows, row_words, from: From::Matrices(matrices, encoding) }
    }

    fn values(to: View, columns: &[Matrix<'_>]) -> Self {
        let words: Vec<u32> = values(columns).into_iter().map(f32::to_bits).collect();
        let to = [to.slice(0..words.len()), to.slice(0..0)];
        Source { to, rows: words.len(), row_words: [1, 0], from: From::Words(Cow::Owned(words)) }
    }

    fn pack(&self, rows: Range<usize>) -> (Vec<u32>, Vec<u32>) {
        let [code_words, param_words] = self.row_words;
        match &self.from {
            From::Words(words) => (words[rows].to_vec(), Vec::new()),
            From::Matrices(matrices, encoding) => {
                let mut codes = Vec::with_capacity(rows.len() * code_words);
                let mut params = Vec::with_capacity(rows.len() * param_words);
                let mut first = 0;
                for matrix in matrices {
                    let end = first + matrix.rows();
                    for row in rows.start.max(first)..rows.end.min(end) {
                        encoding.pack(matrix, row - first, &mut codes, &mut params);
                    }
                    first = end;
                }
                (codes, params)
            }
        }
    }
}

/// Mapped staging memory, which several threads write to, each to words of its own.
#[derive(Clone, Copy)]
struct Staged {
    start: NonNull<u8>,
    words: usize,
}

// SAFETY: whoever writes through it has words of its own, and the mapping outlives all of them; see `Uploads::bring`.
unsafe impl Send for Staged {}
// SAFETY: as above.
unsafe impl Sync for Staged {}

impl Staged {
    /// Writes words from word `first` on.
    fn write(self, first: usize, words: &[u32]) {
        assert!(first + words.len() <= self.words);
        let bytes: &[u8] = bytemuck::cast_slice(words);
        // SAFETY: the range lies inside the mapping, which is there until `bring` drops its view, and no other task has
        // these rows. Bytes need no alignment.
        unsafe {
            let to = self.start.as_ptr().add(4 * first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }
}
