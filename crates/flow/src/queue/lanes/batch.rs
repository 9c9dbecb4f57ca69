//! Items that come together, and leave together where they can.

use std::collections::VecDeque;
use std::iter;

use super::{Block, Details, Seen, Slot, spares};
use crate::queue::{Owner, Ticket, TicketId};

/// Plain items in order, which get their names together when they come in.
///
/// What passing a batch costs is mostly to bring its memory from the core that filled it to the one that empties it. So a
/// batch whose tickets all say the same, and no owner, says it once.
pub(in crate::queue) enum Batch<T> {
    Alike(Alike<T>),
    Each(Each<T>),
}

/// Items of one ticket.
pub(in crate::queue) struct Alike<T> {
    items: VecDeque<T>,
    /// The name of the first; those of the others follow.
    first: TicketId,
    arrived: u64,
    details: Details,
}

/// Items with a ticket each.
pub(in crate::queue) struct Each<T> {
    block: Block<T>,
    cost: u64,
    bytes: u64,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self::of(Block::default())
    }
}

impl<T> Batch<T> {
    /// Items that leave together; what they sum up to is not asked for any more.
    pub(super) fn of(block: Block<T>) -> Self {
        Self::Each(Each { block, cost: 0, bytes: 0 })
    }

    /// Packs items that have no names yet, up to the first whose ticket has something rare; that one and those behind
    /// it come back.
    pub(in crate::queue) fn gather(items: impl IntoIterator<Item = (T, Ticket)>) -> (Self, Vec<(T, Ticket)>)
    where
        T: 'static,
    {
        let mut items = items.into_iter();
        let count = items.size_hint().0;
        let (first, second) = (items.next(), items.next());
        // Whether a batch is one of equal tickets shows in its first two, nearly always.
        let said = |item: Option<&(T, Ticket)>| item.and_then(|(_, ticket)| said_by_all(ticket));
        let alike = said(first.as_ref()).filter(|details| said(second.as_ref()) == Some(*details));
        let mut all = first.into_iter().chain(second).chain(items);
        let (mut each, odd) = match alike {
            None => (Each { block: Block::in_spare_room(count), cost: 0, bytes: 0 }, None),
            Some(details) => match Alike::gather(&mut all, details, count) {
                (alike, None) => return (Self::Alike(alike), Vec::new()),
                (alike, odd) => (alike.into_each(count), odd),
            },
        };
        let mut all = odd.into_iter().chain(all);
        let rare = all.find_map(|(item, ticket)| each.push(item, ticket));
        (Self::Each(each), rare.into_iter().chain(all).collect())
    }

    /// Gives names, one after the other from that one, to items that arrived then.
    pub(in crate::queue) fn name(&mut self, first: TicketId, arrived: u64) {
        match self {
            Self::Alike(alike) => (alike.first, alike.arrived) = (first, arrived),
            Self::Each(each) => each.block.name(first, arrived),
        }
    }

    /// Keeps the memory of a batch that is used up for one that this thread gathers.
    pub(super) fn spare(self)
    where
        T: 'static,
    {
        match self {
            Self::Alike(alike) => spares::keep(alike.items),
            Self::Each(each) => each.block.spare(),
        }
    }

    #[inline]
    pub(in crate::queue) fn len(&self) -> usize {
        match self {
            Self::Alike(alike) => alike.items.len(),
            Self::Each(each) => each.block.len(),
        }
    }

    #[inline]
    pub(in crate::queue) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sum of the costs of a batch from which nothing was taken.
    pub(in crate::queue) fn cost(&self) -> u64 {
        match self {
            Self::Alike(alike) => alike.cost(),
            Self::Each(each) => each.cost,
        }
    }

    /// The sum of the bytes of a batch from which nothing was taken.
    pub(in crate::queue) fn bytes(&self) -> u64 {
        match self {
            Self::Alike(alike) => alike.bytes(),
            Self::Each(each) => each.bytes,
        }
    }

    /// Takes out the first; what the batch sums up to is not asked for any more.
    #[inline(always)]
    pub(in crate::queue) fn pop(&mut self) -> Option<Slot<T>> {
        match self {
            Self::Alike(alike) => alike.pop(),
            Self::Each(each) => each.block.pop(),
        }
    }

    /// Gives all of them away, one after the other.
    #[inline(always)]
    pub(in crate::queue) fn give_each(&mut self, give: impl FnMut(Slot<T>)) {
        match self {
            Self::Alike(alike) => iter::from_fn(|| alike.pop()).for_each(give),
            Self::Each(each) => each.block.drain().for_each(give),
        }
    }

    /// Tells when they arrived, and how many did then.
    pub(super) fn each_arrival(&self, mut tell: impl FnMut(u64, u64)) {
        match self {
            Self::Alike(alike) => tell(alike.arrived, alike.items.len() as u64),
            Self::Each(each) => each.block.each_arrival(tell),
        }
    }

    /// Its slots, if there is room for one more without more memory.
    #[inline(always)]
    pub(super) fn room(&mut self) -> Option<&mut Block<T>> {
        match self {
            Self::Each(each) if each.block.has_room() => Some(&mut each.block),
            _ => None,
        }
    }

    /// Parts with its items from that place on.
    pub(in crate::queue) fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Alike(alike) => Self::Alike(Alike { items: alike.items.split_off(at), ..*alike }),
            Self::Each(each) => {
                let block = each.block.split_off(at);
                let loads = || block.iter().map(|slot| slot.details);
                let (cost, bytes) = (loads().map(Details::cost).sum(), loads().map(Details::bytes).sum());
                each.cost -= cost;
                each.bytes -= bytes;
                Self::Each(Each { block, cost, bytes })
            }
        }
    }

    /// Takes back what was split off.
    pub(in crate::queue) fn append(&mut self, rest: Self) {
        match (self, rest) {
            (Self::Alike(alike), Self::Alike(mut rest)) => alike.items.append(&mut rest.items),
            (Self::Each(each), Self::Each(rest)) => {
                each.block.append(rest.block);
                each.cost += rest.cost;
                each.bytes += rest.bytes;
            }
            _ => unreachable!("parts of a batch are of its kind"),
        }
    }

    /// The items and their tickets, as they came.
    pub(in crate::queue) fn into_items(mut self) -> impl Iterator<Item = (T, Ticket)> {
        iter::from_fn(move || self.pop()).map(|slot| slot.into_plain().into_item())
    }

    /// Its slots, for a lane in which each is to be found.
    pub(super) fn into_block(self) -> Block<T> {
        match self {
            Self::Alike(alike) => alike.into_each(0).block,
            Self::Each(each) => each.block,
        }
    }

    pub(super) fn first(&self) -> Option<Seen<'_, T>> {
        self.at(0)
    }

    pub(in crate::queue) fn last(&self) -> Option<Seen<'_, T>> {
        self.at(self.len().checked_sub(1)?)
    }

    pub(in crate::queue) fn iter(&self) -> impl Iterator<Item = Seen<'_, T>> {
        (0..self.len()).filter_map(|at| self.at(at))
    }

    pub(in crate::queue) fn get(&self, id: TicketId) -> Option<Seen<'_, T>> {
        match self {
            Self::Alike(alike) => alike.at(usize::try_from(id.0.checked_sub(alike.first.0)?).ok()?),
            Self::Each(each) => each.block.get(id),
        }
    }

    fn at(&self, at: usize) -> Option<Seen<'_, T>> {
        match self {
            Self::Alike(alike) => alike.at(at),
            Self::Each(each) => each.block.at(at),
        }
    }
}

impl<T> Alike<T> {
    /// Packs items up to the first whose ticket says something else, which comes back.
    #[inline(always)]
    fn gather(
        from: &mut impl Iterator<Item = (T, Ticket)>,
        details: Details,
        count: usize,
    ) -> (Self, Option<(T, Ticket)>)
    where
        T: 'static,
    {
        let mut items = spares::ring(count);
        let odd = from.find_map(|(item, ticket)| {
            if said_by_all(&ticket) == Some(details) {
                items.push_back(item);
                None
            } else {
                Some((item, ticket))
            }
        });
        (Self { items, first: TicketId::default(), arrived: 0, details }, odd)
    }

    /// Gives every item a ticket of its own, in a block with memory for at least so many.
    fn into_each(mut self, count: usize) -> Each<T> {
        let (cost, bytes) = (self.cost(), self.bytes());
        let mut block = Block::with_room_for(count.max(self.items.len()));
        iter::from_fn(|| self.pop()).for_each(|slot| block.push(slot));
        Each { block, cost, bytes }
    }

    fn cost(&self) -> u64 {
        self.details.cost() * self.items.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.details.bytes() * self.items.len() as u64
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<Slot<T>> {
        let item = self.items.pop_front()?;
        let id = self.first;
        self.first = TicketId(id.0 + 1);
        Some(Slot { id, arrived: self.arrived, owner: Owner::default(), details: self.details, item })
    }

    fn at(&self, at: usize) -> Option<Seen<'_, T>> {
        let Self { first, arrived, details, .. } = *self;
        let item = self.items.get(at)?;
        Some(Seen { id: TicketId(first.0 + at as u64), arrived, owner: Owner::nobody(), details, item })
    }
}

impl<T> Each<T> {
    /// Adds an item, unless its ticket has something rare: then it comes back.
    #[inline(always)]
    fn push(&mut self, item: T, ticket: Ticket) -> Option<(T, Ticket)> {
        let Some(details) = Details::of(&ticket) else { return Some((item, ticket)) };
        self.cost += details.cost();
        self.bytes += details.bytes();
        self.block.push(Slot::unnamed(item, ticket.owner, details));
        None
    }
}

/// What a ticket says that names no owner and has nothing rare.
#[inline(always)]
fn said_by_all(ticket: &Ticket) -> Option<Details> {
    if ticket.owner.is_nobody() { Details::of(ticket) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn gathered(tickets: &[Ticket]) -> (Batch<usize>, Vec<(usize, Ticket)>) {
        let (mut batch, rest) = Batch::gather(tickets.iter().cloned().enumerate());
        batch.name(TicketId(100), 7);
        (batch, rest)
    }

    /// Looks at a batch in every way that there is, and then takes it apart.
    fn check(batch: Batch<usize>, first: usize, tickets: &[Ticket]) {
        let costs: u64 = tickets.iter().map(|ticket| ticket.cost).sum();
        let bytes: u64 = tickets.iter().map(|ticket| ticket.bytes).sum();
        assert_eq!((batch.len(), batch.cost(), batch.bytes()), (tickets.len(), costs, bytes));
        let ids = || (first..).take(tickets.len()).map(|item| TicketId(100 + item as u64));
        assert!(batch.iter().map(|seen| seen.id).eq(ids()));
        assert_eq!(batch.first().map(|seen| seen.id), ids().next());
        assert_eq!(batch.last().map(|seen| seen.id), ids().last());
        for (id, ticket) in ids().zip(tickets) {
            let seen = batch.get(id).unwrap();
            assert_eq!((seen.owner, seen.details.level(), seen.arrived), (&ticket.owner, ticket.level, 7));
        }
        assert!(batch.get(TicketId(99)).is_none());
        assert!(batch.get(TicketId(100 + (first + tickets.len()) as u64)).is_none());
        let items: Vec<_> = batch.into_items().collect();
        assert!(items.into_iter().eq((first..).zip(tickets.iter().cloned())));
    }

    #[test]
    fn a_batch_is_what_was_gathered_whatever_its_tickets_say() {
        let (plain, urgent) = (Ticket::default().bytes(10), Ticket::default().level(3).cost(5));
        let owned = Ticket::of("someone");
        let all = [
            vec![plain.clone(); 9],
            vec![plain.clone()],
            vec![owned.clone(); 9],
            [vec![plain.clone(); 5], vec![urgent.clone(), owned.clone()], vec![plain.clone(); 3]].concat(),
            vec![plain.clone(), urgent.clone(), owned],
            vec![],
        ];
        for tickets in all {
            let (batch, rest) = gathered(&tickets);
            assert_eq!(rest, []);
            check(batch, 0, &tickets);
            for at in 0..=tickets.len() {
                let (mut batch, _) = gathered(&tickets);
                let mut rest = batch.split_off(at);
                rest.name(TicketId(100 + at as u64), 7);
                check(rest, at, &tickets[at..]);
                check(batch, 0, &tickets[..at]);
                let (mut batch, _) = gathered(&tickets);
                let rest = batch.split_off(at);
                batch.append(rest);
                check(batch, 0, &tickets);
            }
        }
    }

    #[test]
    fn what_is_rare_and_what_is_behind_it_come_back() {
        let (plain, dated) = (Ticket::default(), Ticket::default().deadline(Duration::ZERO));
        for before in [0, 1, 2, 9] {
            let tickets = [vec![plain.clone(); before], vec![dated.clone(), plain.clone()]].concat();
            let (batch, rest) = gathered(&tickets);
            check(batch, 0, &tickets[..before]);
            assert!(rest.into_iter().eq((before..).zip(tickets[before..].iter().cloned())));
        }
    }
}
