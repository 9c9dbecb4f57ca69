//! Files that mean harm or are broken: each ends in patches or in an error that says why, within bounds, and nothing panics.

#![allow(clippy::unwrap_used)] // In a test an unwrap is a failure with a place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use images::{ImageError, Limits, Recipe, inspect, patches};

const RECIPE: Recipe = Recipe {
    patch_size: 16,
    temporal_patch_size: 2,
    merge_size: 2,
    min_pixels: 32 * 32,
    max_pixels: 1 << 18,
    mean: [0.5; 3],
    std: [0.5; 3],
    rescale: 1.0 / 255.0,
};

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
    max_side: 4096,
    max_decoder_bytes: 16 << 20,
    max_scans: 64,
    max_frames: 8,
};

/// A small generator, so that a seed is a file on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Spoils a file in one of nine ways.
fn spoil(file: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut spoilt = file.to_vec();
    let place = chance.below(file.len());
    match chance.below(9) {
        0 => spoilt.truncate(place),
        1 => spoilt[place] ^= 1 << chance.below(8),
        2 => (0..16).for_each(|_| spoilt[chance.below(file.len())] = chance.next() as u8),
        3 => {
            // The header, where sizes and counts stand.
            let place = chance.below(48).min(file.len() - 1);
            spoilt[place] = [0, 0xff, 0x7f, 0x80][chance.below(4)];
        }
        4 => {
            let end = (place + 4).min(file.len());
            spoilt[place..end].fill(0xff);
        }
        5 => {
            let end = (place + 1 + chance.below(64)).min(file.len());
            spoilt.drain(place..end);
        }
        6 => {
            let end = (place + 1 + chance.below(256)).min(file.len());
            let again = spoilt[place..end].to_vec();
            spoilt.splice(place..place, again);
        }
        7 => spoilt[place..].fill(0),
        _ => {
            let other = chance.below(file.len());
            let length = chance.below(32).min(file.len() - place.max(other));
            spoilt.copy_within(other..other + length, place);
        }
    }
    if spoilt.starts_with(b"\x89PNG") && chance.below(2) == 0 {
        mend_checksums(&mut spoilt);
    }
    spoilt
}

/// Half of the spoilt PNG files have right checksums again, or no damage would come farther than those.
fn mend_checksums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(body) = png.get(at + 4..(at + 8).saturating_add(length)) else { return };
        let checksum = crc32(body).to_be_bytes();
        let end = at + 8 + length;
        let Some(place) = png.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&checksum);
        at = end + 4;
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], &body, &crc32(&body).to_be_bytes()].concat()
}

fn png(width: u32, height: u32, depth: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, 2, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunks.concat(), chunk(b"IEND", b"")].concat()
}

fn samples() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test_data/formats");
    let mut samples: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_str().unwrap().contains("expected"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    samples.sort();
    samples
}

/// The most memory that the process has had, in bytes, where the system tells.
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()? * 1024)
}

#[test]
fn spoilt_files_end_in_patches_or_in_an_error() {
    let samples = samples();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    let before = peak_memory();
    let mut files = 0;
    for seed in 0..1_500 {
        let (name, file) = &samples[seed % samples.len()];
        let mut chance = Chance(seed as u64);
        let mut spoilt = spoil(file, &mut chance);
        (0..chance.below(3)).for_each(|_| spoilt = spoil(&spoilt, &mut chance));
        let header = inspect(&spoilt, &LIMITS);
        let end = match patches(&spoilt, &RECIPE, &LIMITS) {
            Ok(patches) => {
                let header = header.unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}"));
                assert!(header.pixels() <= LIMITS.max_pixels, "{name}, seed {seed}");
                assert!(patches.grid.patches() * 256 <= RECIPE.max_pixels, "{name}, seed {seed}");
                "patches"
            }
            Err(error) => {
                assert!(error.to_string().len() < 400, "{name}, seed {seed}: {error}");
                error.kind()
            }
        };
        *ends.entry(end).or_default() += 1;
        files += 1;
    }
    // What was spoilt harmlessly and what was not both come up, or the test would show nothing.
    assert!(ends["patches"] > files / 10 && ends["malformed"] > files / 10, "{ends:?}");
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        let most = 4 * LIMITS.max_decoder_bytes as usize;
        assert!(after < before + most, "memory rose from {before} to {after}");
    }
}

#[test]
fn every_beginning_of_a_file_ends_in_patches_or_in_an_error() {
    for (name, file) in samples().into_iter().filter(|(_, file)| file.len() < 1_000) {
        for length in 0..file.len() {
            if let Err(error) = patches(&file[..length], &RECIPE, &LIMITS) {
                assert!(!error.to_string().is_empty(), "{name} up to {length}");
            }
        }
    }
}

#[test]
fn files_that_break_off_are_refused() {
    for (name, file) in samples() {
        for quarter in 1..4 {
            let beginning = &file[..file.len() * quarter / 4];
            // Of an animated GIF the first frame may be whole although the file is not.
            let ends = patches(beginning, &RECIPE, &LIMITS);
            assert!(ends.is_err() || name == "animated.gif", "{name}, {quarter} quarters");
        }
    }
}

fn refused(what: &str, file: &[u8], kind: &str, says: &str) {
    let error = patches(file, &RECIPE, &LIMITS).expect_err(what);
    assert_eq!(error.kind(), kind, "{what}: {error}");
    assert!(error.to_string().contains(says), "{what}: '{error}' lacks '{says}'");
    if error.kind() != "malformed" {
        // The limits are checked before anything is decoded.
        assert_eq!(inspect(file, &LIMITS), Err(error), "{what}");
    }
}

#[test]
fn what_is_too_large_is_refused_by_its_header() {
    refused("nothing", b"", "empty", "0 bytes");
    refused("text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown_format", "3c 73 76 67");
    refused(
        "bitmap",
        b"BM\x00\x00\x00\x00\x00\x00\x00\x00",
        "unknown_format",
        "neither PNG, JPEG, WebP nor GIF",
    );
    refused("many bytes", &vec![0; LIMITS.max_bytes + 1], "too_many_bytes", "at most 1048576");
    refused("wide png", &png(100_000, 1, 8, &[]), "sides", "100000x1");
    refused("flat png", &png(0, 10, 8, &[]), "sides", "0x10");
    refused("large png", &png(4_000, 4_000, 8, &[]), "too_many_pixels", "4000x4000");
    refused("giant png", &png(u32::MAX, u32::MAX, 16, &[]), "sides", "4294967295");
    refused("large gif", b"GIF89a\xff\xff\xff\xff\x00\x00\x00\x3b", "sides", "65535x65535");
    let [_, jpeg] = ["cmyk.jpg", "baseline.jpg"].map(|wanted| {
        let (_, file) = samples().into_iter().find(|(name, _)| name == wanted).unwrap();
        file
    });
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let mut large = jpeg.clone();
    large[frame + 5..frame + 9].copy_from_slice(&[0x0f, 0xff, 0x0f, 0xff]);
    refused("large jpeg", &large, "too_many_pixels", "4095x4095");
    let scan = [0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0];
    refused("jpeg of scans", &[&jpeg[..], &scan.repeat(100)].concat(), "too_many_scans", "101 scans");
    refused("half a jpeg", &jpeg[..jpeg.len() - 200], "malformed", "breaks off before its end mark");
    let narrow = png(4_000, 10, 8, &[]);
    assert!(matches!(inspect(&narrow, &LIMITS), Err(ImageError::Malformed { .. })), "a PNG without data");
}

/// Blocks of a deflate stream that repeat zeros: a thousand times as long unpacked as packed.
fn deflated_zeros(bytes: usize) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 16];
    (0..bytes >> 16).for_each(|_| std::io::Write::write_all(&mut packer, &zeros).unwrap());
    packer.finish().unwrap()
}

#[test]
fn bombs_do_not_go_off() {
    let before = peak_memory();
    let zeros = deflated_zeros(128 << 20);
    assert!(zeros.len() < LIMITS.max_bytes, "{} bytes", zeros.len());
    let profile = [b"bomb\0\0".to_vec(), zeros.clone()].concat();
    let row = chunk(b"IDAT", &deflated_zeros(1 << 16));
    let all = chunk(b"IDAT", &zeros);
    // 64 rows of 64 pixels need 12,352 bytes; there are 128 MiB.
    assert!(patches(&png(64, 64, 8, std::slice::from_ref(&all)), &RECIPE, &LIMITS).is_ok());
    for kind in [b"iCCP", b"zTXt"] {
        // What the file says beside the picture is of no interest, whether it can be unpacked or not.
        let bomb = png(64, 64, 8, &[chunk(kind, &profile), row.clone()]);
        let end = patches(&bomb, &RECIPE, &LIMITS);
        assert!(matches!(&end, Ok(_) | Err(ImageError::TooMuchMemory { .. })), "{end:?}");
    }
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        assert!(after < before + (64 << 20), "memory rose from {before} to {after}");
    }
}
