//! How fast objects go to the rungs below memory and come back: the memory of a device and a folder, beside a copy in memory,
//! in turns within one run.
//!
//! `cargo xtask bench memory rungs` takes the first device that OpenCL has and the folder for temporary files; `-- DEVICE FOLDER`
//! others. Where the device is the processor (PoCL), its rates are what the ladder adds to a copy, and not what a GPU does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use memory::devices::{DeviceChoice, OpenCl};
use memory::files::Folder;
use memory::rung::{Blob, DeviceRung, DiskRung, HostRung, Parcel, Rung, Stop};
use memory::{BufferPool, Key, Residency};

/// Bytes of the objects of a round.
const ROUND: usize = 64 << 20;
const ROUNDS: usize = 9;

/// How long the objects of a round took to go down and to come back.
type Times = [Duration; 2];

fn round(rung: &dyn Rung, pool: &BufferPool, bytes: usize) -> Times {
    let mut content = pool.take(bytes).expect("the pool has room for two objects");
    content.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 + at / 251) as u8);
    let blob = Blob { note: [].into(), bytes: content };
    let mut back = pool.take(bytes).expect("the pool has room for two objects");
    back.fill(0);
    let keys = || (0..ROUND / bytes).map(|number| Key(number as u128));
    let began = Instant::now();
    for key in keys() {
        let kept = rung.keep(&[Parcel::new(key, &blob)]);
        assert!(kept.iter().all(Result::is_ok), "{kept:?}");
    }
    let down = began.elapsed();
    let began = Instant::now();
    for key in keys() {
        rung.fetch(key, &mut back, &Stop::default()).expect("it was kept");
    }
    let up = began.elapsed();
    assert!(back[..] == blob.bytes[..], "what comes back is what was kept");
    keys().for_each(|key| rung.remove(key).expect("it can be removed"));
    [down, up]
}

fn main() {
    // Cargo passes options of its own beside what it was given.
    let mut given = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let device = given.next().unwrap_or_else(|| "0".to_owned());
    let folder = given.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("tidegate-rungs-{}", std::process::id()));
    let pool = BufferPool::new(64 << 20, Residency::Pageable).expect("64 MiB of memory");
    let mut rungs: Vec<Box<dyn Rung>> = vec![Box::new(HostRung::new())];
    let Ok(choice) = device.parse::<DeviceChoice>();
    match OpenCl::open(&choice, ROUND) {
        Ok(device) => rungs.push(Box::new(DeviceRung::new(device))),
        Err(error) => println!("without a device: {error}"),
    }
    let files = Folder::open(&folder, None).expect("a folder for files");
    rungs.push(Box::new(DiskRung::open(files).expect("a folder of its own")));
    println!("GB/s down and up again, medians of {ROUNDS} rounds of 64 MiB in turns");
    for bytes in [64 << 10, 1 << 20, 16 << 20] {
        let mut times = vec![Vec::new(); rungs.len()];
        for _ in 0..ROUNDS {
            rungs.iter().zip(&mut times).for_each(|(rung, times)| times.push(round(&**rung, &pool, bytes)));
        }
        println!("objects of {} KiB", bytes >> 10);
        for (rung, times) in rungs.iter().zip(&times) {
            let rate = |way: usize| {
                let mut took: Vec<Duration> = times.iter().map(|times| times[way]).collect();
                took.sort_unstable();
                ROUND as f64 / 1e9 / took[ROUNDS / 2].as_secs_f64()
            };
            println!("  {:>6.2} {:>6.2}  {}", rate(0), rate(1), rung.place());
        }
    }
    drop(rungs);
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
