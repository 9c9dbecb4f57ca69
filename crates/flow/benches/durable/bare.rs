//! The floor: groups of bytes written to a new file, each with its sync, by one thread that does nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Writes groups of these sizes; answers how many items per second that would be.
pub(crate) fn round(path: &Path, groups: &[usize], items: usize) -> f64 {
    let bytes = vec![7; groups.iter().copied().max().unwrap_or(0)];
    let mut file = File::create(path).expect("a file for the bare writes");
    let start = Instant::now();
    for size in groups {
        file.write_all(&bytes[..*size]).and_then(|()| file.sync_data()).expect("bare writes work");
    }
    let took = start.elapsed();
    fs::remove_file(path).expect("the file of the bare writes");
    items as f64 / took.as_secs_f64()
}
