//! What the process has in memory, as the system counts it, beside what an offloader may use: tensors come, go and are asked
//! for from several threads, while the budget is lowered and raised and memory is eased. The test is a process of its own, so
//! that nobody else's memory is counted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // In a test an unwrap is a failure with a place.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use memory::{Offloader, OffloaderSettings};

/// Bytes that there may be at most.
const BUDGET: usize = 96 << 20;
/// What the process needs beside tensors: stacks, files that are open, names and where they are.
const BESIDE: usize = 4 << 20;
/// Bytes of the largest tensor.
const LARGEST: usize = 3 << 20;
/// Who come and go at once, each with one tensor in its hands at most.
const CLIENTS: usize = 4;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// A figure of the process in bytes.
fn told(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

/// What the process has had at most since this was asked last.
fn peak() -> usize {
    let peak = told("VmHWM:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak
}

/// The bytes of a tensor: every one of the same length differs from the others.
fn fill(bytes: &mut [u8], number: usize) {
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 + number) as u8);
}

fn is_filled(bytes: &[u8], number: usize) -> bool {
    bytes.iter().enumerate().all(|(at, byte)| *byte == (at * 7 + number) as u8)
}

/// How long a tensor is: most are small, some are large.
fn length(number: usize) -> usize {
    let mut random = Random(number as u64);
    let most = LARGEST >> random.below(8);
    1 + random.below(most)
}

/// Puts tensors away, asks for them, for some ahead, and removes some.
fn client(offloader: &Offloader, seed: usize, acts: usize) {
    const NAMES: usize = 120;
    let mut random = Random(seed as u64);
    let name = |number: usize| format!("{seed}.{number}");
    let mut held = [false; NAMES];
    for _ in 0..acts {
        let number = random.below(NAMES);
        match random.below(8) {
            0..3 if held[number] => {
                let loaded = block_on(offloader.load(&name(number))).unwrap();
                assert!(is_filled(&loaded, number), "tensor {number} of client {seed}");
            }
            3 => held[number] &= !offloader.remove(&name(number)),
            4 => drop(offloader.prefetch([&*name(number), &*name((number + 1) % NAMES)])),
            _ => {
                let mut staging = block_on(offloader.staging(&name(number), length(number))).unwrap();
                fill(&mut staging, number);
                offloader.offload_staged(&name(number), staging);
                held[number] = true;
            }
        }
    }
    assert_eq!(
        (0..NAMES).filter(|number| offloader.remove(&name(*number))).count(),
        held.iter().filter(|held| **held).count()
    );
}

#[test]
fn the_process_has_no_more_in_memory_than_the_budget_allows() {
    let disk = std::env::temp_dir().join(format!("tidegate-resident-{}", std::process::id()));
    let settings = OffloaderSettings {
        memory: BUDGET,
        disk: Some((disk.clone(), 4 << 30)),
        ..OffloaderSettings::default()
    };
    let offloader = Offloader::open(&settings).unwrap();
    // Of the memory for tensors nothing has been touched yet.
    let before = told("VmRSS:");
    let check = |allowed: usize, what: &str| {
        peak();
        thread::scope(|scope| {
            let client = |seed| client(&offloader, seed, 200);
            (0..CLIENTS).for_each(|seed| drop(scope.spawn(move || client(seed))));
        });
        let more = peak().saturating_sub(before);
        let most = allowed + allowed / 20 + BESIDE;
        println!("{what}: {allowed} bytes allowed, {more} more than before at most");
        assert!(more <= most, "{what}: {more} bytes where {most} are bearable");
        more
    };
    let used = check(BUDGET, "all of it");
    assert!(used > BUDGET / 2, "otherwise nothing was shown: {used}");
    offloader.set_memory(BUDGET / 4);
    check(BUDGET / 4, "lowered");
    offloader.set_memory(BUDGET);
    check(BUDGET, "raised");
    drop(offloader);
    std::fs::remove_dir_all(&disk).unwrap();
}
