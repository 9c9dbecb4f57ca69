//! The tickets of a line: one small mark each, in slots that are reused.
//!
//! A mark takes 40 bytes, whatever waits. What few tickets have (a deadline, a key, a cost or a size beyond 32 bits)
//! stands apart, and owners are numbers; so a million waiting items of 1 KiB take less than 5 % more than the items.

mod owners;
mod run;
mod slab;

use std::collections::BTreeSet;
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
    load: [u32; 2],
    owner: OwnerId,
    before: Option<Place>,
    /// The next one in a run; in an unused slot, the next unused one.
    after: Option<Place>,
    level: u8,
    standing: Standing,
    kind: Kind,
}

/// What the two numbers of a mark's load are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Cost and bytes.
    #[default]
    Small,
    /// Where its [`Rare`] stands, and nothing.
    Rare,
}

/// What few tickets have.
#[derive(Default)]
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
    rare: Vec<Rare>,
    unused_rare: Vec<u32>,
    owners: Owners,
    /// Deadlines, in nanoseconds, of the tickets that are not overdue.
    deadlines: BTreeSet<(u64, TicketId, Place)>,
}

impl Tickets {
    /// Takes in a ticket.
    pub(super) fn enter(&mut self, id: TicketId, ticket: Ticket, arrived: Duration) -> Place {
        let place = self.vacancy();
        let Ticket { owner, level, cost, bytes, deadline, key } = ticket;
        self.deadlines.extend(deadline.map(|deadline| (nanos(deadline), id, place)));
        let (load, kind) = match (u32::try_from(cost), u32::try_from(bytes), deadline, &key) {
            (Ok(cost), Ok(bytes), None, None) => ([cost, bytes], Kind::Small),
            _ => ([self.enter_rare(Rare { cost, bytes, deadline, key }), 0], Kind::Rare),
        };
        let (arrived, owner) = (nanos(arrived), self.owners.refer(owner));
        let (before, after, standing) = (None, None, Standing::Linked);
        self.marks.put(place, Mark { id, arrived, load, owner, before, after, level, standing, kind });
        place
    }

    fn enter_rare(&mut self, rare: Rare) -> u32 {
        if let Some(at) = self.unused_rare.pop() {
            self.rare[at as usize] = rare;
            return at;
        }
        self.rare.push(rare);
        u32::try_from(self.rare.len() - 1).expect("there are no more of them than places")
    }

    /// Lets a ticket go and returns it with its id and arrival. Its policy has let it go before.
    #[inline]
    pub(super) fn exit(&mut self, place: Place) -> (TicketId, Ticket, Duration) {
        let mark = self.marks.at_mut(place);
        mark.after = self.unused.replace(place);
        let (id, arrived, level, owner) =
            (mark.id, Duration::from_nanos(mark.arrived), mark.level, mark.owner);
        let rare = match mark.kind {
            Kind::Small => {
                let [cost, bytes] = mark.load.map(u64::from);
                Rare { cost, bytes, deadline: None, key: None }
            }
            Kind::Rare => {
                self.unused_rare.push(mark.load[0]);
                std::mem::take(&mut self.rare[mark.load[0] as usize])
            }
        };
        let Rare { cost, bytes, deadline, key } = rare;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(nanos(deadline), id, place));
        }
        let owner = self.owners.part(owner);
        (id, Ticket { owner, level, cost, bytes, deadline, key }, arrived)
    }

    /// Gives up the memory of all slots; there must be no ticket.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
        (self.unused, self.fresh) = (None, 0);
        (self.rare, self.unused_rare) = (Vec::new(), Vec::new());
    }

    fn vacancy(&mut self) -> Place {
        if let Some(place) = self.unused {
            self.unused = self.marks.at(place).after;
            return place;
        }
        let place = Place::at(self.fresh);
        self.fresh += 1;
        place
    }

    /// The ticket as it came.
    pub(super) fn ticket(&self, place: Place) -> Ticket {
        let mark = self.marks.at(place);
        let (owner, level) = (self.owners.name(mark.owner).clone(), mark.level);
        match self.rare(place) {
            None => {
                let [cost, bytes] = mark.load.map(u64::from);
                Ticket { owner, level, cost, bytes, deadline: None, key: None }
            }
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
        self.rare(place).map_or(u64::from(self.marks.at(place).load[0]), |rare| rare.cost)
    }

    /// Its deadline.
    pub(super) fn deadline(&self, place: Place) -> Option<Duration> {
        self.rare(place)?.deadline
    }

    fn rare(&self, place: Place) -> Option<&Rare> {
        let mark = self.marks.at(place);
        match mark.kind {
            Kind::Small => None,
            Kind::Rare => self.rare.get(mark.load[0] as usize),
        }
    }

    /// The tickets with deadlines, the earliest deadline first; of equal ones, the ticket that came first.
    pub(super) fn by_deadline(&self) -> impl Iterator<Item = Place> {
        self.deadlines.iter().map(|(_, _, place)| *place)
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadline(self.by_deadline().next()?)
    }

    /// Whether its deadline has passed.
    pub(super) fn is_overdue(&self, place: Place) -> bool {
        self.marks.at(place).standing == Standing::Overdue
    }

    /// A ticket whose deadline is `now` or before and that nobody was told of. Its policy must let it go, and then
    /// [`Tickets::give_up`] be called.
    pub(super) fn next_overdue(&self, now: Duration) -> Option<Place> {
        let (deadline, _, place) = self.deadlines.first()?;
        (*deadline <= nanos(now)).then_some(*place)
    }

    /// Notes that a ticket's deadline has passed and that its policy has let it go.
    pub(super) fn give_up(&mut self, place: Place) {
        if let Some(deadline) = self.deadline(place) {
            self.deadlines.remove(&(nanos(deadline), self.id(place), place));
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
