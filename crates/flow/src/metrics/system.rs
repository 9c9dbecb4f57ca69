//! What Linux says about this process and about the memory and processors that control groups leave it.
//!
//! Every number is optional, since a system may not say; nothing is cached, and reading everything takes some 100 µs.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clock ticks per second in /proc, which Linux fixes at 100 for programs whatever the kernel uses inside.
const TICKS: u64 = 100;

/// The files in which a system describes itself.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

/// This process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessStatistics {
    /// Bytes of memory in use (RSS).
    pub resident_bytes: Option<u64>,
    /// The most bytes that were ever in use.
    pub peak_resident_bytes: Option<u64>,
    /// Processor time spent in the program.
    pub user_time: Option<Duration>,
    /// Processor time spent in the kernel on its behalf.
    pub system_time: Option<Duration>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors, that of the listing included.
    pub open_files: Option<u64>,
}

/// The memory that this process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryStatistics {
    /// Bytes that the machine has.
    pub total_bytes: Option<u64>,
    /// Bytes that can be taken without pushing anything out, control groups left aside.
    pub available_bytes: Option<u64>,
    /// The control group with the least room, among that of the process and its ancestors.
    pub group: Option<GroupMemory>,
    /// Shares of the time of the last ten seconds that work stood still for lack of memory.
    pub pressure: Option<Stalls>,
}

/// The memory of a control group that has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMemory {
    /// Bytes that the group may use before it is refused more, or is slowed down to give some back (`memory.high`).
    pub limit_bytes: u64,
    /// Bytes that it uses, without the page cache of files that are inactive or that nobody has mapped: the kernel drops that
    /// before it refuses anything, and nobody stands still for it.
    pub used_bytes: u64,
}

impl GroupMemory {
    fn room(self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// Pressure stall information (PSI) of memory: shares of time, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stalls {
    /// At least one task stood still.
    pub some: f64,
    /// All tasks stood still.
    pub full: f64,
}

impl MemoryStatistics {
    /// Bytes that this process may have in all: what the machine has, or what the group may use if that is less.
    pub fn capacity(&self) -> Option<u64> {
        let limit = self.group.map(|group| group.limit_bytes);
        self.total_bytes.into_iter().chain(limit).min()
    }

    /// Bytes that can be taken without pushing anything out.
    pub fn room(&self) -> Option<u64> {
        let room = self.group.map(GroupMemory::room);
        self.available_bytes.into_iter().chain(room).min()
    }

    /// The share of the memory that is used, of the machine's or the group's, whichever is fuller.
    pub fn used_share(&self) -> Option<f64> {
        self.used_share_with(0)
    }

    /// The share that would be used, were so many bytes more taken; above 1 where there are not so many.
    pub fn used_share_with(&self, more: u64) -> Option<f64> {
        let used = |room: u64, all: u64| 1.0 - (room.min(all) as f64 - more as f64) / all.max(1) as f64;
        let machine = self.available_bytes.zip(self.total_bytes).map(|(room, all)| used(room, all));
        let group = self.group.map(|group| used(group.room(), group.limit_bytes));
        machine.into_iter().chain(group).max_by(f64::total_cmp)
    }
}

/// What a version of control groups calls what it says about memory.
struct Names {
    /// Files; the least of the limits counts.
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of `memory.stat`.
    inactive_file: &'static str,
    active_file: &'static str,
    mapped_file: &'static str,
}

const OLD: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    inactive_file: "total_inactive_file",
    active_file: "total_active_file",
    mapped_file: "total_mapped_file",
};

const NEW: Names = Names {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    inactive_file: "inactive_file",
    active_file: "active_file",
    mapped_file: "file_mapped",
};

impl System {
    /// The one that this process runs on.
    pub fn here() -> Self {
        Self::at("/")
    }

    /// One whose /proc and /sys lie under a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// What it says about this process.
    pub fn process(&self) -> ProcessStatistics {
        let status = self.read("proc/self/status").unwrap_or_default();
        let stat = self.read("proc/self/stat").unwrap_or_default();
        // The name of a process may hold spaces and parentheses; what follows the last one is plain.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let time = |field: usize| {
            let ticks: u64 = fields.get(field)?.parse().ok()?;
            Some(Duration::from_millis(ticks * (1000 / TICKS)))
        };
        let files = fs::read_dir(self.root.join("proc/self/fd"));
        ProcessStatistics {
            resident_bytes: kibibytes(&status, "VmRSS:"),
            peak_resident_bytes: kibibytes(&status, "VmHWM:"),
            user_time: time(11),
            system_time: time(12),
            threads: field(&status, "Threads:").and_then(|threads| threads.parse().ok()),
            open_files: files.ok().map(|files| files.count() as u64),
        }
    }

    /// What it says about memory.
    pub fn memory(&self) -> MemoryStatistics {
        let machine = self.read("proc/meminfo").unwrap_or_default();
        let old = self.groups("memory").into_iter().map(|folder| (folder, &OLD));
        let new = self.groups("").into_iter().map(|folder| (folder, &NEW));
        let groups = old.chain(new).filter_map(|(folder, names)| group_memory(&folder, names));
        let own_pressure = self.groups("").first().and_then(|folder| text(&folder.join("memory.pressure")));
        MemoryStatistics {
            total_bytes: kibibytes(&machine, "MemTotal:"),
            available_bytes: kibibytes(&machine, "MemAvailable:"),
            group: groups.min_by_key(|group| group.room()),
            pressure: own_pressure.or_else(|| self.read("proc/pressure/memory")).as_deref().and_then(stalls),
        }
    }

    /// Thousandths of a processor that control groups allow this process at once, or `None` if they set no limit.
    pub fn processor_quota(&self) -> Option<u64> {
        let number = |folder: &Path, file: &str| text(&folder.join(file))?.trim().parse::<u64>().ok();
        let old = self.groups("cpu").into_iter().filter_map(|folder| {
            Some((number(&folder, "cpu.cfs_quota_us")?, number(&folder, "cpu.cfs_period_us")?))
        });
        let new = self.groups("").into_iter().filter_map(|folder| {
            let line = text(&folder.join("cpu.max"))?;
            let (quota, period) = line.trim().split_once(' ')?;
            Some((quota.parse().ok()?, period.parse().ok()?))
        });
        old.chain(new).filter_map(|(quota, period)| quota.checked_mul(1000)?.checked_div(period)).min()
    }

    /// The folders of this process's control group of a controller and of its ancestors, itself first. The controller
    /// "" means the unified hierarchy (version 2).
    fn groups(&self, controller: &str) -> Vec<PathBuf> {
        let cgroup = self.read("proc/self/cgroup").unwrap_or_default();
        let path = cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
        });
        let Some(path) = path else { return Vec::new() };
        let top = self.root.join("sys/fs/cgroup").join(controller);
        let folder = top.join(path);
        folder.ancestors().take_while(|folder| folder.starts_with(&top)).map(Path::to_owned).collect()
    }

    fn read(&self, path: &str) -> Option<String> {
        text(&self.root.join(path))
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What follows a name on its line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn group_memory(folder: &Path, names: &Names) -> Option<GroupMemory> {
    let number = |file: &str| text(&folder.join(file))?.trim().parse::<u64>().ok();
    let stat = text(&folder.join("memory.stat")).unwrap_or_default();
    let said = |name: &str| field(&stat, name).and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    let inactive = said(names.inactive_file);
    let unmapped = (inactive + said(names.active_file)).saturating_sub(said(names.mapped_file));
    let limit_bytes = names.limits.iter().filter_map(|file| number(file)).min()?;
    let usage = number(names.usage)?;
    Some(GroupMemory { limit_bytes, used_bytes: usage.saturating_sub(inactive.max(unmapped)) })
}

fn stalls(pressure: &str) -> Option<Stalls> {
    let share = |kind: &str| {
        let average =
            field(pressure, kind)?.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        Some(average.parse::<f64>().ok()? / 100.0)
    };
    Some(Stalls { some: share("some ")?, full: share("full ").unwrap_or(0.0) })
}
