//! What the system grants this process: processors and memory, as control groups limit them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

/// Processors that this process may use at once.
pub(crate) fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Bytes of memory that can be taken without pushing anything out, or `None` where the system does not say.
pub(crate) fn available_memory() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let free = read(Path::new("/proc/meminfo")).as_deref().and_then(meminfo_available);
    let group = read(Path::new("/proc/self/cgroup")).as_deref().and_then(|text| group_room(text, read));
    free.into_iter().chain(group).min()
}

fn meminfo_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Room below the tightest limit of the control group and its ancestors. Page cache of inactive files counts as room,
/// since the kernel drops it before it refuses anything. `cgroup` is the text of /proc/self/cgroup.
fn group_room(cgroup: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let place = |line: &'_ str| -> Option<(PathBuf, PathBuf, [&'static str; 3])> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, files) = match controllers {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file"]),
            list if list.split(',').any(|name| name == "memory") => (
                "/sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
            ),
            _ => return None,
        };
        Some((PathBuf::from(root), Path::new(root).join(path.trim_start_matches('/')), files))
    };
    let room = |folder: &Path, [limit, usage, inactive]: [&str; 3]| {
        let number = |file: &str| read(&folder.join(file))?.trim().parse::<u64>().ok();
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
        Some(number(limit)?.saturating_sub(number(usage)?.saturating_sub(cache.unwrap_or(0))))
    };
    let rooms = cgroup.lines().filter_map(place).flat_map(|(root, folder, files)| {
        let inside = folder.ancestors().take_while(|path| path.starts_with(&root));
        inside.filter_map(|folder| room(folder, files)).collect::<Vec<_>>()
    });
    rooms.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_system_calls_available() {
        assert_eq!(meminfo_available("MemTotal: 9 kB\nMemAvailable:   24 kB\n"), Some(24 * 1024));
        assert_eq!(meminfo_available("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn room_in_control_groups() {
        let check = |cgroup: &str, files: &[(&str, &str)], expected: Option<u64>| {
            let read = |path: &Path| {
                let found = files.iter().find(|(name, _)| Path::new("/sys/fs/cgroup").join(name) == path);
                found.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(group_room(cgroup, read), expected, "{cgroup}");
        };
        let here = [
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "700\n"),
            ("a/memory.stat", "inactive_file 50\n"),
        ];
        check("0::/a\n", &here, Some(350));
        check("0::/a/b\n", &here, Some(350));
        check("0::/\n", &here, None);
        check("0::/a\n", &[("a/memory.max", "max\n"), ("a/memory.current", "7\n")], None);
        check("0::/a\n", &[("a/memory.max", "5\n"), ("a/memory.current", "7\n")], Some(0));
        let old = [("memory/x/memory.limit_in_bytes", "100"), ("memory/x/memory.usage_in_bytes", "40")];
        check("5:cpu:/x\n4:hugetlb,memory:/x\n", &old, Some(60));
        let nested = [
            ("a/memory.max", "100"),
            ("a/memory.current", "90"),
            ("a/b/memory.max", "60"),
            ("a/b/memory.current", "1"),
        ];
        check("0::/a/b", &nested, Some(10));
    }
}
