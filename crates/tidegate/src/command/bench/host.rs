//! What the machine says about itself: memory of this process, and how much others computed meanwhile.

use std::fs;
use std::time::Duration;

use flow::metrics::System;

/// Clock ticks per second in /proc, which Linux fixes at 100 for programs whatever the kernel uses inside.
const TICKS: f64 = 100.0;

/// Memory of this process, in MiB, as the peers' scripts print it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
    /// Resident when the model had been loaded.
    pub(super) after_load: u64,
}

impl Memory {
    pub(super) fn now() -> Self {
        let process = System::here().process();
        let mib = |bytes: Option<u64>| (bytes.unwrap_or(0) + (1 << 19)) >> 20;
        Self { resident: mib(process.resident_bytes), peak: mib(process.peak_resident_bytes), after_load: 0 }
    }
}

/// Processor time used so far, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Busy {
    everyone: f64,
    stolen: f64,
    own: f64,
}

/// Cores that were kept busy by someone else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Others {
    /// By other processes.
    pub(super) cores: f64,
    /// By other machines on the same host.
    pub(super) stolen: f64,
}

impl Busy {
    pub(super) fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/stat"), &read("/proc/self/stat"))
    }

    fn parse(stat: &str, own: &str) -> Self {
        let all: Vec<f64> = numbers(stat.lines().next().unwrap_or_default().trim_start_matches("cpu"));
        // The name of a process may hold spaces and parentheses; what follows the last one is plain.
        let own: Vec<f64> = numbers(own.rsplit(')').next().unwrap_or_default());
        let sum = |numbers: &[f64], at: &[usize]| {
            at.iter().filter_map(|index| numbers.get(*index)).sum::<f64>() / TICKS
        };
        Self { everyone: sum(&all, &[0, 1, 2, 5, 6]), stolen: sum(&all, &[7]), own: sum(&own, &[11, 12]) }
    }

    /// What others used from then until now.
    pub(super) fn others_until_now(self, wall: Duration) -> Others {
        self.others_until(Self::now(), wall)
    }

    fn others_until(self, now: Self, wall: Duration) -> Others {
        let share = |seconds: f64| (seconds / wall.as_secs_f64().max(1e-9)).max(0.0);
        Others {
            cores: share((now.everyone - self.everyone) - (now.own - self.own)),
            stolen: share(now.stolen - self.stolen),
        }
    }
}

/// Words that are no numbers count as zero, so that places stay what they are.
fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect()
}

/// Processes that wanted to run, over the last minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    numbers(&text).first().copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_others_used() {
        let stat = |user: u64| format!("cpu  {user} 100 100 9999 9999 0 0 50 0 0\ncpu0 1 1 1\n");
        let own = |user: u64| format!("7 (a (b) c) S 1 1 1 0 -1 4 5 0 6 0 {user} 30 0 0 20 0\n");
        let before = Busy::parse(&stat(100), &own(0));
        assert_eq!(before, Busy { everyone: 3.0, stolen: 0.5, own: 0.3 });
        let others = before.others_until(Busy::parse(&stat(500), &own(100)), Duration::from_secs(2));
        assert!((others.cores - 1.5).abs() < 1e-9 && others.stolen == 0.0, "{others:?}");
    }
}
