//! Traces of uses: made up from seeds, and read from files.

use std::collections::HashMap;
use std::path::Path;

use memory::Key;
use memory::replay::Use;
use serde_json::Value;

/// Uses of each made-up trace.
const USES: usize = 200_000;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A use of an object whose length follows from its number: 4 KiB to 256 KiB, most of them short.
fn used(number: usize) -> Use {
    let drawn = Random(number as u64).next();
    let bytes = 4096 << (drawn % 7).min(drawn / 7 % 7);
    Use { key: Key(number as u128), bytes }
}

/// A hot set of a thousand objects, and between its uses scans of 2,000 others that never come back.
pub(crate) fn scans() -> Vec<Use> {
    let mut random = Random(1);
    let mut uses = Vec::with_capacity(USES);
    let mut fresh = 1_000_000;
    while uses.len() < USES {
        uses.extend((0..8000).map(|_| used(random.below(1000))));
        uses.extend((fresh..fresh + 2000).map(used));
        fresh += 2000;
    }
    uses
}

/// Round after round through the same objects, all of one length as layers of a model are; now and then one is left out.
pub(crate) fn rounds() -> Vec<Use> {
    let mut random = Random(2);
    let round = (0..5000).cycle().filter(|_| random.below(50) > 0);
    round.take(USES).map(|number| Use { key: Key(number), bytes: 64 << 10 }).collect()
}

/// Objects of which the n-th is used n^-0.9 as often as the first; what is popular changes four times.
pub(crate) fn zipf() -> Vec<Use> {
    const OBJECTS: usize = 20_000;
    let mut sums = Vec::with_capacity(OBJECTS);
    let mut sum = 0.0;
    for rank in 1..=OBJECTS {
        sum += (rank as f64).powf(-0.9);
        sums.push(sum);
    }
    let mut random = Random(3);
    let draw = |at: usize| {
        let rank = sums.partition_point(|upto| *upto < random.share() * sum);
        // Another part of the objects is popular in each quarter, and half of them stay.
        used((rank + at * 4 / USES * OBJECTS / 8 * (rank % 2)) % OBJECTS)
    };
    (0..USES).map(draw).collect()
}

/// The uses in a recorded trace, one JSON object a line; lines that say something else are passed over.
pub(crate) fn recorded(path: &Path) -> Result<Vec<Use>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut numbers = HashMap::new();
    let used = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let count = numbers.len();
        let number = *numbers.entry(line["object"].as_u64()?).or_insert(count);
        Some(Use { key: Key(number as u128), bytes: usize::try_from(line["bytes"].as_u64()?).ok()? })
    };
    let uses: Vec<Use> = text.lines().filter_map(used).collect();
    if uses.is_empty() { Err("no use of a page stands in it".to_owned()) } else { Ok(uses) }
}
