//! Matrix products in f32 on one thread, from the `gemm` crate, over slices.
#![allow(unsafe_code)]

use gemm::Parallelism;

/// A matrix in a slice: element `(i, j)` lies at `i · row_stride + j · column_stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows behind each other, `row_stride` apart.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// Rows as columns.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn is_inside(&self) -> bool {
        let last = |count: usize, stride: usize| count.checked_sub(1).and_then(|n| n.checked_mul(stride));
        let last =
            last(self.rows, self.row_stride).zip(last(self.columns, self.column_stride)).map(|(i, j)| i + j);
        last.is_some_and(|last| last < self.values.len())
    }
}

/// `out = a · b`, or `out += a · b` where `add` is set; `out: [a.rows, b.columns]` with rows `stride`
/// apart. Nothing happens where a matrix is empty.
///
/// # Panics
/// Where sizes do not fit each other or the slices.
pub(super) fn matmul(out: &mut [f32], stride: usize, add: bool, a: Matrix<'_>, b: Matrix<'_>) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(b.rows == k && n <= stride && (m - 1) * stride + n <= out.len(), "sizes of a matrix product");
    assert!(a.is_inside() && b.is_inside(), "matrices inside of their slices");
    let keep = if add { 1.0 } else { 0.0 };
    // SAFETY: `gemm` touches the elements of the three matrices and no others: those of `a` and `b` lie
    // in their slices and those of `out` in its own, which nothing else refers to, as was just asserted.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_sums_of_products() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 2.0]; // [2, 3]
        let mut out = [7.0; 5];
        let product = Matrix::new(&b, 2, 3, 3).transposed();
        matmul(&mut out, 3, false, Matrix::new(&a, 2, 3, 3), product);
        assert_eq!(out, [7.0, 8.0, 7.0, 16.0, 17.0]);
        matmul(&mut out, 3, true, Matrix::new(&a, 2, 3, 3), product);
        assert_eq!(out, [14.0, 16.0, 7.0, 32.0, 34.0]);
    }

    #[test]
    #[should_panic(expected = "inside of their slices")]
    fn a_matrix_beyond_its_slice_is_refused() {
        matmul(&mut [0.0; 4], 2, false, Matrix::new(&[0.0; 3], 2, 2, 2), Matrix::new(&[0.0; 4], 2, 2, 2));
    }
}
