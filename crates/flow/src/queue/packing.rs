//! Tickets in little room. What nearly every ticket has takes 24 bytes; what few have (a deadline, a key, a cost beyond
//! 16 bits or a size beyond 32) stands apart: in a table while the item waits, in a box of its own while it is out.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::Slot;
use super::ticket::Load;
use super::{Owner, Taken, Ticket, TicketId};

/// What was rare leaves no memory behind when all of it has gone, if it was more than that.
const KEPT: usize = 1024;

/// Size, cost and urgency in one word, because that is moved at once, and four small fields are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Details(u64);

impl Details {
    const RARE: u64 = 1 << 63;
    const DATED: u64 = 1 << 62;

    #[inline(always)]
    fn plain(bytes: u32, cost: u16, level: u8) -> Self {
        Self(u64::from(bytes) | u64::from(cost) << 32 | u64::from(level) << 48)
    }

    /// Of a ticket whose details stand there, besides its urgency.
    fn rare(at: u32, level: u8, deadline: Option<Duration>) -> Self {
        let dated = deadline.map_or(0, |_| Self::DATED);
        Self(Self::plain(at, 0, level).0 | Self::RARE | dated)
    }

    /// Those of a ticket that has nothing rare.
    #[inline(always)]
    pub(super) fn of(ticket: &Ticket) -> Option<Self> {
        let is_plain = ticket.deadline.is_none()
            && ticket.key.is_none()
            && ticket.cost <= u64::from(u16::MAX)
            && ticket.bytes <= u64::from(u32::MAX);
        is_plain.then(|| Self::plain(ticket.bytes as u32, ticket.cost as u16, ticket.level))
    }

    #[inline]
    pub(super) fn level(self) -> u8 {
        (self.0 >> 48) as u8
    }

    #[inline]
    pub(super) fn cost(self) -> u64 {
        u64::from((self.0 >> 32) as u16)
    }

    #[inline]
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.0 as u32)
    }

    #[inline]
    pub(super) fn is_dated(self) -> bool {
        self.0 & Self::DATED != 0
    }

    /// Where the details stand, if not here.
    #[inline]
    pub(super) fn elsewhere(self) -> Option<usize> {
        (self.0 & Self::RARE != 0).then_some(self.0 as u32 as usize)
    }
}

/// What few tickets have.
#[derive(Clone, Debug)]
pub(super) struct Rare {
    pub(super) cost: u64,
    pub(super) bytes: u64,
    pub(super) deadline: Option<Duration>,
    key: Option<Arc<str>>,
}

impl Rare {
    fn take(ticket: &mut Ticket) -> Self {
        let Ticket { cost, bytes, deadline, .. } = *ticket;
        Self { cost, bytes, deadline, key: ticket.key.take() }
    }
}

/// The ticket of an item that is out.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    owner: Owner,
    details: Details,
    /// All of it but the owner and the urgency, where any of that is rare.
    rare: Option<Box<Rare>>,
}

impl Packed {
    /// What the ticket holds is taken from where it stands, since moving tickets about is what passing an item would
    /// cost most.
    #[inline(always)]
    pub(super) fn take(ticket: &mut Ticket) -> Self {
        let owner = mem::take(&mut ticket.owner);
        match Details::of(ticket) {
            Some(details) => Self { owner, details, rare: None },
            None => Self::with_rare(owner, ticket),
        }
    }

    #[cold]
    fn with_rare(owner: Owner, ticket: &mut Ticket) -> Self {
        let rare = Box::new(Rare::take(ticket));
        Self { owner, details: Details::rare(0, ticket.level, ticket.deadline), rare: Some(rare) }
    }

    pub(super) fn ticket(&self) -> Ticket {
        unpacked(self.owner.clone(), self.details, self.rare.as_deref().cloned())
    }

    pub(super) fn into_ticket(self) -> Ticket {
        unpacked(self.owner, self.details, self.rare.map(|rare| *rare))
    }

    pub(super) fn load(&self) -> Load {
        let plain = (self.details.cost(), self.details.bytes());
        let (cost, bytes) = self.rare.as_ref().map_or(plain, |rare| (rare.cost, rare.bytes));
        Load { items: 1, cost, bytes }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.rare.as_ref()?.deadline
    }
}

fn unpacked(owner: Owner, details: Details, rare: Option<Rare>) -> Ticket {
    let level = details.level();
    match rare {
        None => Ticket { cost: details.cost(), bytes: details.bytes(), level, ..Ticket::of(owner) },
        Some(Rare { cost, bytes, deadline, key }) => Ticket { owner, level, cost, bytes, deadline, key },
    }
}

/// The parts of tickets that do not fit into slots.
#[derive(Default)]
pub(super) struct Rares {
    known: Vec<Option<Box<Rare>>>,
    unused: Vec<u32>,
}

impl Rares {
    /// Makes a ticket ready to wait, but for its owner.
    #[inline(always)]
    pub(super) fn note(&mut self, ticket: &mut Ticket) -> Details {
        Details::of(ticket).unwrap_or_else(|| self.enter(ticket.level, Box::new(Rare::take(ticket))))
    }

    /// Makes an item that was out ready to wait again.
    pub(super) fn pack_again<T>(&mut self, taken: Taken<T>) -> Slot<T> {
        let Taken { item, id, arrived, packed: Packed { owner, mut details, rare } } = taken;
        if let Some(rare) = rare {
            details = self.enter(details.level(), rare);
        }
        Slot { id, arrived, owner, details, item }
    }

    /// The item and its ticket, as they came.
    #[inline(always)]
    pub(super) fn unpack<T>(&mut self, slot: Slot<T>) -> Taken<T> {
        let rare = slot.details.elsewhere().and_then(|at| self.leave(at));
        let Slot { id, arrived, owner, details, item } = slot;
        Taken { item, id, arrived, packed: Packed { owner, details, rare } }
    }

    /// The ticket of an item that goes on waiting.
    pub(super) fn ticket(&self, owner: &Owner, details: Details) -> Ticket {
        unpacked(owner.clone(), details, self.of(details).cloned())
    }

    #[inline]
    pub(super) fn of(&self, details: Details) -> Option<&Rare> {
        self.known.get(details.elsewhere()?)?.as_deref()
    }

    #[cold]
    fn enter(&mut self, level: u8, rare: Box<Rare>) -> Details {
        let deadline = rare.deadline;
        let at = match self.unused.pop() {
            Some(at) => {
                self.known[at as usize] = Some(rare);
                at
            }
            None => {
                self.known.push(Some(rare));
                u32::try_from(self.known.len() - 1)
                    .expect("four thousand million tickets fit into no memory that exists")
            }
        };
        Details::rare(at, level, deadline)
    }

    #[cold]
    fn leave(&mut self, at: usize) -> Option<Box<Rare>> {
        let rare = self.known[at].take();
        self.unused.push(at as u32);
        if self.unused.len() == self.known.len() && self.known.len() > KEPT {
            *self = Self::default();
        }
        rare
    }
}

impl<T> Slot<T> {
    /// An item that has no name yet, and whose ticket has nothing rare.
    #[inline(always)]
    pub(super) fn unnamed(item: T, owner: Owner, details: Details) -> Self {
        Self { id: TicketId(0), arrived: 0, owner, details, item }
    }

    /// An item whose ticket has nothing rare, as it came.
    #[inline(always)]
    pub(super) fn into_plain(self) -> Taken<T> {
        let Self { id, arrived, owner, details, item } = self;
        Taken { item, id, arrived, packed: Packed { owner, details, rare: None } }
    }
}
