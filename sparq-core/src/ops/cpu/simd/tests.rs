//! Every level against plain arithmetic.

use half::{bf16, f16};

use super::*;

/// Calls `check` with every level that this processor has.
macro_rules! each_level {
    ($s:ident => $check:expr) => {{
        let $s = Portable;
        $check;
        #[cfg(target_arch = "x86_64")]
        {
            match Avx2::detect() {
                Some($s) => $s.run(|| $check),
                None => println!("not run: this processor has no AVX2"),
            }
            match Avx512::detect() {
                Some($s) => $s.run(|| $check),
                None => println!("not run: this processor has no AVX-512"),
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let $s = Neon::new();
            $check;
        }
    }};
}

fn stored<S: Simd>(s: S, v: S::V) -> Lanes {
    let mut lanes = [0.0; LANES];
    s.store(v, &mut lanes);
    lanes
}

fn stored_part<S: Simd>(s: S, v: S::Part) -> S::Values {
    let mut values = bytemuck::Zeroable::zeroed();
    s.store_part(v, &mut values);
    values
}

fn numbers(seed: f32) -> Lanes {
    std::array::from_fn(|i| ((i as f32 + 1.0) * seed).sin() * 3.0)
}

fn arithmetic<S: Simd>(s: S) {
    let (a, b, c) = (numbers(1.3), numbers(2.1), numbers(0.7));
    let [x, y, z] = [a, b, c].map(|v| s.load(&v));
    let each = |f: &dyn Fn(usize) -> f32| -> Lanes { std::array::from_fn(f) };
    assert_eq!(stored(s, s.add(x, y)), each(&|i| a[i] + b[i]));
    assert_eq!(stored(s, s.mul(x, y)), each(&|i| a[i] * b[i]));
    assert_eq!(stored(s, s.div(x, y)), each(&|i| a[i] / b[i]));
    assert_eq!(stored(s, s.max(x, y)), each(&|i| a[i].max(b[i])));
    assert_eq!(stored(s, s.min(x, y)), each(&|i| a[i].min(b[i])));
    assert_eq!(stored(s, s.splat(2.5)), [2.5; LANES]);
    for (i, sum) in stored(s, s.mul_add(x, y, z)).into_iter().enumerate() {
        assert!((sum - (a[i] * b[i] + c[i])).abs() < 2e-6);
    }
    assert!((s.sum(x) - a.iter().sum::<f32>()).abs() < 1e-5);
    for (sum, v) in s.sum4([x, y, z, s.splat(0.5)]).into_iter().zip([a, b, c, [0.5; LANES]]) {
        assert!((sum - v.iter().sum::<f32>()).abs() < 1e-5);
        assert_eq!(sum, s.sum(s.load(&v)), "one order of additions");
    }
    let mut parts = [0.0; LANES];
    let to = bytemuck::cast_slice_mut::<f32, S::Values>(&mut parts);
    let [a_parts, b_parts, c_parts] = [&a, &b, &c].map(|v| bytemuck::cast_slice::<f32, S::Values>(v));
    for (i, to) in to.iter_mut().enumerate() {
        let [x, y, z] = [a_parts, b_parts, c_parts].map(|parts| s.load_part(&parts[i]));
        s.store_part(s.mul_add_part(x, y, z), to);
    }
    assert_eq!(parts, stored(s, s.mul_add(x, y, z)), "parts as whole vectors");
    assert!(bytemuck::bytes_of(&stored_part(s, s.zero_part())).iter().all(|&byte| byte == 0));
    assert_eq!(s.largest(x), a.into_iter().fold(f32::MIN, f32::max));
    let above = (0..LANES).filter(|&i| a[i] > b[i]).fold(0, |bits, i| bits | 1 << i);
    assert_eq!(s.greater(x, y), above);
    assert_eq!(s.greater(s.splat(f32::NAN), y), 0);
    assert_eq!(s.greater_or_nan(x, y), above);
    let mut some = a;
    (some[2], some[LANES - 1]) = (f32::NAN, -f32::NAN);
    assert_eq!(s.greater_or_nan(s.load(&some), y), above | 1 << 2 | 1 << (LANES - 1));
    assert_eq!(s.greater_or_nan(x, s.splat(f32::NAN)), (1 << LANES) - 1);
    let [nan, infinite] = [f32::NAN, f32::INFINITY].map(|x| s.splat(x));
    for v in [s.max(x, nan), s.min(x, nan), s.max(infinite, nan), s.min(infinite, nan)] {
        assert!(stored(s, v).iter().all(|x| x.is_nan()), "the second decides");
    }
    s.prefetch(&a);
}

fn conversions<S: Simd>(s: S) {
    let x = numbers(1.1);
    assert_eq!(stored(s, s.load_f16(&x.map(f16::from_f32))), x.map(|x| f16::from_f32(x).to_f32()));
    assert_eq!(stored(s, s.load_bf16(&x.map(bf16::from_f32))), x.map(|x| bf16::from_f32(x).to_f32()));
    let bytes: [i8; LANES] = std::array::from_fn(|i| (i as i8 - 8) * 15);
    assert_eq!(stored(s, s.load_i8(&bytes)).map(|x| x * I8_UNIT), bytes.map(f32::from));
    let pairs: [u8; LANES / 2] = std::array::from_fn(|i| (2 * i as u8) | (2 * i as u8 + 1) << 4);
    let expected: Lanes = std::array::from_fn(|i| if i < 8 { i as f32 } else { i as f32 - 16.0 });
    assert_eq!(stored(s, s.load_i4(&pairs)).map(|x| x * I4_UNIT), expected);
    let powers: Lanes = std::array::from_fn(|i| [-127.0, -126.0, -3.0, 0.0, 1.0, 127.0][i % 6]);
    let expected = powers.map(|n| if n == -127.0 { 0.0 } else { n.exp2() });
    assert_eq!(stored(s, s.pow2(s.load(&powers))), expected);
}

fn exponentials<S: Simd>(s: S) {
    let mut worst = 0.0f64;
    for step in 0..20_000 {
        let x: Lanes = std::array::from_fn(|i| -87.3 + (step * LANES + i) as f32 * (175.0 / 320_000.0));
        for (x, y) in x.into_iter().zip(stored(s, s.exp(s.load(&x)))) {
            let exact = f64::from(x.min(88.0)).exp();
            worst = worst.max(((f64::from(y) - exact) / exact).abs());
        }
    }
    assert!(worst < 2e-7, "relative error {worst:e}");
    assert_eq!(stored(s, s.exp(s.splat(f32::NEG_INFINITY))), [0.0; LANES]);
    assert_eq!(stored(s, s.exp(s.splat(-100.0))), [0.0; LANES]);
    assert_eq!(stored(s, s.exp(s.splat(0.0))), [1.0; LANES]);
    let mut some = [1.0; LANES];
    (some[3], some[LANES - 2]) = (f32::NAN, -f32::NAN);
    for (x, y) in some.into_iter().zip(stored(s, s.exp(s.load(&some)))) {
        assert_eq!(x.is_nan(), y.is_nan(), "e^{x} = {y}");
    }
}

fn caps<S: Simd>(s: S) {
    for cap in [1.5f32, 50.0, 1e4] {
        for x in [-1e5f32, -60.0, -31.5, -31.0, -3.0, -1e-3, 0.0, 0.2, 0.9, 0.95, 5.0, 49.0, 1e5] {
            let [capped, ..] = stored(s, s.soft_cap(s.splat(x), cap));
            let exact = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
            let error = (f64::from(capped) - exact).abs();
            assert!(error <= 4e-7 * exact.abs(), "{x} under {cap}: {capped}, expected {exact}");
        }
        let [above, ..] = stored(s, s.soft_cap(s.splat(f32::INFINITY), cap));
        assert_eq!(above, cap, "tanh of infinity is one");
        assert!(stored(s, s.soft_cap(s.splat(f32::NAN), cap)).iter().all(|x| x.is_nan()));
    }
    let above = stored(s, s.choose(s.load(&numbers(1.3)), s.splat(0.5), s.splat(1.0), s.splat(2.0)));
    assert_eq!(above, numbers(1.3).map(|x| if x > 0.5 { 1.0 } else { 2.0 }));
}

#[test]
fn every_level_computes_alike() {
    each_level!(s => arithmetic(s));
    each_level!(s => conversions(s));
    each_level!(s => exponentials(s));
    each_level!(s => caps(s));
    println!("kernels run on {}", level());
}
