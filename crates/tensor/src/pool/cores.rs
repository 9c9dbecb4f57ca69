//! Groups of processors, and threads that stay on them.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

/// Processors by the numbers that the system has for them; none means all that it grants. Cheap to clone.
///
/// Written as Linux writes them: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores(Arc<[usize]>);

/// A list of processors that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is no list of processors; expected numbers below {MOST} and ranges, such as 0-3,8")]
pub struct CoresError {
    /// What was written.
    pub found: String,
}

/// Linux takes no higher number without being asked for how many it has.
const MOST: usize = 1024;

impl Cores {
    /// These processors.
    pub fn new(mut cores: Vec<usize>) -> Self {
        cores.sort_unstable();
        cores.dedup();
        Self(cores.into())
    }

    /// Their numbers, ascending.
    pub fn numbers(&self) -> &[usize] {
        &self.0
    }

    /// Keeps the calling thread, and those that it starts from now on, on these processors. Without any, it stays where it
    /// may be.
    ///
    /// # Errors
    /// When the system does not let it be there; the thread then stays where it may be.
    pub fn enter(&self) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        // SAFETY: a set of processors is numbers, of which zeros are an empty one.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for &core in self.0.iter().filter(|core| **core < MOST) {
            // SAFETY: the set has room for the numbers below `MOST`, and is ours alone.
            unsafe { libc::CPU_SET(core, &mut set) };
        }
        // SAFETY: the set is whole, is only read, and its size is told; 0 is the calling thread.
        match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Self, CoresError> {
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST);
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => {
                Some(number(first)?..=number(last)?).filter(|range| range.start() <= range.end())
            }
            None => number(part).map(|one| one..=one),
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let ranges = ranges.ok_or_else(|| CoresError { found: text.to_owned() })?;
        Ok(Self::new(ranges.into_iter().flatten().collect()))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &*self.0;
        while let Some(first) = rest.first() {
            let run = rest.iter().zip(*first..).take_while(|(core, expected)| *core == expected).count();
            let comma = if run == rest.len() { "" } else { "," };
            match run {
                1 => write!(f, "{first}{comma}")?,
                _ => write!(f, "{first}-{}{comma}", rest[run - 1])?,
            }
            rest = &rest[run..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_system_does() {
        let check = |text: &str, numbers: &[usize], written: &str| {
            let cores: Cores = text.parse().unwrap();
            assert_eq!((cores.numbers(), cores.to_string().as_str()), (numbers, written));
        };
        check("0-3,8", &[0, 1, 2, 3, 8], "0-3,8");
        check("5, 4,4", &[4, 5], "4-5");
        check("7\n", &[7], "7");
        for wrong in ["", "a", "3-1", "1-", "-1", "1024", "0-99999999999"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong}");
        }
        assert_eq!(Cores::default().to_string(), "");
    }

    #[test]
    fn a_thread_stays_on_its_processors() {
        let allowed = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
            list.trim().parse::<Cores>().unwrap()
        };
        let first = Cores::new(vec![allowed().numbers()[0]]);
        let entered = std::thread::spawn({
            let first = first.clone();
            move || first.enter().map(|()| allowed()).unwrap()
        });
        assert_eq!(entered.join().unwrap(), first);
    }
}
