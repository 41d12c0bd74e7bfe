//! `sparq verify` on the reference Llama.

use crate::common::{reference_llama, sparq};
use predicates::str::contains;

#[test]
fn every_method_agrees() {
    let assert = sparq().arg("verify").arg("-m").arg(reference_llama()).assert().success();
    let out = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let line = |name: &str| {
        out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {out}"))
    };
    assert!(line("dense.logits").contains("greedy 25/25  ok"), "{out}");
    for name in [
        "dense.decode_logits",
        "sparq_k16_l4_r4_mean.decode_logits",
        "sparq_k16_l4_r8_nomean.decode_logits",
        "sparq_k32_l8_r16_mean.decode_logits",
        "exact_topk_k16.decode_logits",
        "local_k24_i4.decode_logits",
        "h2o_k24_l6.decode_logits",
    ] {
        assert!(line(name).contains("greedy 24/24  ok"), "{out}");
    }
}

#[test]
fn a_difference_above_the_tolerance_fails() {
    sparq()
        .args(["verify", "--tolerance", "0", "-m"])
        .arg(reference_llama())
        .assert()
        .code(1)
        .stdout(contains("FAILED"))
        .stderr("");
    sparq()
        .args(["verify", "--tolerance=-1", "-m"])
        .arg(reference_llama())
        .assert()
        .code(1)
        .stderr(contains("tolerance"));
}
