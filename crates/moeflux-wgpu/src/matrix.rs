//! Matrices of weights on a device, in encodings that shaders read.

use moeflux_kernels::{Encoding, Float, Matrix};

use crate::buffer::View;
use crate::device::Device;
use crate::error::GpuError;

/// Columns that a shader decodes as one: codes of so many columns are whole words in every encoding.
pub(crate) const UNIT: usize = 32;

/// How rows lie on a device. Rows are padded with zeros to whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceEncoding {
    /// Floats of one type.
    Float(Float),
    /// `w = scale·q + bias`, both of a group in one word if they have 16 bits, or in two. Codes are MLX's bit stream.
    Affine {
        /// Width of a code.
        bits: u8,
        /// Columns that share a scale and a bias, a multiple of 32.
        group: usize,
        /// Element type of scales and biases.
        params: Float,
    },
    /// e2m1 codes, four e8m0 scales a word.
    Mxfp4,
}

impl DeviceEncoding {
    /// The encoding on a device of a matrix on the host: the same, or float32 for those that shaders don't read, which
    /// changes no value but takes more memory.
    pub fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float(float) => DeviceEncoding::Float(float),
            Encoding::Affine { bits, group, params } => DeviceEncoding::Affine { bits, group, params },
            Encoding::Mxfp4 => DeviceEncoding::Mxfp4,
            Encoding::Mxfp8
            | Encoding::Nvfp4
            | Encoding::Nvfp4Scaled { .. }
            | Encoding::Symmetric { .. }
            | Encoding::Codebook { .. }
            | Encoding::Packed { .. }
            | Encoding::Fp8 { .. }
            | Encoding::GgmlScaled(_)
            | Encoding::Ggml(_) => DeviceEncoding::Float(Float::F32),
        }
    }

    fn bits(self) -> usize {
        match self {
            DeviceEncoding::Float(float) => float.bytes() * 8,
            DeviceEncoding::Affine { bits, .. } => bits as usize,
            DeviceEncoding::Mxfp4 => 4,
        }
    }

    /// Words of codes and of parameters of a row.
    pub(crate) fn row_words(self, cols: usize) -> [usize; 2] {
        let units = cols.div_ceil(UNIT);
        let params = match self {
            DeviceEncoding::Float(_) => 0,
            DeviceEncoding::Affine { group, params, .. } => cols / group * params.bytes() / 2,
            DeviceEncoding::Mxfp4 => units.div_ceil(4),
        };
        [units * self.bits(), params]
    }

    /// What `weights.wgsl` has to know.
    pub(crate) fn constants(self, cols: usize) -> [(&'static str, u32); 6] {
        let (kind, group, params) = match self {
            DeviceEncoding::Float(float) => (float_number(float), UNIT, 0),
            DeviceEncoding::Affine { group, params, .. } => (3, group, float_number(params)),
            DeviceEncoding::Mxfp4 => (4, UNIT, 0),
        };
        let [code_words, param_words] = self.row_words(cols).map(|words| words as u32);
        [
            ("KIND", kind),
            ("BITS", self.bits() as u32),
            ("GROUP_UNITS", (group / UNIT) as u32),
            ("PARAMS", params),
            ("CODE_WORDS", code_words),
            ("PARAM_WORDS", param_words),
        ]
    }
}

fn float_number(float: Float) -> u32 {
    match float {
        Float::F32 => 0,
        Float::F16 => 1,
        Float::Bf16 => 2,
    }
}

/// Rows of weights on a device, `[rows, cols]`, in as many buffers as the device's limit asks for.
#[derive(Clone, Debug)]
pub struct GpuMatrix {
    rows: usize,
    cols: usize,
    encoding: DeviceEncoding,
    parts: Vec<Part>,
}

/// Some of the rows.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) codes: View,
    pub(crate) params: View,
}

impl GpuMatrix {
    /// A copy of a matrix on a device; `name` is said if there is no room.
    pub fn upload(device: &Device, name: &str, matrix: &Matrix<'_>) -> Result<Self, GpuError> {
        Self::upload_heads(device, name, matrix, matrix.rows().max(1))
    }

    /// The same of a matrix that is `heads` matrices, one after the other: no buffer ends within one.
    pub fn upload_heads(
        device: &Device,
        name: &str,
        matrix: &Matrix<'_>,
        heads: usize,
    ) -> Result<Self, GpuError> {
        let (rows, encoding) = (matrix.rows(), DeviceEncoding::of(matrix.encoding()));
        let copy = Self::alloc(device, name, rows, (rows / heads).max(1), matrix.cols(), encoding)?;
        copy.write(device, 0, matrix);
        Ok(copy)
    }

    /// Copies of matrices of one shape and encoding, one after the other; no buffer ends within `together` of them.
    pub fn stack(
        device: &Device,
        name: &str,
        matrices: &[Matrix<'_>],
        together: usize,
    ) -> Result<Self, GpuError> {
        let Some(first) = matrices.first() else {
            return Self::alloc(device, name, 0, 1, 0, DeviceEncoding::Float(Float::F32));
        };
        let encoding = DeviceEncoding::of(first.encoding());
        let (rows, cols) = (first.rows(), first.cols());
        let copy = Self::alloc(device, name, rows * matrices.len(), rows * together, cols, encoding)?;
        for (i, matrix) in matrices.iter().enumerate() {
            if DeviceEncoding::of(matrix.encoding()) != encoding {
                let encoding = format!("{:?} beside others in {encoding:?} ({name})", matrix.encoding());
                return Err(GpuError::Encoding { encoding });
            }
            copy.write(device, i * rows, matrix);
        }
        Ok(copy)
    }

    /// Copies of matrices in one buffer, one after the other: all of them as one, and each by itself. None if they differ in
    /// width or encoding, or are more than a shader can bind.
    pub fn joined(
        device: &Device,
        name: &str,
        matrices: &[Matrix<'_>],
    ) -> Result<Option<(Self, Vec<Self>)>, GpuError> {
        let kind = |matrix: &Matrix<'_>| (matrix.cols(), DeviceEncoding::of(matrix.encoding()));
        let Some((first, rest)) = matrices.split_first() else { return Ok(None) };
        let (cols, encoding) = kind(first);
        let rows = matrices.iter().map(Matrix::rows).sum();
        let words = rows * encoding.row_words(cols).into_iter().max().unwrap_or_default();
        if rest.iter().any(|matrix| kind(matrix) != kind(first))
            || words as u64 * 4 > device.info().binding_limit
        {
            return Ok(None);
        }
        let whole = Self::alloc(device, name, rows, rows, cols, encoding)?;
        let mut each = Vec::new();
        let mut first_row = 0;
        for matrix in matrices {
            whole.write(device, first_row, matrix);
            let rows = matrix.rows();
            let [codes, params] = whole.places(first_row, rows);
            each.push(GpuMatrix {
                rows,
                cols,
                encoding,
                parts: vec![Part { first_row: 0, rows, codes, params }],
            });
            first_row += rows;
        }
        Ok(Some((whole, each)))
    }

    /// Room for `rows` rows, of which every `together` lie in one buffer.
    pub fn alloc(
        device: &Device,
        name: &str,
        rows: usize,
        together: usize,
        cols: usize,
        encoding: DeviceEncoding,
    ) -> Result<Self, GpuError> {
        let [code_words, param_words] = encoding.row_words(cols);
        let limit = device.info().binding_limit as usize / 4;
        let most = limit / code_words.max(param_words).max(1);
        let step = (most / together * together).max(together);
        let parts = (0..rows)
            .step_by(step)
            .map(|first_row| {
                let rows = step.min(rows - first_row);
                let codes = device.alloc(name, rows * code_words)?;
                let params = device.alloc(name, rows * param_words)?;
                Ok(Part { first_row, rows, codes, params })
            })
            .collect::<Result<_, GpuError>>()?;
        Ok(GpuMatrix { rows, cols, encoding, parts })
    }

    /// Bytes that a matrix takes on a device.
    pub fn bytes_of(rows: usize, cols: usize, encoding: Encoding) -> u64 {
        let [codes, params] = DeviceEncoding::of(encoding).row_words(cols);
        4 * (rows * (codes + params)) as u64
    }

    /// The same rows, in the same memory, as those from row `first` on.
    pub(crate) fn moved_to(&self, first: usize) -> Self {
        let mut moved = self.clone();
        moved.rows += first;
        moved.parts.iter_mut().for_each(|part| part.first_row += first);
        moved
    }

    /// Where `rows` rows from row `first` on have their codes and parameters. They must lie in one buffer.
    pub(crate) fn places(&self, first: usize, rows: usize) -> [View; 2] {
        let holds = |part: &&Part| part.first_row <= first && first + rows <= part.first_row + part.rows;
        let Some(part) = self.parts.iter().find(holds) else {
            unreachable!("rows {first} to {} are allocated together", first + rows)
        };
        let [code_words, param_words] = self.encoding.row_words(self.cols);
        let place = |words| (first - part.first_row) * words..(first - part.first_row + rows) * words;
        [part.codes.slice(place(code_words)), part.params.slice(place(param_words))]
    }

    /// How its rows lie.
    pub(crate) fn encoding(&self) -> DeviceEncoding {
        self.encoding
    }

    /// Writes the rows of `matrix` from row `first` on, before what is submitted next.
    pub fn write(&self, device: &Device, first: usize, matrix: &Matrix<'_>) {
        assert!(matrix.cols() == self.cols && first + matrix.rows() <= self.rows);
        assert_eq!(DeviceEncoding::of(matrix.encoding()), self.encoding);
        for part in &self.parts {
            let start = first.max(part.first_row);
            let end = (first + matrix.rows()).min(part.first_row + part.rows);
            // As much at once as costs little memory.
            for start in (start..end).step_by(ROWS_AT_ONCE) {
                let end = end.min(start + ROWS_AT_ONCE);
                let (mut codes, mut params) = (Vec::new(), Vec::new());
                for row in start..end {
                    self.encoding.pack(matrix, row - first, &mut codes, &mut params);
                }
                let [code_words, param_words] = self.encoding.row_words(self.cols);
                let place = |words| (start - part.first_row) * words..(end - part.first_row) * words;
                device.write(&part.codes.slice(place(code_words)), &codes);
                device.write(&part.params.slice(place(param_words)), &params);
            }
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it has affine codes of four bits.
    pub(crate) fn is_affine4(&self) -> bool {
        matches!(self.encoding, DeviceEncoding::Affine { bits: 4, .. })
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Memory held on the device, in bytes.
    pub fn bytes(&self) -> usize {
        4 * self.parts.iter().map(|part| part.codes.len() + part.params.len()).sum::<usize>()
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What `weights.wgsl` has to know.
    pub(crate) fn constants(&self) -> [(&'static str, u32); 6] {
        self.encoding.constants(self.cols)
    }
}

/// All elements of columns, one column after the other.
pub fn values(columns: &[Matrix<'_>]) -> Vec<f32> {
    let mut values = Vec::new();
    for column in columns {
        for row in 0..column.rows() {
            let mut value = 0.0;
            column.dequantize_row(row, std::array::from_mut(&mut value));
            values.push(value);
        }
    }
    values
}

/// Rows packed before they are handed to the device.
const ROWS_AT_ONCE: usize = 4096;

impl DeviceEncoding {
    /// Appends a row of a matrix.
    pub(crate) fn pack(self, matrix: &Matrix<'_>, row: usize, codes: &mut Vec<u32>, params: &mut Vec<u32>) {
        let [code_words, param_words] = self.row_words(matrix.cols());
        let (code_end, param_end) = (codes.len() + code_words, params.len() + param_words);
        if DeviceEncoding::of(matrix.encoding()) == DeviceEncoding::Float(Float::F32) {
            let mut values = vec![0.0; matrix.cols()];
            matrix.dequantize_row(row, &mut values);
            codes.extend(values.iter().map(|value| value.to_bits()));
        } else {
            let (code_bytes, scales, biases) = matrix.row(row);
            codes.extend(words(code_bytes));
            match self {
                DeviceEncoding::Float(_) => {}
                DeviceEncoding::Affine { params: Float::F32, .. } => {
                    params.extend(words(scales).zip(words(biases)).flat_map(|(scale, bias)| [scale, bias]));
                }
                DeviceEncoding::Affine { .. } => {
                    let pairs = scales.as_chunks::<2>().0.iter().zip(biases.as_chunks::<2>().0);
                    params.extend(pairs.map(|(s, b)| u32::from_le_bytes([s[0], s[1], b[0], b[1]])));
                }
                DeviceEncoding::Mxfp4 => params.extend(words(scales)),
            }
        }
        codes.resize(code_end, 0);
        params.resize(param_end, 0);
    }
}

/// Little-endian words, the last one filled up with zeros.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let (whole, rest) = bytes.as_chunks::<4>();
    let last = (!rest.is_empty()).then(|| {
        let mut word = [0; 4];
        word[..rest.len()].copy_from_slice(rest);
        word
    });
    whole.iter().copied().chain(last).map(u32::from_le_bytes)
}
