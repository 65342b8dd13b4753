//! The definition, in plain code: what every other kernel must equal bit for bit.

use super::activations::{FourColumns, GROUP, LOW_BITS, Pair, SUM, TOKENS};
use super::weights::{Block, ByRow, Format, Offset, ROWS};
use crate::dequant::decode_floats;
use crate::encoding::Float;

/// The products of a block's rows with one token.
pub(crate) fn vector(block: &Block<'_>, x: &[Pair], y: &mut [f32; ROWS]) {
    let Format { width, planes, .. } = block.format;
    for (row, y) in y.iter_mut().enumerate() {
        let mut sum = 0.0;
        for span in 0..block.cols / width {
            let first = span * width;
            let (pair, at) = (&x[first / (2 * GROUP)], first % (2 * GROUP));
            let scale = pair.scales[at / GROUP];
            let dot = |codes: &[i8]| -> i32 {
                let columns = (first..).zip(&codes[at..at + width]);
                columns.map(|(col, &x)| i32::from(block.code(row, col)) * i32::from(x)).sum()
            };
            let [high, low] = &pair.codes;
            let low = if planes == 1 { 0 } else { dot(low) };
            let product = (dot(high) << LOW_BITS) + low;
            let code_sum: i32 = pair.sums[planes - 1][at / SUM..(at + width) / SUM].iter().sum();
            match block.format.offset {
                Offset::Biases => {
                    sum = block.scales[span].0[row].mul_add(scale * product as f32, sum);
                    sum = block.biases[span].0[row].mul_add(scale * code_sum as f32, sum);
                }
                Offset::Zero(zero) => {
                    let product = product - zero * code_sum;
                    sum = block.scales[span].0[row].mul_add(scale * product as f32, sum);
                }
            }
        }
        *y = sum;
    }
}

/// `out[i][row] = by_row[row][i]`.
pub(crate) fn transpose(by_row: &[f32], out: &mut [ByRow]) {
    for (row, values) in by_row.chunks_exact(out.len()).enumerate() {
        for (out, &value) in out.iter_mut().zip(values) {
            out.0[row] = value;
        }
    }
}

/// `out[i·repeat..][row]` becomes float `i` of each row.
pub(crate) fn parameters(float: Float, rows: &[&[u8]; ROWS], repeat: usize, out: &mut [ByRow]) {
    let mut values = vec![0.0; out.len() / repeat];
    for (i, row) in rows.iter().enumerate() {
        decode_floats(float, row, &mut values);
        for (out, &value) in out.chunks_exact_mut(repeat).zip(&values) {
            for out in out {
                out.0[i] = value;
            }
        }
    }
}

/// `out[i][token]` becomes the token's columns from `4i` on.
pub(crate) fn regroup(tokens: &[&[i8; GROUP]; TOKENS], out: &mut FourColumns) {
    for (t, codes) in tokens.iter().enumerate() {
        for (out, &codes) in out.iter_mut().zip(codes.as_chunks().0) {
            out[t] = codes;
        }
    }
}
