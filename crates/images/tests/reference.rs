//! Sizes, grids and values as the reference processor recorded them, bit for bit.
//!
//! `test_data/qwen3-vl-tiny` holds the pictures and clips, what they were resized to, and a hash of the reference's values.

#![allow(clippy::unwrap_used)] // In a test an unwrap is a failure with a place.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use images::{
    Clip, ClipRecipe, Format, Frames, Grid, Header, Limits, Patches, Recipe, clip, clip_outline, grid,
    inspect, patches,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test_data/qwen3-vl-tiny")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn expected() -> Value {
    serde_json::from_slice(&read("expected.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

fn as_grid(value: &Value) -> Grid {
    let numbers = numbers(value);
    Grid { t: numbers[0], h: numbers[1], w: numbers[2] }
}

fn sha256(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Sha256::digest(&bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Levels of the resized frames, taken from their pictures in the order of values.
fn levels(name: &str, grid: Grid, recipe: &Recipe) -> Vec<u8> {
    let strip = image::load_from_memory(&read(&format!("{name}.resized.png"))).unwrap().into_rgb8();
    let (side, merge, together) = (recipe.patch_size, recipe.merge_size, recipe.temporal_patch_size);
    let still = strip.height() as usize == grid.h * side;
    let mut levels = Vec::new();
    for row in 0..grid.patches() {
        let (step, place) = (row / (grid.h * grid.w), row % (grid.h * grid.w));
        let (token, inner) = (place / (merge * merge), place % (merge * merge));
        let down = token / (grid.w / merge) * merge + inner / merge;
        let along = token % (grid.w / merge) * merge + inner % merge;
        for (channel, frame, y, x) in (0..3 * together * side * side)
            .map(|n| (n / (together * side * side), n / (side * side) % together, n / side % side, n % side))
        {
            let top = if still { 0 } else { (step * together + frame) * grid.h * side };
            let pixel = strip.get_pixel((along * side + x) as u32, (top + down * side + y) as u32);
            levels.push(pixel[channel]);
        }
    }
    levels
}

/// How many values are off, and by how many levels at most.
fn differences(patches: &Patches, levels: &[u8]) -> (usize, f32) {
    assert_eq!(patches.values().len(), levels.len());
    let off = |(value, level): (&f32, &u8)| (value * 127.5 + 127.5 - f32::from(*level)).abs();
    let off: Vec<f32> = patches.values().iter().zip(levels).map(off).filter(|off| *off > 0.01).collect();
    (off.len(), off.into_iter().fold(0.0, f32::max))
}

/// The decoded form of a turned photograph is recorded as it is stored; it is turned here.
fn upright(png: Vec<u8>, width: u32) -> Vec<u8> {
    let picture = image::load_from_memory(&png).unwrap();
    if picture.width() == width {
        return png;
    }
    let mut turned = std::io::Cursor::new(Vec::new());
    picture.rotate90().write_to(&mut turned, image::ImageFormat::Png).unwrap();
    turned.into_inner()
}

#[test]
fn pictures_become_the_values_of_the_reference() {
    let expected = expected();
    let recipe = Recipe::from_json(&expected["recipe"]).unwrap();
    let limits = Limits::default();
    for (name, case) in expected["images"].as_object().unwrap() {
        // The decoded form leaves the JPEG decoder out: two of them may differ by rounding.
        let file = case["decoded"].as_str().unwrap_or(case["file"].as_str().unwrap());
        let size = numbers(&case["width_height"]);
        let bytes = upright(read(file), size[0] as u32);
        let patches = patches(&bytes, &recipe, &limits).unwrap();
        let header = inspect(&bytes, &limits).unwrap();
        assert_eq!((header.width as usize, header.height as usize), (size[0], size[1]), "{name}");
        assert_eq!(patches.grid, as_grid(&case["grid_thw"]), "{name}");
        assert_eq!(grid(&header, &recipe).unwrap(), patches.grid, "{name}");
        let found = differences(&patches, &levels(name, patches.grid, &recipe));
        assert_eq!(found, (0, 0.0), "{name}: values that are off, and by how many levels");
        assert_eq!(sha256(&patches.values()), case["values_sha256"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn photographs_are_decoded_like_the_reference_decodes_them() {
    let expected = expected();
    let recipe = Recipe::from_json(&expected["recipe"]).unwrap();
    let limits = Limits::default();
    let photographs = ["large_300x221", "photo_60x91", "exif6_60x100"];
    for name in photographs {
        let case = &expected["images"][name];
        let bytes = read(case["file"].as_str().unwrap());
        let size = numbers(&case["width_height"]);
        let header = Header { format: Format::Jpeg, width: size[0] as u32, height: size[1] as u32 };
        assert_eq!(inspect(&bytes, &limits).unwrap(), header, "{name}");
        let patches = patches(&bytes, &recipe, &limits).unwrap();
        assert_eq!(patches.grid, as_grid(&case["grid_thw"]), "{name}");
        let (off, by) = differences(&patches, &levels(name, patches.grid, &recipe));
        // The colours of a JPEG are interpolated; the two decoders round that differently.
        assert!(by < 2.01 && off * 10 < patches.values().len(), "{name}: {off} off, by up to {by} levels");
    }
}

#[test]
fn clips_become_the_values_of_the_reference() {
    let expected = expected();
    let recipe = ClipRecipe::from_json(&expected["clip_recipe"]).unwrap();
    let limits = Limits::default();
    for (name, case) in expected["clips"].as_object().unwrap() {
        let strip = image::load_from_memory(&read(case["file"].as_str().unwrap())).unwrap();
        let size = numbers(&case["width_height"]);
        let (width, height) = (size[0] as u32, size[1] as u32);
        let frame = |number: u32| -> Arc<[u8]> {
            let mut png = std::io::Cursor::new(Vec::new());
            let frame = strip.crop_imm(0, number * height, width, height);
            frame.write_to(&mut png, image::ImageFormat::Png).unwrap();
            png.into_inner().into()
        };
        let frames: Vec<_> = (0..case["frames"].as_u64().unwrap() as u32).map(frame).collect();
        let fps = case["fps"].as_f64().unwrap();
        let frames = match case["sampled"].as_bool().unwrap() {
            true => Frames::Recorded { frames, fps },
            false => Frames::Chosen { frames, fps },
        };
        let Clip { patches, seconds } = clip(&frames, &recipe, &limits).unwrap();
        assert_eq!(patches.grid, as_grid(&case["grid_thw"]), "{name}");
        let outline = clip_outline(&frames, &recipe, &limits).unwrap();
        let told = (outline.grid, outline.seconds, outline.hash);
        assert_eq!(told, (patches.grid, seconds.clone(), patches.hash), "{name}");
        let times: Vec<f64> =
            case["seconds"].as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect();
        assert_eq!(seconds, times, "{name}");
        let found = differences(&patches, &levels(name, patches.grid, &recipe.frame));
        assert_eq!(found, (0, 0.0), "{name}: values that are off, and by how many levels");
        assert_eq!(sha256(&patches.values()), case["values_sha256"].as_str().unwrap(), "{name}");
    }
}
