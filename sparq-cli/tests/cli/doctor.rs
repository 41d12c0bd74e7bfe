//! `sparq doctor`.

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;

use crate::common::sparq;

#[test]
fn every_backend_is_listed_and_every_device_tested() {
    let output = sparq().args(["doctor", "--json"]).assert().success();
    let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let backends = report["backends"].as_array().unwrap();
    let names: Vec<&str> = backends.iter().map(|backend| backend["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["flex", "ndarray", "wgpu", "libtorch", "libtorch-cuda", "cuda"]);
    for backend in backends {
        let devices = backend["devices"].as_array().unwrap();
        // A backend without a device says what it lacks.
        assert_eq!(devices.is_empty(), backend["hint"].is_string(), "{backend}");
        for device in devices {
            assert_eq!(device["test"]["passed"], true, "{device}");
            assert_eq!(device["info"]["dtypes"][0], "f32", "{device}");
        }
    }
    let flex = &backends[0];
    assert_eq!(flex["devices"][0]["name"], "flex");
}

#[test]
fn the_text_names_devices_and_features() {
    let cuda = contains("rebuild with `--features cuda`").or(contains("cuda (compiled in)"));
    sparq().arg("doctor").assert().success().stdout(contains("flex (compiled in)").and(cuda));
}

#[test]
fn a_largest_tensor_is_respected() {
    sparq()
        .args(["generate", "Once", "-n", "3"])
        .env("SPARQ_LARGEST_TENSOR", "100000")
        .assert()
        .code(1)
        .stderr(contains("100000 bytes in one tensor").and(contains("hint: ")));
}
