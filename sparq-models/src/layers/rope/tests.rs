use super::*;

fn rope(rotary_dim: usize, theta: f64, scaling: RopeScaling) -> Rope {
    Rope::new(&RopeConfig { theta, rotary_dim, scaling })
}

#[test]
fn a_pair_turns_by_its_angle() {
    let device = sparq_core::device::parse("cpu").unwrap();
    let rope = rope(4, 100.0, RopeScaling::None); // frequencies 1 and 0.1
    let x = Tensor::<3>::from_data([[[1.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 0.0]]], &device);
    let y = rope.at(&[0, 3], &[4, 4], &device).apply(x).into_data().try_to_vec::<f32>().unwrap();
    let angle = |a: f32| (a.cos(), a.sin());
    let ((c0, s0), (c1, s1)) = (angle(3.0), angle(0.3));
    let expected = [1.0, 1.0, 0.0, 0.0, c0, c1, s0, s1];
    assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?}");
}

#[test]
fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let (plain, scaled) = (rope(128, 5e5, RopeScaling::None), rope(128, 5e5, scaling));
    let ratio = |i: usize| plain.frequencies[i] / scaled.frequencies[i];
    assert_eq!(ratio(0), 1.0);
    assert!((ratio(63) - 8.0).abs() < 1e-9);
    // The reference implementation's smooth interpolation for a wavelength between the two.
    let i = (0..64).find(|&i| ratio(i) > 1.0 && ratio(i) < 8.0).unwrap();
    let wavelength = TAU / plain.frequencies[i];
    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
    let expected = (1.0 - smooth) * plain.frequencies[i] / 8.0 + smooth * plain.frequencies[i];
    assert!((scaled.frequencies[i] - expected).abs() < 1e-12);
}

#[test]
fn linear_scaling_divides_positions() {
    let (plain, scaled) =
        (rope(8, 1e4, RopeScaling::None), rope(8, 1e4, RopeScaling::Linear { factor: 4.0 }));
    assert!(plain.frequencies.iter().zip(&scaled.frequencies).all(|(p, s)| p / s == 4.0));
}

#[test]
fn components_beyond_the_rotary_ones_pass() {
    let device = sparq_core::device::parse("cpu").unwrap();
    let x = Tensor::<3>::from_data([[[1.0, 0.0, 5.0, 6.0]]], &device);
    let rotation = rope(2, 100.0, RopeScaling::None).at(&[2], &[4], &device);
    let y = rotation.apply(x).into_data().try_to_vec::<f32>().unwrap();
    let expected = [2f32.cos(), 2f32.sin(), 5.0, 6.0];
    assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?}");
}

#[test]
fn longrope_chooses_its_set_by_the_length_of_each_text() {
    let device = sparq_core::device::parse("cpu").unwrap();
    let long = rope(
        4,
        100.0,
        RopeScaling::LongRope {
            short_factor: vec![1.0, 2.0],
            long_factor: vec![4.0, 8.0],
            attention_factor: 1.5,
            original_max_position_embeddings: 10,
        },
    );
    assert_eq!(long.longest_with_short_factors(), Some(10));
    // Two texts in one batch, each with a token at position 3. Plain frequencies 1 and 0.1, divided pair
    // by pair.
    let cosines = long.at(&[3, 3], &[10, 11], &device).cos.into_data().try_to_vec::<f32>().unwrap();
    let expected = [3.0, 0.15, 0.75, 0.0375].map(|angle: f32| 1.5 * angle.cos());
    assert!(cosines.iter().zip(expected).all(|(c, e)| (c - e).abs() < 1e-6), "{cosines:?}");
}
