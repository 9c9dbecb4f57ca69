//! The ladder: objects live in the host's memory while there is room, go down a rung when there is not, and come back
//! before or when they are needed, bit for bit.
//!
//! `book.rs` decides and knows where everything is; it is told what happened and does no I/O. `work.rs` moves bytes, on
//! threads of its own. What stands here is the door: nothing but [`Ladder::open`] and the waiting form of [`Pending`]
//! takes longer than a look into the book.
//!
//! An object is in memory, or below, or both, and never on no rung: the copy in memory goes only once the one below is
//! whole. What was put [`Stay::Always`] is given up by nothing but [`Ladder::remove`] and damage, which is reported; what
//! was put [`Stay::WhileRoom`] may go when there is no room, and is then [absent](LadderError::Absent).

mod book;
mod settings;
mod statistics;
#[cfg(test)]
mod tests;
mod work;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use crate::bell::Bell;
use crate::devices::DeviceError;
use crate::rung::{Blob, Level, Rung, RungError};
use crate::signal::Signal;
use crate::slot::Slot;
use crate::{Buffer, BufferPool, Key, MemoryError, PolicyChoice};
use book::Book;

pub use settings::{LadderSettings, Leftovers, Priority, Stay, Watermarks, Writing};
pub use statistics::{LadderStatistics, Rates};

/// Objects over the rungs of memory. Clones are the same ladder; the last one to go ends its threads.
#[derive(Clone)]
pub struct Ladder {
    shared: Arc<Shared>,
    _threads: Arc<Threads>,
}

/// What the door and the threads share.
struct Shared {
    book: Bell<Book>,
    rung: Option<Arc<dyn Rung>>,
    batch: usize,
}

/// The threads, which end with the last ladder that holds them.
struct Threads {
    shared: Arc<Shared>,
    work: Arc<Signal>,
    running: Vec<JoinHandle<()>>,
}

/// What can go wrong on the ladder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LadderError {
    /// There is no such object, or no more.
    #[error("there is no object {key}: it was never put, was removed, or had to go for want of room")]
    Absent {
        /// Its name.
        key: Key,
    },
    /// It could not be held even if there were nothing else.
    #[error(
        "{bytes} bytes do not fit into a memory of {budget}; allow more memory or offload smaller pieces"
    )]
    TooLarge {
        /// Bytes that were asked for.
        bytes: usize,
        /// Bytes that there are.
        budget: usize,
    },
    /// Everything in memory is pinned or in use, or cannot go down.
    #[error(
        "no room for {bytes} bytes: {used} of {budget} are in use and none can go ({}); drop or unpin some, or allow more",
        why(below)
    )]
    Full {
        /// Bytes that were asked for.
        bytes: usize,
        /// Bytes in use.
        used: usize,
        /// Bytes that there are.
        budget: usize,
        /// What the rung below said when it last refused something, if it did.
        below: Option<RungError>,
    },
    /// The rung below could not bring it.
    #[error("the object {key} cannot be brought back: {cause}")]
    Rung {
        /// Its name.
        key: Key,
        /// Why not.
        cause: RungError,
    },
    /// The ladder has ended.
    #[error("the ladder has ended")]
    Ended,
}

fn why(below: &Option<RungError>) -> String {
    below
        .as_ref()
        .map_or("all of it is pinned or held".to_owned(), |error| format!("the rung below: {error}"))
}

/// What comes of raising an object.
pub type Raised = Result<Arc<Blob>, LadderError>;
/// What comes of asking for room.
pub type Reserved = Result<Buffer, LadderError>;

impl Ladder {
    /// A ladder over a rung below, if there is to be one. What the rung holds already is kept or removed, as the settings
    /// say.
    ///
    /// # Errors
    /// When the system refuses the memory or a thread, or the rung cannot be read.
    pub fn open(settings: &LadderSettings, rung: Option<Arc<dyn Rung>>) -> Result<Self, OpenError> {
        let (shared, work) = Self::prepare(settings, rung)?;
        let mut threads = Threads { shared: Arc::clone(&shared), work, running: Vec::new() };
        for number in 0..settings.threads.max(1) {
            let (shared, work) = (Arc::clone(&shared), Arc::clone(&threads.work));
            let body = move || shared.work_until_the_end(&work);
            let thread = std::thread::Builder::new().name(format!("tidegate-ladder-{number}"));
            threads.running.push(thread.spawn(body).map_err(OpenError::Thread)?);
        }
        Ok(Self { shared, _threads: Arc::new(threads) })
    }

    fn prepare(
        settings: &LadderSettings,
        rung: Option<Arc<dyn Rung>>,
    ) -> Result<(Arc<Shared>, Arc<Signal>), OpenError> {
        let pool = BufferPool::new(settings.host_bytes, settings.residency)?;
        let work = Arc::new(Signal::new());
        let mut book = Book::new(pool.clone(), rung.clone(), settings, Arc::clone(&work));
        if let Some(rung) = &rung {
            for (key, bytes) in rung.inventory()? {
                match settings.leftovers {
                    Leftovers::Keep => book.found(key, bytes),
                    Leftovers::Remove => rung.remove(key)?,
                }
            }
            book.settle_down();
        }
        let batch = settings.batch.max(1);
        let shared = Arc::new(Shared { book: Bell::new(book, Book::feed), rung, batch });
        let bell = Arc::downgrade(&shared);
        pool.on_freed(move || bell.upgrade().into_iter().for_each(|shared| shared.book.ring()));
        Ok((shared, work))
    }

    /// A buffer to put an object into, as soon as there is room for it: what is needed least goes down meanwhile. Dropping
    /// the answer gives up the claim.
    pub fn reserve(&self, bytes: usize) -> Reserve {
        let slot = Arc::new(Slot::new());
        let claim = self.shared.book.enter().ask_room(bytes, &slot);
        Pending { shared: Arc::clone(&self.shared), slot, asked: Asked::Room(claim) }
    }

    /// A buffer, if there is room for it at once. If not, room begins to be made.
    pub fn try_reserve(&self, bytes: usize) -> Option<Buffer> {
        self.shared.book.enter().room_now(bytes)
    }

    /// Puts an object in memory. One that is there already under this key stays as it is.
    pub fn put(&self, key: Key, blob: Blob, terms: Terms) {
        let Blob { note, mut bytes } = blob;
        bytes.clear_padding();
        let blob = Arc::new(Blob { note, bytes });
        self.shared.book.enter().put(key, blob, terms);
    }

    /// The object, in memory. Dropping the answer before it is there cancels the transfer, unless others wait for it.
    pub fn get(&self, key: Key) -> Raise {
        let slot = Arc::new(Slot::new());
        self.shared.book.enter().get(key, &slot);
        let asked = Asked::Object(key, Arc::clone(&slot));
        Pending { shared: Arc::clone(&self.shared), slot, asked }
    }

    /// Brings objects up before they are needed, as far as half of the memory goes, and returns how many are there or on
    /// their way.
    pub fn prefetch(&self, keys: impl IntoIterator<Item = Key>) -> usize {
        let mut book = self.shared.book.enter();
        keys.into_iter().filter(|key| book.prefetch(*key)).count()
    }

    /// Keeps the object in memory once it is there, until it is unpinned as often. False if there is none.
    pub fn pin(&self, key: Key) -> bool {
        self.shared.book.enter().pin(key)
    }

    /// Takes one pin away.
    pub fn unpin(&self, key: Key) {
        self.shared.book.enter().unpin(key);
    }

    /// Whether there is such an object, on any rung.
    pub fn contains(&self, key: Key) -> bool {
        self.shared.book.enter().contains(key)
    }

    /// Counts objects as used, in this order, without bringing them up.
    pub fn touch(&self, keys: impl IntoIterator<Item = Key>) {
        let mut book = self.shared.book.enter();
        keys.into_iter().for_each(|key| book.touch(key));
    }

    /// Removes an object from all rungs. Whoever holds it in memory keeps it.
    pub fn remove(&self, key: Key) {
        self.shared.book.enter().remove(key);
    }

    /// Allows objects more or less memory from now on, up to what the ladder was opened with. What is too much goes down.
    pub fn set_host_budget(&self, bytes: usize) {
        self.shared.book.enter().set_host_budget(bytes);
    }

    /// Leaves no more memory than this to objects for as long as that refuses nobody, and gives the rest back to the system; up
    /// to the budget, which takes it back. What is too much goes down.
    pub fn ease(&self, bytes: usize) {
        self.shared.book.enter().ease(bytes);
    }

    /// Lets another policy decide from now on. It is told of all objects in the order of their last use.
    pub fn set_policy(&self, policy: &PolicyChoice) {
        self.shared.book.enter().set_policy(policy);
    }

    /// Moves objects that nobody holds together, so that free room is in few stretches; returns how many moved.
    pub fn defragment(&self) -> usize {
        self.shared.book.enter().compact(usize::MAX)
    }

    /// Removes all objects from all rungs.
    pub fn clear(&self) {
        self.shared.book.enter().clear();
    }

    /// What it holds and has done.
    pub fn statistics(&self) -> LadderStatistics {
        self.shared.book.enter().statistics()
    }

    /// The places below memory, from the top, with what each holds and has done.
    pub fn levels(&self) -> Vec<Level> {
        let Some(rung) = &self.shared.rung else { return Vec::new() };
        let levels = rung.levels();
        if !levels.is_empty() {
            return levels;
        }
        let all = self.statistics();
        vec![Level {
            place: rung.place(),
            medium: rung.medium(),
            used: all.below_used,
            budget: all.below_budget,
            objects: all.below_objects,
            written: all.bytes_down,
            read: all.bytes_up,
            rates: all.rates,
            faults: all.faults,
        }]
    }
}

impl std::fmt::Debug for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.shared.rung.as_ref().map(|rung| rung.place());
        f.debug_struct("Ladder").field("below", &place).finish()
    }
}

/// How an object is put.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Whether it may go for want of room.
    pub stay: Stay,
    /// What it would cost to have it again in another way than from below, in seconds.
    pub cost: f64,
}

/// Why a ladder cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The memory was refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The rung below does not work.
    #[error(transparent)]
    Rung(#[from] RungError),
    /// A folder cannot be used.
    #[error("cannot use the folder {place}: {source}")]
    Folder {
        /// Which one.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no such device, or it cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No thread could be started.
    #[error("cannot start a thread for transfers: {0}")]
    Thread(std::io::Error),
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.book.enter().end();
        self.work.raise();
        for thread in self.running.drain(..) {
            // The last ladder may be dropped by a waker that one of the threads calls.
            if thread.thread().id() != std::thread::current().id() {
                // What a thread that panicked was doing has been answered.
                let _ = thread.join();
            }
        }
    }
}

/// An answer on its way: a future, or something to wait for. Dropping it gives up what was asked for.
pub struct Pending<T> {
    shared: Arc<Shared>,
    slot: Arc<Slot<Result<T, LadderError>>>,
    asked: Asked,
}

/// An object on its way to memory.
pub type Raise = Pending<Arc<Blob>>;
/// Room on its way.
pub type Reserve = Pending<Buffer>;

/// What the book forgets when nobody waits any more.
enum Asked {
    /// An object; other slots may still be filled with it.
    Object(Key, Arc<Slot<Raised>>),
    /// Room, by what names the claim.
    Room(u64),
}

impl<T> Pending<T> {
    /// Waits until it is there.
    ///
    /// # Errors
    /// When there is no such object, it cannot be brought, or there is no room for it and nobody lets go of something.
    pub fn wait(self) -> Result<T, LadderError> {
        self.slot.wait().unwrap_or(Err(LadderError::Ended))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, LadderError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.slot.poll(context).map(|answer| answer.unwrap_or(Err(LadderError::Ended)))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if self.slot.is_done() {
            return;
        }
        let mut book = self.shared.book.enter();
        match &self.asked {
            Asked::Object(key, slot) => book.abandon(*key, slot),
            Asked::Room(claim) => book.forget_claim(*claim),
        }
    }
}
