//! Systems that lie in `test_data/system`, and the one that runs the tests.

use std::path::Path;
use std::time::Duration;

use super::{GroupMemory, MemoryStatistics, ProcessStatistics, Stalls, System};

fn recorded(name: &str) -> System {
    System::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/system").join(name))
}

#[test]
fn a_process_describes_itself() {
    let expected = ProcessStatistics {
        resident_bytes: Some(1600 * 1024),
        peak_resident_bytes: Some(4096 * 1024),
        user_time: Some(Duration::from_millis(12_340)),
        system_time: Some(Duration::from_millis(300)),
        threads: Some(17),
        open_files: Some(3),
    };
    assert_eq!(recorded("v1").process(), expected);
    assert_eq!(recorded("v2").process(), expected);
}

#[test]
fn memory_under_control_groups() {
    let check = |name: &str, group: Option<GroupMemory>, pressure: Option<Stalls>| {
        let expected = MemoryStatistics {
            total_bytes: Some(16_000_000 * 1024),
            available_bytes: Some(12_000_000 * 1024),
            group,
            pressure,
        };
        let memory = recorded(name).memory();
        assert_eq!(memory, expected, "{name}");
        memory
    };
    // Of 700 MB of files nobody has mapped 500.
    let group = GroupMemory { limit_bytes: 2_000_000_000, used_bytes: 400_000_000 };
    let old = check("v1", Some(group), Some(Stalls { some: 0.025, full: 0.0125 }));
    assert_eq!((old.capacity(), old.room()), (Some(2_000_000_000), Some(1_600_000_000)));
    assert_eq!((old.used_share(), old.used_share_with(1_000_000_000)), (Some(0.25), Some(0.7)));
    assert_eq!(old.used_share_with(2_000_000_000), Some(1.2));
    let group = GroupMemory { limit_bytes: 4_000_000_000, used_bytes: 3_800_000_000 };
    let new = check("v2", Some(group), Some(Stalls { some: 0.5, full: 0.0 }));
    assert_eq!((new.capacity(), new.room()), (Some(4_000_000_000), Some(200_000_000)));
    assert!((new.used_share().unwrap() - 0.95).abs() < 1e-9);
    // A group that is slowed down at 3.2 GB may not use the 4 GB of its limit.
    let group = GroupMemory { limit_bytes: 3_200_000_000, used_bytes: 3_000_000_000 };
    check("v2_high", Some(group), None);
    let free = MemoryStatistics { group: None, ..new };
    assert_eq!((free.capacity(), free.room()), (free.total_bytes, free.available_bytes));
    assert_eq!(free.used_share(), Some(0.25));
}

#[test]
fn a_group_that_uses_more_than_it_may_has_no_room() {
    let group = GroupMemory { limit_bytes: 5, used_bytes: 7 };
    let memory = MemoryStatistics { group: Some(group), ..MemoryStatistics::default() };
    assert_eq!((memory.room(), memory.used_share()), (Some(0), Some(1.0)));
}

#[test]
fn processors_under_control_groups() {
    assert_eq!(recorded("v1").processor_quota(), Some(1500));
    assert_eq!(recorded("v2").processor_quota(), Some(4000));
}

#[test]
fn a_system_that_says_nothing() {
    let silent = recorded("none");
    assert_eq!(silent.process(), ProcessStatistics::default());
    assert_eq!(silent.memory(), MemoryStatistics::default());
    assert_eq!((silent.memory().room(), silent.memory().used_share()), (None, None));
    assert_eq!(silent.processor_quota(), None);
}

#[cfg(target_os = "linux")]
#[test]
fn this_system_says_something_plausible() {
    let (process, memory) = (System::here().process(), System::here().memory());
    assert!(process.resident_bytes.unwrap() <= process.peak_resident_bytes.unwrap());
    assert!(process.threads.unwrap() > 0 && process.open_files.unwrap() > 0);
    assert!(memory.room().unwrap() > 0 && memory.capacity().unwrap() > 1 << 20);
    assert!((0.0..=1.0).contains(&memory.used_share().unwrap()));
}
