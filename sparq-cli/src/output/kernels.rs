//! Which operations ran as kernels, for `--verbose`.

use std::fmt::Write;

use sparq_models::core::ops::ran::{By, Ran};

/// A line per operation for standard error, the last without its line break.
pub(crate) fn kernels(all: &[Ran]) -> String {
    let mut text = String::new();
    for Ran { op, device, by, count } in all {
        // Writing to a String cannot fail.
        let _ = match by {
            By::Kernel => writeln!(text, "kernel     {op:22} {count} times on {device}"),
            By::Definition(reason) => {
                writeln!(text, "no kernel  {op:22} {count} times on {device}: {reason}")
            }
        };
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use sparq_models::core::ops::ran::Op;

    use super::*;

    #[test]
    fn an_operation_without_a_kernel_says_why() {
        let ran = |op, by, count| Ran { op, device: "flex".into(), by, count };
        let text = kernels(&[
            ran(Op::DecodeSparq, By::Kernel, 630),
            ran(Op::Prefill, By::Definition("it is Monday"), 2),
        ]);
        assert_eq!(
            text,
            "kernel     decode_sparq           630 times on flex\n\
             no kernel  prefill                2 times on flex: it is Monday"
        );
    }
}
