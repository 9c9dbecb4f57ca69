//! Every format and colour model against what Pillow and the reference processor's rules make of it.
//!
//! The files of `test_data/formats` were written by `test_data/make_formats.py`. Their sides are whole tokens, so that
//! values are the decoded pixels themselves.

#![allow(clippy::unwrap_used)] // In a test an unwrap is a failure with a place.

use std::path::PathBuf;

use images::{Limits, Recipe, inspect, patches};

const RECIPE: Recipe = Recipe {
    patch_size: 16,
    temporal_patch_size: 2,
    merge_size: 2,
    min_pixels: 32 * 32,
    max_pixels: 1 << 20,
    mean: [0.5; 3],
    std: [0.5; 3],
    rescale: 1.0 / 255.0,
};

/// How many values are off by more than rounding, and by how many levels the worst.
fn check(name: &str, levels: f32) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test_data/formats");
    let prepare = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let header = inspect(&bytes, &Limits::default()).unwrap();
        assert_eq!((header.width, header.height), (64, 32), "{name}");
        patches(&bytes, &RECIPE, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let (found, expected) = (prepare(name), prepare(&format!("{name}.expected.png")));
    assert_eq!(found.grid, expected.grid, "{name}");
    let values = found.values().into_iter().zip(expected.values());
    let worst = values.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) * 127.5;
    assert!(worst <= levels + 0.01, "{name}: off by {worst} levels");
}

#[test]
fn lossless_files_are_exact() {
    for name in ["rgb", "rgba", "grey", "grey_alpha", "one_bit", "palette", "palette_transparent"] {
        check(&format!("{name}.png"), 0.0);
    }
    for name in ["rgb_transparent", "rgb16", "rgba16", "grey16", "turned"] {
        check(&format!("{name}.png"), 0.0);
    }
    for name in ["lossless", "lossless_alpha", "turned", "animated"] {
        check(&format!("{name}.webp"), 0.0);
    }
    for name in ["animated", "transparent", "interlaced"] {
        check(&format!("{name}.gif"), 0.0);
    }
}

#[test]
fn lossy_files_differ_by_the_rounding_of_decoders() {
    for name in ["grey", "full_colour", "baseline", "progressive", "cmyk"] {
        check(&format!("{name}.jpg"), 4.0);
    }
    for orientation in 2..=8 {
        check(&format!("orientation{orientation}.jpg"), 4.0);
    }
    check("lossy.webp", 2.0);
    check("lossy_alpha.webp", 2.0);
}
