//! Operations side by side on groups of processors, each of which has a thread of its own.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use tensor::Cores;
use tokio::sync::oneshot;

use crate::OpenError;
use crate::open::groups;
use crate::settings::DeviceLayout;

/// Lanes on which operations run: each is a thread that stays on its group of processors. Operations enter in the order in
/// which they come, on the lane that is next in turn, of those that are free. Clones are the same lanes.
///
/// They bound what runs at once and keep operations out of each other's processors; they are not for work that waits, which
/// holds its lane meanwhile.
#[derive(Clone, Debug)]
pub struct Lanes {
    turns: flow::Lanes,
    threads: Arc<[Sender<Job>]>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Why there are no lanes, or an operation has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// The processors cannot be divided so.
    #[error(transparent)]
    Layout(#[from] OpenError),
    /// The system refuses a thread.
    #[error("the system refuses a thread for a lane: {0}")]
    Thread(#[from] io::Error),
    /// The operation has panicked; its lane goes on with the next.
    #[error("an operation on a lane has panicked: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
}

impl Lanes {
    /// So many lanes, each on a group of processors of its own. If there are more of them than processors, each goes wherever
    /// the system puts it.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(count: NonZeroUsize) -> Result<Self, LaneError> {
        match groups(&DeviceLayout::Groups(count)) {
            Ok(groups) => Self::of(groups),
            Err(_) => Self::of(vec![Cores::default(); count.get()]),
        }
    }

    /// A lane for each group of processors of a layout, as written for `--devices`: `2`, `numa`, or `0-3/4-7`.
    ///
    /// # Errors
    /// When the machine has no such processors, or the system refuses a thread.
    pub fn on(layout: &DeviceLayout) -> Result<Self, LaneError> {
        Self::of(groups(layout)?)
    }

    /// There is at least one group.
    fn of(groups: Vec<Cores>) -> Result<Self, LaneError> {
        let count = NonZeroUsize::new(groups.len()).unwrap_or(NonZeroUsize::MIN);
        let start = |(number, cores): (usize, Cores)| {
            let (jobs, inbox) = mpsc::channel::<Job>();
            let body = move || {
                if let Err(error) = cores.enter() {
                    tracing::warn!(lane = number, %cores, %error, "a thread may not stay on these processors");
                }
                inbox.into_iter().for_each(|job| job());
            };
            let thread = thread::Builder::new().name(format!("tidegate-lane-{number}")).spawn(body);
            thread.map(|_| jobs)
        };
        let threads = groups.into_iter().enumerate().map(start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { turns: flow::Lanes::new(count), threads: threads.into() })
    }

    /// How many operations run at once.
    pub fn count(&self) -> usize {
        self.turns.count()
    }

    /// How many more could run now.
    pub fn free(&self) -> usize {
        self.turns.free()
    }

    /// Runs an operation on the lane whose number it is given, once one is free. Dropping the future before that forgets the
    /// operation; what runs is run to its end, and keeps its lane until then.
    ///
    /// # Errors
    /// When the operation panics.
    pub async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(usize) -> T + Send + 'static,
    ) -> Result<T, LaneError> {
        let permit = self.turns.enter().await;
        let (told, outcome) = oneshot::channel();
        let lane = permit.lane();
        let job = move || {
            let done = catch_unwind(AssertUnwindSafe(|| operation(lane)));
            // Free before anybody hears of the result, so that whoever does can enter again.
            drop(permit);
            // Whoever asked may have gone away.
            let _ = told.send(done);
        };
        let sent = self.threads[lane].send(Box::new(job));
        let gone = || LaneError::Panicked { message: "its thread has ended".to_owned() };
        sent.map_err(|_| gone())?;
        let done = outcome.await.map_err(|_| gone())?;
        done.map_err(|panic| LaneError::Panicked { message: message(&*panic) })
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Barrier;

    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;

    /// The processors that the calling thread may be on.
    fn allowed() -> Cores {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        list.trim().parse().unwrap()
    }

    fn lanes_of(count: usize) -> Lanes {
        Lanes::new(NonZeroUsize::new(count).unwrap()).unwrap()
    }

    #[test]
    fn operations_run_side_by_side_on_processors_of_their_own() {
        let all = groups(&DeviceLayout::Groups(NonZeroUsize::MIN)).unwrap().remove(0);
        let count = all.numbers().len().min(2);
        let lanes = lanes_of(count);
        let together = Arc::new(Barrier::new(count));
        let wait = || {
            let together = Arc::clone(&together);
            lanes.run(move |_| {
                together.wait();
                allowed()
            })
        };
        let found = block_on(join_all((0..count).map(|_| wait())));
        let found: Vec<Cores> = found.into_iter().map(Result::unwrap).collect();
        let expected = groups(&DeviceLayout::Groups(NonZeroUsize::new(count).unwrap())).unwrap();
        assert_eq!(found, expected);
        let crowd = lanes_of(all.numbers().len() + 1);
        assert_eq!(
            block_on(crowd.run(|_| allowed())).unwrap(),
            all,
            "more lanes than processors go anywhere"
        );
        assert!(Lanes::on(&"0/0".parse().unwrap()).is_err());
    }

    #[test]
    fn turns_are_taken_and_what_panics_fails_alone() {
        let lanes = lanes_of(3);
        let turns: Vec<usize> = (0..5).map(|_| block_on(lanes.run(|lane| lane)).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
        let error = block_on(lanes.run(|lane| assert_eq!(lane, 9, "not there"))).unwrap_err().to_string();
        assert!(error.contains("not there"), "{error}");
        assert_eq!(block_on(join_all((0..6).map(|number| lanes.run(move |_| number)))).len(), 6);
        assert_eq!((lanes.free(), lanes.count()), (3, 3));
        // What nobody waits for any more keeps its lane until it has ended.
        let (go, word) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel::<()>();
        let mut left = Box::pin(lanes.run(move |_| {
            began.send(()).unwrap();
            word.recv()
        }));
        assert!(futures::FutureExt::now_or_never(&mut left).is_none());
        drop(left);
        begun.recv().unwrap();
        assert_eq!(lanes.free(), 2);
        go.send(()).unwrap();
        while lanes.free() < 3 {
            thread::yield_now();
        }
    }
}
