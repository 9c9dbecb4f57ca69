//! Work that needs resources gets them all at once or waits; what is not there is never promised.
//!
//! An [`Inventory`] says what there is: memory, processors, devices with memory and slots of their own. [`Needs`] say
//! what a piece of work takes. [`Scheduler::acquire`] waits until all of it is free and answers with a
//! [`Reservation`], which gives it back when dropped; [`Scheduler::submit`] runs work on it. Nobody ever holds a part
//! of what it needs while waiting for the rest, so there is no deadlock.
//!
//! - Who goes first: the more urgent level, then the owner who has least; waiting raises urgency (`waiting.rs`).
//! - Small work overtakes large work that does not fit yet, until the large has waited for [`Rules::patience`]. From
//!   then on room is kept for it, and it starts when what ran then has ended, at the latest. So a piece of work of
//!   level `l` that finds `n` others waiting starts within `max((l + 1) × age_step, patience) + (n + 2) × d`, if no
//!   work runs longer than `d`, the inventory stays as it is and memory is not short.
//! - Work that can never fit is refused at once with the reason.
//! - The ledger holds promises; [`Scheduler::watch`] compares them with the memory that is really used, and slows and
//!   stops the starting of work before memory runs out.
//!
//! A [`WorkerPool`] works on the items of a queue with a number of workers that changes while they work.

mod amount;
mod autoscale;
mod balance;
mod book;
mod error;
mod inventory;
mod ledger;
mod needs;
mod pressure;
mod reservation;
mod rules;
mod shared;
mod status;
mod task;
#[cfg(test)]
mod tests;
mod waiting;
mod workers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

pub use amount::{AmountError, Unit};
pub use autoscale::Scaling;
pub use balance::Balance;
pub use error::ScheduleError;
pub use inventory::{Device, Inventory, InventoryError, WHOLE};
pub use needs::{Needs, NeedsError};
pub use pressure::{Pressure, Reading, Watermarks};
pub use reservation::Reservation;
pub use rules::{Rules, Terms};
pub use status::{DeviceStatus, ResourceStatus, SchedulerStatus};
pub use task::Task;
pub use workers::{Source, Staffing, WorkerPool, WorkerPoolStatus};

use crate::metrics::{Histogram, System};
use book::Book;
use reservation::Waiter;
use shared::{Asked, Shared, State, watch};
use waiting::JobId;

/// Shares out an inventory. Clones share it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use flow::scheduler::{Inventory, Rules, Scheduler, Terms};
///
/// let inventory = Inventory::new().memory(8_000_000_000).cpu(4000);
/// let scheduler = Scheduler::new(&inventory, Rules::default())?;
/// let needs = scheduler.needs("memory: 2GB, cpu: 0.5")?;
/// let sum = scheduler.submit(&needs, Terms::of("reports"), |_| async { (1..=100).sum::<u32>() })?;
/// assert_eq!(sum.await?, 5050);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// Shares out that inventory.
    ///
    /// # Errors
    /// If names in the inventory are ambiguous.
    pub fn new(inventory: &Inventory, rules: Rules) -> Result<Self, InventoryError> {
        let state = State {
            book: Book::new(inventory, rules)?,
            replies: HashMap::new(),
            pressure: Pressure::None,
            allowance: Pressure::None.allowance(),
            watch: None,
            is_open: true,
        };
        let (state, epoch) = (Mutex::new(state), Instant::now());
        Ok(Self { shared: Arc::new(Shared { state, epoch, waits: Histogram::new(), idle: Notify::new() }) })
    }

    /// Reads needs that are written as text, as [`Inventory::needs`] does, and sees that they can be met.
    ///
    /// # Errors
    /// If the text cannot be read, names something unknown, or asks for more than there is.
    pub fn needs(&self, text: &str) -> Result<Needs, NeedsError> {
        let state = self.shared.lock();
        let needs = Needs::parse(text, state.book.keys())?;
        state.book.check(&needs)?;
        Ok(needs)
    }

    /// Waits until all of the needs are free, and reserves them. Dropping the future ends the waiting and leaves no
    /// trace.
    ///
    /// # Errors
    /// At once if the needs can never be met or the scheduler is closed; later if the deadline passes first, or if the
    /// inventory is reduced so that they can no longer be met.
    pub async fn acquire(&self, needs: &Needs, terms: Terms) -> Result<Reservation, ScheduleError> {
        self.ask(needs, &terms)?.granted(terms.deadline).await
    }

    /// Runs work on its own task once its needs are met; what it is given tells which devices it got. They are given
    /// back when the work has ended and no clone of the reservation is left.
    ///
    /// # Errors
    /// If the needs can never be met or the scheduler is closed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn submit<T, F>(
        &self,
        needs: &Needs,
        terms: Terms,
        work: impl FnOnce(Arc<Reservation>) -> F + Send + 'static,
    ) -> Result<Task<T>, ScheduleError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let waiter = self.ask(needs, &terms)?;
        Ok(Task::spawn(async move {
            let reservation = Arc::new(waiter.granted(terms.deadline).await?);
            let work = work(Arc::clone(&reservation));
            match terms.deadline {
                Some(deadline) => timeout_at(deadline, work).await.map_err(|_| ScheduleError::Expired),
                None => Ok(work.await),
            }
        }))
    }

    /// Runs work that blocks or computes on a thread of its own. Once it runs, neither cancelling nor its deadline can
    /// stop it: it keeps what it needs until it has ended.
    ///
    /// # Errors
    /// If the needs can never be met or the scheduler is closed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn submit_blocking<T: Send + 'static>(
        &self,
        needs: &Needs,
        terms: Terms,
        work: impl FnOnce(&Reservation) -> T + Send + 'static,
    ) -> Result<Task<T>, ScheduleError> {
        let waiter = self.ask(needs, &terms)?;
        Ok(Task::spawn(async move {
            let reservation = waiter.granted(terms.deadline).await?;
            tokio::task::spawn_blocking(move || work(&reservation)).await.map_err(ScheduleError::from)
        }))
    }

    /// An owner's share counts for less the larger its weight is (1 by default): it gets more before others go first.
    pub fn set_weight(&self, owner: &str, weight: f64) {
        self.shared.lock().book.set_weight(owner, weight);
    }

    /// Changes how much the machine has of something. Work that waits gets what is new, is refused if it can never fit
    /// any more, and work that runs keeps what it has.
    ///
    /// # Errors
    /// If the inventory does not have it.
    pub fn set_capacity(&self, name: &str, amount: u64) -> Result<(), InventoryError> {
        self.shared.review(|book| book.set_capacity(name, amount))
    }

    /// Adds a device. Work that waits is bound to no device, so the new one takes its share of it at once.
    ///
    /// # Errors
    /// If there is a device of that name, or if names would become ambiguous.
    pub fn add_device(&self, device: &Device) -> Result<(), InventoryError> {
        self.shared.review(|book| book.add_device(device))
    }

    /// Gives a device no more work; what runs on it goes on. Work that waits goes to others, and is refused if none is
    /// left that could do it.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn remove_device(&self, name: &str) -> Result<(), InventoryError> {
        self.shared.review(|book| book.retire_device(name))
    }

    /// From now on compares `probe` with the marks, and starts less or nothing while memory is short. Replaces the
    /// watch that there was.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn watch(&self, marks: Watermarks, probe: impl FnMut() -> Reading + Send + 'static) {
        let watch = tokio::spawn(watch(Arc::downgrade(&self.shared), marks, probe)).abort_handle();
        if let Some(before) = self.shared.lock().watch.replace(watch) {
            before.abort();
        }
    }

    /// [`Scheduler::watch`] with what the system says of its memory.
    pub fn watch_system(&self, marks: Watermarks) {
        let system = System::here();
        self.watch(marks, move || Reading::of(&system));
    }

    /// Everything at this moment.
    pub fn status(&self) -> SchedulerStatus {
        let now = self.shared.now();
        let state = self.shared.lock();
        let (resources, devices) = state.book.resources();
        SchedulerStatus {
            resources,
            devices,
            waiting: state.book.waiting(),
            oldest: state.book.oldest_arrival().map(|arrived| now.saturating_sub(arrived)),
            running: state.book.running(),
            started: state.book.started(),
            waits: self.shared.waits.snapshot(),
            pressure: state.pressure,
            owners: state.book.shares(),
        }
    }

    /// Accepts nothing more. What waits is still served.
    pub fn close(&self) {
        self.shared.lock().is_open = false;
    }

    /// Closes, and waits until nothing waits and nothing runs. What still waits at the deadline is refused then.
    /// Answers how many reservations are left.
    pub async fn drain(&self, deadline: Instant) -> usize {
        self.close();
        let idle = async {
            loop {
                let told = self.shared.idle.notified();
                if self.shared.lock().is_idle() {
                    return;
                }
                told.await;
            }
        };
        if timeout_at(deadline, idle).await.is_err() {
            self.shared.change(|state, _| {
                let waiting: Vec<(JobId, Asked)> = state.replies.drain().collect();
                let refused = waiting.into_iter().map(|(id, asked)| {
                    state.book.leave(id);
                    (asked, Err(ScheduleError::Closed))
                });
                refused.collect()
            });
        }
        self.shared.lock().book.running()
    }

    fn ask(&self, needs: &Needs, terms: &Terms) -> Result<Waiter, ScheduleError> {
        let since = Instant::now();
        if terms.deadline.is_some_and(|deadline| deadline <= since) {
            return Err(ScheduleError::Expired);
        }
        let (reply, answer) = oneshot::channel();
        let mut asked = Err(ScheduleError::Closed);
        self.shared.change(|state, now| {
            if state.is_open {
                asked = state.book.ask(needs, &terms.owner, terms.level, now).map_err(ScheduleError::from);
            }
            if let Ok(job) = &asked {
                state.replies.insert(*job, Asked { since, reply });
            }
            Vec::new()
        });
        Ok(Waiter::new(Arc::clone(&self.shared), asked?, answer))
    }
}
