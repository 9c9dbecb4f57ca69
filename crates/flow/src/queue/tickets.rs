//! The tickets of a line: one small mark each, in slots that are reused.
//!
//! A mark takes 40 bytes, whatever waits. What few tickets have (a deadline, a key, a cost or a size beyond 32 bits)
//! stands apart, and owners are numbers; so a million waiting items of 1 KiB take less than 5 % more than the items.

mod owners;
mod run;
mod slab;

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub(super) use owners::{NumberMap, OwnerId, Owners};
pub(super) use run::Run;
pub(super) use slab::Slab;

use super::{Ticket, TicketId};

/// Where a ticket stands. Its number is reused once the ticket has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    fn at(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("four thousand million marks do not fit into any memory that exists"))
    }
}

/// How a waiting ticket is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// By its neighbours in a [`Run`], or by what else its policy has.
    #[default]
    Linked,
    /// By the set of those that came back to a [`Run`] out of order.
    Returned,
    /// By nobody: its deadline has passed.
    Overdue,
}

/// What nearly every ticket has and nearly nothing else.
#[derive(Default)]
struct Mark {
    id: TicketId,
    /// In nanoseconds of the owner's time; later than 584 years counts as then.
    arrived: u64,
    cost: u32,
    bytes: u32,
    owner: OwnerId,
    before: Option<Place>,
    /// The next one in a run; in an unused slot, the next unused one.
    after: Option<Place>,
    level: u8,
    standing: Standing,
    is_rare: bool,
}

/// What few tickets have.
struct Rare {
    cost: u64,
    bytes: u64,
    deadline: Option<Duration>,
    key: Option<Arc<str>>,
}

/// All tickets of a line.
#[derive(Default)]
pub(super) struct Tickets {
    marks: Slab<Mark>,
    /// The first of the unused slots below `fresh`.
    unused: Option<Place>,
    /// So many slots have ever been used.
    fresh: usize,
    rare: NumberMap<Place, Rare>,
    owners: Owners,
    /// Deadlines of the tickets that are not overdue.
    deadlines: BTreeSet<(Duration, TicketId, Place)>,
}

impl Tickets {
    /// Takes in a ticket.
    pub(super) fn enter(&mut self, id: TicketId, ticket: Ticket, arrived: Duration) -> Place {
        let place = self.vacancy();
        let small = u32::try_from(ticket.cost).ok().zip(u32::try_from(ticket.bytes).ok());
        let is_rare = small.is_none() || ticket.deadline.is_some() || ticket.key.is_some();
        let (cost, bytes) = small.unwrap_or_default();
        *self.marks.at_mut(place) = Mark {
            id,
            arrived: nanos(arrived),
            cost,
            bytes,
            owner: self.owners.refer(ticket.owner),
            before: None,
            after: None,
            level: ticket.level,
            standing: Standing::Linked,
            is_rare,
        };
        if is_rare {
            let Ticket { cost, bytes, deadline, key, .. } = ticket;
            self.rare.insert(place, Rare { cost, bytes, deadline, key });
            self.deadlines.extend(deadline.map(|deadline| (deadline, id, place)));
        }
        place
    }

    /// Lets a ticket go and returns it with its arrival. Its policy has let it go before.
    pub(super) fn exit(&mut self, place: Place) -> (Ticket, Duration) {
        let ticket = self.ticket(place);
        let Mark { id, arrived, owner, is_rare, .. } = *self.marks.at(place);
        if is_rare {
            self.rare.remove(&place);
            if let Some(deadline) = ticket.deadline {
                self.deadlines.remove(&(deadline, id, place));
            }
        }
        self.owners.release(owner);
        self.marks.at_mut(place).after = self.unused.replace(place);
        (ticket, Duration::from_nanos(arrived))
    }

    /// Gives up the memory of all slots; there must be no ticket.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
        self.rare.shrink_to(0);
        (self.unused, self.fresh) = (None, 0);
    }

    fn vacancy(&mut self) -> Place {
        if let Some(place) = self.unused {
            self.unused = self.marks.at(place).after;
            return place;
        }
        let place = Place::at(self.fresh);
        self.marks.reach(place);
        self.fresh += 1;
        place
    }

    /// The ticket as it came.
    pub(super) fn ticket(&self, place: Place) -> Ticket {
        let mark = self.marks.at(place);
        let owner = self.owners.name(mark.owner).clone();
        let (level, cost, bytes) = (mark.level, u64::from(mark.cost), u64::from(mark.bytes));
        match self.rare(place) {
            None => Ticket { owner, level, cost, bytes, deadline: None, key: None },
            Some(Rare { cost, bytes, deadline, key }) => {
                Ticket { owner, level, cost: *cost, bytes: *bytes, deadline: *deadline, key: key.clone() }
            }
        }
    }

    /// Its name.
    #[inline]
    pub(super) fn id(&self, place: Place) -> TicketId {
        self.marks.at(place).id
    }

    /// When it came, in nanoseconds.
    #[inline]
    pub(super) fn arrived(&self, place: Place) -> u64 {
        self.marks.at(place).arrived
    }

    /// Its urgency.
    pub(super) fn level(&self, place: Place) -> u8 {
        self.marks.at(place).level
    }

    /// Whose it is.
    pub(super) fn owner(&self, place: Place) -> OwnerId {
        self.marks.at(place).owner
    }

    /// What serving it costs.
    pub(super) fn cost(&self, place: Place) -> u64 {
        self.rare(place).map_or(u64::from(self.marks.at(place).cost), |rare| rare.cost)
    }

    /// Its deadline.
    pub(super) fn deadline(&self, place: Place) -> Option<Duration> {
        self.rare(place)?.deadline
    }

    fn rare(&self, place: Place) -> Option<&Rare> {
        self.marks.at(place).is_rare.then(|| self.rare.get(&place)).flatten()
    }

    /// All deadlines with their tickets, the earliest first; of equal ones, the ticket that came first.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (Duration, Place)> {
        self.deadlines.iter().map(|(deadline, _, place)| (*deadline, *place))
    }

    /// Whether its deadline has passed.
    pub(super) fn is_overdue(&self, place: Place) -> bool {
        self.marks.at(place).standing == Standing::Overdue
    }

    /// A ticket whose deadline is `now` or before and that nobody was told of. Its policy must let it go, and then
    /// [`Tickets::give_up`] be called.
    pub(super) fn next_overdue(&self, now: Duration) -> Option<Place> {
        let (deadline, _, place) = self.deadlines.first()?;
        (*deadline <= now).then_some(*place)
    }

    /// Notes that a ticket's deadline has passed and that its policy has let it go.
    pub(super) fn give_up(&mut self, place: Place) {
        if let Some(deadline) = self.deadline(place) {
            self.deadlines.remove(&(deadline, self.id(place), place));
        }
        self.mark_mut(place).standing = Standing::Overdue;
    }

    /// Owners by their numbers.
    pub(super) fn owners(&mut self) -> &mut Owners {
        &mut self.owners
    }

    fn mark(&self, place: Place) -> &Mark {
        self.marks.at(place)
    }

    fn mark_mut(&mut self, place: Place) -> &mut Mark {
        self.marks.at_mut(place)
    }
}

/// A time as marks have it.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("owners", &self.owners).finish_non_exhaustive()
    }
}
