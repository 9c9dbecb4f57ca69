//! Users' tensors give way while memory is short for everybody, before an allocation fails.

use std::io;

use flow::metrics::System;
use flow::scheduler::{Pressure, Reading, Watermarks};
use memory::Offloader;

use crate::memory_watch::MemoryWatch;

/// Has an offloader heed the memory of the system: from the first mark on, some of its tensors go to the disk with every
/// reading, from the second on half of them; their memory goes back to the system. Once memory is not short any more, it
/// takes it back step by step. It refuses nothing meanwhile that it would take otherwise. Dropping the watch ends that; the
/// offloader then stays as it is.
///
/// # Errors
/// When the system refuses the thread that looks.
pub fn heed(offloader: &Offloader, marks: Watermarks) -> io::Result<MemoryWatch> {
    heed_of(System::here(), offloader, marks)
}

fn heed_of(system: System, offloader: &Offloader, marks: Watermarks) -> io::Result<MemoryWatch> {
    let offloader = offloader.clone();
    let mut judge = Judge::new(marks, offloader.stats().host_budget);
    MemoryWatch::of(system, marks.every, move |reading| {
        if let Some(bytes) = judge.observe(reading, offloader.stats().host_used) {
            tracing::debug!(used = reading.used, stalled = reading.stalled, bytes, "memory for tensors");
            offloader.ease(bytes);
        }
    })
}

/// Decides how much memory an offloader uses. Pure: it is told readings and answers.
struct Judge {
    marks: Watermarks,
    pressure: Pressure,
    /// What it may use while memory is not short.
    most: usize,
    allowed: usize,
}

/// In so many steps it takes back what it has given.
const STEPS: usize = 8;

impl Judge {
    fn new(marks: Watermarks, most: usize) -> Self {
        Self { marks, pressure: Pressure::None, most, allowed: most }
    }

    /// The bytes that are allowed after a reading, given those in use; none where that is to be left as it is.
    fn observe(&mut self, reading: Reading, used: usize) -> Option<usize> {
        self.pressure = self.marks.judge(self.pressure, reading);
        let (before, step) = (self.allowed, self.most.div_ceil(STEPS));
        let now = used.min(before);
        self.allowed = match self.pressure {
            Pressure::None => (before + step).min(self.most),
            Pressure::Soft => now.saturating_sub(step),
            Pressure::Hard => now / 2,
        };
        match self.pressure {
            // Its budget may have been changed meanwhile: whatever it is, all of it.
            Pressure::None if self.allowed == self.most => (before != self.most).then_some(usize::MAX),
            // While it is short, what has been let in since goes again.
            _ => Some(self.allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;
    use std::{fs, thread};

    use futures::executor::block_on;
    use memory::OffloaderSettings;

    use super::*;

    #[test]
    fn tensors_give_way_step_by_step_and_come_back() {
        let mut judge = Judge::new(Watermarks::default(), 800);
        let mut check = |share: f64, used: usize, expected: Option<usize>| {
            assert_eq!(
                judge.observe(Reading { used: share, stalled: 0.0 }, used),
                expected,
                "{share} {used}"
            );
        };
        check(0.5, 700, None);
        check(0.8, 700, Some(600));
        check(0.79, 600, Some(500));
        check(0.95, 500, Some(250));
        check(0.95, 100, Some(50));
        check(0.8, 40, Some(0));
        check(0.8, 0, Some(0));
        check(0.5, 0, Some(100));
        (2..8).for_each(|step| check(0.5, 0, Some(step * 100)));
        check(0.5, 0, Some(usize::MAX));
        check(0.5, 0, None);
        check(0.1, 800, None);
    }

    /// A machine of 1000 kB, of which so many are available.
    fn machine(root: &Path, available: u64) {
        fs::create_dir_all(root.join("proc")).unwrap();
        let said = format!("MemTotal: 1000 kB\nMemAvailable: {available} kB\n");
        // As a whole: the watch reads it at any time.
        fs::write(root.join("next"), said).unwrap();
        fs::rename(root.join("next"), root.join("proc/meminfo")).unwrap();
    }

    #[test]
    fn an_offloader_heeds_the_memory_of_the_system() {
        let root = std::env::temp_dir().join(format!("tidegate-heed-{}", std::process::id()));
        machine(&root, 500);
        let settings = OffloaderSettings {
            memory: 8 << 20,
            disk: Some((root.join("disk"), 64 << 20)),
            ..OffloaderSettings::default()
        };
        let offloader = Offloader::open(&settings).unwrap();
        let tensor = |number: u8| vec![number; 1 << 20];
        for number in 0..6 {
            block_on(offloader.offload(&number.to_string(), &tensor(number))).unwrap();
        }
        let marks = Watermarks { every: Duration::from_millis(1), ..Watermarks::default() };
        let watch = heed_of(System::at(&root), &offloader, marks).unwrap();
        let until = |is: &dyn Fn() -> bool| {
            while !is() {
                thread::yield_now();
            }
        };
        machine(&root, 150);
        until(&|| offloader.stats().host_used == 0);
        for number in 0..6 {
            let loaded = block_on(offloader.load(&number.to_string())).unwrap();
            assert_eq!(loaded[..], tensor(number), "what is asked for is let in");
        }
        block_on(offloader.offload("late", &tensor(9))).unwrap();
        until(&|| offloader.stats().host_used == 0);
        machine(&root, 500);
        until(&|| offloader.stats().host_budget == 8 << 20);
        drop(watch);
        assert_eq!(block_on(offloader.load("late")).unwrap()[..], tensor(9));
        drop(offloader);
        fs::remove_dir_all(&root).unwrap();
    }
}
